"""Whether a cluster can do without one of its members. Values in, sentences out."""

from provd.domain.cluster import Cluster


def why_not_without(
    cluster: Cluster, node: str, away: frozenset[str], *, can_lower_expected: bool
) -> str | None:
    """Why the cluster cannot do without `node` now, while `away` may be away too; None: it can."""
    others = cluster.struck(node).nodes
    missing = [other.name for other in others if not other.online]
    if not others:
        return f"{node} is the only member of its cluster: give it another one first"
    if not cluster.quorate:
        return f"the cluster has no quorum: bring {', '.join(missing) or 'its members'} back"
    if cluster.spare_votes({node, *away}) >= 0:
        return None
    # Nobody else is missing: the others are told to do without this vote in the moment it goes.
    unneeded = not missing and not away and cluster.struck(node).spare_votes() >= 0
    if can_lower_expected and unneeded:
        return None
    ways_out = []
    if missing:
        ways_out.append(f"bring {', '.join(missing)} back")
    if gone := sorted(away - {node}):
        ways_out.append(f"{', '.join(gone)} must be struck out or back first")
    if cluster.qdevice_votes and not cluster.qdevice_online:
        ways_out.append("bring the QDevice back")
    if unneeded:
        ways_out.append(
            "set credentials.cluster_ssh_key_file, for the others to be told to do without its vote"
        )
    return (
        f"without {node} the cluster would have {cluster.votes_without({node, *away})} of "
        f"{cluster.expected_votes} votes and no quorum: {'; '.join(ways_out) or 'give the others more votes'}"
    )
