"""The story of a host that leaves for good: the cluster, the inventory, and provd.

    ready     it is drained where that is wanted, and waits until the others can do without it;
              struck out of the cluster, its HA rules and its entry in the inventory with it
    gone      provd has forgotten it

Its disks are left alone. Where provd's own key opens it, it is disarmed, and switched off at the end; where
not, the cluster must see it offline first, and a human sees to that.
"""

from collections.abc import Awaitable, Callable

from provd.domain.activity import REMOVED, Level, News
from provd.domain.errors import Conflict, InventoryFailed
from provd.domain.hosts import Host
from provd.domain.lifecycle import SETTLED
from provd.domain.operations import Departure, Operation, Outcome, Stage, Wish
from provd.orchestrator.entering import Entering
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.membership.leaving import Leaving
from provd.store import departures, hosts

Unlist = Callable[[Host], Awaitable[str]]
"""Takes a host out of the inventory and returns what to say of it. Raises `InventoryFailed`."""


class Decommission:
    """The `Story` of `Kind.DECOMMISSION`."""

    def __init__(self, fleet: Fleet, leaving: Leaving, entering: Entering, unlist: Unlist) -> None:
        self._fleet = fleet
        self._leaving = leaving
        self._entering = entering
        self._unlist = unlist

    def begin(self, change: Change, host: Host, operation: Operation, wish: Wish) -> None:
        if host.state not in SETTLED:
            raise Conflict(f"{host.hostname} is {host.state}: let that end, or cancel it first")
        if wish.member is not None:
            departures.put(
                change.db,
                operation.id,
                Departure.of(wish.member, wish),
            )
        change.note(
            News(
                event="host.leaves",
                message=f"{operation.started_by} wants {host.hostname} out of the cluster and the inventory",
                host_id=host.id,
                operation_id=operation.id,
            )
        )

    async def tell(self, operation: Operation) -> None:
        host = self._fleet.host(operation.host_id)
        departure = self._leaving.of(operation.id)
        if departure is not None and departure.stage is not Stage.LEFT:
            await self._leave(operation, host, departure)
        try:
            said = await self._unlist(host)
        except InventoryFailed as exc:
            await self._entering.note(
                host.id, f"the inventory still has {host.hostname}, take it out there: {exc}", Level.WARNING
            )
        else:
            await self._entering.note(host.id, said)

    async def _leave(self, operation: Operation, host: Host, departure: Departure) -> None:
        who = self._entering.leaver(operation, host.id, await self._entering.credential(operation))
        if departure.stage is Stage.ASKED:
            if departure.drain:
                await self._leaving.drain(who)
            await self._leaving.release(who, lambda change: None)
        await self._leaving.leave_for_good(who)

    async def clean_up(self, operation: Operation, outcome: Outcome) -> None:
        await self._entering.clean_up(operation, outcome)

    def conclude(self, change: Change, operation: Operation) -> None:
        assert operation.host_id is not None, "a host with an operation is not removed"
        host = hosts.get(change.db, operation.host_id)
        change.note(
            News(
                event=REMOVED,
                message=f"{host.hostname} ({host.mac}) was removed: it has left the cluster",
                host_id=host.id,
                operation_id=operation.id,
            )
        )
        hosts.remove(change.db, host.id)

    def break_off(self, change: Change, operation: Operation, host: Host, outcome: Outcome) -> None:
        """The host is as it was, as far as that could be: nothing of it is provd's to change."""
