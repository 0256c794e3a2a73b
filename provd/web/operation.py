"""The page of one operation."""

from quart import Blueprint, Response, request

from provd.domain.activity import Level
from provd.domain.errors import NotFound
from provd.domain.hosts import OperationId
from provd.store import activity, operations
from provd.web.host import note_of
from provd.web.host_views import one_host
from provd.web.operation_standing import standing_view
from provd.web.page import Pages
from provd.web.parts import Parts
from provd.web.views import BLANK_HOST, activity_view

DRAWN = 200
"""Lines of the log that the page comes with; the script fetches those before them."""

BLOCK = 100
"""Lines that the browser lays out together, or not at all while they are out of sight. As in `lines.js`."""


def blueprint(parts: Parts, pages: Pages) -> Blueprint:
    rooms = Blueprint("operation", __name__)
    rooms.register_error_handler(NotFound, pages.missing)
    read = parts.store.read

    @rooms.get("/ops/<id:operation_id>")
    async def show_operation(operation_id: int) -> Response:
        page = pages.open("operation.html")
        operation = read(lambda db: operations.get(db, OperationId(operation_id)))
        lines = read(lambda db: activity.latest(db, DRAWN, operation_id=operation.id))[::-1]
        count, first = read(lambda db: activity.extent(db, operation.id))
        host = parts.fleet.host(operation.host_id) if operation.host_id is not None else None
        level = request.args.get("level")
        return page.draw(
            **standing_view(parts, operation),
            host=one_host(parts, host) if host is not None else None,
            note=read(lambda db: note_of(db, host)) if host is not None else "",
            lines=[activity_view(line) for line in lines],
            count=count,
            first=first,
            together=BLOCK,
            level=level if level in (Level.WARNING, Level.ERROR) else Level.INFO,
            asks_password=host is not None and parts.entering.needs_password(host),
            existing_node=parts.config.proxmox.existing_node,
            blank_host=BLANK_HOST,
        )

    return rooms
