"""What the cluster's words mean for a host that joins it. Values in, sentences out."""

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from attrs import frozen

from provd.domain.cluster import Cluster, Node
from provd.domain.errors import ClusterFailed
from provd.domain.hosts import IPAddress


@frozen(kw_only=True)
class Newcomer:
    """What the cluster must say of a host that has joined."""

    hostname: str
    address: IPAddress
    """Of its first corosync link."""
    version: int | None
    """Of corosync.conf, at least; None: not known any more."""


def obstacle(
    cluster: Cluster, hostname: str, away: Collection[str], *, votes: int, keep_entry: bool
) -> str | None:
    """Why `hostname` has to wait with its join, for members that may be `away`; None: it need not.

    Raises `ClusterFailed` for what waiting does not mend.
    """
    entry = cluster.node(hostname)
    if entry is not None and entry.online:
        raise ClusterFailed(
            f"the cluster has a node {hostname} already, which is online: two machines cannot have one name; "
            "switch the other one off or register this host under another name"
        )
    if entry is not None and keep_entry:
        return None  # its vote is expected already
    if not cluster.quorate:
        if entry is not None:
            return None  # it is struck out first, and that says what is in its way
        raise ClusterFailed(
            f"the cluster has no quorum and takes nobody in (offline: {offline(cluster)}); bring it back"
            " first"
        )
    rest = cluster.struck(hostname)
    # A newcomer's vote is expected from the moment it is listed, and there only when it has started.
    if len(rest.nodes) < 2 or rest.survives_newcomer(votes, away):
        return None
    if rest.survives_newcomer(votes):
        return f"the cluster would lose its quorum while {', '.join(sorted(away))} may be away"
    raise ClusterFailed(
        f"only {rest.votes_without()} of the cluster's {rest.expected_votes} votes are there, and it would"
        f" lose its quorum while {hostname} joins; bring more of its members back first"
    )


def doubt(cluster: Cluster, newcomer: Newcomer) -> str | None:
    """Why `cluster` does not prove that the newcomer is a member in good standing; None when it does."""
    name = newcomer.hostname
    node = cluster.node(name)
    if node is None:
        return f"the cluster does not list {name}"
    if not node.online:
        return f"the cluster lists {name} as offline"
    if not cluster.quorate:
        return "the cluster has no quorum"
    if newcomer.version is not None and cluster.version < newcomer.version:
        return f"the cluster's configuration has version {cluster.version}, expected was {newcomer.version}"
    address = node.links.get(min(node.links, default=0))
    if address is not None and not is_address(address, newcomer.address):
        return f"the cluster lists {name} under {address}, expected was {newcomer.address}"
    return None


def is_address(text: str, address: IPv4Address | IPv6Address) -> bool:
    """True also for a name, which only the members can resolve."""
    try:
        return ip_address(text) == address
    except ValueError:
        return True


def fit_links(cluster: Cluster, hostname: str, addresses: Sequence[IPAddress]) -> dict[int, IPAddress]:
    """An address for each link of the cluster. Raises `ClusterFailed` where there are too few."""
    numbers = sorted({number for node in cluster.struck(hostname).nodes for number in node.links}) or [0]
    if len(numbers) > len(addresses):
        missing = ", ".join(str(number) for number in numbers[len(addresses) :])
        raise ClusterFailed(
            f"the cluster has {len(numbers)} corosync links, and {hostname} has no address for link {missing}"
            ': give it them in its options, "links"'
        )
    return dict(zip(numbers, addresses, strict=False))


def remains(cluster: Cluster, hostname: str) -> str:
    """What a failed join of `hostname` left in the cluster, and how to clean it up; empty: nothing."""
    entry = cluster.node(hostname)
    if entry is None or (entry.online and cluster.quorate):
        return ""
    lost = "" if cluster.quorate else " and has no quorum"
    return f"the cluster lists {hostname} now{lost}: {striking_out(cluster, entry)}"


def striking_out(cluster: Cluster, entry: Node) -> str:
    delete = f"`pvecm delnode {entry.name}`"
    rest = cluster.struck(entry.name)
    if cluster.quorate:
        return f"run {delete} on another member"
    if all(node.online for node in rest.nodes):
        return f"run `pvecm expected {rest.votes_without()}` and then {delete} on another member"
    # To lower the expected votes while members are missing would split the cluster.
    return f"bring its other members back and run {delete} on one of them"


def offline(cluster: Cluster) -> str:
    return ", ".join(node.name for node in cluster.nodes if not node.online) or "none"
