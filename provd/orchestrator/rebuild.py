"""The story of a rebuild, from power-on to a member of the cluster.

    armed        the operation begins, the installer will be offered,
                 and a machine that is off is asked to wake up          (pxe_ready)
    booted       the machine fetched its boot script                    (pxe_booted)
    installing   it fetched its answer; the installer is not offered any more
    installed    the installer reported, and restarts the machine
    first boot   the new system called home: we know its address and its keys
    joining      our turn: one host at a time joins
    ready        a member; our key is gone; the inventory will be told

`tell` is the same after a restart of the daemon as at the beginning: each wait returns at once when
the host stands there or beyond, and the join looks before it acts.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial

import trio
from attrs import frozen

from provd.config import Config
from provd.domain.activity import Level, News
from provd.domain.errors import (
    Conflict,
    DeadlinePassed,
    HostKeyMismatch,
    JoinFailed,
    ProvdError,
    SshFailed,
)
from provd.domain.hosts import Host, HostId, OperationId
from provd.domain.lifecycle import SETTLED, Fact, State, has_reached
from provd.domain.operations import Operation
from provd.domain.secrets import Secret
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.joining import Cluster, Door, Join
from provd.orchestrator.passwords import ClusterPasswords
from provd.orchestrator.waking import Waker
from provd.proxmox import join, memory, temporary_key
from provd.proxmox.first_boot import restart_command
from provd.remote.keys import KeyPair, Seal
from provd.remote.ssh import AuthRefused
from provd.server_types import ServerTypeBook
from provd.store import hosts, images, operations, registrations
from provd.store.database import Db, now
from provd.store.operations import SealedKey


@frozen
class Wait:
    """For what the story waits while a host stands in a state, and what to look at when it does not come."""

    goal: State
    expected: str
    look_at: str


WAITS: Mapping[State, Wait] = {
    State.PXE_READY: Wait(
        State.PXE_BOOTED,
        "the machine to boot from the network and fetch its boot script",
        "is it powered on, on this LAN, and does its firmware boot from the network first?",
    ),
    State.PXE_BOOTED: Wait(
        State.INSTALLING,
        "the installer to start and ask for its answer",
        "look at its screen: less than 8 GiB of memory, an unreachable installer_url or a network "
        "that takes long to come up stop it here; no disk was touched",
    ),
    State.INSTALLING: Wait(
        State.INSTALLED,
        "the installer to report that it is done",
        "look at its screen, or on its third console at /tmp/auto_installer.log and "
        "/tmp/install-low-level.log; its disk may be half written",
    ),
    State.INSTALLED: Wait(
        State.FIRST_BOOT,
        "the new system to come up from its own disk and call home",
        "does it boot from that disk, and can it reach provd? On the host: journalctl -u proxmox-first-boot",
    ),
    State.FIRST_BOOT: Wait(
        State.JOINING,
        "its turn to join the cluster",
        "can provd reach the host's SSH port?",
    ),
    State.JOINING: Wait(
        State.READY,
        "the cluster to accept it",
        "look at `pvecm status` and `journalctl -u corosync` on the host; UDP 5405 to 5412 may be blocked, "
        "or somebody else changed the cluster meanwhile",
    ),
}


RESTART_SECONDS = 2.0
"""Between two looks at a host that is to restart: it answers for a moment longer."""

HOST_SECONDS = 10.0
CLUSTER_SECONDS = 4.0
"""How long to wait for the host, and then for the cluster, when a join came to nothing. Stopping pvecm
takes up to four seconds; both together must fit into what an operation has for its cleaning up."""


class Rebuild:
    """The `Story` of `Kind.REBUILD`."""

    def __init__(
        self,
        config: Config,
        book: ServerTypeBook,
        fleet: Fleet,
        seal: Seal,
        passwords: ClusterPasswords,
        waker: Waker,
    ) -> None:
        self._config = config
        self._book = book
        self._fleet = fleet
        self._seal = seal
        self._passwords = passwords
        self._waker = waker
        self._started_at = now()
        self._remains_told: set[OperationId] = set()
        """Whose error says already what it left in the cluster; the others' cleaning up does."""

    # --- the beginning, in the transaction that takes the host ---

    def begin(self, change: Change, host: Host, operation: Operation) -> None:
        key = KeyPair.generate(f"provd-operation-{operation.id}")
        sealed = self._seal.seal(key.seed, _context(operation))
        operations.keep_key(change.db, operation.id, SealedKey(public_line=key.public_line, sealed=sealed))
        if not self._config.proxmox.installer_url:
            _settle_image(change, host, operation)
        armed = change.fact(
            host.id,
            Fact.REBUILD_STARTED,
            f"rebuild asked for by {operation.started_by}: the installer will be offered to {host.mac}",
        )
        if armed.state is not State.PXE_READY:
            raise Conflict(f"{host.hostname} is {host.state} and cannot be rebuilt from there")

    # --- the story ---

    async def tell(self, operation: Operation) -> None:
        host_id = self._fleet.host(operation.host_id).id

        if self._fleet.host(host_id).state is State.PXE_READY:
            await self._waker.rebuild_started(host_id)
        await self._wait_out(host_id, State.PXE_READY)
        await self._wait_out(host_id, State.PXE_BOOTED)
        await self._wait_out(host_id, State.INSTALLING)
        await self._wait_out(host_id, State.INSTALLED)

        door = self._door(operation)
        with self._deadline(host_id, State.FIRST_BOOT):
            await self._restart_where_wanted(host_id, door)
            await self._look_inside(host_id, door)
        password = await self._password(operation)

        await self._take_turn(host_id)
        attempt = self._join(operation, host_id, door, password)
        try:
            with self._deadline(host_id, State.JOINING):
                await attempt.run()
            return
        except (DeadlinePassed, JoinFailed) as exc:
            failure = exc
        seen = [f"seen last: {attempt.seen_last}"] if isinstance(failure, DeadlinePassed) else []
        left = await self._take_back(attempt)
        self._remains_told.add(operation.id)
        raise type(failure)("; ".join([str(failure), *seen, *left])) from failure

    async def _take_turn(self, host_id: HostId) -> None:
        """Take the host to `joining` when no other is there any more.

        One host joins at a time: two at once can cost a small cluster its quorum, and the second one's
        corosync stops when the configuration changes under it (corosync.conf(5), config_version). The
        database is the lock, so that it outlives a restart, and a join that was cancelled keeps its turn
        until its pvecm has been stopped.
        """
        waits_for = None
        while True:
            ring = self._fleet.bell.next()
            other = self._fleet.store.read(lambda db: _joining_beside(db, host_id))
            if other is None and await self._fleet.change(lambda change: _announce_join(change, host_id)):
                return
            if other is not None and other.id != waits_for:
                waits_for = other.id
                await self._note(host_id, f"waits for its turn: {other.hostname} is joining")
            await ring.wait()

    def _join(self, operation: Operation, host_id: HostId, door: Door, password: Secret) -> Join:
        proxmox = self._config.proxmox
        assert proxmox.existing_node is not None
        return Join(
            operation_id=operation.id,
            hostname=operation.hostname,
            door=door,
            cluster=Cluster(
                address=proxmox.existing_node,
                port=proxmox.api_port,
                fingerprint=proxmox.join_fingerprint,
            ),
            password=password,
            tell=partial(self._note, host_id),
        )

    async def _take_back(self, attempt: Join) -> list[str]:
        """Stop what still runs of a failed join; what it left in the cluster, as at most one sentence."""
        with trio.move_on_after(HOST_SECONDS), suppress(SshFailed):
            await attempt.stop()
        with trio.move_on_after(CLUSTER_SECONDS):
            return [sentence for sentence in [await attempt.left_behind()] if sentence]
        return ["the cluster did not say in time whether it lists the host now"]

    async def _wait_out(self, host_id: HostId, state: State) -> None:
        """Until the machine itself leads the host out of `state`; at once when it has already."""
        with self._deadline(host_id, state):
            await self._fleet.reached(host_id, WAITS[state].goal)

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
                await self._note(host_id, "restarts once, for the kernel to take up IOMMU and vfio")
                said = True
            await trio.sleep(RESTART_SECONDS)

    async def _look_inside(self, host_id: HostId, door: Door) -> None:
        """What on the host stands in the way of a clean join is said; pvecm decides."""
        async with door.open() as session:
            warnings = (await session.run(temporary_key.readiness_command(door.key.body))).stdout
        for warning in warnings.splitlines():
            await self._note(host_id, f"before the join: {warning}", Level.WARNING)

    async def _password(self, operation: Operation) -> Secret:
        if self._passwords.of(operation.id) is None and operation.host_id is not None:
            await self._note(
                operation.host_id,
                "provd was restarted and has forgotten the cluster's root password: "
                "give it again on this operation's page to let the host join",
                Level.WARNING,
            )
        return await self._passwords.wait(operation.id)

    # --- the end ---

    def conclude(self, change: Change, operation: Operation) -> None:
        assert operation.host_id is not None, "a host with an operation is not removed"
        host = change.fact(
            operation.host_id, Fact.COMPLETED, f"{operation.hostname} is a member of the cluster"
        )
        self._passwords.forget(operation.id)
        self._tell_inventory(change, host, operation)

    def _tell_inventory(self, change: Change, host: Host, operation: Operation) -> None:
        """Put it into the outbox with the very transaction that makes the host ready."""
        if not self._config.infrastructure.base_url:
            return
        type_id = self._config.infrastructure.server_type_map.get(host.server_type)
        if type_id is None:
            change.note(
                News(
                    event="inventory.skipped",
                    message=f"the inventory is not told: infrastructure.server_type_map has no entry "
                    f"for {host.server_type!r}",
                    level=Level.WARNING,
                    host_id=host.id,
                    operation_id=operation.id,
                )
            )
            return
        registrations.put(
            change.db,
            registrations.Pending(
                host_id=host.id,
                hardware_id=host.hardware_id or f"mac-{host.mac}",
                hostname=host.hostname,
                ip=str(host.ip),
                mac=str(host.mac),
                server_type_id=type_id,
                operation_id=operation.id,
                next_try_at=change.at,
            ),
        )

    async def clean_up(self, operation: Operation) -> None:
        """Stop a join that still runs, take the key off the host, and say what is left in the cluster."""
        password = self._passwords.of(operation.id)
        self._passwords.forget(operation.id)
        host = self._fleet.host(operation.host_id)
        if has_reached(host.state, State.FIRST_BOOT):
            await self._leave_host(operation, host)
        told = operation.id in self._remains_told
        self._remains_told.discard(operation.id)
        if host.state is State.JOINING and password is not None and not told:
            with trio.move_on_after(CLUSTER_SECONDS), suppress(ProvdError):
                attempt = self._join(operation, host.id, self._door(operation), password)
                if left := await attempt.left_behind():
                    await self._note(host.id, left, Level.WARNING)

    async def _leave_host(self, operation: Operation, host: Host) -> None:
        try:
            door = self._door(operation)
            with trio.fail_after(HOST_SECONDS):
                async with door.open() as session:
                    await session.run(join.stop_command(operation_id=operation.id))
                    await session.run(temporary_key.remove_key_command(door.key.body))
                    await session.run(join.cleanup_command(operation_id=operation.id))
            await self._note(host.id, "took the temporary key off the host")
        except AuthRefused:
            await self._note(host.id, "the temporary key is not on the host any more")
        except (ProvdError, trio.TooSlowError) as exc:
            reason = exc if isinstance(exc, ProvdError) else "it does not answer"
            await self._note(
                host.id,
                f"could not take the temporary key off the host; it ends by itself within a day: {reason}",
                Level.WARNING,
            )

    # --- what the story stands on ---

    @contextmanager
    def _deadline(self, host_id: HostId, state: State) -> Iterator[None]:
        """`DeadlinePassed`, saying what was expected and what to look at, after the state's time.

        After a restart the clock starts anew: who was late, the machine or the daemon, is unknown.
        """
        seconds = self.seconds_allowed(self._fleet.host(host_id), state) or math.inf
        with trio.move_on_after(seconds) as scope:
            yield
        if scope.cancelled_caught:
            wait = WAITS[state]
            raise DeadlinePassed(f"waited {duration(seconds)} for {wait.expected}, in vain: {wait.look_at}")

    def seconds_allowed(self, host: Host, state: State) -> float | None:
        """How long the host may stay in `state`; None where nobody is working on it."""
        if state in SETTLED:
            return None
        server_type = self._book.current.get(host.server_type)
        own = server_type.deadlines if server_type is not None else {}
        return own.get(state) or self._config.deadlines.of(state)

    def due(self, host: Host) -> datetime | None:
        """When the host must have left its state; None where nobody is waiting for it."""
        seconds = self.seconds_allowed(host, host.state)
        if seconds is None:
            return None
        return max(host.state_since, self._started_at) + timedelta(seconds=seconds)

    def _door(self, operation: Operation) -> Door:
        host = self._fleet.host(operation.host_id)
        sealed = self._fleet.store.read(lambda db: operations.key(db, operation.id))
        host_keys = self._fleet.store.read(lambda db: hosts.host_keys(db, host.id))
        if host.ip is None or sealed is None or not host_keys:
            raise SshFailed(f"{host.hostname} called home without an address or its host keys")
        seed = self._seal.open(sealed.sealed, _context(operation))
        return Door(
            address=host.ip,
            port=self._config.ssh.port,
            user=self._config.ssh.user,
            key=KeyPair(seed=seed, comment=f"provd-operation-{operation.id}"),
            host_keys=host_keys,
        )

    async def _note(self, host_id: HostId, message: str, level: Level = Level.INFO) -> None:
        await self._fleet.note(News(event="rebuild.note", message=message, level=level, host_id=host_id))


def _settle_image(change: Change, host: Host, operation: Operation) -> None:
    """What this operation installs: an image that becomes the default later does not change it midway."""
    image = images.default(change.db)
    if image is None:
        raise Conflict(
            "there is nothing to install yet: import Proxmox VE's ISO, with "
            "`provd image import FILE.iso` or on the page Images"
        )
    operations.set_image(change.db, operation.id, image.id)
    if not memory.fits(image.release, host.memory_mib):
        change.note(
            News(
                event="rebuild.note",
                message=f"{host.hostname} has {host.memory_mib} MiB of memory; the installer of "
                f"{image.release}, loaded over the network, is known to need "
                f"{memory.memory_needed(image.release)} MiB",
                level=Level.WARNING,
                host_id=host.id,
            )
        )


def _announce_join(change: Change, host_id: HostId) -> bool:
    """False when another host was faster."""
    if _joining_beside(change.db, host_id) is not None:
        return False
    if hosts.get(change.db, host_id).state is State.FIRST_BOOT:
        change.fact(host_id, Fact.JOIN_STARTED, "its turn to join the cluster")
    return True


def _joining_beside(db: Db, host_id: HostId) -> Host | None:
    return next(
        (host for host in hosts.everyone(db) if host.state is State.JOINING and host.id != host_id), None
    )


def _context(operation: Operation) -> str:
    """What the sealed key is bound to: in any other row it cannot be opened."""
    return f"operations/{operation.id}/key"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes and rest else f"{minutes} min" if minutes else f"{rest} s"
