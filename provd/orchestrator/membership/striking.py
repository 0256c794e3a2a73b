"""How a node is struck out of its cluster, whatever stands in the way at first.

Members come and go, the lock on the configuration is held by somebody else, a node is seen online for
some seconds after its end: what fails is tried again while there is time. Each round is one look and one act.
"""

import trio
from attrs import frozen

from provd.domain.activity import Level, News
from provd.domain.cluster import Cluster
from provd.domain.errors import ClusterFailed
from provd.domain.hosts import HostId
from provd.domain.operations import Operation
from provd.domain.secrets import Secret
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.membership.admin import ClusterAdmin
from provd.proxmox import leave
from provd.proxmox.cluster import LoginRefused
from provd.remote.ssh import Session

POLL_SECONDS = 1.0
OFFLINE_SECONDS = 180.0
"""How long the cluster may take to see a node offline and to strike it out: a token timeout takes seconds,
another change of the configuration up to two minutes (pve-cluster 9.1, cfs_lock)."""


@frozen(kw_only=True)
class Leaver:
    """A member on its way out: which, for whom, and who is told."""

    operation: Operation
    host_id: HostId
    node: str
    password: Secret | None


class ByHand(ClusterFailed):
    """Only a human can go on from here: to wait and try again does not help."""


async def tell(fleet: Fleet, who: Leaver, message: str, level: Level = Level.INFO) -> None:
    """One line of the operation's history."""
    await fleet.note(
        News(
            event="cluster.leave",
            message=message,
            level=level,
            host_id=who.host_id,
            operation_id=who.operation.id,
        )
    )


class Striking:
    def __init__(self, fleet: Fleet, admin: ClusterAdmin) -> None:
        self._fleet = fleet
        self._admin = admin

    async def strike_out(self, who: Leaver, old_system: Session | None) -> None:
        """Until no member lists it. What fails is tried again while there is time: members come and go."""
        told: set[str] = set()
        failure = ""
        with trio.move_on_after(OFFLINE_SECONDS):
            while True:
                try:
                    if await self._step(who, old_system):
                        return
                    reason = f"waits until the cluster sees {who.node} offline"
                except (LoginRefused, ByHand):
                    raise
                except ClusterFailed as exc:
                    reason = failure = str(exc)
                if reason not in told:
                    told.add(reason)
                    await self._tell(who, reason)
                await trio.sleep(POLL_SECONDS)
        raise ClusterFailed(
            f"{who.node} could not be struck out of the cluster within {OFFLINE_SECONDS:.0f} s: "
            + (failure or "the cluster still sees it online; switch it off, or stop its corosync")
        )

    async def _step(self, who: Leaver, old_system: Session | None) -> bool:
        """One look and one act; True when it is out and tidied up after."""
        cluster = await self._admin.look(who.password, beside=who.node)
        entry = cluster.node(who.node)
        if entry is None:
            await self._tidy_up(who)
            return True
        rest = cluster.struck(who.node)
        if entry.online:
            if old_system is None:
                return False
            if cluster.spare_votes({who.node}) >= 0:
                await old_system.run(leave.stop_corosync_command())
                return False
            # A cluster of two would lose its quorum before it could strike anybody out. Disarmed, the node
            # is struck out while it runs; that stops its corosync (corosync-cfgtool -k).
            if rest.spare_votes() < 0:
                missing = ", ".join(node.name for node in rest.nodes if not node.online)
                raise ClusterFailed(f"without {who.node} the others have no quorum: bring {missing} back")
        elif not cluster.quorate:
            await self._lower_expected(who, cluster, rest)
        await self._admin.strike_out(who.node, who.password)
        await self._tell(who, f"{who.node} was struck out of the cluster (pvecm delnode)")
        return False

    async def _lower_expected(self, who: Leaver, cluster: Cluster, rest: Cluster) -> None:
        """A cluster that lost its quorum with this node and no other may be told to do without its vote."""
        missing = [node.name for node in rest.nodes if not node.online]
        if missing:
            raise ClusterFailed(
                f"the cluster has no quorum to strike {who.node} out with: bring {', '.join(missing)} back"
            )
        votes = rest.votes_without()
        if self._admin.key is None:
            raise ByHand(
                f"the cluster has no quorum without {who.node}: run `pvecm expected {votes}` and then `pvecm "
                f"delnode {who.node}` on another member, or set credentials.cluster_ssh_key_file"
            )
        await self._admin.expect_votes(votes, beside=who.node)
        await self._tell(who, f"the others are content with their own {votes} votes (pvecm expected {votes})")

    async def _tidy_up(self, who: Leaver) -> None:
        if self._admin.key is None:
            return
        tidied = await self._admin.tidy_up(who.node, str(who.operation.id))
        if tidied.copy:
            await self._tell(
                who,
                f"what {who.node} left in /etc/pve was removed; a copy is on {tidied.member}: {tidied.copy}",
            )
        if tidied.guests:
            await self._tell(
                who,
                f"/etc/pve/nodes/{who.node} stays, for it has guests: {', '.join(tidied.guests)}",
                Level.WARNING,
            )

    async def _tell(self, who: Leaver, message: str, level: Level = Level.INFO) -> None:
        await tell(self._fleet, who, message, level)
