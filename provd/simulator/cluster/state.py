"""What a simulated cluster is: its members, votes, secrets, and the faults that a test switched on.

Values and arithmetic only; no file, no clock. Field names follow what Proxmox VE 9 calls things.
"""

from typing import Any

from attrs import Factory, asdict, define, frozen


@frozen(kw_only=True)
class Profile:
    """How one generation of Proxmox VE differs from another, as far as a client can see."""

    version: str
    release: str
    repoid: str
    # libpve-http-server-perl 5.2.0: error bodies carry the text, not only the reason phrase.
    message_in_body: bool = True
    # libpve-http-server-perl of January 2026: one text for every failed ticket or token.
    uniform_401: bool = True
    # pve-cluster 8.0.6: host keys are pinned per node, no longer merged.
    merges_known_hosts: bool = False
    # pve-cluster 8.1.3 and 9.1.1: a failed backup of the old database is only a warning.
    backup_may_fail: bool = True
    # pve-ha-manager of PVE 9.2 has one more line in its status.
    shows_fencing: bool = False
    # PVE 9 has rules where releases before it had groups.
    has_ha_rules: bool = True


PROFILES = {
    "pve92": Profile(version="9.2.2", release="9.2", repoid="b9984c6d90a9f8b0", shows_fencing=True),
    "pve91": Profile(version="9.1.4", release="9.1", repoid="5ac30304265fbd8e"),
    "pve84": Profile(version="8.4.14", release="8.4", repoid="b502d23c55afcba1", has_ha_rules=False),
    "old401": Profile(version="9.1.1", release="9.1", repoid="42db4a6cf33dac83", uniform_401=False),
    "pve81": Profile(
        version="8.1.4",
        release="8.1",
        repoid="ec5affc9e41f1d79",
        message_in_body=False,
        uniform_401=False,
        merges_known_hosts=True,
        backup_may_fail=False,
        has_ha_rules=False,
    ),
}


@define(kw_only=True)
class Faults:
    """Everything that can be made to go wrong, at any moment; the defaults are a healthy cluster."""

    udp_blocked: bool = False  # a newcomer's corosync never meets the others
    drop_after_step: int | None = None  # pvecm is killed (SIGKILL) when this step of the join is done
    bad_backup: bool = False  # the old database cannot be dumped
    slow: float = 0.0  # seconds added to every step of the join
    peer_down: list[str] = Factory(list)  # members whose API refuses connections
    peer_other_cert: list[str] = Factory(list)  # members that serve another leaf (pveproxy-ssl.pem, ACME)
    lock_busy: bool = False  # the cluster-wide lock on corosync.conf is never free
    peer_no_quorum: bool = False
    firewall_on_after_join: bool = False  # a newcomer drops new connections of unlisted addresses
    config_bump_between: bool = False  # once: config_version changes between addnode and corosync's start
    quorate_at_first_look: bool = False  # a newcomer does not even print "waiting for quorum..."
    addnode_warnings: list[str] = Factory(list)
    addnode_errors: dict[str, str] = Factory(dict)  # "invalid corosync.conf", with these details


@define(kw_only=True)
class Timings:
    """Seconds. Shorter than in the original, whose values are in the comments."""

    auth_delay: float = 0.05  # 3
    quorum_poll: float = 0.05  # 1
    lock_wait: float = 0.3  # 10
    quorum_wait: float = 0.3  # 80, of `pvecm updatecerts`
    api_restart: float = 0.2  # 1 to 3, connections refused after a join
    ha_move: float = 0.2  # some seconds to minutes, until HA services have left a node in maintenance
    cert_cache: float = 60.0  # 60, other members refuse to proxy to a changed certificate
    ticket_lifetime: float = 7200.0  # 7200


@define(kw_only=True)
class ClusterNode:
    """One entry of corosync.conf, and what the other members see of that machine."""

    nodeid: int
    links: dict[str, str]  # link number, as JSON wants it a string, to address
    votes: int = 1
    online: bool = False
    seen: bool = False  # pmxcfs knows its address
    root: str | None = None  # the machine's directory, once it is really a member
    root_password: str = ""
    cert_changed_at: float = 0.0  # Unix time
    restarted_at: float = 0.0  # Unix time
    firewalled: bool = False
    profile: str | None = None  # another release than the cluster's

    @property
    def ring0_addr(self) -> str:
        return self.links["0"]


@define(kw_only=True)
class Token:
    """`privs` maps an ACL path to privileges, which reach everything below it."""

    secret: str
    privs: dict[str, list[str]] = Factory(dict)
    expire: float = 0.0  # Unix time; 0 is never


@define(kw_only=True)
class Guest:
    vmid: int
    node: str
    type: str = "qemu"  # or "lxc"
    name: str = ""
    status: str = "running"
    template: bool = False


@define(kw_only=True)
class HaResource:
    sid: str  # "vm:100"
    node: str
    state: str = "started"
    maintenance_node: str | None = None  # where it goes back to when that node's maintenance is over


@define(kw_only=True)
class HaRule:
    """A rule of PVE 9; releases before it show those of type node-affinity as groups."""

    rule: str
    nodes: list[str] = Factory(list)  # "pve1", or "pve1:2" with a priority
    resources: list[str] = Factory(list)
    type: str = "node-affinity"  # or "resource-affinity", which names no nodes
    strict: bool = False


@define(kw_only=True)
class Storage:
    storage: str
    type: str = "dir"
    content: str = "images,rootdir"
    nodes: list[str] = Factory(list)  # empty: on every node
    shared: bool = False


@define(kw_only=True)
class ReplicationJob:
    id: str  # "100-0"
    guest: int
    source: str
    target: str


@define(kw_only=True)
class ClusterState:
    """The whole document. `name` is None for a machine that is in no cluster."""

    name: str | None = "lab"
    profile: str = "pve91"
    config_version: int = 1
    expected_votes: int = 1
    api_port: int = 0  # one port for all members, where Proxmox has 8006; 0 until the first one listens
    ssh_port: int = 0  # likewise, where Proxmox has 22; 0 while no member listens
    nodes: dict[str, ClusterNode] = Factory(dict)
    lock_held_until: float | None = None  # Unix time
    tfa: str | None = None  # "totp" or "webauthn", on root@pam
    totp_code: str = "123456"
    tokens: dict[str, Token] = Factory(dict)  # "user@realm!id"
    guests: list[Guest] = Factory(list)
    ha_resources: list[HaResource] = Factory(list)
    ha_maintenance: list[str] = Factory(list)
    ha_moves_at: dict[str, float] = Factory(dict)  # node to Unix time, of moves that are still to come
    ha_rules: list[HaRule] = Factory(list)
    storages: list[Storage] = Factory(list)
    ceph_nodes: list[str] = Factory(list)  # with a monitor and an OSD each; empty: no Ceph
    replication: list[ReplicationJob] = Factory(list)
    qdevice: dict[str, str] = Factory(dict)  # empty: none
    management: list[str] = Factory(list)  # addresses that a firewalled newcomer still lets in
    faults: Faults = Factory(Faults)
    timings: Timings = Factory(Timings)

    @property
    def release(self) -> Profile:
        return PROFILES[self.profile]

    @property
    def configured_votes(self) -> int:
        return sum(node.votes for node in self.nodes.values()) + bool(self.qdevice)

    @property
    def online_votes(self) -> int:
        return sum(node.votes for node in self.nodes.values() if node.online) + bool(self.qdevice)

    @property
    def quorum(self) -> int:
        return self.expected_votes // 2 + 1

    @property
    def quorate(self) -> bool:
        if self.name is None:
            return True
        return not self.faults.peer_no_quorum and self.online_votes >= self.quorum

    def cfs_lock_busy(self, now: float) -> bool:
        return self.faults.lock_busy or (self.lock_held_until or 0.0) > now

    def dump(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def load(cls, document: dict[str, Any]) -> "ClusterState":
        kinds: dict[str, Any] = {
            "nodes": ClusterNode,
            "tokens": Token,
            "guests": Guest,
            "ha_resources": HaResource,
            "ha_rules": HaRule,
            "replication": ReplicationJob,
            "storages": Storage,
        }

        def each(key: str, items: Any) -> Any:
            kind = kinds[key]
            if isinstance(items, dict):
                return {name: kind(**item) for name, item in items.items()}
            return [kind(**item) for item in items]

        values = {key: each(key, value) if key in kinds else value for key, value in document.items()}
        return cls(
            **values | {"faults": Faults(**document["faults"]), "timings": Timings(**document["timings"])}
        )
