"""The last attempt to build a host, as history tells it: what its machine passed, from first packet to ready.

The trail (`trail.py`) knows the present boot alone. A rebuild is two boots and more, and is still looked at
when the daemon was restarted or the host has booted its own disk since.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from attrs import evolve, frozen

from provd.domain.activity import Activity
from provd.domain.contacts import Hop
from provd.domain.hosts import HostId
from provd.domain.lifecycle import Fact
from provd.domain.operations import Kind, Operation
from provd.orchestrator.trail import Station
from provd.store import activity, operations
from provd.store.database import Db

RECENT = 20
"""Operations of a host among which its last rebuild is sought."""


class Goal(StrEnum):
    """Where the way goes on when the machine has called home."""

    JOIN = "join"
    READY = "ready"


Stop = Hop | Goal

WAY: tuple[Stop, ...] = (*Hop, *Goal)
PLACE: Mapping[Stop, int] = {stop: place for place, stop in enumerate(WAY)}

EVENTS: Mapping[str, Stop] = {
    **{f"boot.{hop}": hop for hop in Hop},
    f"host.{Fact.SCRIPT_FETCHED}": Hop.SCRIPT,
    f"host.{Fact.ANSWER_SENT}": Hop.ANSWER,
    f"host.{Fact.INSTALL_REPORTED}": Hop.REPORT,
    f"host.{Fact.PHONED_HOME}": Hop.PHONE_HOME,
    f"host.{Fact.JOIN_STARTED}": Goal.JOIN,
    f"host.{Fact.COMPLETED}": Goal.READY,
}
"""The lines of history that tell of a stop: the rest is talk."""

TO_THE_INSTALLER = frozenset(WAY[: PLACE[Hop.ANSWER]])
"""Once the answer is out the machine boots its own disk: whoever is heard here then passes nothing."""


@frozen(kw_only=True)
class Attempt:
    operation: Operation
    """The last that was to build it: the rebuild, or a rejoin that went on where it had stopped."""
    passed: Mapping[Stop, Station]

    @property
    def reached(self) -> int:
        """The place of the furthest stop; -1: none yet."""
        return max((PLACE[stop] for stop in self.passed), default=-1)


def passed(lines: Iterable[Activity]) -> dict[Stop, Station]:
    """`lines` are oldest first. A machine that was switched on again before it had its answer begins anew."""
    found: dict[Stop, Station] = {}
    for line in lines:
        stop = EVENTS.get(line.event)
        if stop is None or (stop in TO_THE_INSTALLER and Hop.ANSWER in found):
            continue
        if stop in TO_THE_INSTALLER and any(PLACE[one] > PLACE[stop] for one in found):
            found = {}
        before = found.get(stop, Station(message="", first=line.at, last=line.at, times=0))
        found[stop] = evolve(before, message=line.message, last=line.at, times=before.times + 1)
    return found


def last_attempt(db: Db, host_id: HostId) -> Attempt | None:
    """None: nobody has tried yet."""
    builds = [
        one
        for one in operations.latest(db, RECENT, host_id=host_id)
        if one.kind in (Kind.REBUILD, Kind.REJOIN)
    ]
    first = next((one for one in builds if one.kind is Kind.REBUILD), None)
    if first is None:
        return None
    own = [one for one in reversed(builds) if one.id >= first.id]
    lines = [line for one in own for line in activity.milestones(db, one.id, EVENTS)]
    return Attempt(operation=own[-1], passed=passed(lines))
