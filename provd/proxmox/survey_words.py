"""What a cluster's answers mean, one by one: JSON from the API in, values out, or `ClusterFailed`.

Fields after the API of pve-manager and pve-ha-manager 8.1 to 9.2. Where an answer is filtered by what the
caller may see, `sees_all` tells whether it can be taken for the whole.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from attrs import frozen

from provd.domain.cluster import Cluster, Guest, HaRule, HaService, Node, ReplicationJob, Storage
from provd.domain.hosts import IPAddress
from provd.proxmox.cluster import ClusterStatus, ConfigNode
from provd.proxmox.envelope import parse, rows, strange

SHARED = frozenset(
    {"nfs", "cifs", "glusterfs", "cephfs", "rbd", "iscsi", "iscsidirect", "zfs", "pbs", "esxi"}
)
"""Kinds of storage that are one and the same from every node, whether it is written there or not."""

TOP_LEVEL = frozenset({"/access", "/nodes", "/storage"})
"""Paths that Proxmox VE lists with `/` for whoever may see anything there."""

OWN_CERTIFICATE, CLUSTER_CERTIFICATE = "pveproxy-ssl.pem", "pve-ssl.pem"


@frozen(kw_only=True)
class GuestRow:
    vmid: int
    type: str
    node: str
    name: str = ""
    status: str = "unknown"
    template: bool = False


@frozen(kw_only=True)
class ServiceRow:
    sid: str
    node: str = ""
    """Empty while it is placed nowhere."""
    state: str = ""


@frozen(kw_only=True)
class RuleRow:
    rule: str
    type: str = ""
    nodes: str = ""
    """Of a rule for nodes only; others say which guests stay together."""


@frozen(kw_only=True)
class GroupRow:
    group: str
    nodes: str = ""


@frozen(kw_only=True)
class JobRow:
    id: str
    guest: int
    source: str = ""
    target: str


@frozen(kw_only=True)
class StorageRow:
    storage: str
    type: str
    nodes: str = ""
    shared: bool = False


@frozen(kw_only=True)
class CertificateRow:
    filename: str
    fingerprint: str = ""
    notafter: int | None = None
    """Unix time."""


@frozen(kw_only=True)
class VersionRow:
    version: str


def parse_cluster(
    status: ClusterStatus, configured: Sequence[ConfigNode], qdevice: tuple[int, bool]
) -> Cluster | None:
    """Who is there from the one list, votes and links from the other. None: the machine stands alone."""
    if status.name is None:
        return None
    by_name = {node.name: node for node in configured}
    nodes = []
    for seen in status.nodes:
        config = by_name.pop(seen.name, ConfigNode(name=seen.name, nodeid=seen.nodeid))
        nodes.append(_node(config, seen.online, seen.ip))
    # One that is only being added is in the file first.
    nodes += [_node(config, False, None) for config in by_name.values()]
    votes, online = qdevice
    return Cluster(
        name=status.name,
        version=status.version,
        quorate=status.quorate,
        nodes=tuple(sorted(nodes, key=lambda node: node.nodeid)),
        qdevice_votes=votes,
        qdevice_online=online,
    )


def _node(config: ConfigNode, online: bool, ip: IPAddress | None) -> Node:
    return Node(
        name=config.name,
        nodeid=config.nodeid,
        votes=config.quorum_votes,
        online=online,
        address=ip or _literal(config.ring0_addr or ""),
        links=dict(config.links),
    )


def _literal(address: str) -> IPAddress | None:
    try:
        return ip_address(address)
    except ValueError:
        return None


def parse_qdevice(data: object, nodes: int, asked: str) -> tuple[int, bool]:
    """Its votes, and whether they are there. The API does not tell them: `pvecm qdevice setup` gives one to
    an even number of nodes (ffsplit), and one less than there are nodes to an odd number (lms)."""
    device = _mapping(data, asked)
    if not device:
        return 0, True
    algorithm, state = device.get("Algorithm"), device.get("State")
    if not isinstance(algorithm, str) or not isinstance(state, str):
        raise strange(asked, "a QDevice without algorithm or state")
    last_man = "last man" in algorithm.lower() or "lms" in algorithm.lower()
    return (max(nodes - 1, 1) if last_man else 1), state.strip().lower() == "connected"


def sees_all(data: object, privilege: str, path: str, asked: str) -> bool:
    """Whether `/access/permissions` gives `privilege` on `path` and all below it."""
    granted = _mapping(data, asked)
    if path in granted:
        nearest = path
    elif granted.keys() & TOP_LEVEL:
        return False  # it would be listed
    else:
        nearest = "/"
    privileges = granted.get(nearest, {})
    return isinstance(privileges, dict) and privileges.get(privilege) in (1, "1")  # 0: not below it


def parse_guests(data: object, asked: str) -> tuple[Guest, ...]:
    """Of `/cluster/resources?type=vm`."""
    found = [parse(GuestRow, row, asked) for row in rows(data, asked)]
    return tuple(
        Guest(
            vmid=row.vmid,
            kind=row.type,
            node=row.node,
            name=row.name,
            status=row.status,
            template=row.template,
        )
        for row in sorted(found, key=lambda row: row.vmid)
    )


def parse_ha_services(data: object, asked: str) -> tuple[HaService, ...]:
    """Of `/cluster/ha/status/current`."""
    found = [parse(ServiceRow, row, asked) for row in rows(data, asked) if row.get("type") == "service"]
    return tuple(HaService(sid=row.sid, node=row.node, state=row.state) for row in found)


def parse_ha_maintenance(data: object, asked: str) -> frozenset[str]:
    """Of `/cluster/ha/status/manager_status`: where it is so, and where it was asked for."""
    manager = _mapping(_mapping(data, asked).get("manager_status") or {}, asked)
    states = _mapping(manager.get("node_status") or {}, asked)
    requests = _mapping(manager.get("node_request") or {}, asked)
    return frozenset(
        {name for name, state in states.items() if state == "maintenance"}
        | {name for name, wish in requests.items() if isinstance(wish, dict) and wish.get("maintenance")}
    )


def parse_ha_rules(data: object, asked: str) -> tuple[HaRule, ...]:
    """Of `/cluster/ha/rules`, PVE 9: those that name nodes."""
    found = [parse(RuleRow, row, asked) for row in rows(data, asked)]
    if any(row.type == "node-affinity" and not row.nodes for row in found):
        raise strange(asked, "a rule for nodes that names none")
    return tuple(
        HaRule(id=row.rule, kind="rule", nodes=_without_priorities(row.nodes), written=row.nodes)
        for row in found
        if row.nodes
    )


def parse_ha_groups(data: object, asked: str) -> tuple[HaRule, ...]:
    """Of `/cluster/ha/groups`, PVE 8."""
    found = [parse(GroupRow, row, asked) for row in rows(data, asked)]
    return tuple(
        HaRule(id=row.group, kind="group", nodes=_without_priorities(row.nodes), written=row.nodes)
        for row in found
    )


def _without_priorities(nodes: str) -> tuple[str, ...]:
    """Of `pve1:2,pve2`."""
    return tuple(name.partition(":")[0] for name in _listed(nodes))


def parse_replication(data: object, guests: Iterable[Guest], asked: str) -> tuple[ReplicationJob, ...]:
    """Of `/cluster/replication`. A job that never ran does not say its source: that is where the guest is."""
    homes = {guest.vmid: guest.node for guest in guests}
    found = [parse(JobRow, row, asked) for row in rows(data, asked)]
    return tuple(
        ReplicationJob(
            id=row.id, guest=row.guest, source=row.source or homes.get(row.guest, ""), target=row.target
        )
        for row in found
    )


def parse_storages(data: object, asked: str) -> tuple[Storage, ...]:
    """Of `/storage`."""
    found = [parse(StorageRow, row, asked) for row in rows(data, asked)]
    return tuple(
        Storage(
            id=row.storage,
            kind=row.type,
            nodes=_listed(row.nodes),
            shared=row.shared or row.type in SHARED,
        )
        for row in found
    )


def parse_ceph_nodes(data: object, asked: str) -> frozenset[str]:
    """Of `/cluster/ceph/metadata`: where a daemon is, not where only its programs are."""
    metadata = _mapping(data, asked)
    return frozenset(
        parse(str, daemon["hostname"], asked)
        for kind in ("mon", "mgr", "mds", "osd")
        for daemon in _daemons(metadata.get(kind) or {}, asked)
        if "hostname" in daemon
    )


def _daemons(data: object, asked: str) -> Iterator[Mapping[str, Any]]:
    """Listed or by name, as the release has it."""
    for daemon in data if isinstance(data, list) else _mapping(data, asked).values():
        yield _mapping(daemon, asked)


def parse_served_certificate(data: object, asked: str) -> tuple[str, datetime | None]:
    """Of `/nodes/N/certificates/info`: fingerprint and end of the one that the API serves."""
    files = {row.filename: row for row in (parse(CertificateRow, each, asked) for each in rows(data, asked))}
    served = files.get(OWN_CERTIFICATE) or files.get(CLUSTER_CERTIFICATE)
    if served is None:
        raise strange(asked, "no certificate that its API could serve")
    return served.fingerprint.upper(), _moment(served.notafter, asked)


def _moment(seconds: int | None, asked: str) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise strange(asked, f"the time {seconds}") from exc


def _listed(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\s,;]+", text))


def _mapping(data: object, asked: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise strange(asked, "no object")
    return data
