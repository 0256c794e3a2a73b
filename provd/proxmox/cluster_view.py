"""A cluster as one of its members describes it: what the configuration says, and what is seen."""

from provd.domain.cluster import Cluster, Node
from provd.proxmox.cluster import ClusterStatus, ConfigNode, Member


async def see_cluster(member: Member) -> Cluster | None:
    """None: the machine is in no cluster. Raises `ClusterFailed`."""
    qdevice = await member.get("/cluster/config/qdevice")
    return cluster_of(await member.status(), await member.config_nodes(), qdevice_votes=int(bool(qdevice)))


def cluster_of(
    status: ClusterStatus, configured: tuple[ConfigNode, ...], *, qdevice_votes: int = 0
) -> Cluster | None:
    """Configured and seen, put together by name. A node in one of the two only is a member all the same."""
    if status.name is None:
        return None
    votes = {node.name: node for node in configured}
    seen = {node.name: node for node in status.nodes}
    return Cluster(
        name=status.name,
        version=status.version,
        quorate=status.quorate,
        qdevice_votes=qdevice_votes,
        nodes=tuple(
            Node(
                name=name,
                nodeid=(seen.get(name) or votes[name]).nodeid,
                votes=votes[name].quorum_votes if name in votes else 1,
                online=name in seen and seen[name].online,
                address=seen[name].ip if name in seen else None,
                links=votes[name].links if name in votes else {},
            )
            for name in sorted({*votes, *seen})
        ),
    )
