"""What may be bound to a node, as the API tells it: rules, groups, Ceph, storages, releases, certificates."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from provd.simulator.cluster import HaRule, Storage, Token
from simulator.cluster_lab import Lab, open_lab

SECRET = "6650a1b2-0000-4000-8000-000000000001"
RULES = [
    HaRule(rule="dns", nodes=["pve1:2", "pve2"], resources=["vm:100"], strict=True),
    HaRule(rule="apart", type="resource-affinity", resources=["vm:100", "vm:101"]),
]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path) as lab:
        arrange(lab)
        yield lab


def arrange(lab: Lab) -> None:
    with lab.cluster.edit() as state:
        state.tokens = {
            "a@pve!all": Token(secret=SECRET, privs={"/": ["Sys.Audit", "Datastore.Audit"]}),
            "a@pve!blind": Token(secret=SECRET, privs={"/": ["Sys.Audit"]}),
            "a@pve!one": Token(secret=SECRET, privs={"/storage/nas": ["Datastore.Audit"]}),
        }
        state.ha_rules = RULES
        state.storages = [
            Storage(storage="local"),
            Storage(storage="tank", type="zfspool", nodes=["pve1", "pve2"]),
            Storage(storage="nas", type="nfs", shared=True),
        ]


async def get(lab: Lab, path: str, token: str = "a@pve!all") -> Any:
    """Data, or status and reason."""
    async with lab.client(token=f"{token}={SECRET}") as client:
        answer = await client.get(path)
    return answer.json()["data"] if answer.is_success else (answer.status_code, answer.reason_phrase)


async def test_rules_of_nine(lab: Lab) -> None:
    """PVE 9 lists rules, nodes with their priorities, and refuses to list groups."""
    rules = await get(lab, "/cluster/ha/rules")
    assert [(one["rule"], one["type"], one.get("nodes"), one["resources"]) for one in rules] == [
        ("dns", "node-affinity", "pve1:2,pve2", "vm:100"),
        ("apart", "resource-affinity", None, "vm:100,vm:101"),
    ]
    assert await get(lab, "/cluster/ha/groups") == (
        500,
        "cannot index groups: ha groups have been migrated to rules",
    )


@pytest.mark.parametrize("profile", ["pve84", "pve81"])
async def test_groups_of_eight(tmp_path: Path, profile: str) -> None:
    """PVE 8 knows no rules, and lists and changes groups."""
    async with open_lab(tmp_path, profile=profile) as lab:
        arrange(lab)
        status, reason = await get(lab, "/cluster/ha/rules")
        assert (status, reason) == (501, "Method 'GET /cluster/ha/rules' not implemented")
        [group] = await get(lab, "/cluster/ha/groups")
        assert (group["group"], group["nodes"], group["restricted"]) == ("dns", "pve1:2,pve2", 1)
        async with lab.root_session() as session:
            changed = await session.put("/cluster/ha/groups/dns", data={"nodes": "pve1"})
            assert changed.status_code == 200
            assert lab.cluster.read().ha_rules[0].nodes == ["pve1"]
            assert (await session.delete("/cluster/ha/groups/dns")).status_code == 200
            gone = await session.delete("/cluster/ha/groups/dns")
            assert gone.reason_phrase == "no such ha group 'dns'"
        assert [rule.rule for rule in lab.cluster.read().ha_rules] == ["apart"]


async def test_changing_rules(lab: Lab) -> None:
    """A rule keeps what is not said; its type has to be; a token may not."""
    async with lab.root_session() as session:
        assert (await session.put("/cluster/ha/rules/dns", data={"nodes": "pve2"})).status_code == 400
        good = {"type": "node-affinity", "nodes": "pve2"}
        assert (await session.put("/cluster/ha/rules/dns", data=good)).status_code == 200
        rule = lab.cluster.read().ha_rules[0]
        assert (rule.nodes, rule.resources, rule.strict) == (["pve2"], ["vm:100"], True)
        other = await session.put("/cluster/ha/rules/dns", data={"type": "resource-affinity"})
        assert other.status_code == 400
        missing = await session.put("/cluster/ha/rules/none", data=good)
        assert (missing.status_code, missing.reason_phrase) == (500, "no such ha rule 'none'")
        assert (await session.delete("/cluster/ha/rules/apart")).status_code == 200
    async with lab.client(token=f"a@pve!all={SECRET}") as client:
        refused = await client.delete("/cluster/ha/rules/dns")
    assert (refused.status_code, refused.reason_phrase) == (403, "Permission check failed (/, Sys.Console)")
    assert [rule.rule for rule in lab.cluster.read().ha_rules] == ["dns"]


async def test_ceph(lab: Lab) -> None:
    """Without Ceph its calls fail in its own words; with it, every node's daemons are told."""
    path = "/cluster/ceph/metadata"
    assert await get(lab, path) == (500, "binary not installed: /usr/bin/ceph-mon")
    with lab.cluster.edit() as state:
        state.ceph_nodes = ["pve2"]
    found = await get(lab, path)
    assert [mon["hostname"] for mon in found["mon"].values()] == ["pve2"]
    assert found["osd"] == [{"id": 0, "hostname": "pve2"}]
    assert list(found["node"]) == ["pve2"]


async def test_storages(lab: Lab) -> None:
    """Nodes and sharing are told only where they are said; what may not be seen is left out in silence."""
    rows = {row["storage"]: row for row in await get(lab, "/storage")}
    assert list(rows) == ["local", "tank", "nas"]
    assert (rows["tank"]["nodes"], "shared" in rows["tank"]) == ("pve1,pve2", False)
    assert ("nodes" in rows["nas"], rows["nas"]["shared"]) == (False, 1)
    assert await get(lab, "/storage", "a@pve!blind") == []
    assert [row["storage"] for row in await get(lab, "/storage", "a@pve!one")] == ["nas"]


async def test_releases(lab: Lab) -> None:
    """Each node tells its own release; one that is off, nothing."""
    lab.cluster.add_member("pve2", "127.77.0.2")
    lab.cluster.add_member("pve3", "127.77.0.3", online=False)
    with lab.cluster.edit() as state:
        state.nodes["pve2"].profile = "pve84"
    assert (await get(lab, "/version"))["version"] == "9.1.4"
    assert (await get(lab, "/nodes/pve2/version"))["version"] == "8.4.14"
    assert await get(lab, "/nodes/pve3/version") == (595, "No route to host")


async def test_a_certificate_that_ends_soon(lab: Lab) -> None:
    """A renewed leaf is what is served and what is told, with its end."""
    before = lab.cluster.fingerprint("pve1")
    lab.cluster.renew_certificate("pve1", days=10)
    leaf = next(
        row for row in await get(lab, "/nodes/pve1/certificates/info") if row["filename"] == "pve-ssl.pem"
    )
    assert leaf["fingerprint"] == lab.cluster.fingerprint("pve1") != before
    assert 9 < (leaf["notafter"] - time.time()) / 86400 <= 10


# --- history ------------------------------------------------------------------------------------------


async def test_history(lab: Lab) -> None:
    """Every change of members, votes and quorum is a line: a join, a crash, a departure."""
    lab.cluster.add_member("pve2", "127.77.0.2")
    assert (await lab.add()).err == ""
    with lab.cluster.edit() as state:
        state.nodes["pve2"].online = False
    with lab.cluster.edit() as state:
        state.faults.slow = 0.0  # nothing that counts
    async with lab.root_session() as session:
        assert (await session.delete("/cluster/config/nodes/pve2")).status_code == 200
    moments = lab.cluster.history()
    assert [moment.what for moment in moments] == [
        ("pve1 is online", "quorum is reached"),
        ("pve2 is online", "2 votes are expected"),
        ("pve5 is entered", "3 votes are expected"),
        ("3 votes are there",),
        ("pve5 is online",),
        ("pve2 is offline",),
        ("pve2 is struck out", "2 votes are expected"),
    ]
    assert all(moment.quorate for moment in moments)
    assert [set(moment.entering) for moment in moments] == [
        set(),
        set(),
        {"pve5"},
        {"pve5"},
        set(),
        set(),
        set(),
    ]
    assert [moment.config_version for moment in moments] == [1, 2, 3, 3, 3, 3, 4]
    assert (moments[-1].online_votes, moments[-1].quorum) == (2, 2)
    assert [moment.time for moment in moments] == sorted(moment.time for moment in moments)


async def test_quorum_that_was_lost_for_a_moment(lab: Lab) -> None:
    """A join of a cluster of one costs its quorum, and a test can see it afterwards."""
    assert (await lab.add()).err == ""
    assert [moment.quorate for moment in lab.cluster.history()] == [True, False, True, True]
    assert lab.cluster.history()[2].what == ("2 votes are there", "quorum is reached")
