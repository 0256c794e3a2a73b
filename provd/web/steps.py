"""The steps of an operation, as far as it has come: what its page draws as a timeline."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import frozen

from provd.domain.activity import LEFT, RELEASED, REMOVED, Activity
from provd.domain.lifecycle import SETTLED, State
from provd.domain.operations import ROADS, Departure, Kind, Operation, Outcome, Stage
from provd.web.views import View, rfc3339


@frozen
class Station:
    """A step that an operation may come to."""

    key: str
    """Of the icon, too."""
    name: str


@frozen(kw_only=True)
class Step:
    station: Station
    place: str
    """`done`, `here`, `ahead`, or `stopped`: it went no further than this."""
    since: datetime | None = None
    until: datetime | None = None
    line: int | None = None
    """The first line of history that belongs to it."""


TURN = Station("turn", "Waits for its turn to leave")
LEAVING = Station("leaving", "Leaves the cluster")
INVENTORY = Station("inventory", "Leaves the inventory")
GONE = Station("gone", "Removed from provd")

STATIONS: Mapping[State, Station] = {
    State.PXE_READY: Station("pxe_ready", "Boots from the network"),
    State.PXE_BOOTED: Station("pxe_booted", "Starts the installer"),
    State.INSTALLING: Station("installing", "Installs"),
    State.INSTALLED: Station("installed", "Restarts into its new system"),
    State.FIRST_BOOT: Station("first_boot", "First boot, then its turn"),
    State.JOINING: Station("joining", "Joins the cluster"),
    State.READY: Station("ready", "Ready"),
}

EVENTS: Mapping[str, Station] = {RELEASED: LEAVING, LEFT: INVENTORY, REMOVED: GONE}
STAGES: Mapping[Stage, Station] = {Stage.ASKED: TURN, Stage.RELEASED: LEAVING, Stage.LEFT: INVENTORY}
"""By what a host that leaves for good comes to a station, and at which it is."""


def steps(
    operation: Operation, state: State | None, departure: Departure | None, lines: Sequence[Activity]
) -> Sequence[Step]:
    """The way of `operation`, whose host is in `state` now; `lines` are its turning points, oldest first.

    A stage that was skipped (a lost webhook) or whose lines are forgotten has no times.
    """
    way = _way(operation, departure)
    entered = _entered(operation, way, lines)
    reached = _reached(operation, state, departure, way, entered)
    found: list[Step] = []
    left = operation.finished_at
    for number, station in reversed(list(enumerate(way))):
        place = _place(operation, number, reached)
        since, line = entered.get(station.key, (None, None)) if place != "ahead" else (None, None)
        until = left if since else None
        found.append(Step(station=station, place=place, since=since, until=until, line=line))
        left = since or left
    return found[::-1]


def _way(operation: Operation, departure: Departure | None) -> Sequence[Station]:
    first = [TURN] if departure is not None else []
    if operation.kind is Kind.DECOMMISSION:
        return [*first, *([LEAVING] if departure is not None else []), INVENTORY, GONE]
    return [*first, *(STATIONS[state] for state in ROADS[operation.kind])]


def _entered(
    operation: Operation, way: Sequence[Station], lines: Sequence[Activity]
) -> Mapping[str, tuple[datetime, int | None]]:
    """When it came to each station, and the line that says so."""
    found: dict[str, tuple[datetime, int | None]] = {}
    if way[0] in (TURN, INVENTORY):
        found[way[0].key] = (operation.started_at, None)
    for line in lines:
        station: Station | None = None
        if operation.kind is Kind.DECOMMISSION:
            station = EVENTS.get(line.event)
        elif line.after is not None and line.before is not line.after:
            station = STATIONS.get(line.after)
        if station is not None:
            found[station.key] = (line.at, line.id)
    return found


def _reached(
    operation: Operation,
    state: State | None,
    departure: Departure | None,
    way: Sequence[Station],
    entered: Mapping[str, object],
) -> int:
    """The number of the station that it is at, or was at last; -1: it has not set out."""
    if operation.outcome is Outcome.DONE:
        return len(way) - 1
    if operation.kind is Kind.DECOMMISSION:
        return way.index(STAGES[departure.stage] if departure is not None else INVENTORY)
    here = STATIONS.get(state) if state is not None else None
    if operation.active and here in way and state not in SETTLED:
        return way.index(here)
    last = max((number for number, station in enumerate(way) if station.key in entered), default=0)
    return -1 if operation.active and way[0] is not TURN else last


def _place(operation: Operation, number: int, reached: int) -> str:
    if number != reached:
        return "done" if number < reached else "ahead"
    return "here" if operation.active else "done" if operation.outcome is Outcome.DONE else "stopped"


def step_view(step: Step) -> View:
    return {
        "step": step.station.key,
        "name": step.station.name,
        "place": step.place,
        "since": rfc3339(step.since) if step.since else None,
        "until": rfc3339(step.until) if step.until else None,
        "line": step.line,
    }
