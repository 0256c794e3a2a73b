"""The page of one operation."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from attrs import frozen
from quart import Blueprint, Response

from provd.domain.activity import Activity
from provd.domain.errors import NotFound
from provd.domain.hosts import OperationId
from provd.domain.lifecycle import ROAD, SETTLED, State
from provd.domain.operations import Kind, Operation, Outcome
from provd.store import activity, operations
from provd.web.host import note_of
from provd.web.host_views import one_host
from provd.web.page import Pages, place
from provd.web.parts import Parts
from provd.web.views import BLANK_HOST, activity_view, operation_view, rfc3339

LOG = 500
"""Lines of an operation's own log."""


def blueprint(parts: Parts, pages: Pages) -> Blueprint:
    rooms = Blueprint("operation", __name__)
    rooms.register_error_handler(NotFound, pages.missing)
    read = parts.store.read

    @rooms.get("/ops/<id:operation_id>")
    async def show_operation(operation_id: int) -> Response:
        page = pages.open("operation.html")
        operation = read(lambda db: operations.get(db, OperationId(operation_id)))
        lines = read(lambda db: activity.latest(db, LOG, operation_id=operation.id))[::-1]
        host = parts.fleet.host(operation.host_id) if operation.host_id is not None else None
        return page.draw(
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

    return rooms


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
