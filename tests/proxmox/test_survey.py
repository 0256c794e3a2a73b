"""What is read about a cluster: from simulated members over real HTTPS, and from answers of every kind."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.cluster import Guest, HaRule, HaService, ReplicationJob, Storage, Survey
from provd.domain.errors import ClusterFailed
from provd.domain.secrets import Secret
from provd.proxmox.api_token import ApiToken
from provd.proxmox.cluster import Member, open_member
from provd.proxmox.survey import survey
from provd.simulator.cluster import Cluster
from provd.simulator.cluster import state as simulated
from provd.simulator.cluster.api import serve_api

PASSWORD = Secret("root's own password")
TOKEN = ApiToken.parse(Secret("provd@pve!reads=6650a1b2-0000-4000-8000-000000000001"))
NET = "127.78.4"


@asynccontextmanager
async def served(directory: Path, profile: str = "pve91", size: int = 3) -> AsyncIterator[Cluster]:
    """A cluster whose first two members answer on the loopback."""
    cluster = Cluster.create(
        directory / "cluster", ip=f"{NET}.1", root_password=PASSWORD.reveal(), profile=profile
    )
    for number in range(2, size + 1):
        cluster.add_member(f"pve{number}", f"{NET}.{number}")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(1, size + 1):
                await nursery.start(serve_api, cluster, f"pve{number}")
            yield cluster
            nursery.cancel_scope.cancel(reason="the test is over")


async def looked_at(cluster: Cluster, login: Secret | ApiToken = PASSWORD) -> Survey:
    port = cluster.read().api_port
    async with open_member(f"{NET}.1", port, cluster.fingerprint("pve1"), login) as member:
        return await survey(member)


def with_token(cluster: Cluster, privileges: Mapping[str, list[str]]) -> ApiToken:
    with cluster.edit() as state:
        state.tokens[TOKEN.name] = simulated.Token(secret=TOKEN.secret.reveal(), privs=dict(privileges))
    return TOKEN


def populate(cluster: Cluster) -> None:
    with cluster.edit() as state:
        state.guests = [
            simulated.Guest(vmid=101, node="pve3", type="lxc", name="dns", status="stopped"),
            simulated.Guest(vmid=100, node="pve2", name="web", template=True),
        ]
        state.ha_resources = [simulated.HaResource(sid="vm:100", node="pve2")]
        state.ha_maintenance = ["pve3"]
        state.replication = [simulated.ReplicationJob(id="100-0", guest=100, source="pve2", target="pve1")]
        state.ha_rules = [simulated.HaRule(rule="near", nodes=["pve2:2", "pve3"], resources=["vm:100"])]
        state.storages = [
            simulated.Storage(storage="tank", type="zfspool", nodes=["pve2"]),
            simulated.Storage(storage="nas", type="nfs"),
        ]


# --- members that behave ---------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["pve81", "pve84", "pve91", "pve92"])
async def test_root_sees_everything(tmp_path: Path, profile: str) -> None:
    """Members with votes, links and certificates, guests, HA and replication, of every release."""
    async with served(tmp_path, profile) as cluster:
        populate(cluster)
        with cluster.edit() as state:
            state.nodes["pve2"].votes = 2
            state.nodes["pve3"].online = False
        found = await looked_at(cluster)
        prints = {f"pve{n}": cluster.fingerprint(f"pve{n}") for n in (1, 2, 3)}
        version = cluster.read().release.version

    lab = found.cluster
    assert lab is not None
    assert (lab.name, lab.quorate, lab.expected_votes, lab.spare_votes()) == ("lab", True, 4, 0)
    assert [(n.name, n.nodeid, n.votes, n.online) for n in lab.nodes] == [
        ("pve1", 1, 1, True),
        ("pve2", 2, 2, True),
        ("pve3", 3, 1, False),
    ]
    assert lab.nodes[1].address == ip_address(f"{NET}.2")
    assert lab.nodes[1].links == {0: f"{NET}.2"}
    assert found.asked == f"pve1 ({NET}.1)"
    assert found.release == version
    assert found.guests == (
        Guest(vmid=100, kind="qemu", node="pve2", name="web", status="running", template=True),
        Guest(vmid=101, kind="lxc", node="pve3", name="dns", status="unknown"),
    )
    assert found.ha_services == (HaService(sid="vm:100", node="pve2", state="started"),)
    assert found.ha_maintenance == {"pve3"}
    assert found.replication == (ReplicationJob(id="100-0", guest=100, source="pve2", target="pve1"),)
    kind = "group" if profile.startswith("pve8") else "rule"
    assert found.ha_rules == (HaRule(id="near", kind=kind, nodes=("pve2", "pve3"), written="pve2:2,pve3"),)
    assert found.storages == (
        Storage(id="tank", kind="zfspool", nodes=("pve2",)),
        Storage(id="nas", kind="nfs", shared=True),
    )
    assert found.ceph_nodes == frozenset()
    assert found.releases == {"pve1": version, "pve2": version}
    assert found.unseen == {}
    assert {c.node: c.fingerprint for c in found.certificates} == prints
    ends = {c.node: c.not_after for c in found.certificates}
    assert ends["pve3"] is None  # nobody could be asked
    for name in ("pve1", "pve2"):
        end = ends[name]
        assert end is not None
        assert timedelta(days=1) < end - datetime.now(UTC) < timedelta(days=3650)


async def test_a_certificate_of_its_own_wins(tmp_path: Path) -> None:
    """pveproxy serves `pveproxy-ssl.pem` where there is one; that is the one whose end counts."""
    async with served(tmp_path) as cluster:
        before = await looked_at(cluster)
        with cluster.edit() as state:
            state.faults.peer_other_cert = ["pve1"]
        found = await looked_at(cluster)
        own = next(c for c in found.certificates if c.node == "pve1")
        assert own.fingerprint == cluster.fingerprint("pve1")
        assert own.fingerprint not in {c.fingerprint for c in before.certificates}
        assert own.not_after is not None


async def test_a_machine_alone(tmp_path: Path) -> None:
    """It has a survey, and no cluster in it."""
    alone = Cluster.create(tmp_path / "cluster", name=None, ip=f"{NET}.1", root_password=PASSWORD.reveal())
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_api, alone, "pve1")
            found = await looked_at(alone)
            nursery.cancel_scope.cancel(reason="the test is over")
    assert found.cluster is None
    assert found.guests == ()


# --- what a token may not see ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("privileges", "seen"),
    [
        ({"/": ["Sys.Audit", "VM.Audit"]}, True),
        ({"/": ["Sys.Audit"], "/vms": ["VM.Audit"]}, True),
        ({"/": ["Sys.Audit"]}, False),
        ({"/": ["Sys.Audit"], "/vms/100": ["VM.Audit"]}, False),
        ({"/": ["Sys.Audit", "VM.Audit"], "/vms": ["VM.Config"]}, False),
    ],
)
async def test_a_list_is_believed_from_whom_may_see_all(
    tmp_path: Path, privileges: Mapping[str, list[str]], seen: bool
) -> None:
    """Without VM.Audit on all of them, the guests are unknown: neither none nor the few that are shown."""
    async with served(tmp_path) as cluster:
        populate(cluster)
        found = await looked_at(cluster, with_token(cluster, privileges))
    assert (found.guests is not None, found.replication is not None) == (seen, seen)
    assert ("guests" in found.unseen, "replication" in found.unseen) == (not seen, not seen)
    if not seen:
        assert "VM.Audit" in found.unseen["guests"]
        assert TOKEN.name in found.unseen["guests"]
    assert TOKEN.secret.reveal() not in str(found)


async def test_a_token_that_may_see_nothing(tmp_path: Path) -> None:
    """Without Sys.Audit there is no survey; the sentence has the status and the privilege."""
    async with served(tmp_path, size=1) as cluster:
        with pytest.raises(ClusterFailed, match=r"403.*Sys\.Audit.*may not"):
            await looked_at(cluster, with_token(cluster, {"/": ["VM.Audit"]}))


# --- answers as real members give them -------------------------------------------------------------

ANSWERS: dict[str, Any] = {
    "/cluster/status": [
        {"type": "cluster", "id": "cluster", "name": "lab", "nodes": 3, "version": 7, "quorate": 1},
        {"type": "node", "id": "node/a", "name": "a", "nodeid": 1, "ip": "10.0.0.1", "local": 1, "online": 1},
        {"type": "node", "id": "node/b", "name": "b", "nodeid": 2, "local": 0, "online": 0},
    ],
    "/cluster/config/nodes": [
        {"node": "a", "name": "a", "nodeid": "1", "quorum_votes": "1", "ring0_addr": "10.0.0.1"},
        {
            "node": "b",
            "name": "b",
            "nodeid": "2",
            "quorum_votes": "1",
            "ring0_addr": "10.0.0.2",
            "ring1_addr": "b.lan",
            "links": "not ours",
        },
        {"node": "c", "name": "c", "nodeid": "3", "ring0_addr": "c.lan"},
    ],
    "/cluster/config/qdevice": {"Model": "Net", "State": "Connected", "Algorithm": "Last Man Standing"},
    "/version": {"version": "9.1.4", "release": "9.1", "repoid": "5ac30304265fbd8e"},
    "/nodes": [{"node": "a", "status": "online", "ssl_fingerprint": "ab:" * 31 + "ab"}],
    "/nodes/a/certificates/info": [
        {"filename": "pve-root-ca.pem", "notafter": 2_000_000_000, "fingerprint": "00"},
        {"filename": "pve-ssl.pem", "notafter": 1_900_000_000, "fingerprint": "01"},
    ],
    "/access/permissions": {"/": {"VM.Audit": 1, "Datastore.Audit": 1}},
    "/cluster/resources": [{"vmid": 100, "type": "qemu", "node": "a"}],
    "/cluster/replication": [{"id": "100-0", "guest": "100", "target": "b", "type": "local"}],
    "/cluster/ha/status/current": [
        {"type": "quorum", "quorate": 1},
        {"type": "fencing", "armed-state": "armed"},
        {"type": "lrm", "node": "a", "status": "a (idle)"},
        {"type": "service", "sid": "ct:101", "node": "a", "state": "error"},
    ],
    "/cluster/ha/status/manager_status": {
        "manager_status": {
            "node_status": {"a": "online", "b": "maintenance"},
            "node_request": {"a": {"maintenance": 1}, "c": {"maintenance": 0}},
        }
    },
    "/cluster/ha/rules": [
        {"rule": "near", "type": "node-affinity", "nodes": "a:2,b", "resources": "vm:100"},
        {"rule": "apart", "type": "resource-affinity", "affinity": "negative", "resources": "vm:100,vm:101"},
    ],
    "/storage": [
        {"storage": "local", "type": "dir", "path": "/var/lib/vz"},
        {"storage": "tank", "type": "zfspool", "nodes": "a,b"},
        {"storage": "san", "type": "lvm", "shared": 1},
        {"storage": "nas", "type": "nfs"},
    ],
    "/cluster/ceph/metadata": {
        "mon": {"a": {"hostname": "a"}},
        "mgr": {},
        "mds": {},
        "osd": [{"id": 0, "hostname": "b"}],
        "node": {"c": {"version": "19.2"}},
    },
}


def answering(answers: Mapping[str, Any], refusals: Mapping[str, tuple[int, str]] = {}) -> Member:
    """A member that gives these answers, or refuses; what is in neither it does not have."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api2/json")
        if path in answers:
            return httpx.Response(200, content=json.dumps({"data": answers[path]}))
        status, message = refusals.get(path, (501, f"Method 'GET {path}' not implemented"))
        return httpx.Response(status, content=json.dumps({"data": None, "message": message}))

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return Member("10.0.0.1:8006", client, user=TOKEN.name)


async def test_a_full_cluster() -> None:
    """Every field, in the forms that real members use; what cannot be asked is missing, and said to be."""
    found = await survey(answering(ANSWERS))
    lab = found.cluster
    assert lab is not None
    assert [(n.name, n.votes, n.online, n.address and str(n.address)) for n in lab.nodes] == [
        ("a", 1, True, "10.0.0.1"),
        ("b", 1, False, "10.0.0.2"),
        ("c", 1, False, None),
    ]
    assert lab.nodes[1].links == {0: "10.0.0.2", 1: "b.lan"}
    assert (lab.qdevice_votes, lab.qdevice_online, lab.expected_votes) == (1, True, 4)
    assert found.guests == (Guest(vmid=100, kind="qemu", node="a", name="", status="unknown"),)
    assert found.replication == (ReplicationJob(id="100-0", guest=100, source="a", target="b"),)
    assert found.ha_services == (HaService(sid="ct:101", node="a", state="error"),)
    assert found.ha_maintenance == {"a", "b"}
    assert found.ha_rules == (HaRule(id="near", kind="rule", nodes=("a", "b"), written="a:2,b"),)
    assert found.storages == (
        Storage(id="local", kind="dir"),
        Storage(id="tank", kind="zfspool", nodes=("a", "b")),
        Storage(id="san", kind="lvm", shared=True),
        Storage(id="nas", kind="nfs", shared=True),
    )
    assert found.ceph_nodes == {"a", "b"}
    assert [(c.node, c.fingerprint, c.not_after) for c in found.certificates] == [
        ("a", ":".join(["AB"] * 32), datetime.fromtimestamp(1_900_000_000, UTC))
    ]
    assert found.releases == {"a": "9.1.4"}
    assert found.unseen == {}


async def test_groups_of_an_older_release() -> None:
    """PVE 8 has groups; PVE 9 may refuse to tell of them, and that is no loss."""
    groups = [{"group": "left", "nodes": "a:1,b:2", "type": "group"}]
    old = {path: data for path, data in ANSWERS.items() if path != "/cluster/ha/rules"}
    found = await survey(answering(old | {"/cluster/ha/groups": groups}))
    assert found.ha_rules == (HaRule(id="left", kind="group", nodes=("a", "b"), written="a:1,b:2"),)
    refusal = {"/cluster/ha/groups": (500, "cannot read groups: ha groups have been migrated to rules")}
    assert [rule.id for rule in (await survey(answering(ANSWERS, refusal))).ha_rules or ()] == ["near"]
    neither = await survey(answering(old))
    assert neither.ha_rules is None
    assert "this release of Proxmox VE does not have it" in neither.unseen["ha_rules"]


@pytest.mark.parametrize(
    ("status", "message", "seen"),
    [
        (500, "pveceph configuration not initialized\n", True),
        (500, "binary not installed: /usr/bin/ceph-mon", True),
        (500, "rados_connect failed - Connection timed out", False),
        (403, "Permission check failed (/, Sys.Audit) not installed", False),
        (501, "", False),
    ],
)
async def test_no_ceph_and_unknown_ceph(status: int, message: str, seen: bool) -> None:
    """A member without Ceph says so; any other failure is not taken for that."""
    rest = {path: data for path, data in ANSWERS.items() if "ceph" not in path}
    found = await survey(answering(rest, {"/cluster/ceph/metadata": (status, message)}))
    assert found.ceph_nodes == (frozenset() if seen else None)
    assert ("ceph_nodes" in found.unseen) is not seen


@pytest.mark.parametrize(
    ("device", "votes", "online"),
    [
        ({}, 0, True),
        ({"State": "Connected", "Algorithm": "Fifty-Fifty split"}, 1, True),
        ({"State": "Disconnected", "Algorithm": "Fifty-Fifty split"}, 1, False),
        ({"State": "Connected", "Algorithm": "LMS"}, 1, True),
    ],
)
async def test_the_votes_of_a_qdevice(device: Mapping[str, str], votes: int, online: bool) -> None:
    """They are expected in any case, and there only while it is connected."""
    found = await survey(answering(ANSWERS | {"/cluster/config/qdevice": device}))
    assert found.cluster is not None
    assert (found.cluster.qdevice_votes, found.cluster.qdevice_online) == (votes, online)
    without = evolve(found.cluster, qdevice_votes=0)
    assert found.cluster.votes_without() - without.votes_without() == (votes if online else 0)


@pytest.mark.parametrize(
    ("permissions", "seen"),
    [
        ({"/": {"VM.Audit": 0}}, False),
        ({"/": {"VM.Audit": "1"}}, True),
        ({"/": {"VM.Audit": 1}, "/nodes": {"VM.Audit": 1}}, False),  # /vms would be listed: NoAccess there
        ({"/": {"VM.Audit": 1}, "/nodes": {}, "/vms": {"VM.Audit": 1}}, True),
        ({"/vms": {"VM.Audit": 1}}, True),
        ({}, False),
        ([], False),
        ({"/": None}, False),
    ],
)
async def test_permissions_as_they_are_listed(permissions: Any, seen: bool) -> None:
    """1 reaches what is below, 0 does not."""
    found = await survey(answering(ANSWERS | {"/access/permissions": permissions, "/cluster/resources": []}))
    assert found.guests == (() if seen else None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def leaves(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside, and to the whole."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(way for key, item in inner for way in leaves(item, (*at, key)))]


def replaced(value: Any, way: tuple[Any, ...], other: Any) -> Any:
    if not way:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = replaced(value[way[0]], way[1:], other)
    return copy


@given(way=st.sampled_from(leaves(ANSWERS)[1:]), other=json_values)
def test_any_answer_gives_a_survey_or_an_error(way: tuple[Any, ...], other: Any) -> None:
    """Whatever stands wherever in the answers, there is a survey, or `ClusterFailed` in one line."""

    async def look() -> list[str]:
        try:
            found = await survey(answering(replaced(ANSWERS, way, other)))
        except ClusterFailed as exc:
            return [str(exc)]
        return [found.asked, found.release, *found.unseen.values()]

    assert all(sentence.isprintable() for sentence in trio.run(look))
