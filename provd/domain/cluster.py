"""A Proxmox VE cluster as its members describe it, and the arithmetic of its votes.

Without a majority of all votes, running or not, a cluster's /etc/pve is read-only: no guest starts, nobody
joins or leaves, and nodes with HA services restart themselves after a minute. All the rules about that are
here, as sums over values; whoever asks a member, or a human, is not known here (pvecm(1), votequorum(5)).
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType

from attrs import evolve, field, frozen

from provd.domain.hosts import IPAddress


@frozen(kw_only=True)
class Node:
    """A member as the cluster lists it, whether it runs or not."""

    name: str
    nodeid: int
    votes: int = 1
    online: bool
    address: IPAddress | None = None
    """Where its API is reached. None: only a name is known, and it was not seen yet."""
    links: Mapping[int, str] = MappingProxyType({})
    """Corosync's: link number to address, or to a name that every member resolves."""


@frozen(kw_only=True)
class Cluster:
    name: str
    version: int
    """Of corosync.conf; grows by one with every change of members."""
    quorate: bool
    """As the asked member sees it."""
    nodes: tuple[Node, ...]
    qdevice_votes: int = 0
    qdevice_online: bool = True
    """Whether its votes are there; they are expected in any case."""

    def node(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.name.lower() == name.lower()), None)

    @property
    def expected_votes(self) -> int:
        return sum(node.votes for node in self.nodes) + self.qdevice_votes

    @property
    def quorum(self) -> int:
        """How many votes are a majority."""
        return self.expected_votes // 2 + 1

    def votes_without(self, away: Collection[str] = ()) -> int:
        """The votes that are there when the nodes in `away` are not."""
        gone = {name.lower() for name in away}
        there = (node.votes for node in self.nodes if node.online and node.name.lower() not in gone)
        return sum(there) + (self.qdevice_votes if self.qdevice_online else 0)

    def spare_votes(self, away: Collection[str] = ()) -> int:
        """How many more votes may go before quorum is lost; negative: it is lost."""
        return self.votes_without(away) - self.quorum

    def struck(self, name: str) -> "Cluster":
        """The cluster when `name` has been struck out of it."""
        return evolve(self, nodes=tuple(node for node in self.nodes if node.name.lower() != name.lower()))

    def survives_newcomer(self, votes: int = 1, away: Collection[str] = ()) -> bool:
        """Whether the others stay quorate while a newcomer's votes are expected and not there yet.

        False for a cluster of one: its only member waits for the newcomer, whatever is done.
        """
        return self.votes_without(away) >= (self.expected_votes + votes) // 2 + 1


@frozen(kw_only=True)
class Guest:
    vmid: int
    kind: str
    """`qemu` or `lxc`."""
    node: str
    name: str
    status: str
    """`running`, `stopped`, … ; `unknown` on a node that is offline."""
    template: bool = False


@frozen(kw_only=True)
class HaService:
    sid: str
    """`vm:100`, `ct:101`."""
    node: str
    state: str


@frozen(kw_only=True)
class ReplicationJob:
    id: str
    """`100-0`."""
    guest: int
    source: str
    target: str


@frozen(kw_only=True)
class HaRule:
    """What names nodes for HA services: a rule (PVE 9) or a group (PVE 8)."""

    id: str
    kind: str
    """`rule` or `group`."""
    nodes: tuple[str, ...]
    written: str = field(default="", eq=False)
    """`nodes` as the cluster has them: with priorities, `pve1:2,pve2`."""

    def written_without(self, node: str) -> str:
        entries = (entry.strip() for entry in self.written.split(","))
        return ",".join(
            entry for entry in entries if entry and entry.partition(":")[0].lower() != node.lower()
        )


@frozen(kw_only=True)
class Storage:
    id: str
    kind: str
    """`dir`, `zfspool`, `lvmthin`, `nfs`, …"""
    nodes: tuple[str, ...] = ()
    """Where it is pinned to; empty: everywhere."""
    shared: bool = False


@frozen(kw_only=True)
class Certificate:
    """What a node's API serves."""

    node: str
    fingerprint: str
    not_after: datetime | None = None
    """None where nobody said until when it is valid."""


@frozen(kw_only=True)
class Survey:
    """Everything that was read about a cluster at one moment, through one member.

    None in a field: it could not be seen, and `unseen` says why, by the field's name. That is never the
    same as an empty tuple: a token without VM.Audit is shown an empty list of guests (pve-manager 9).
    """

    at: datetime
    asked: str
    """`name (address)` of the member that answered."""
    release: str
    """Of the asked member, e.g. `9.1.4`."""
    cluster: Cluster | None
    """None: the asked machine stands alone."""
    guests: tuple[Guest, ...] | None
    ha_services: tuple[HaService, ...] | None
    ha_maintenance: frozenset[str] | None
    """Nodes that are in, or on their way into, maintenance mode."""
    ha_rules: tuple[HaRule, ...] | None
    replication: tuple[ReplicationJob, ...] | None
    storages: tuple[Storage, ...] | None
    ceph_nodes: frozenset[str] | None
    """Nodes with a Ceph daemon; empty: no Ceph."""
    certificates: tuple[Certificate, ...]
    releases: Mapping[str, str] = MappingProxyType({})
    """Of each node that said it."""
    unseen: Mapping[str, str] = MappingProxyType({})
