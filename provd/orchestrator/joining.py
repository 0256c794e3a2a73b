"""How a host joins the cluster, over SSH, and how that is believed.

Every step looks before it acts, so that all of it may be done again after a lost connection or a
restart of the daemon: a `pvecm add` that runs is watched and not started twice, a host that is a
member is not joined again, a key that is gone is proof enough that the end had been reached.

`pvecm add` runs detached on the host, because a lost channel would stop it half-way; its exit code
is 0 even when it failed (pve-cluster 8.0 to 9.1), so its last line is read, and then the cluster is
asked from both sides.

Before it starts, the cluster is asked whether it can bear a newcomer; after a failure, what it has of
one. Neither changes anything: a cluster is put right by a human, with the commands that are named.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import trio
from attrs import define, frozen

from provd.domain.errors import ClusterFailed, HostKeyMismatch, JoinFailed, SshFailed
from provd.domain.hosts import IPAddress, OperationId
from provd.domain.secrets import Secret
from provd.proxmox import join, temporary_key
from provd.proxmox.cluster import ClusterStatus, ConfigNode, Member, open_member
from provd.remote.keys import KeyPair
from provd.remote.ssh import AuthRefused, Session, connect

log = logging.getLogger("provd.joining")

POLL_SECONDS = 1.0
RECONNECT_SECONDS = 2.0

Tell = Callable[[str], Awaitable[None]]


@frozen(kw_only=True)
class Door:
    """How to get into a host: its address, our key, and the host keys that it must show."""

    address: IPAddress
    port: int
    user: str
    key: KeyPair
    host_keys: tuple[str, ...]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """Knock until somebody answers; the caller's deadline ends it. A wrong key ends it at once."""
        async with AsyncExitStack() as stack:
            while True:
                knock = connect(str(self.address), self.port, self.user, self.key, self.host_keys)
                try:
                    session = await stack.enter_async_context(knock)
                    break
                except (AuthRefused, HostKeyMismatch):
                    raise
                except SshFailed as exc:
                    log.debug("no SSH yet: %s", exc)
                    await trio.sleep(RECONNECT_SECONDS)
            yield session


@frozen(kw_only=True)
class Cluster:
    """The member through which hosts join, as the configuration names it."""

    address: IPAddress
    port: int
    fingerprint: str


@define(kw_only=True, eq=False)
class Join:
    operation_id: OperationId
    hostname: str
    door: Door
    cluster: Cluster
    password: Secret
    tell: Tell
    """Called with one sentence whenever something worth an activity line happened."""
    seen_last: str = ""
    """The sentence that was told last."""

    async def run(self) -> None:
        """Return when the host is a member and our key is proven gone. Raises `OutsideFailed`.

        Safe to cancel and to run again. The caller sets the deadline.
        """
        while True:
            try:
                async with self.door.open() as session:
                    await self._become_member(session)
                    await self._believe()
                    await self._remove_key(session)
                await self._prove_locked_out()
                return
            except AuthRefused:
                # The key opened this door before. It is taken away only after the join was believed;
                # the cluster has to confirm that this is why.
                await self._believe()
                return
            except HostKeyMismatch:
                raise
            except SshFailed as exc:
                await self._say(f"lost the connection, trying again: {exc}")
                await trio.sleep(RECONNECT_SECONDS)

    async def _become_member(self, session: Session) -> None:
        progress = await self._progress(session)
        if not progress.started:
            if (await self._membership(session)).clustered:
                await self._say(f"{self.hostname} is a member of a cluster already, no need to join")
                return
            await self._ask_for_leave()
            await self._start(session)
        said = ""
        while True:
            progress = await self._progress(session)
            match join.judge(progress, self.hostname):
                case join.Joined():
                    return
                case join.JoinRefused(reason=reason):
                    raise JoinFailed(reason)
                case join.StillJoining(step=step):
                    if step and step != said:
                        await self._say(f"pvecm: {step}")
                        said = step
            await trio.sleep(POLL_SECONDS)

    async def _ask_for_leave(self) -> None:
        """Raise `ClusterFailed` while nothing has been touched yet."""
        async with self._member() as member:
            reason = _obstacle(await member.status(), await member.config_nodes(), self.hostname)
        if reason is not None:
            raise ClusterFailed(reason)

    async def _start(self, session: Session) -> None:
        command = join.start_command(
            operation_id=self.operation_id,
            node=str(self.cluster.address),
            fingerprint=self.cluster.fingerprint,
            link0=str(self.door.address),
        )
        started = await session.run(command, stdin=f"{self.password.reveal()}\n".encode())
        if started.exit_status != 0:
            raise JoinFailed(f"the join could not be started on {self.hostname}: {started.stderr.strip()}")
        await self._say(f"asked {self.cluster.address} to take {self.hostname} into the cluster")

    async def _progress(self, session: Session) -> join.Progress:
        seen = await session.run(join.progress_command(operation_id=self.operation_id))
        return join.parse_progress(seen.stdout)

    async def _membership(self, session: Session) -> join.Membership:
        seen = await session.run(join.membership_command())
        return join.parse_membership(seen.stdout + seen.stderr)

    async def _believe(self) -> None:
        """Ask the old member until it sees the new one online in a cluster with quorum."""
        doubt = ""
        while True:
            try:
                async with self._member() as member:
                    doubt_now = _doubt(await member.status(), self.hostname)
                if doubt_now is None:
                    return
            except ClusterFailed as exc:
                doubt_now = str(exc)
            if doubt_now != doubt:
                await self._say(f"not believed yet: {doubt_now}")
                doubt = doubt_now
            await trio.sleep(POLL_SECONDS)

    def _member(self) -> AbstractAsyncContextManager[Member]:
        return open_member(
            str(self.cluster.address), self.cluster.port, self.cluster.fingerprint, self.password
        )

    async def _remove_key(self, session: Session) -> None:
        body = self.door.key.body
        await session.run(temporary_key.remove_key_command(body))
        left = (await session.run(temporary_key.find_key_command(body))).stdout.strip()
        if left:
            raise JoinFailed(
                f"{self.hostname} joined, but provd's temporary key is still in {', '.join(left.split())}: "
                f"remove the line that contains {body[:24]}… there"
            )
        await session.run(join.cleanup_command(operation_id=self.operation_id))

    async def _prove_locked_out(self) -> None:
        try:
            async with self.door.open():
                pass
        except AuthRefused:
            await self._say("the temporary key is gone: the host refuses it")
            return
        raise JoinFailed(f"{self.hostname} joined, but still lets provd's temporary key in")

    async def stop(self) -> None:
        """End a `pvecm add` that still runs on the host. Raises `SshFailed`; the caller sets the deadline."""
        async with self.door.open() as session:
            await session.run(join.stop_command(operation_id=self.operation_id))

    async def left_behind(self) -> str:
        """What the cluster has of a join that came to nothing, and how to clean it up; empty: nothing."""
        try:
            async with self._member() as member:
                return _remains(await member.status(), self.hostname)
        except ClusterFailed as exc:
            return f"whether the cluster lists {self.hostname} now could not be seen ({exc})"

    async def _say(self, sentence: str) -> None:
        self.seen_last = sentence
        await self.tell(sentence)


# --- what the cluster's words mean for a join ---


def _obstacle(status: ClusterStatus, configured: Sequence[ConfigNode], hostname: str) -> str | None:
    """Why `hostname` must not join now; None when it may."""
    if status.name is None:
        return "the machine at proxmox.existing_node is in no cluster: run `pvecm create` there first"
    if any(node.name == hostname for node in status.nodes):
        return (
            f"the cluster lists a node {hostname} already: when that is this host's former life, "
            f"{_striking_out(status, hostname)}; then rebuild again"
        )
    if not status.quorate:
        away = ", ".join(node.name for node in status.nodes if not node.online) or "none"
        return f"the cluster has no quorum and takes nobody in (offline: {away}); bring it back first"
    # A newcomer's vote is expected from the moment it is listed, and there only when it has started.
    there = {node.name for node in status.nodes if node.online}
    expected = sum(node.quorum_votes for node in configured)
    online = sum(node.quorum_votes for node in configured if node.name in there)
    if len(configured) > 1 and online < (expected + 1) // 2 + 1:
        return (
            f"only {online} of the cluster's {expected} votes are there, and it would lose its quorum while "
            f"{hostname} joins; bring more of its members back first"
        )
    return None


def _doubt(status: ClusterStatus, hostname: str) -> str | None:
    """Why `status` does not prove that `hostname` is a member in good standing; None when it does."""
    node = next((node for node in status.nodes if node.name == hostname), None)
    if node is None:
        return f"the cluster does not list {hostname}"
    if not node.online:
        return f"the cluster lists {hostname} as offline"
    if not status.quorate:
        return "the cluster has no quorum"
    return None


def _remains(status: ClusterStatus, hostname: str) -> str:
    """What a failed join of `hostname` left in the cluster; empty when that is nothing, or a good member."""
    if _doubt(status, hostname) is None or all(node.name != hostname for node in status.nodes):
        return ""
    lost = "" if status.quorate else " and has no quorum"
    return (
        f"the cluster lists {hostname} now{lost}: before the next rebuild, {_striking_out(status, hostname)}"
    )


def _striking_out(status: ClusterStatus, hostname: str) -> str:
    delete = f"`pvecm delnode {hostname}`"
    others = [node for node in status.nodes if node.name != hostname]
    if status.quorate:
        return f"run {delete} on another member"
    if all(node.online for node in others):
        return f"run `pvecm expected {len(others)}` and then {delete} on another member"
    # To lower the expected votes while members are missing would split the cluster.
    return f"bring its other members back and run {delete} on one of them"
