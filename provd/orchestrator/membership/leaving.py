"""How a member leaves its cluster before it is rebuilt, or for good.

    asked      it works as it did; it may be drained, and waits until the others can do without it
    released   its votes are not counted on any more: it may go away at any moment
    left       it was struck out, and what it left behind was saved and tidied up

Where provd's own key opens the old system, that is disarmed, struck out and restarted. Where not, somebody
switches it off, or it restarts into its network boot, and it is struck out when the cluster sees it offline.
Each step looks before it acts, and takes whatever member is there; the one that leaves is never asked.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import trio

from provd.domain.activity import LEFT, RELEASED, Level, News
from provd.domain.documents import one_line
from provd.domain.errors import ClusterFailed, DeadlinePassed, SshFailed
from provd.domain.hosts import OperationId
from provd.domain.operations import Departure, Stage
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.membership.admin import ClusterAdmin
from provd.orchestrator.membership.leaving_rules import why_not_without
from provd.orchestrator.membership.striking import Leaver, Striking, tell
from provd.orchestrator.membership.turns import Turns, nothing_in_the_way
from provd.proxmox import leave
from provd.proxmox.cluster import LoginRefused
from provd.remote.ssh import Session
from provd.store import departures

POLL_SECONDS = 1.0
DRAIN_SECONDS = 3600.0
"""Guests move at the speed of their memory and disks."""
SWITCH_OFF_SECONDS = 1800.0
KNOCK_SECONDS = 8.0
"""A machine that was switched off says nothing. There must be time left to say so in what an operation has
for its cleaning up."""

TO_ARM = (
    "its cluster services were disarmed: move the files of /etc/corosync/disarmed-by-provd back into "
    "/etc/corosync and run `systemctl enable --now corosync pve-ha-crm pve-ha-lrm` on it"
)


class Leaving:
    def __init__(self, fleet: Fleet, turns: Turns, admin: ClusterAdmin) -> None:
        self._fleet = fleet
        self._turns = turns
        self._admin = admin
        self._striking = Striking(fleet, admin)

    def of(self, operation_id: OperationId) -> Departure | None:
        return self._fleet.store.read(lambda db: departures.of(db, operation_id))

    # --- while it still works ---

    async def drain(self, who: Leaver) -> None:
        """Into HA maintenance, and wait until HA has moved its services away."""
        await self._admin.set_maintenance(who.node, on=True)
        await self._tell(who, f"{who.node} goes into HA maintenance: its services move to other members")
        left = ""
        with trio.move_on_after(DRAIN_SECONDS):
            while services := await self._admin.services_on(who.node, who.password):
                if (now := ", ".join(services)) != left:
                    left = now
                    await self._tell(who, f"still on {who.node}: {left}")
                await trio.sleep(POLL_SECONDS)
            await self._tell(who, f"no HA service is on {who.node} any more")
            return
        raise DeadlinePassed(f"HA did not move {left} away from {who.node} within an hour")

    async def release(self, who: Leaver, begin: Callable[[Change], None]) -> None:
        """Wait until the others can do without it; then `begin`, with the turn taken."""
        departure = self.of(who.operation.id)
        keeps_entry = departure is not None and departure.keep_entry
        # A vote whose entry stays is expected until its node is back.
        can_lower_expected = self._admin.key is not None and not keeps_entry

        async def obstacle(away: frozenset[str]) -> str | None:
            try:
                cluster = await self._admin.look(who.password, beside=who.node)
            except LoginRefused:
                raise
            except ClusterFailed as exc:
                return str(exc)
            return why_not_without(cluster, who.node, away, can_lower_expected=can_lower_expected)

        def released(change: Change) -> None:
            departures.set_stage(change.db, who.operation.id, Stage.RELEASED)
            _tell_stage(change, who, RELEASED, f"the others can do without {who.node}: it may leave now")
            begin(change)

        await self._turns.take(who.operation, who.host_id, obstacle, released)

    # --- out of the cluster ---

    async def leave_running(self, who: Leaver, departure: Departure) -> bool:
        """Out of the cluster while the old system runs, and restart that. False: there is no way in."""
        if self._admin.key is None or departure.keep_entry:
            await self._turns.end(who.operation)
            return False
        # It has the turn, unless it gave that back before the daemon was restarted.
        await self._turns.take(who.operation, who.host_id, nothing_in_the_way)
        out = False
        try:
            async with self._old_system(who.node) as session:
                await _disarm(session, who)
                await self._tell(who, f"the cluster services of {who.node} will not start again")
                await self._striking.strike_out(who, session)
                out = True
                # Before it is written down that it left: nobody would restart it after a kill in between.
                await session.run(leave.restart_command())
        except SshFailed as exc:
            await self._tell(who, how_far(who, exc, out=out))
            await (self._left(who) if out else self._turns.end(who.operation))
            return False
        await self._left(who)
        await self._tell(who, f"{who.node} was restarted, to boot from the network")
        return True

    async def leave_when_off(self, who: Leaver, departure: Departure) -> None:
        """Out of the cluster once that sees it offline; returns at once when it is out."""
        if departure.stage is Stage.LEFT:
            return
        await self._turns.take(who.operation, who.host_id, nothing_in_the_way)
        if departure.keep_entry:
            await self._tell(who, f"{who.node} keeps its entry in the cluster, to join again under it")
        else:
            await self._striking.strike_out(who, None)
        await self._left(who)

    async def leave_for_good(self, who: Leaver) -> None:
        """Out of the cluster, its HA rules and what it left there; switched off where provd gets in."""
        if self._admin.key is not None:
            await self._turns.take(who.operation, who.host_id, nothing_in_the_way)
            out = False
            try:
                async with self._old_system(who.node) as session:
                    await _disarm(session, who)
                    await self._striking.strike_out(who, session)
                    out = True
                    await self._forget_rules(who)
                    await session.run(leave.power_off_command())
                await self._left(who)
                await self._tell(who, f"{who.node} was switched off")
                return
            except SshFailed as exc:
                await self._tell(who, how_far(who, exc, out=out))
                if out:
                    await self._left(who)
                    return
        # The turn is free while a human walks to the switch.
        await self._turns.end(who.operation)
        await self._until_offline(who)
        await self._turns.take(who.operation, who.host_id, nothing_in_the_way)
        await self._striking.strike_out(who, None)
        await self._forget_rules(who)
        await self._left(who)

    async def _until_offline(self, who: Leaver) -> None:
        told = False
        with trio.move_on_after(SWITCH_OFF_SECONDS):
            while True:
                with suppress(ClusterFailed):
                    entry = (await self._admin.look(who.password, beside=who.node)).node(who.node)
                    if entry is None or not entry.online:
                        return
                if not told:
                    told = True
                    await self._tell(who, f"please switch {who.node} off: then it is struck out")
                await trio.sleep(POLL_SECONDS)
        raise DeadlinePassed(f"{who.node} was not switched off within {SWITCH_OFF_SECONDS / 60:.0f} min")

    async def _forget_rules(self, who: Leaver) -> None:
        try:
            for sentence in await self._admin.forget_in_ha_rules(who.node, who.password):
                await self._tell(who, sentence)
        except ClusterFailed as exc:
            await self._tell(who, f"HA rules may still name {who.node}: {exc}", Level.WARNING)

    async def clear_the_place(self, who: Leaver) -> None:
        """Strike out an entry of a former life, before a join. The turn is the caller's."""
        await self._striking.strike_out(who, None)

    async def _left(self, who: Leaver) -> None:
        def write(change: Change) -> None:
            departure = departures.of(change.db, who.operation.id)
            departures.set_stage(change.db, who.operation.id, Stage.LEFT)
            departures.end_turn(change.db, who.operation.id)
            if departure is not None and not departure.keep_entry:
                _tell_stage(change, who, LEFT, f"{who.node} is out of the cluster")

        await self._fleet.change(write)

    # --- taken back ---

    async def take_back(self, who: Leaver, departure: Departure) -> None:
        """An operation ended on the way: the member works again as it did, as far as that is possible."""
        if departure.drain:
            with suppress(ClusterFailed):  # what is more must be tried all the same
                await self.end_maintenance(who)
        if departure.stage is not Stage.RELEASED or self._admin.key is None:
            return
        cluster = await self._admin.look(who.password, beside=who.node)
        if cluster.node(who.node) is None:
            await self._tell(
                who, f"{who.node} is no member of the cluster any more: rebuild it", Level.WARNING
            )
            return
        try:
            async with self._old_system(who.node) as session:
                armed = await session.run(leave.arm_command())
        except SshFailed as exc:
            await self._tell(who, f"{who.node} does not answer ({exc}). Should its old system boot, {TO_ARM}")
            return
        if armed.exit_status == 0:
            await self._tell(who, f"the cluster services of {who.node} run again")
        else:
            await self._tell(who, f"{who.node}: {TO_ARM}", Level.WARNING)

    async def end_maintenance(self, who: Leaver) -> None:
        """HA maintenance outlives a restart (pve-docs, ha-manager.adoc), and so a rebuild under one name."""
        await self._admin.set_maintenance(who.node, on=False)
        await self._tell(who, f"{who.node} is out of HA maintenance again")

    @asynccontextmanager
    async def _old_system(self, node: str) -> AsyncIterator[Session]:
        """Raises `SshFailed`, also when nobody answers in time."""
        async with AsyncExitStack() as stack:
            try:
                with trio.fail_after(KNOCK_SECONDS):
                    session = await stack.enter_async_context(self._admin.open_node(node))
            except trio.TooSlowError as exc:
                raise SshFailed("nobody answers") from exc
            yield session

    async def _tell(self, who: Leaver, message: str, level: Level = Level.INFO) -> None:
        await tell(self._fleet, who, message, level)


def _tell_stage(change: Change, who: Leaver, event: str, message: str) -> None:
    change.note(
        News(event=event, message=message, host_id=who.host_id, operation_id=who.operation.id),
    )


async def _disarm(session: Session, who: Leaver) -> None:
    """Raises `SshFailed` too when it cannot be done: it is not struck out, to come back unasked."""
    done = await session.run(leave.disarm_command())
    if done.exit_status != 0:
        raise SshFailed(f"its cluster services could not be disarmed: {one_line(done.stderr)}")


def how_far(who: Leaver, exc: SshFailed, *, out: bool) -> str:
    """What a connection to the old system that broke means for it."""
    if out:
        return f"{who.node} has left the cluster; restart it, or switch it off, by hand: {exc}"
    return f"{who.node} cannot be taken out of the cluster while it runs: {exc}"
