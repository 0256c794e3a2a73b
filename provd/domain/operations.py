"""What provd is doing to a host. One operation has a host at a time, and holds its lock."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from attrs import frozen

from provd.domain.cluster import Node
from provd.domain.hosts import HostId, OperationId
from provd.domain.lifecycle import ROAD, State


class Kind(StrEnum):
    REBUILD = "rebuild"
    REJOIN = "rejoin"
    """The end of a rebuild once more: its join failed, and the installed system is still there."""
    DECOMMISSION = "decommission"
    """Out of the cluster and out of provd; the machine's disks are left alone."""


ROADS: Mapping[Kind, Sequence[State]] = {
    Kind.REBUILD: ROAD,
    Kind.REJOIN: ROAD[ROAD.index(State.FIRST_BOOT) :],
    Kind.DECOMMISSION: (),
}
"""The states through which an operation leads a host."""


@frozen(kw_only=True)
class Wish:
    """What was asked for beside the operation itself, and what was known of the host when it was."""

    member: Node | None = None
    """The host as the cluster lists it; None: it does not, or nobody could be asked."""
    drain: bool = False
    """Into HA maintenance before it leaves."""
    keep_entry: bool = False
    """Not to be struck out: it joins again under its old entry (`pvecm add --force`)."""
    overridden: tuple[str, ...] = ()
    """The checks of the rehearsal that said no, and were overridden by who asked."""


class Stage(StrEnum):
    """How far a member is on its way out of the cluster."""

    ASKED = "asked"
    """It works as it did."""
    RELEASED = "released"
    """It may go away at any moment; its votes are not counted on."""
    LEFT = "left"
    """It was struck out."""


@frozen(kw_only=True)
class Departure:
    """A member that an operation takes out of its cluster, as the database keeps it."""

    node: str
    nodeid: int
    votes: int
    drain: bool
    keep_entry: bool
    """It joins again under its entry, which is not struck out."""
    stage: Stage

    @classmethod
    def of(cls, member: Node, wish: Wish) -> "Departure":
        """At its beginning."""
        return cls(
            node=member.name,
            nodeid=member.nodeid,
            votes=member.votes,
            drain=wish.drain,
            keep_entry=wish.keep_entry,
            stage=Stage.ASKED,
        )


class Outcome(StrEnum):
    """How control left the operation; an active one has none yet.

    A stop of the daemon is not an outcome: the next start takes the operation up again.
    """

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@frozen(kw_only=True)
class Operation:
    id: OperationId
    host_id: HostId | None
    """None once the host was removed."""
    hostname: str
    """As it was when the operation began: the host may be gone or renamed since."""
    kind: Kind
    started_by: str
    started_at: datetime
    outcome: Outcome | None = None
    detail: str = ""
    finished_at: datetime | None = None

    @property
    def active(self) -> bool:
        return self.outcome is None
