"""Everything about a cluster that a decision may need, read through one member.

What the cluster is made of must be readable, or there is no survey. All else may be hidden: from a token
without a privilege, by an older release, by a node that is down. It is then missing from the survey, and
said to be.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import trio
from attrs import Factory, define

from provd.domain.cluster import (
    Certificate,
    Cluster,
    Guest,
    HaRule,
    HaService,
    ReplicationJob,
    Storage,
    Survey,
)
from provd.domain.errors import ClusterFailed
from provd.proxmox import survey_words as words
from provd.proxmox.cluster import Member
from provd.proxmox.envelope import MemberRefused, parse

T = TypeVar("T")

AT_ONCE = 6
"""Requests on their way to one member: a pveproxy has three workers, and other things to do."""

ROOT = "root@pam"

NO_CEPH = ("not initialized", "not installed")
"""In the words of a member without Ceph, which answers 500. Any other word leaves it unknown."""


async def survey(member: Member) -> Survey:
    """Raise `ClusterFailed` when the members, their votes or the release cannot be read. Cancel at will."""
    status, configured = await member.status(), await member.config_nodes()
    release = parse(words.VersionRow, await member.get("/version"), f"{member.name}/version").version
    read = Reader(member)
    qdevice = await read.field("qdevice_votes", partial(read_qdevice, member, len(status.nodes)))
    guests = await read.field("guests", partial(read_guests, member))
    found: dict[str, Any] = {}

    async def note(field: str, work: Callable[[], Awaitable[object]]) -> None:
        found[field] = await read.field(field, work)

    certificates: dict[str, Certificate] = {}
    releases = {member.node_name: release} if member.node_name else {}
    fingerprints = await read.field("certificates", member.fingerprints) or {}
    async with trio.open_nursery() as nursery:
        works: dict[str, Callable[[], Awaitable[object]]] = {
            "ha_services": partial(read_ha_services, member),
            "ha_maintenance": partial(read_ha_maintenance, member),
            "ha_rules": partial(read_ha_rules, member),
            "replication": partial(read_replication, member, guests or ()),
            "storages": partial(read_storages, member),
            "ceph_nodes": partial(read_ceph_nodes, member),
        }
        for field, work in works.items():
            nursery.start_soon(note, field, work)
        for node in status.nodes:
            told = fingerprints.get(node.name, "")
            if told:
                certificates[node.name] = Certificate(node=node.name, fingerprint=told)
            if node.online:
                nursery.start_soon(read_certificate, read, node.name, told, certificates)
                if node.name not in releases:
                    nursery.start_soon(read_release, read, node.name, releases)
    return Survey(
        at=datetime.now(UTC),
        asked=f"{member.node_name} ({member.name.rpartition(':')[0]})",
        release=release,
        cluster=words.parse_cluster(status, configured, qdevice or (0, True)),
        guests=guests,
        certificates=tuple(certificates[name] for name in sorted(certificates)),
        releases=releases,
        unseen=read.unseen,
        **found,
    )


async def see_cluster(member: Member) -> Cluster | None:
    """Members and votes alone; None: the machine stands alone. Raises `ClusterFailed`."""
    status, configured = await member.status(), await member.config_nodes()
    return words.parse_cluster(status, configured, await read_qdevice(member, len(status.nodes)))


@define(eq=False)
class Reader:
    """Notes what could not be seen, and keeps the number of requests bearable."""

    member: Member
    unseen: dict[str, str] = Factory(dict)
    turns: trio.CapacityLimiter = Factory(lambda: trio.CapacityLimiter(AT_ONCE))

    async def field(self, name: str, work: Callable[[], Awaitable[T]]) -> T | None:
        async with self.turns:
            try:
                return await work()
            except ClusterFailed as exc:
                self.unseen.setdefault(name, str(exc))
                return None


def asked(member: Member, path: str) -> str:
    return f"{member.name}{path}"


async def read_all_of(member: Member, path: str, privilege: str, root: str) -> object:
    """The answer of a path that leaves out, without a word, what the caller may not see."""
    data = await member.get(path)
    if member.user != ROOT:
        permissions = "/access/permissions"
        granted = await member.get(permissions)
        if not words.sees_all(granted, privilege, root, asked(member, permissions)):
            raise ClusterFailed(
                f"{member.user} does not have {privilege} on {root} and all below it, so {path} may leave"
                f" anything out: give it the role PVEAuditor on / with propagation"
            )
    return data


async def read_qdevice(member: Member, nodes: int) -> tuple[int, bool]:
    path = "/cluster/config/qdevice"
    return words.parse_qdevice(await member.get(path), nodes, asked(member, path))


async def read_guests(member: Member) -> tuple[Guest, ...]:
    path = "/cluster/resources?type=vm"
    return words.parse_guests(await read_all_of(member, path, "VM.Audit", "/vms"), asked(member, path))


async def read_replication(member: Member, guests: tuple[Guest, ...]) -> tuple[ReplicationJob, ...]:
    path = "/cluster/replication"
    data = await read_all_of(member, path, "VM.Audit", "/vms")
    return words.parse_replication(data, guests, asked(member, path))


async def read_storages(member: Member) -> tuple[Storage, ...]:
    path = "/storage"
    data = await read_all_of(member, path, "Datastore.Audit", "/storage")
    return words.parse_storages(data, asked(member, path))


async def read_ha_services(member: Member) -> tuple[HaService, ...]:
    path = "/cluster/ha/status/current"
    return words.parse_ha_services(await member.get(path), asked(member, path))


async def read_ha_maintenance(member: Member) -> frozenset[str]:
    path = "/cluster/ha/status/manager_status"
    return words.parse_ha_maintenance(await member.get(path), asked(member, path))


async def read_ha_rules(member: Member) -> tuple[HaRule, ...]:
    """PVE 9 has rules, and refuses to tell of groups once they are converted; PVE 8 has groups only."""
    rules: tuple[HaRule, ...] | None = None
    path = "/cluster/ha/rules"
    try:
        rules = words.parse_ha_rules(await member.get(path), asked(member, path))
    except MemberRefused as exc:
        if exc.status != 501:
            raise
    path = "/cluster/ha/groups"
    try:
        return (rules or ()) + words.parse_ha_groups(await member.get(path), asked(member, path))
    except MemberRefused:
        if rules is None:
            raise
    return rules


async def read_ceph_nodes(member: Member) -> frozenset[str]:
    path = "/cluster/ceph/metadata"
    try:
        return words.parse_ceph_nodes(await member.get(path), asked(member, path))
    except MemberRefused as exc:
        if exc.status == 500 and any(word in str(exc) for word in NO_CEPH):
            return frozenset()
        raise


async def read_certificate(read: Reader, node: str, told: str, found: dict[str, Certificate]) -> None:
    """Until when the certificate of `node` is valid, and which it is where the list did not say."""
    path = f"/nodes/{quote(node, safe='')}/certificates/info"

    async def look() -> None:
        data = await read.member.get(path)
        fingerprint, not_after = words.parse_served_certificate(data, asked(read.member, path))
        if told or fingerprint:
            found[node] = Certificate(node=node, fingerprint=told or fingerprint, not_after=not_after)

    await read.field("certificates", look)


async def read_release(read: Reader, node: str, found: dict[str, str]) -> None:
    path = f"/nodes/{quote(node, safe='')}/version"

    async def look() -> None:
        found[node] = parse(words.VersionRow, await read.member.get(path), asked(read.member, path)).version

    await read.field("releases", look)
