"""The page of one host."""

from collections.abc import Sequence

from quart import Blueprint, Response, jsonify

from provd.domain.errors import NotFound
from provd.domain.hosts import Discovery, Host, HostId, LocalBoot
from provd.domain.lifecycle import SETTLED, State
from provd.domain.operations import Operation
from provd.orchestrator.attempt import last_attempt
from provd.store import activity, operations
from provd.store.database import Db
from provd.web.host_standing import standing_view
from provd.web.page import RECENT, Pages
from provd.web.parts import Parts
from provd.web.trail import BLANK_STATION, trail_view
from provd.web.views import BLANK_OPERATION, View, activity_view, operation_view

DISCOVERIES = (
    ("", "named in the offer (the usual way)"),
    (Discovery.BOOT_SERVER.value, "asked for on port 4011: for UEFI that ignores offers with option 43"),
    (Discovery.OFF.value, "none: its network boot is left alone"),
)
LOCAL_BOOTS = (
    ("", "leave it to the firmware (the usual way)"),
    (LocalBoot.SANBOOT.value, "start the first disk: for firmware that stops in its set-up menu"),
)


def blueprint(parts: Parts, pages: Pages) -> Blueprint:
    rooms = Blueprint("host", __name__)
    rooms.register_error_handler(NotFound, pages.missing)
    read = parts.store.read

    @rooms.get("/hosts/<id:host_id>")
    async def show_host(host_id: int) -> Response:
        page, host = pages.open("host.html"), parts.fleet.host(HostId(host_id))
        server_type = parts.book.current.get(host.server_type)
        standing = standing_of(parts, host)
        return page.draw(
            host=standing["host"],
            standing=standing,
            type_name=f"{server_type.display_name} ({server_type.key})" if server_type else host.server_type,
            operations=[
                operation_view(one) for one in read(lambda db: operations.latest(db, RECENT, host_id=host.id))
            ],
            lines=[
                activity_view(line) for line in read(lambda db: activity.latest(db, RECENT, host_id=host.id))
            ],
            keep=RECENT,
            needs_password=parts.entering.needs_password(host),
            takes_password=parts.passwords.standing is None and parts.entering.joins(host),
            clustered=parts.config.proxmox.existing_node is not None,
            existing_node=parts.config.proxmox.existing_node,
            blank_operation=BLANK_OPERATION,
            trail=trail_view(
                host,
                parts.trail,
                parts.boot.recorder,
                parts.waker,
                read(lambda db: last_attempt(db, host.id)),
            ),
            blank_station=BLANK_STATION,
            discoveries=DISCOVERIES,
            local_boots=LOCAL_BOOTS,
            loaders=sorted({*parts.boot.loaders.by_name, *filter(None, [host.options.loader])}),
        )

    return rooms


def programs(parts: Parts) -> Blueprint:
    """The same for whoever asks by program, and for the page while it is looked at."""
    standings = Blueprint("host standing", __name__, url_prefix="/api")

    @standings.get("/hosts/<id:host_id>/standing")
    async def show_standing(host_id: int) -> Response:
        return jsonify(standing_of(parts, parts.fleet.host(HostId(host_id))))

    return standings


def standing_of(parts: Parts, host: Host) -> View:
    return standing_view(parts, host, parts.store.read(lambda db: note_of(db, host)))


def note_of(db: Db, host: Host) -> str:
    """Why the host failed; else the last warning since it has been in its state."""
    if host.state is State.FAILED:
        ended = operations.latest(db, 1, host_id=host.id)
        return _end(ended[0]) if ended else ""
    return "" if host.state in SETTLED else activity.warnings(db, RECENT, [host.id]).get(host.id, "")


def notes_of(db: Db, everyone: Sequence[Host]) -> dict[HostId, str]:
    """The note of each that has one: two queries, however many they are."""
    ended = operations.builds(db, 1)
    failed = [host for host in everyone if host.state is State.FAILED and host.id in ended]
    under_way = [host.id for host in everyone if host.state not in SETTLED]
    return {host.id: _end(ended[host.id][-1]) for host in failed} | activity.warnings(db, RECENT, under_way)


def _end(operation: Operation) -> str:
    return f"{operation.kind} {operation.outcome}: {operation.detail}"
