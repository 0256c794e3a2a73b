"""From the first boot of a new system to a host that is ready: the end of a rebuild, and all of a rejoin.

    first boot   reached over SSH; waits for its turn
    joining      our turn: one host at a time joins
    ready        a member; our key is gone; the inventory will be told

A host that is to stand alone is ready as soon as our key is gone from it.
"""

from contextlib import suppress
from functools import partial

import trio

from provd.config import Config
from provd.domain.activity import Level, News
from provd.domain.errors import (
    ClusterFailed,
    DeadlinePassed,
    HostKeyMismatch,
    JoinFailed,
    ProvdError,
    SshFailed,
)
from provd.domain.hosts import Host, HostId, Membership, OperationId
from provd.domain.lifecycle import Fact, State, has_reached
from provd.domain.operations import Operation, Outcome, Stage
from provd.domain.secrets import Secret
from provd.orchestrator import outbox
from provd.orchestrator.boot import KEY_LIVES
from provd.orchestrator.door import Door
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.membership import farewell
from provd.orchestrator.membership.admin import ClusterAdmin
from provd.orchestrator.membership.join_rules import obstacle
from provd.orchestrator.membership.joining import Join, Terms
from provd.orchestrator.membership.leaving import Leaving
from provd.orchestrator.membership.striking import Leaver
from provd.orchestrator.membership.turns import Turns, nothing_in_the_way
from provd.orchestrator.passwords import ClusterPasswords
from provd.orchestrator.waits import Waits
from provd.proxmox import join, temporary_key
from provd.proxmox.first_boot import restart_command
from provd.remote.keys import KeyPair, Seal
from provd.remote.ssh import AuthRefused
from provd.store import hosts, operations, retries
from provd.store.database import now
from provd.store.retries import Retry

RESTART_SECONDS = 2.0
"""Between two looks at a host that is to restart: it answers for a moment longer."""

HOST_SECONDS = 10.0
CLUSTER_SECONDS = 4.0
"""How long to wait for the host, and then for the cluster, when a join came to nothing. Stopping pvecm
takes up to four seconds; both together must fit into what an operation has for its cleaning up."""

RETRY = "“Retry from join” on its page cleans up on both sides and joins again, without a new installation"


class Entering:
    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        seal: Seal,
        passwords: ClusterPasswords,
        turns: Turns,
        admin: ClusterAdmin,
        leaving: Leaving,
        waits: Waits,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._seal = seal
        self._passwords = passwords
        self._turns = turns
        self._admin = admin
        self._leaving = leaving
        self._waits = waits
        self._remains_told: set[OperationId] = set()
        """Whose error says already what it left in the cluster; the others' cleaning up does."""

    # --- the way in ---

    async def enter(self, operation: Operation) -> None:
        """From wherever the host stands between its first boot and the end."""
        host = self._fleet.host(operation.host_id)
        door = self.door(operation)
        try:
            with self._waits.deadline(host.id, State.FIRST_BOOT):
                await self._restart_where_wanted(host.id, door)
                await self._look_inside(host.id, door)
        except AuthRefused:
            if self.joins(host):
                raise
            return  # stopped in the moment between the key's end and the operation's
        if not self.joins(host):
            await farewell.take_key_away(door, operation, partial(self.note, host.id))
            return
        password = await self.credential(operation)
        attempt = self.attempt(operation, host.id, door, password)
        try:
            await self._take_turn(operation, host.id, attempt)
            with self._waits.deadline(host.id, State.JOINING):
                await attempt.run()
        except (ClusterFailed, DeadlinePassed, HostKeyMismatch) as exc:
            failure = exc
        else:
            await self._turns.end(operation)
            await self._end_maintenance(operation, host, password)
            return
        if self._fleet.host(host.id).state is not State.JOINING:
            raise JoinFailed(f"{failure}; {RETRY}") from failure
        seen = [f"seen last: {attempt.seen_last}"] if isinstance(failure, DeadlinePassed) else []
        left = await self._take_back(attempt)
        self._remains_told.add(operation.id)
        raise JoinFailed("; ".join([str(failure), *seen, *left])) from failure

    def joins(self, host: Host) -> bool:
        return self._config.proxmox.existing_node is not None and host.options.cluster is not Membership.NONE

    def needs_password(self, host: Host) -> bool:
        """Whether somebody has to give the cluster root's password, and neither it nor a key is at hand."""
        return self.joins(host) and self._passwords.standing is None and self._admin.key is None

    async def credential(self, operation: Operation) -> Secret | None:
        """Root's password on the cluster; None where provd's own key there does as well."""
        password = self._passwords.of(operation.id)
        if password is None and self._admin.key is not None:
            return None
        if password is None and operation.host_id is not None:
            await self.note(
                operation.host_id,
                "provd was restarted and has forgotten the cluster's root password: "
                "give it again on this operation's page to let the host join",
                Level.WARNING,
            )
        return password or await self._passwords.wait(operation.id)

    def leaver(self, operation: Operation, host_id: HostId, password: Secret | None) -> Leaver:
        departure = self._leaving.of(operation.id)
        return Leaver(
            operation=operation,
            host_id=host_id,
            node=departure.node if departure is not None else operation.hostname,
            password=password,
        )

    async def _take_turn(self, operation: Operation, host_id: HostId, attempt: Join) -> None:
        """Take the host to `joining` when it is its turn and the cluster can bear a newcomer."""
        if self._fleet.host(host_id).state is State.JOINING:
            await self._turns.take(operation, host_id, nothing_in_the_way)
            return

        async def in_the_way(away: frozenset[str]) -> str | None:
            cluster = await self._admin.look(attempt.password, beside=operation.hostname)
            return obstacle(
                cluster,
                operation.hostname,
                away,
                votes=attempt.terms.votes,
                keep_entry=attempt.terms.keep_entry,
            )

        def joins(change: Change) -> None:
            change.fact(host_id, Fact.JOIN_STARTED, "its turn to join the cluster")

        await self._turns.take(operation, host_id, in_the_way, joins)

    def attempt(self, operation: Operation, host_id: HostId, door: Door, password: Secret | None) -> Join:
        departure = self._leaving.of(operation.id)
        options = self._fleet.host(host_id).options
        former = departure.nodeid if departure is not None else None
        return Join(
            operation_id=operation.id,
            hostname=operation.hostname,
            door=door,
            admin=self._admin,
            password=password,
            terms=Terms(
                links=(door.address, *(options.links or ())),
                nodeid=options.nodeid or former,
                votes=departure.votes if departure is not None else 1,
                keep_entry=departure is not None and departure.keep_entry,
            ),
            clear_the_place=partial(self._leaving.clear_the_place, self.leaver(operation, host_id, password)),
            tell=partial(self.note, host_id),
        )

    async def _end_maintenance(self, operation: Operation, host: Host, password: Secret | None) -> None:
        departure = self._leaving.of(operation.id)
        if departure is None or not departure.drain:
            return
        try:
            await self._leaving.end_maintenance(self.leaver(operation, host.id, password))
        except ProvdError as exc:
            await self.note(
                host.id,
                f"{host.hostname} is still in HA maintenance ({exc}): run `ha-manager crm-command "
                f"node-maintenance disable {host.hostname}`",
                Level.WARNING,
            )

    async def _take_back(self, attempt: Join) -> list[str]:
        """Stop what still runs of a failed join; what it left on either side, as sentences."""
        left = []
        with trio.move_on_after(HOST_SECONDS), suppress(SshFailed):
            left += await attempt.stop()
        with trio.move_on_after(CLUSTER_SECONDS):
            left += [sentence for sentence in [await attempt.left_behind()] if sentence]
            return [*left, RETRY]
        return [*left, "the cluster did not say in time whether it lists the host now", RETRY]

    async def _restart_where_wanted(self, host_id: HostId, door: Door) -> None:
        """Until the host runs with the kernel command line that its first boot gave it."""
        said = False
        while True:
            try:
                async with door.open() as session:
                    if not (await session.run(restart_command())).stdout.strip():
                        return
            except (AuthRefused, HostKeyMismatch):
                raise
            except SshFailed:
                pass  # it went down under us
            if not said:
                await self.note(host_id, "restarts once, for the kernel to take up IOMMU and vfio")
                said = True
            await trio.sleep(RESTART_SECONDS)

    async def _look_inside(self, host_id: HostId, door: Door) -> None:
        """What on the host stands in the way of a clean join is said; pvecm decides."""
        async with door.open() as session:
            warnings = (await session.run(temporary_key.readiness_command(door.key.body))).stdout
        for warning in warnings.splitlines():
            await self.note(host_id, f"before the join: {warning}", Level.WARNING)

    # --- the end ---

    def conclude(self, change: Change, operation: Operation) -> None:
        assert operation.host_id is not None, "a host with an operation is not removed"
        alone = not self.joins(hosts.get(change.db, operation.host_id))
        host = change.fact(
            operation.host_id,
            Fact.COMPLETED,
            f"{operation.hostname} is ready, and stands alone"
            if alone
            else f"{operation.hostname} is a member of the cluster",
        )
        self._passwords.forget(operation.id)
        retries.forget(change.db, host.id)
        outbox.put(change, self._config.infrastructure, host, operation)

    def break_off(self, change: Change, operation: Operation, host: Host, outcome: Outcome) -> None:
        """A system that is installed is kept for another try: its key outlives the operation for that."""
        key = operations.key(change.db, operation.id)
        if outcome is Outcome.CANCELLED:
            retries.forget(change.db, host.id)
        elif key is not None and self._can_be_retried(host):
            retry = Retry(operation_id=operation.id, key=key, expires_at=operation.started_at + KEY_LIVES)
            retries.put(change.db, host.id, retry)

    def _can_be_retried(self, host: Host) -> bool:
        return host.state in (State.FIRST_BOOT, State.JOINING) and self.joins(host)

    async def clean_up(self, operation: Operation, outcome: Outcome) -> None:
        """Stop a join that still runs, take the key off the host, and say what is left in the cluster."""
        password = self._passwords.of(operation.id)
        self._passwords.forget(operation.id)
        host = self._fleet.host(operation.host_id)
        told = operation.id in self._remains_told
        self._remains_told.discard(operation.id)
        if has_reached(host.state, State.FIRST_BOOT) and not (
            outcome is Outcome.FAILED and self._can_be_retried(host)
        ):
            await self._leave_host(operation, host)
        await self._take_departure_back(operation, host, password)
        if host.state is State.JOINING and not told:
            with trio.move_on_after(CLUSTER_SECONDS), suppress(ProvdError):
                attempt = self.attempt(operation, host.id, self.door(operation), password)
                if left := await attempt.left_behind():
                    await self.note(host.id, left, Level.WARNING)

    async def _take_departure_back(self, operation: Operation, host: Host, password: Secret | None) -> None:
        departure = self._leaving.of(operation.id)
        if departure is None or departure.stage is Stage.LEFT:
            return
        try:
            await self._leaving.take_back(self.leaver(operation, host.id, password), departure)
        except ProvdError as exc:
            await self.note(host.id, f"not everything could be taken back: {exc}", Level.WARNING)

    async def _leave_host(self, operation: Operation, host: Host) -> None:
        try:
            door = self.door(operation)
            with trio.fail_after(HOST_SECONDS):
                async with door.open() as session:
                    await session.run(join.stop_command(operation_id=operation.id))
                    await session.run(temporary_key.remove_key_command(door.key.body))
                    await session.run(join.cleanup_command(operation_id=operation.id))
            await self.note(host.id, "took the temporary key off the host")
        except AuthRefused:
            await self.note(host.id, "the temporary key is not on the host any more")
        except (ProvdError, trio.TooSlowError) as exc:
            reason = exc if isinstance(exc, ProvdError) else "it does not answer"
            await self.note(
                host.id,
                f"could not take the temporary key off the host; it ends by itself within a day: {reason}",
                Level.WARNING,
            )

    # --- what it stands on ---

    def door(self, operation: Operation) -> Door:
        """The operation's own key, or that of the failed one whose end it tries again."""
        host = self._fleet.host(operation.host_id)
        read = self._fleet.store.read
        owner, sealed = operation.id, read(lambda db: operations.key(db, operation.id))
        if sealed is None and (retry := read(lambda db: retries.of(db, host.id, now()))) is not None:
            owner, sealed = retry.operation_id, retry.key
        host_keys = read(lambda db: hosts.host_keys(db, host.id))
        if host.ip is None or sealed is None or not host_keys:
            raise SshFailed(f"{host.hostname} called home without an address or its host keys")
        return Door(
            address=host.ip,
            port=self._config.ssh.port,
            user=self._config.ssh.user,
            key=KeyPair(
                seed=self._seal.open(sealed.sealed, key_context(owner)), comment=f"provd-operation-{owner}"
            ),
            host_keys=host_keys,
        )

    async def note(self, host_id: HostId, message: str, level: Level = Level.INFO) -> None:
        await self._fleet.note(News(event="rebuild.note", message=message, level=level, host_id=host_id))


def key_context(operation_id: OperationId) -> str:
    """What the sealed key is bound to: in any other row it cannot be opened."""
    return f"operations/{operation_id}/key"
