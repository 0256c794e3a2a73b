"""The dashboard's three pages, drawn once on the server; the scripts in `static/` keep them true.

A page shows what the API would say (`views.py`) and changes nothing: every button goes through the
REST API. Whatever a machine or a stranger supplied is text here, escaped without exception.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache

from attrs import frozen
from jinja2 import Environment, PackageLoader, StrictUndefined
from quart import Blueprint, Response, g, request

from provd.domain.activity import Activity, Level
from provd.domain.errors import Invalid, NotFound
from provd.domain.hosts import Discovery, Host, HostId, LocalBoot, OperationId
from provd.domain.lifecycle import ROAD, SETTLED, State
from provd.domain.operations import Kind, Operation, Outcome
from provd.orchestrator.planning import make_plan
from provd.store import activity, hardware, hosts, operations, registrations
from provd.store.database import Db, now
from provd.web.api import all_hosts, one_host
from provd.web.parts import Parts
from provd.web.trail import BLANK_STATION, trail_view
from provd.web.views import (
    View,
    activity_view,
    hardware_view,
    operation_view,
    rfc3339,
    server_type_view,
    sighting_view,
)

RECENT = 50
"""Lines and operations in a list that is there for a glance."""
LOG = 500
"""Lines of an operation's own log."""

GROUPS = ("failed", "working", "registered", "ready")
"""What a host is to somebody who looks at all of them; who needs attention comes first."""

BLANK_HOST: View = {
    "id": "",
    "hostname": "",
    "mac": "",
    "server_type": "",
    "state": State.REGISTERED,
    "state_since": "",
    "ip": None,
    "inventory_pending": False,
    "operation_id": None,
    "expected": None,
    "expected_by": None,
}
"""What a script fills in: shapes to clone are drawn from these."""
BLANK_OPERATION: View = {
    "id": "",
    "kind": "",
    "outcome": "",
    "started_at": "",
    "finished_at": "",
    "started_by": "",
    "detail": "",
}


DISCOVERIES = (
    ("", "named in the offer (the usual way)"),
    (Discovery.BOOT_SERVER.value, "asked for on port 4011: for UEFI that ignores offers with option 43"),
    (Discovery.OFF.value, "none: its network boot is left alone"),
)
LOCAL_BOOTS = (
    ("", "leave, and let the firmware go on (the usual way)"),
    (LocalBoot.SANBOOT.value, "start the first disk: for firmware that stops in its set-up menu"),
)


def blueprint(parts: Parts) -> Blueprint:
    pages = Blueprint("pages", __name__)
    templates = environment()
    read = parts.store.read

    def page(template: str, **context: object) -> Response:
        html = templates.get_template(template).render(
            actor=g.actor,
            auth_off=g.auth_off,
            problem=parts.book.problem,
            now=rfc3339(now()),
            **context,
        )
        return Response(html, content_type="text/html; charset=utf-8")

    @pages.get("/")
    async def show_hosts() -> Response:
        # First of all: what happens while the page is drawn is told twice rather than not at all.
        after = _newest(parts)
        everyone = sorted(all_hosts(parts), key=_order)
        notes = read(lambda db: {host.id: note_of(db, host) for host in hosts.everyone(db)})
        found = [group(host["state"]) for host in everyone]
        show = request.args.get("show", "")
        return page(
            "hosts.html",
            after=after,
            hosts=everyone,
            notes=notes,
            counts={name: found.count(name) for name in GROUPS},
            show=show if show in GROUPS else "",
            sightings=[sighting_view(seen) for seen in read(hosts.sightings)],
            lines=[activity_view(line) for line in read(lambda db: activity.latest(db, RECENT))],
            keep=RECENT,
            types=[server_type_view(one) for one in parts.book.current.values()],
            types_path=parts.config.paths.server_types,
            pxe_enabled=parts.config.pxe.enabled,
            public_url=parts.config.server.public_url,
            cluster=cluster_trouble(parts),
            blank_host=BLANK_HOST,
        )

    @pages.get("/hosts/<id:host_id>")
    async def show_host(host_id: int) -> Response:
        after, host = _newest(parts), parts.fleet.host(HostId(host_id))
        server_type = parts.book.current.get(host.server_type)
        return page(
            "host.html",
            after=after,
            host=one_host(parts, host),
            note=read(lambda db: note_of(db, host)),
            type_name=f"{server_type.display_name} ({server_type.key})" if server_type else host.server_type,
            operations=[
                operation_view(one) for one in read(lambda db: operations.latest(db, RECENT, host_id=host.id))
            ],
            lines=[
                activity_view(line) for line in read(lambda db: activity.latest(db, RECENT, host_id=host.id))
            ],
            keep=RECENT,
            pending=read(lambda db: registrations.of_host(db, host.id)),
            needs_password=parts.entering.needs_password(host),
            takes_password=parts.passwords.standing is None and parts.entering.joins(host),
            clustered=parts.config.proxmox.existing_node is not None,
            existing_node=parts.config.proxmox.existing_node,
            hardware=hardware_view(reported)
            if (reported := read(lambda db: hardware.get(db, host.id))) is not None
            else None,
            blank_operation=BLANK_OPERATION,
            trail=trail_view(host, parts.trail, parts.boot.recorder, parts.waker),
            blank_station=BLANK_STATION,
            discoveries=DISCOVERIES,
            local_boots=LOCAL_BOOTS,
            loaders=sorted({*parts.boot.loaders.by_name, *filter(None, [host.options.loader])}),
            **_installation(parts, host),
        )

    @pages.get("/ops/<id:operation_id>")
    async def show_operation(operation_id: int) -> Response:
        after = _newest(parts)
        operation = read(lambda db: operations.get(db, OperationId(operation_id)))
        lines = read(lambda db: activity.latest(db, LOG, operation_id=operation.id))[::-1]
        host = parts.fleet.host(operation.host_id) if operation.host_id is not None else None
        return page(
            "operation.html",
            after=after,
            operation=operation_view(operation),
            host=one_host(parts, host) if host is not None else None,
            note=read(lambda db: note_of(db, host)) if host is not None else "",
            steps=steps(operation, host.state if host is not None else None, lines),
            lines=[activity_view(line) for line in lines],
            keep=LOG,
            needs_password=operation.active
            and host is not None
            and parts.entering.needs_password(host)
            and parts.passwords.of(operation.id) is None,
            existing_node=parts.config.proxmox.existing_node,
            blank_host=BLANK_HOST,
        )

    @pages.errorhandler(NotFound)
    async def missing(error: NotFound) -> Response:
        reason = str(error)
        response = page("missing.html", after=_newest(parts), reason=reason[:1].upper() + reason[1:])
        response.status_code = 404
        return response

    return pages


@cache
def environment() -> Environment:
    """Strict: an unknown name is an error, and every value is escaped."""
    made = Environment(
        loader=PackageLoader("provd.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "moment": lambda at: f"{_parse(at):%Y-%m-%d %H:%M:%S} UTC" if at else "",
        "clock": lambda at: f"{_parse(at):%d %b %H:%M}" if at else "",
        "lasting": lambda since, until: duration(_seconds(since, until)) if since else "",
        "due": lambda by, at: due(_seconds(at, by)) if by else "",
        "group": group,
        "place": place,
        "step": lambda state, on: f"step {ROAD.index(state) + 1} of {len(ROAD)}" if on else "",
    }
    made.globals |= {"road": ROAD}
    return made


# --- what only a page needs to know ---------------------------------------------------------------


@frozen(kw_only=True)
class Step:
    """One stage of the road, as far as an operation has come."""

    state: State
    place: str
    """`done`, `here`, `ahead`, or `stopped`: it went no further than this."""
    since: str | None = None
    until: str | None = None


ROADS: Mapping[Kind, Sequence[State]] = {
    Kind.REBUILD: ROAD,
    Kind.REJOIN: ROAD[ROAD.index(State.FIRST_BOOT) :],
    Kind.DECOMMISSION: (),
}
"""The states through which an operation leads a host."""


def steps(operation: Operation, state: State | None, lines: Iterable[Activity]) -> Sequence[Step]:
    """The road of `operation`, whose host is in `state` now; `lines` are its activity, oldest first.

    A stage that was skipped (a lost webhook) or is older than the lines kept has no times. A member that
    waits for its turn to leave the cluster has not set out yet.
    """
    road = ROADS[operation.kind]
    if not road:
        return []
    entered = {line.after: line.at for line in lines if line.after in ROAD and line.before != line.after}
    waits = operation.active and state in SETTLED
    if operation.outcome is Outcome.DONE:
        reached = State.READY
    elif operation.active and state is not None and state in road:
        reached = state
    else:
        reached = max((one for one in entered if one), key=ROAD.index, default=road[0])
    here = "here" if operation.active else "done" if operation.outcome is Outcome.DONE else "stopped"
    found: list[Step] = []
    left: datetime | None = operation.finished_at
    for one in reversed(road):
        where = "ahead" if waits else here if one is reached else place(one, reached)
        since = entered.get(one) if where != "ahead" else None
        found.append(
            Step(
                state=one,
                place=where,
                since=rfc3339(since) if since else None,
                until=rfc3339(left) if since and left else None,
            )
        )
        left = since or left
    return found[::-1]


def place(step: State, state: State) -> str:
    """Where `step` lies as seen from a host in `state`."""
    if state not in ROAD or ROAD.index(step) > ROAD.index(state):
        return "ahead"
    return "here" if step == state else "done"


def group(state: object) -> str:
    return str(state) if state in SETTLED else "working"


def cluster_trouble(parts: Parts) -> str:
    """What is wrong with the cluster, in one sentence; empty where nothing is, or nobody looked."""
    look = parts.cluster_watch.last
    return look.worst.what if look is not None and look.worst is not None else ""


def _order(host: View) -> tuple[int, list[tuple[bool, int, str]]]:
    """Who needs attention first; then by name, with pve2 before pve10."""
    words = re.findall(r"[0-9]+|[^0-9]+", str(host["hostname"]).lower())
    name = [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in words]
    return GROUPS.index(group(host["state"])), name


def note_of(db: Db, host: Host) -> str:
    """Why the host failed; else the last warning since it has been in its state."""
    if host.state is State.FAILED:
        ended = operations.latest(db, 1, host_id=host.id)
        return f"{ended[0].kind} {ended[0].outcome}: {ended[0].detail}" if ended else ""
    if host.state in SETTLED:
        return ""
    for line in activity.latest(db, RECENT, host_id=host.id):
        if line.level is not Level.INFO:
            return line.message
        if line.before != line.after:
            break
    return ""


def _installation(parts: Parts, host: Host) -> Mapping[str, object]:
    """What a rebuild would do to this host, or why it cannot."""
    server_type = parts.book.current.get(host.server_type)
    try:
        if server_type is None:
            raise Invalid(f"there is no server type {host.server_type!r} in server-types.yaml any more")
        plan = make_plan(parts.config, server_type, host)
    except Invalid as exc:
        return {"misfit": str(exc), "disks": "the boot disk", "options": ()}
    address = plan.address
    options = {
        "disks": ", ".join(plan.disks),
        "file system": f"{plan.filesystem} {plan.raid or ''}",
        "name": plan.fqdn,
        "address": f"{address.cidr} via {address.gateway}, DNS {address.dns}" if address else "from DHCP",
        "management NIC": plan.management_nic or "the one that it boots from",
        "time zone": plan.timezone,
        "keyboard": plan.keyboard,
        "country": plan.country,
        "mail to": plan.mailto,
    }
    return {"misfit": "", "disks": ", ".join(plan.disks), "options": tuple(options.items())}


def duration(seconds: float) -> str:
    """The two largest units that say something. `static/clock.js` speaks the same way."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def due(seconds: float) -> str:
    return f"{duration(seconds)} left" if seconds >= 0 else f"overdue for {duration(-seconds)}"


def _newest(parts: Parts) -> int:
    return parts.store.read(activity.bounds)[1]


def _seconds(since: str, until: str) -> float:
    return (_parse(until) - _parse(since)).total_seconds()


def _parse(at: str) -> datetime:
    return datetime.fromisoformat(at)
