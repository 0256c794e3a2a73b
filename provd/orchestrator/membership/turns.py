"""Whose turn it is to change the cluster's members.

One at a time: two joins at once can cost a small cluster its quorum, and the second one's corosync stops
when the configuration changes under it (corosync.conf(5), config_version). The turn is in the database, so
that it outlives a restart of the daemon, and ends with its operation at the latest. An operation that was
cancelled keeps it until what it left running has been stopped.
"""

from collections.abc import Awaitable, Callable

import trio

from provd.domain.activity import News
from provd.domain.hosts import HostId
from provd.domain.lifecycle import State
from provd.domain.operations import Operation
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.waits import duration
from provd.store import departures, operations
from provd.store.database import now
from provd.store.departures import Turn

GIVE_BACK_SECONDS = 20.0
"""Longer than the database may be busy."""

LOOK_AGAIN = 5.0
"""Seconds between two looks at a cluster that cannot bear the change now: nothing rings when it can."""

Obstacle = Callable[[frozenset[str]], Awaitable[str | None]]
"""Why it cannot be now, given the members that other operations may take away at any moment; None: it can.

What waiting does not mend is raised.
"""


async def nothing_in_the_way(away: frozenset[str]) -> str | None:
    await trio.lowlevel.checkpoint()
    return None


class Turns:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def holder(self) -> Turn | None:
        return self._fleet.store.read(departures.turn)

    async def take(
        self,
        operation: Operation,
        host_id: HostId,
        obstacle: Obstacle,
        begin: Callable[[Change], None] = lambda change: None,
    ) -> None:
        """Wait for the turn and until nothing stands in the way, then `begin`, in one transaction.

        The turn is not held while something stands in the way: the others' changes may be what mends it.
        Whoever has it already, from before a restart, goes on. Why it waits is told, once for each reason.
        """
        told: set[str] = set()
        while True:
            ring = self._fleet.bell.next()
            waits_for = await self._try(operation, host_id, obstacle, begin)
            if waits_for is None:
                return
            if waits_for not in told:
                told.add(waits_for)
                message = f"waits for its turn: {waits_for}{self._for_how_long(operation)}"
                await self._fleet.note(News(event="operation.waits", message=message, host_id=host_id))
                continue  # with a new ring: that note rang this one
            with trio.move_on_after(LOOK_AGAIN):
                await ring.wait()

    async def _try(
        self,
        operation: Operation,
        host_id: HostId,
        obstacle: Obstacle,
        begin: Callable[[Change], None],
    ) -> str | None:
        if not await self._fleet.store.write(lambda db: departures.take_turn(db, operation.id, now())):
            return self._what_the_holder_does()
        away = self._fleet.store.read(lambda db: departures.released_beside(db, operation.id))
        try:
            reason = await obstacle(away)
        except BaseException:
            # A stop of the daemon passes here too: nothing has begun, and the next start waits anew.
            with trio.move_on_after(GIVE_BACK_SECONDS, shield=True):
                await self._give_back(operation)
            raise
        if reason is None:
            await self._fleet.change(begin)
            return None
        await self._give_back(operation)
        return reason

    async def _give_back(self, operation: Operation) -> None:
        """Without a ring: whoever waits would look at once, itself among them, and so without end."""
        await self._fleet.store.write(lambda db: departures.end_turn(db, operation.id))

    async def end(self, operation: Operation) -> None:
        """Let the next one. Harmless for whoever has not got the turn."""
        await self._fleet.change(lambda change: departures.end_turn(change.db, operation.id))

    def _for_how_long(self, operation: Operation) -> str:
        """How long somebody else has had the turn."""
        turn = self.holder()
        if turn is None or turn.operation_id == operation.id:
            return ""
        return f", for {duration((now() - turn.since).total_seconds())}"

    def _what_the_holder_does(self) -> str:
        turn = self.holder()
        if turn is None:
            return "another one has just ended its own"
        holder = self._fleet.store.read(lambda db: operations.get(db, turn.operation_id))
        joins = holder.host_id is not None and self._fleet.host(holder.host_id).state is State.JOINING
        return f"{turn.hostname} is {'joining' if joins else 'leaving the cluster'}"
