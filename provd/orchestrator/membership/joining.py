"""How a host joins the cluster, over SSH, and how that is believed.

Every step looks before it acts, so that all of it may be done again after a lost connection or a
restart of the daemon: a `pvecm add` that runs is watched and not started twice, a host that is a
member is not joined again, a key that is gone is proof enough that the end had been reached.

`pvecm add` runs detached on the host, because a lost channel would stop it half-way; its exit code
is 0 even when it failed (pve-cluster 8.0 to 9.1), so its last line is read, and then the cluster is
asked from both sides: the newcomer must be online in a cluster with quorum, under its address, and serve
the certificate that the others know.
"""

from collections.abc import Awaitable, Callable

import trio
from attrs import define, field, frozen

from provd.domain.errors import ClusterFailed, HostKeyMismatch, JoinFailed, SshFailed
from provd.domain.hosts import IPAddress, OperationId
from provd.domain.secrets import Secret
from provd.orchestrator.door import RECONNECT_SECONDS, Door
from provd.orchestrator.membership import farewell
from provd.orchestrator.membership.admin import ClusterAdmin
from provd.orchestrator.membership.join_rules import Newcomer, doubt, fit_links, obstacle, remains
from provd.proxmox import join, temporary_key
from provd.proxmox.cluster import CertificateChanged
from provd.remote.ssh import AuthRefused, Session

POLL_SECONDS = 1.0

CERTIFICATE_SECONDS = 10.0
"""How long the new member's API may stay away before its certificate is left uncompared: it restarts for one
to three seconds, and a firewall that came with the join may not let provd in at all."""

Tell = Callable[[str], Awaitable[None]]


@frozen(kw_only=True)
class Terms:
    """As what a host wants to join."""

    links: tuple[IPAddress, ...]
    """Its addresses for the cluster's corosync links, in their order; the first is how provd reaches it."""
    nodeid: int | None = None
    """Which number it would like; None: any."""
    votes: int = 1
    keep_entry: bool = False
    """Under its old entry, which was not struck out."""


@define(kw_only=True, eq=False)
class Join:
    operation_id: OperationId
    hostname: str
    door: Door
    admin: ClusterAdmin
    password: Secret | None
    """None: provd's own key takes the place of root's password."""
    terms: Terms
    clear_the_place: Callable[[], Awaitable[None]]
    """Strikes out an entry that the cluster has of the host's former life."""
    tell: Tell
    """Called with one sentence whenever something worth an activity line happened."""
    seen_last: str = ""
    """The sentence that was told last."""
    _expected_version: int | None = field(default=None, init=False)
    """Of corosync.conf; None after a restart of the daemon, when it is not known any more."""

    async def run(self) -> None:
        """Return when the host is a member and our key is proven gone. Raises `OutsideFailed`.

        Safe to cancel and to run again. The caller sets the deadline.
        """
        while True:
            try:
                async with self.door.open() as session:
                    await self._become_member(session)
                    await self._believe()
                    await session.run(join.forget_former_key_command(self.hostname))
                    await farewell.remove_key(session, self.door, self.hostname)
                    await session.run(join.cleanup_command(operation_id=self.operation_id))
                await farewell.prove_locked_out(self.door, self.hostname, self._say)
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

    async def _start(self, session: Session) -> None:
        cluster = await self.admin.look(self.password, beside=self.hostname)
        entry = cluster.node(self.hostname)
        if entry is not None and self.terms.keep_entry:
            await self._refuse_unclean(session)
        elif entry is not None:
            await self.clear_the_place()
            cluster = await self.admin.look(self.password, beside=self.hostname)
        # Members may have gone since its turn began, long ago if the daemon was away meanwhile.
        keep_entry, votes = self.terms.keep_entry, self.terms.votes
        if reason := obstacle(cluster, self.hostname, (), votes=votes, keep_entry=keep_entry):
            raise JoinFailed(reason)
        taken = {node.nodeid for node in cluster.nodes}
        nodeid = self.terms.nodeid if self.terms.nodeid not in taken else None
        links = fit_links(cluster, self.hostname, self.terms.links)
        if self.password is None:
            peer = await self.admin.admit(self.hostname, await self._own_key(session))
            await session.run(join.know_host_command(str(peer.address), peer.ssh_host_keys))
        else:
            peer = await self.admin.peer(self.password, beside=self.hostname)
        command = join.start_command(
            operation_id=self.operation_id,
            node=peer.address,
            fingerprint=peer.fingerprint,
            links={number: str(address) for number, address in links.items()},
            nodeid=nodeid,
            votes=self.terms.votes if self.terms.votes != 1 else None,
            force=self.terms.keep_entry and entry is not None,
            use_ssh=self.password is None,
        )
        secret = self.password.reveal() if self.password is not None else ""
        started = await session.run(command, stdin=f"{secret}\n".encode())
        if started.exit_status != 0:
            raise JoinFailed(f"the join could not be started on {self.hostname}: {started.stderr.strip()}")
        self._expected_version = cluster.version + 1
        await self._say(f"asked {peer.name} ({peer.address}) to take {self.hostname} into the cluster")

    async def _refuse_unclean(self, session: Session) -> None:
        """`--force` turns pvecm's own checks into warnings: what they would refuse is refused here."""
        found = (await session.run(temporary_key.readiness_command(self.door.key.body))).stdout
        if found.strip():
            raise JoinFailed(
                f"{self.hostname} cannot join under its old entry: {'; '.join(found.splitlines())}"
            )

    async def _own_key(self, session: Session) -> str:
        """The public line of the key that pvecm uses for --use_ssh, made where there is none yet."""
        made = await session.run(join.root_key_command())
        if made.exit_status != 0 or not made.stdout.startswith("ssh-rsa "):
            raise JoinFailed(f"{self.hostname} has no RSA key for root: {made.stderr.strip()}")
        return made.stdout.strip()

    async def _progress(self, session: Session) -> join.Progress:
        seen = await session.run(join.progress_command(operation_id=self.operation_id))
        return join.parse_progress(seen.stdout)

    async def _membership(self, session: Session) -> join.Membership:
        seen = await session.run(join.membership_command())
        return join.parse_membership(seen.stdout + seen.stderr)

    async def _believe(self) -> None:
        """Ask an old member until it sees the new one in good standing, and compare the certificates."""
        newcomer = Newcomer(
            hostname=self.hostname, address=self.terms.links[0], version=self._expected_version
        )
        told = ""
        while True:
            try:
                cluster = await self.admin.look(self.password, beside=self.hostname)
                doubt_now = doubt(cluster, newcomer)
                if doubt_now is None:
                    break
            except ClusterFailed as exc:
                doubt_now = str(exc)
            if doubt_now != told:
                await self._say(f"not believed yet: {doubt_now}")
                told = doubt_now
            await trio.sleep(POLL_SECONDS)
        await self._compare_certificates()

    async def _compare_certificates(self) -> None:
        """What the host serves must be what the others know of it; one that stays away is only told."""
        failure = ClusterFailed("nobody answered")
        with trio.move_on_after(CERTIFICATE_SECONDS):
            while True:
                try:
                    await self.admin.compare_certificate(self.hostname, self.door.address, self.password)
                    return
                except ClusterFailed as exc:
                    failure = exc
                await trio.sleep(POLL_SECONDS)
        if isinstance(failure, CertificateChanged):
            raise JoinFailed(f"{self.hostname} joined, but {failure}") from failure
        await self._say(f"a member in good standing; its certificate could not be compared: {failure}")

    async def stop(self) -> list[str]:
        """End a `pvecm add` that still runs on the host; what it left there, as at most one sentence.

        Raises `SshFailed`; the caller sets the deadline.
        """
        async with self.door.open() as session:
            await session.run(join.stop_command(operation_id=self.operation_id))
            left = (await session.run(join.leftovers_command())).stdout.split()
        return [f"on {self.hostname} itself {' and '.join(left)} are left of it"] if left else []

    async def left_behind(self) -> str:
        """What the cluster has of a join that came to nothing, and how to clean it up; empty: nothing."""
        try:
            return remains(await self.admin.look(self.password, beside=self.hostname), self.hostname)
        except ClusterFailed as exc:
            return f"whether the cluster lists {self.hostname} now could not be seen ({exc})"

    async def _say(self, sentence: str) -> None:
        self.seen_last = sentence
        await self.tell(sentence)
