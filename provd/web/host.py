"""The page of one host."""

from collections.abc import Mapping

from quart import Blueprint, Response

from provd.domain.activity import Level
from provd.domain.errors import Invalid, NotFound
from provd.domain.hosts import Discovery, Host, HostId, LocalBoot
from provd.domain.lifecycle import SETTLED, State
from provd.orchestrator.planning import make_plan
from provd.store import activity, hardware, operations, registrations
from provd.store.database import Db
from provd.web.host_views import one_host
from provd.web.page import RECENT, Pages
from provd.web.parts import Parts
from provd.web.trail import BLANK_STATION, trail_view
from provd.web.views import BLANK_OPERATION, activity_view, hardware_view, operation_view

DISCOVERIES = (
    ("", "named in the offer (the usual way)"),
    (Discovery.BOOT_SERVER.value, "asked for on port 4011: for UEFI that ignores offers with option 43"),
    (Discovery.OFF.value, "none: its network boot is left alone"),
)
LOCAL_BOOTS = (
    ("", "leave, and let the firmware go on (the usual way)"),
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
        return page.draw(
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

    return rooms


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
