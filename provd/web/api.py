"""The REST API: requests in, commands to the parts, views out. Errors become problem documents."""

import trio
from quart import Blueprint, Response, g, jsonify, request

from provd.domain.errors import Conflict, Invalid
from provd.domain.hosts import HostId, Mac, OperationId
from provd.domain.operations import Kind, Wish
from provd.orchestrator.rehearsal.rehearse import rehearse
from provd.orchestrator.rehearsal.view import rehearsal_view
from provd.store import activity, hosts, operations
from provd.web import bodies
from provd.web.host_views import all_hosts, lateness_of, lateness_view, one_host
from provd.web.log_download import download
from provd.web.operation_standing import standing_view
from provd.web.parts import Parts
from provd.web.rehearsal import blocked, tell_overridden
from provd.web.views import (
    View,
    activity_view,
    operation_view,
    server_type_view,
    sighting_view,
)

PAGE = 100
"""Rows in a list unless `?limit=` says otherwise."""
MOST = 1_000

REHEARSAL_SECONDS = 20.0
"""A member that hangs is told to be unknown within this time."""


def blueprint(parts: Parts) -> Blueprint:
    api = Blueprint("api", __name__, url_prefix="/api")
    read = parts.store.read

    # --- hosts ---

    @api.get("/hosts")
    async def list_hosts() -> Response:
        return jsonify({"hosts": all_hosts(parts, _ids())})

    @api.get("/hosts/<id:host_id>")
    async def show_host(host_id: int) -> Response:
        return jsonify(one_host(parts, parts.fleet.host(HostId(host_id))))

    @api.get("/hosts/<id:host_id>/lateness")
    async def show_lateness(host_id: int) -> Response:
        host = parts.fleet.host(HostId(host_id))
        operation = read(lambda db: operations.active_on(db, host.id))
        return jsonify(lateness_view(lateness_of(parts, host, operation)))

    @api.post("/hosts")
    async def register_host() -> Response:
        wish = bodies.parse_registration(await bodies.received())
        host = await parts.enrolment.register(
            wish.mac, wish.server_type, wish.hostname, wish.options, g.actor
        )
        return _created(one_host(parts, host), 201, f"/api/hosts/{host.id}")

    @api.patch("/hosts/<id:host_id>")
    async def configure_host(host_id: int) -> Response:
        wishes = bodies.parse_wishes(await bodies.received())
        return jsonify(one_host(parts, await parts.enrolment.configure(HostId(host_id), wishes, g.actor)))

    @api.delete("/hosts/<id:host_id>")
    async def remove_host(host_id: int) -> Response:
        """Forget it at once; a member of the cluster only when it is said what becomes of that."""
        host = parts.fleet.host(HostId(host_id))
        wish = _one_of("cluster", ("keep", "remove"))
        if wish == "remove":
            password = bodies.parse_password(await bodies.received())
            operation = await parts.departing.start(host.id, password, g.actor)
            return _created(operation_view(operation), 202, f"/api/operations/{operation.id}")
        if wish is None and await parts.departing.is_member(host):
            raise Conflict(
                f"{host.hostname} is a member of the cluster: say cluster=remove to take it out of there"
                " and the inventory first, or cluster=keep to forget it here and leave it as it is"
            )
        await parts.enrolment.remove(host.id, g.actor)
        return Response(b"", status=204)

    @api.post("/hosts/<id:host_id>/rejoin")
    async def rejoin_host(host_id: int) -> Response:
        password = bodies.parse_password(await bodies.received())
        operation = await parts.operations.start(HostId(host_id), Kind.REJOIN, g.actor)
        if password is not None:
            parts.passwords.give(operation.id, password)
        return _created(operation_view(operation), 202, f"/api/operations/{operation.id}")

    @api.post("/hosts/<id:host_id>/rebuild")
    async def rebuild_host(host_id: int) -> Response:
        dry_run = _flag("dry_run")
        wish = bodies.parse_rebuild(await bodies.received())
        host = parts.fleet.host(HostId(host_id))
        if wish.force is not None and wish.force != host.hostname:
            raise Invalid(f"force must be the name of the host, {host.hostname}", "force")
        if not dry_run and wish.password is None and parts.entering.needs_password(host):
            raise Invalid(
                "the root password of a cluster member is needed to join: give it as "
                "cluster_password, or name a file in credentials.cluster_password_file",
                "cluster_password",
            )
        with trio.fail_after(REHEARSAL_SECONDS):
            situation = await parts.rehearsals.look(
                host.id, wish.password, drain=wish.drain, keep_entry=wish.keep_entry
            )
        rehearsal = rehearse(situation)
        if dry_run:
            return jsonify(rehearsal_view(rehearsal, situation))
        if blockers := rehearsal.final_blockers if wish.force else rehearsal.blockers:
            return blocked(rehearsal, blockers)
        overridden = tuple(check.name for check in rehearsal.blockers)
        operation = await parts.operations.start(
            host.id,
            Kind.REBUILD,
            g.actor,
            Wish(
                member=situation.member,
                drain=situation.drains,
                keep_entry=wish.keep_entry,
                overridden=overridden,
            ),
        )
        if wish.password is not None:
            parts.passwords.give(operation.id, wish.password)
        if overridden:
            await tell_overridden(parts.fleet, operation, rehearsal, g.actor)
        return _created(operation_view(operation), 202, f"/api/operations/{operation.id}")

    # --- operations ---

    @api.get("/operations")
    async def list_operations() -> Response:
        host_id = _number("host_id")
        found = read(
            lambda db: operations.latest(
                db, _limit(), host_id=HostId(host_id) if host_id is not None else None
            )
        )
        return jsonify({"operations": [operation_view(operation) for operation in found]})

    @api.get("/operations/<id:operation_id>")
    async def show_operation(operation_id: int) -> Response:
        return jsonify(operation_view(read(lambda db: operations.get(db, OperationId(operation_id)))))

    @api.get("/operations/<id:operation_id>/standing")
    async def tell_standing(operation_id: int) -> Response:
        operation = read(lambda db: operations.get(db, OperationId(operation_id)))
        return jsonify(standing_view(parts, operation))

    @api.get("/operations/<id:operation_id>/log.<any(txt,ndjson):form>")
    async def download_log(operation_id: int, form: str) -> Response:
        operation = read(lambda db: operations.get(db, OperationId(operation_id)))
        return download(parts.store, operation, form)

    @api.post("/operations/<id:operation_id>/cancel")
    async def cancel_operation(operation_id: int) -> Response:
        return jsonify(operation_view(await parts.operations.cancel(OperationId(operation_id), g.actor)))

    @api.post("/operations/<id:operation_id>/cluster-password")
    async def give_password(operation_id: int) -> Response:
        password = bodies.parse_password(await bodies.received())
        if password is None:
            raise Invalid("cluster_password is missing", "cluster_password")
        if not read(lambda db: operations.get(db, OperationId(operation_id))).active:
            raise Conflict(f"operation {operation_id} is over already")
        parts.passwords.give(OperationId(operation_id), password)
        return Response(b"", status=204)

    # --- what else there is to see ---

    @api.get("/activity")
    async def list_activity() -> Response:
        """Newest first, from `?before=` back; with `?after=` oldest first, from there on."""
        host, operation = _number("host_id"), _number("operation_id")
        before, after = _number("before"), _number("after")
        host_id = HostId(host) if host is not None else None
        operation_id = OperationId(operation) if operation is not None else None
        if before is not None and after is not None:
            raise Invalid("before goes back and after goes on: only one of them can be", "after")
        if after is not None:
            lines = read(
                lambda db: activity.after(db, after, _limit(), host_id=host_id, operation_id=operation_id)
            )
        else:
            lines = read(
                lambda db: activity.latest(
                    db, _limit(), host_id=host_id, operation_id=operation_id, before=before
                )
            )
        return jsonify({"activity": [activity_view(line) for line in lines]})

    @api.get("/sightings")
    async def list_sightings() -> Response:
        return jsonify({"sightings": [sighting_view(seen) for seen in read(hosts.sightings)]})

    @api.post("/sightings/<mac>/ignore")
    async def ignore_sighting(mac: str) -> Response:
        await parts.enrolment.ignore(Mac.parse(mac), True, g.actor)
        return Response(b"", status=204)

    @api.delete("/sightings/<mac>/ignore")
    async def mind_sighting(mac: str) -> Response:
        await parts.enrolment.ignore(Mac.parse(mac), False, g.actor)
        return Response(b"", status=204)

    @api.get("/server-types")
    async def list_server_types() -> Response:
        known = parts.book.current.values()
        return jsonify(
            {"server_types": [server_type_view(one) for one in known], "problem": parts.book.problem}
        )

    return api


def _created(view: View, status: int, location: str) -> Response:
    response = jsonify(view)
    response.status_code = status
    response.headers["Location"] = location
    return response


def _one_of(name: str, words: tuple[str, ...]) -> str | None:
    text = request.args.get(name)
    if text is not None and text not in words:
        raise Invalid(f"{name} must be one of {', '.join(words)}", name)
    return text


def _ids() -> list[HostId] | None:
    """Which hosts are asked for; None: all."""
    texts = request.args.getlist("id")
    if len(texts) > PAGE:
        raise Invalid(f"at most {PAGE} ids in one request", "id")
    return [HostId(_whole("id", text)) for text in texts] or None


def _limit() -> int:
    return min(max(_number("limit") or PAGE, 1), MOST)


def _flag(name: str) -> bool:
    text = request.args.get(name, "false")
    if text not in ("true", "false"):
        raise Invalid(f"{name} must be true or false", name)
    return text == "true"


def _number(name: str) -> int | None:
    text = request.args.get(name)
    return _whole(name, text) if text is not None else None


def _whole(name: str, text: str) -> int:
    # Eighteen digits fit into SQLite's integers.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Invalid(f"{name} must be a whole number", name)
    return int(text)
