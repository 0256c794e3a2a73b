"""What provd changes in a cluster, always through a member that is not the one it is about.

Striking a node out goes through the API with root's password, or over SSH with provd's own key. All else
(maintenance, expected votes, tidying) Proxmox VE 9 knows as programs only, and takes the key.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import trio
from attrs import evolve, frozen

from provd.config import SshSection
from provd.domain.cluster import Cluster
from provd.domain.documents import one_line
from provd.domain.errors import ClusterFailed, HostKeyMismatch, SshFailed
from provd.domain.hosts import IPAddress
from provd.domain.secrets import Secret
from provd.orchestrator.membership.link import ClusterLink
from provd.orchestrator.membership.member_keys import MemberKeys
from provd.proxmox import leave
from provd.proxmox.cluster import show_certificate
from provd.proxmox.ha_rules import forget_node
from provd.proxmox.survey import read_ha_rules, read_ha_services, see_cluster
from provd.remote.keys import KeyPair
from provd.remote.ssh import Completed, Session, connect
from provd.store.members import RememberedMember

KNOCK_SECONDS = 10.0
"""How long one member may take to let us in before the next one is tried."""


@frozen(kw_only=True)
class Tidied:
    copy: str = ""
    """Where on `member` what was removed is kept; empty: there was nothing."""
    member: str = ""
    guests: tuple[str, ...] = ()
    """Whose configuration was left where it is."""


class ClusterAdmin:
    def __init__(self, link: ClusterLink, keys: MemberKeys, ssh: SshSection, key: KeyPair | None) -> None:
        self._link = link
        self._keys = keys
        self._ssh = ssh
        self.key = key

    async def look(self, password: Secret | None, *, beside: str) -> Cluster:
        """The cluster as a member other than `beside` sees it. Raises `ClusterFailed`."""
        async with self._link.open(password, avoid={beside}) as member:
            cluster = await see_cluster(member)
        if cluster is None:
            raise ClusterFailed(
                "the machine at proxmox.existing_node is in no cluster: run `pvecm create` there first"
            )
        return cluster

    async def peer(self, password: Secret | None, *, beside: str) -> RememberedMember:
        """A member that takes part now, for a host to join through. Raises `ClusterFailed`."""
        async with self._link.open(password, avoid={beside}) as member:
            await member.status()
            name = member.node_name
        return self._remembered(name)

    async def admit(self, name: str, public_line: str) -> RememberedMember:
        """Let the root of `name` in on every member, as its join does; a member that knows it already."""
        async with self._shell(beside=name) as (member, session):
            done = await session.run(leave.admit_command(public_line))
            if done.exit_status != 0:
                raise _refused(member, "admitting the host's key", done)
        known = self._remembered(member)
        return evolve(known, ssh_host_keys=await self._keys.of(known))

    async def compare_certificate(self, name: str, address: IPAddress, password: Secret | None) -> None:
        """Raises `CertificateChanged` when `name` serves another one than the others know, `ClusterFailed`
        when that cannot be seen."""
        async with self._link.open(password, avoid={name}) as member:
            known = (await member.fingerprints()).get(name)
        if known is None:
            raise ClusterFailed(f"the cluster knows no certificate of {name} yet")
        await show_certificate(str(address), self._link.section.api_port, known)

    def _remembered(self, name: str) -> RememberedMember:
        known = {one.name.lower(): one for one in self._link.remembered()}
        if name.lower() not in known:
            raise ClusterFailed(f"{name or 'the member that was asked'} is not listed by its own cluster")
        return known[name.lower()]

    async def services_on(self, name: str, password: Secret | None) -> list[str]:
        """The HA services that are on a node now, e.g. `vm:100`."""
        async with self._link.open(password, avoid={name}) as member:
            services = await read_ha_services(member)
        return sorted(service.sid for service in services if service.node.lower() == name.lower())

    async def strike_out(self, name: str, password: Secret | None) -> None:
        """`pvecm delnode`. Look first: a node that is not listed any more is a refusal."""
        if password is not None:
            async with self._link.open(password, avoid={name}) as member:
                await member.delete_node(name)
            return
        await self._run(leave.delnode_command(name), beside=name)

    async def tidy_up(self, name: str, stamp: str) -> Tidied:
        """Remove what a struck-out node left behind in /etc/pve; a copy is kept."""
        async with self._shell(beside=name) as (member, session):
            done = await session.run(leave.tidy_command(name, stamp))
            if done.exit_status not in (0, leave.GUESTS_THERE):
                raise _refused(member, "tidying up", done)
        said = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
        return Tidied(copy=said.get("copy", ""), member=member, guests=tuple(said.get("guests", "").split()))

    async def forget_in_ha_rules(self, name: str, password: Secret | None) -> list[str]:
        """Take a node out of every HA rule or group; what each was, as sentences. Takes root's password."""
        async with self._link.open(password, avoid={name}) as member:
            rules = [rule for rule in await read_ha_rules(member) if name in rule.nodes]
            return [await forget_node(member, rule, name) for rule in rules]

    async def set_maintenance(self, name: str, *, on: bool) -> None:
        await self._run(leave.maintenance_command(name, on=on), beside=name)

    async def expect_votes(self, votes: int, *, beside: str) -> None:
        """Let the cluster be content with fewer votes. Only while nobody else can be running elsewhere."""
        await self._run(leave.expected_command(votes), beside=beside)

    @asynccontextmanager
    async def open_node(self, name: str) -> AsyncIterator[Session]:
        """A session as root on the member of that name itself. Raises `SshFailed`."""
        member = next((one for one in self._link.remembered() if one.name.lower() == name.lower()), None)
        if self.key is None or member is None:
            raise SshFailed(f"provd has no key to {name}, or does not know where it is")
        async with self._connect(member, self.key) as session:
            yield session

    async def _run(self, command: str, *, beside: str) -> Completed:
        async with self._shell(beside=beside) as (member, session):
            done = await session.run(command)
        if done.exit_status != 0:
            raise _refused(member, "the command", done)
        return done

    @asynccontextmanager
    async def _shell(self, *, beside: str) -> AsyncIterator[tuple[str, Session]]:
        """A session as root on some member that lets us in, and its name. Raises `ClusterFailed`."""
        if self.key is None:
            raise ClusterFailed("provd has no SSH key to the cluster: set credentials.cluster_ssh_key_file")
        async with AsyncExitStack() as stack:
            entered = await self._enter(stack, self.key, beside)
            try:
                yield entered
            except SshFailed as exc:  # a member that goes away meanwhile is a cluster that failed
                raise ClusterFailed(str(exc)) from exc

    async def _enter(self, stack: AsyncExitStack, key: KeyPair, beside: str) -> tuple[str, Session]:
        failures: list[str] = []
        taking_part = await self._one_that_takes_part(beside)
        for member in sorted(self._link.remembered(), key=lambda one: one.name != taking_part):
            if member.name.lower() == beside.lower():
                continue
            try:
                with trio.fail_after(KNOCK_SECONDS):
                    return member.name, await stack.enter_async_context(self._connect(member, key))
            except SshFailed as exc:
                failures.append(str(exc))
            except trio.TooSlowError:
                failures.append(f"SSH to {member.name} at {member.address}: no answer")
        raise ClusterFailed("; ".join(failures) or "no other member of the cluster is known")

    @asynccontextmanager
    async def _connect(self, member: RememberedMember, key: KeyPair) -> AsyncIterator[Session]:
        """Raises `SshFailed`."""
        host_keys = await self._keys.of(member)
        async with AsyncExitStack() as stack:
            way = connect(member.address, self._ssh.port, self._ssh.user, key, host_keys)
            try:
                session = await stack.enter_async_context(way)
            except HostKeyMismatch as exc:
                if host_keys != member.ssh_host_keys:
                    raise
                raise HostKeyMismatch(
                    f"{exc}; if {member.name} has been installed anew, `provd cluster forget {member.name}` "
                    "unpins its former key"
                ) from exc
            yield session

    async def _one_that_takes_part(self, beside: str) -> str:
        """Its name: one that lets us in may be cut off, with an /etc/pve that nobody else sees."""
        with suppress(ClusterFailed):
            async with self._link.open(avoid={beside}) as member:
                return member.node_name
        return ""


def _refused(member: str, what: str, done: Completed) -> ClusterFailed:
    said = one_line(done.stderr.strip() or done.stdout.strip() or "no word")
    return ClusterFailed(f"{what} failed on {member}: {said} (exit status {done.exit_status})")
