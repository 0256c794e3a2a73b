"""The end of a rebuild once more: its join failed, and the installed system is still there.

first boot   what the failed join left on the host is taken away, its entry in the cluster struck out
joining      as in a rebuild
"""

from provd.domain.documents import one_line
from provd.domain.errors import Conflict, JoinFailed
from provd.domain.hosts import Host
from provd.domain.lifecycle import Fact, State
from provd.domain.operations import Operation, Outcome, Wish
from provd.orchestrator.entering import Entering
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.waits import Waits
from provd.proxmox import join
from provd.store import retries


class Rejoin:
    """The `Story` of `Kind.REJOIN`."""

    def __init__(self, fleet: Fleet, entering: Entering, waits: Waits) -> None:
        self._fleet = fleet
        self._entering = entering
        self._waits = waits

    def begin(self, change: Change, host: Host, operation: Operation, wish: Wish) -> None:
        if retries.of(change.db, host.id, change.at) is None:
            raise Conflict(
                f"the join of {host.hostname} cannot be tried again: it did not fail within the last day, or "
                "provd's key is not on the host any more; rebuild it"
            )
        change.fact(
            host.id,
            Fact.REJOIN_STARTED,
            f"{operation.started_by} wants the join tried again, as it is installed",
        )

    async def tell(self, operation: Operation) -> None:
        host = self._fleet.host(operation.host_id)
        if host.state is State.FIRST_BOOT:
            with self._waits.deadline(host.id, State.FIRST_BOOT):
                async with self._entering.door(operation).open() as session:
                    separated = await session.run(join.separate_command())
            if separated.exit_status != 0:
                raise JoinFailed(
                    f"what the failed join left on {host.hostname} could not be taken away: rebuild it; "
                    + one_line(separated.stderr)
                )
            if separated.stdout.strip():
                await self._entering.note(host.id, "took away what the failed join left on the host")
        await self._entering.enter(operation)

    async def clean_up(self, operation: Operation, outcome: Outcome) -> None:
        await self._entering.clean_up(operation, outcome)

    def conclude(self, change: Change, operation: Operation) -> None:
        self._entering.conclude(change, operation)

    def break_off(self, change: Change, operation: Operation, host: Host, outcome: Outcome) -> None:
        self._entering.break_off(change, operation, host, outcome)
