"""How long the stages of a rebuild usually take, by what rebuilds that came to their end have taken."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from statistics import median

from attrs import frozen

from provd.domain.hosts import Host
from provd.domain.lifecycle import State
from provd.domain.operations import ROADS, Operation
from provd.store import activity, operations
from provd.store.activity import Passage
from provd.store.database import Store

REBUILDS = 200
"""How far back it is looked, in rebuilds of all hosts together."""
SAMPLES = 20
"""Of one stage, the newest: hardware and images change."""


@frozen(kw_only=True)
class Usual:
    """What is usual for a host where it stands now. Seconds."""

    samples: int
    """How many stays in this state it is judged by."""
    state_seconds: float
    before_seconds: float
    """All stages of its operation before this one."""
    total_seconds: float


Stays = Mapping[State, Sequence[float]]
"""How many seconds hosts stayed in each state, the newest last."""


def stays(passages: Iterable[Passage]) -> Stays:
    """`passages` stand by operation, and within one by time. The last of an operation has no end."""
    found: defaultdict[State, list[float]] = defaultdict(list)
    for _, road in groupby(passages, key=lambda one: one.operation_id):
        steps = list(road)
        for step, following in pairwise(steps):
            found[step.after].append((following.at - step.at).total_seconds())
    return found


def usual(stays: Stays, road: Sequence[State], state: State) -> Usual | None:
    """None where no host has passed `state` yet, or it does not lie on `road`."""
    if state not in road or not stays.get(state):
        return None
    seconds = {stage: median(stays[stage][-SAMPLES:]) for stage in road if stays.get(stage)}
    return Usual(
        samples=len(stays[state][-SAMPLES:]),
        state_seconds=seconds[state],
        before_seconds=sum(seconds.get(stage, 0.0) for stage in road[: road.index(state)]),
        total_seconds=sum(seconds.values()),
    )


class Pace:
    """The pace of each server type. History is read anew when a rebuild has come to its end since."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read_at: tuple[int, int] | None = None
        """Which operations there were then, and how many of them were done."""
        self._by_type: dict[str, Stays] = {}
        self._of_all: Stays = {}

    def usual(self, host: Host, operation: Operation | None) -> Usual | None:
        """For `host` where it stands, as far as its `operation` has begun to lead it anywhere."""
        if operation is None:
            return None
        self._look()
        road = ROADS[operation.kind][:-1]
        return usual(self._by_type.get(host.server_type, {}), road, host.state) or usual(
            self._of_all, road, host.state
        )

    def _look(self) -> None:
        done = self._store.read(lambda db: operations.done_among(db, REBUILDS))
        if done == self._read_at:
            return
        passages = self._store.read(lambda db: activity.passages(db, REBUILDS))
        self._read_at, self._of_all = done, stays(passages)
        types = {one.server_type for one in passages}
        self._by_type = {name: stays(one for one in passages if one.server_type == name) for name in types}
