"""The HTTPS API of a simulated node: envelope, authentication, permissions, and every path's answer."""

import json
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from provd.simulator.cluster import (
    ClusterState,
    Guest,
    HaResource,
    Machine,
    ReplicationJob,
    Token,
    stop_pvecm,
)
from provd.simulator.cluster.api import parameters_in, serve_api
from provd.simulator.cluster.leaves import fingerprint_of
from provd.simulator.cluster.tickets import ApiError
from simulator.cluster_lab import MEMBER, NEWCOMER, PASSWORD, Lab, open_lab

AUDITOR = "provd@pve!audit"
SECRET = "6650a1b2-0000-4000-8000-000000000001"


def dumped(value: Any) -> bytes:
    return json.dumps({"key": value}).encode()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path) as lab:
        add_tokens(lab)
        yield lab


def add_tokens(lab: Lab) -> None:
    with lab.cluster.edit() as state:
        state.tokens = {
            AUDITOR: Token(secret=SECRET, privs={"/": ["Sys.Audit", "VM.Audit"]}),
            "provd@pve!blind": Token(secret=SECRET, privs={"/": ["Sys.Audit"]}),
            "provd@pve!nobody": Token(secret=SECRET),
            "provd@pve!old": Token(secret=SECRET, privs={"/": ["Sys.Audit"]}, expire=1.0),
            "root@pam!full": Token(
                secret=SECRET, privs={"/": ["Sys.Audit", "Sys.Modify", "VM.Audit", "Permissions.Modify"]}
            ),
        }


async def get(lab: Lab, path: str, token: str = AUDITOR) -> httpx.Response:
    async with lab.client(token=f"{token}={SECRET}") as client:
        answer: httpx.Response = await client.get(path)
        return answer


async def data(lab: Lab, path: str, token: str = AUDITOR) -> Any:
    return (await get(lab, path, token)).raise_for_status().json()["data"]


# --- envelope and authentication --------------------------------------------------------------------


async def test_envelope(lab: Lab) -> None:
    """A success is JSON with `data`, from the server that Proxmox has, on a connection that stays open."""
    async with lab.client(token=f"{AUDITOR}={SECRET}") as client:
        answer = await client.get("/version")
        assert answer.json() == {"data": {"version": "9.1.4", "release": "9.1", "repoid": "5ac30304265fbd8e"}}
        assert answer.headers["server"] == "pve-api-daemon/3.0"
        assert answer.headers["content-type"] == "application/json;charset=UTF-8"
        assert answer.headers["cache-control"] == "max-age=0"
        assert "connection" not in answer.headers
        refused = await client.post("/cluster/config/join")
        assert refused.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("profile", "headers", "reason"),
    [
        ("pve91", {}, "No ticket"),
        (
            "pve91",
            {"Cookie": "PVEAuthCookie=PVE%3Aroot@pam%3A00000000%3A%3Aforged"},
            "Authentication failed!",
        ),
        ("pve91", {"Authorization": f"PVEAPIToken={AUDITOR}=wrong"}, "Authentication failed!"),
        ("old401", {"Cookie": "PVEAuthCookie=nonsense"}, "permission denied - invalid PVE ticket"),
        ("old401", {"Authorization": f"PVEAPIToken={AUDITOR}=wrong"}, "invalid token value!"),
        (
            "old401",
            {"Authorization": "PVEAPIToken=provd@pve!x=wrong"},
            "no such token 'x' for user 'provd@pve'",
        ),
        (
            "old401",
            {"Authorization": f"PVEAPIToken=provd@pve!old={SECRET}"},
            "token 'old' access expired",
        ),
    ],
)
async def test_unauthenticated(tmp_path: Path, profile: str, headers: dict[str, str], reason: str) -> None:
    """Who is not known gets 401 with nothing but a reason phrase, /version included."""
    async with open_lab(tmp_path, profile=profile) as lab, lab.client() as client:
        add_tokens(lab)
        answer = await client.get("/version", headers=headers)
        assert (answer.status_code, answer.reason_phrase, answer.content) == (401, reason, b"")


async def test_token_with_a_blank(lab: Lab) -> None:
    """A blank may stand for the first equals sign of a token header."""
    async with lab.client() as client:
        answer = await client.get("/version", headers={"Authorization": f"PVEAPIToken {AUDITOR}={SECRET}"})
        assert answer.status_code == 200


async def test_ticket_and_csrf(lab: Lab) -> None:
    """A ticket reads; to write, it needs its CSRF token too."""
    async with lab.root_session() as client:
        assert (await client.get("/cluster/status")).status_code == 200
        token = client.headers.pop("CSRFPreventionToken")
        answer = await client.delete("/cluster/config/nodes/pve9")
        assert (answer.status_code, answer.reason_phrase) == (401, "Permission denied - invalid csrf token")
        client.headers["CSRFPreventionToken"] = token
        answer = await client.delete("/cluster/config/nodes/pve9")
        assert answer.reason_phrase == "Node/IP: pve9 is not a known host of the cluster."


async def test_ticket_expires(lab: Lab) -> None:
    """A ticket older than its lifetime is no ticket."""
    async with lab.root_session() as client:
        with lab.cluster.edit() as state:
            state.timings.ticket_lifetime = -1
        assert (await client.get("/version")).reason_phrase == "Authentication failed!"


async def test_login(lab: Lab) -> None:
    """The answer to a login has user, ticket, CSRF token, capabilities and the cluster's name."""
    async with lab.client() as client:
        answer = await client.post("/access/ticket", json={"username": "root@pam", "password": PASSWORD})
        login = answer.json()["data"]
        assert login["username"] == "root@pam"
        assert login["clustername"] == "lab"
        assert login["ticket"].startswith("PVE:root@pam:")
        assert set(login) == {"username", "ticket", "CSRFPreventionToken", "cap", "clustername"}
        assert (await client.get("/access/ticket")).json() == {"data": None}


async def test_login_refused(lab: Lab) -> None:
    """Wrong words are 401 without a detail, missing ones 400, a token 403 with a reason cut in the middle."""
    async with lab.client() as client:
        answer = await client.post("/access/ticket", data={"username": "root@pam", "password": "x"})
        assert (answer.status_code, answer.reason_phrase, answer.content) == (
            401,
            "authentication failure",
            b"",
        )
        answer = await client.post("/access/ticket", data={"username": "root@pam"})
        assert answer.status_code == 400
        assert answer.json() == {
            "data": None,
            "message": "Parameter verification failed.\n",
            "errors": {"password": "property is missing and it is not optional"},
        }
    async with lab.client(token=f"{AUDITOR}={SECRET}") as client:
        answer = await client.post("/access/ticket", data={"username": "root@pam", "password": PASSWORD})
        assert answer.status_code == 403
        assert answer.reason_phrase == (
            "Permission check failed (URI '/access/ticket' not available with API token, need proper ticket."
        )


async def test_second_factor(lab: Lab) -> None:
    """With a second factor the first ticket opens nothing but the second login."""
    with lab.cluster.edit() as state:
        state.tfa = "totp"
    async with lab.client() as client:
        first = {"username": "root@pam", "password": PASSWORD}
        half = (await client.post("/access/ticket", data=first)).json()["data"]
        assert half["NeedTFA"] == 1
        assert half["ticket"].startswith("PVE:!tfa!%7B%22totp%22%3Atrue%7D:")
        assert "cap" not in half
        cookie = {"Cookie": f"PVEAuthCookie={quote(half['ticket'], safe='')}"}
        assert (await client.get("/version", headers=cookie)).status_code == 401
        second = {"username": "root@pam", "tfa-challenge": half["ticket"], "password": "totp:000000"}
        assert (await client.post("/access/ticket", data=second)).status_code == 401
        second["password"] = "totp:123456"
        whole = (await client.post("/access/ticket", data=second)).json()["data"]
        cookie = {"Cookie": f"PVEAuthCookie={quote(whole['ticket'], safe='')}"}
        assert (await client.get("/version", headers=cookie)).status_code == 200


@pytest.mark.parametrize(("profile", "has_message"), [("pve91", True), ("pve81", False)])
async def test_error_bodies(tmp_path: Path, profile: str, has_message: bool) -> None:
    """Old releases tell the error in the reason phrase only."""
    async with open_lab(tmp_path, profile=profile) as lab:
        add_tokens(lab)
        answer = await get(lab, "/foo")
        assert (answer.status_code, answer.reason_phrase) == (501, "Method 'GET /foo' not implemented")
        message = {"message": "Method 'GET /foo' not implemented\n"} if has_message else {}
        assert answer.json() == {"data": None, **message}


async def test_not_the_api(lab: Lab) -> None:
    """Outside of /api2/json there is nothing."""
    async with lab.client() as client:
        answer = await client.get(f"https://{MEMBER}:{lab.cluster.read().api_port}/other")
        assert (answer.status_code, answer.reason_phrase) == (501, "no such uri")


@given(
    query=st.text(max_size=50),
    kind=st.sampled_from(["application/json", "application/json;charset=UTF-8", "text/plain", ""]),
    body=st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(dumped),
)
def test_any_parameters(query: str, kind: str, body: bytes) -> None:
    """Whatever a client sends as parameters is a table of texts, or an error 400."""
    try:
        found = parameters_in(query, kind, body)
    except ApiError as error:
        assert error.status == 400  # noqa: PT017 - either end is right
    else:
        assert all(isinstance(text, str) for pair in found.items() for text in pair)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/%00%01%0d%0aX: y", {}),
        ("/nodes/pve1/tasks/UPID%00/log", {}),
        ("/%ff%c3%a4", {}),
        ("/version", {"Cookie": "PVEAuthCookie=PVE:root@pam:00000000::%C3%A4"}),
        ("/version", {"Authorization": "PVEAPIToken=\xe4!=\xe4"}),
    ],
)
async def test_odd_requests(lab: Lab, path: str, headers: dict[str, str]) -> None:
    """Odd bytes in paths and headers are errors of the client, and the server goes on."""
    async with lab.client(token=f"{AUDITOR}={SECRET}") as client:
        raw = [(name.encode(), text.encode("latin-1")) for name, text in headers.items()]
        answer = await client.get(path, headers=raw)
        assert answer.status_code >= 400 or "Cookie" not in headers
    assert await data(lab, "/cluster/config/apiversion") == 1


@pytest.mark.parametrize("name", ["..", "a b", "-a", "a%0a"])
async def test_odd_node_names(lab: Lab, name: str) -> None:
    """Only what can be a node's name is added."""
    before = lab.cluster.read()
    async with lab.root_session() as client:
        answer = await client.post(f"/cluster/config/nodes/{name}", data={"new_node_ip": NEWCOMER})
        assert answer.status_code in (400, 501)
    assert lab.cluster.read() == before


# --- permissions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/cluster/config/join"),
        ("POST", "/cluster/config/nodes/pve5"),
        ("DELETE", "/cluster/config/nodes/pve1"),
        ("POST", "/cluster/config"),
    ],
)
async def test_tokens_cannot_change_membership(lab: Lab, method: str, path: str) -> None:
    """No token, not even root's with all privileges, may join, add or delete."""
    async with lab.client(token=f"root@pam!full={SECRET}") as client:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.reason_phrase) == (
            403,
            "Permission check failed (user != root@pam)",
        )


async def test_privilege_is_needed(lab: Lab) -> None:
    """A token without Sys.Audit is told what it lacks; what needs no privilege, it may read."""
    for path in ("/cluster/status", "/cluster/config/join", "/cluster/ha/resources"):
        answer = await get(lab, path, "provd@pve!nobody")
        assert (answer.status_code, answer.reason_phrase) == (403, "Permission check failed (/, Sys.Audit)")
    assert await data(lab, "/nodes", "provd@pve!nobody") == [
        {
            "node": "pve1",
            "id": "node/pve1",
            "type": "node",
            "status": "online",
            "level": "",
            "ssl_fingerprint": lab.cluster.fingerprint("pve1"),
        }
    ]


async def test_guests_are_filtered(lab: Lab) -> None:
    """Without VM.Audit the list of guests and of replication jobs is empty, and that is no error."""
    with lab.cluster.edit() as state:
        state.guests = [Guest(vmid=100, node="pve1", name="web"), Guest(vmid=101, node="gone", type="lxc")]
        state.replication = [ReplicationJob(id="100-0", guest=100, source="pve1", target="pve2")]
        state.tokens["provd@pve!one"] = Token(secret=SECRET, privs={"/vms/101": ["VM.Audit"]})
    assert await data(lab, "/cluster/resources?type=vm", "provd@pve!blind") == []
    assert await data(lab, "/cluster/replication", "provd@pve!blind") == []
    seen = await data(lab, "/cluster/resources?type=vm")
    assert [(guest["id"], guest["status"]) for guest in seen] == [
        ("qemu/100", "running"),
        ("lxc/101", "unknown"),
    ]
    assert [
        guest["vmid"] for guest in await data(lab, "/cluster/resources", "provd@pve!one") if "vmid" in guest
    ] == [101]
    assert (await data(lab, "/cluster/replication"))[0]["target"] == "pve2"
    assert await data(lab, "/access/permissions", "provd@pve!blind") == {"/": {"Sys.Audit": 1}}
    assert [guest["vmid"] for guest in await data(lab, "/nodes/pve1/qemu")] == [100]


# --- the cluster ------------------------------------------------------------------------------------


async def test_cluster_status(lab: Lab) -> None:
    """One entry for the cluster, one per node, integers for booleans, no address of a node never seen."""
    lab.cluster.add_member("pve2", "127.77.0.2", online=False)
    with lab.cluster.edit() as state:
        state.nodes["pve2"].seen = False
    cluster, *nodes = await data(lab, "/cluster/status")
    expected = {"id": "cluster", "name": "lab", "nodes": 2, "quorate": 0, "type": "cluster", "version": 2}
    assert cluster == expected
    assert sorted(nodes, key=lambda node: str(node["name"])) == [
        {
            "type": "node",
            "id": "node/pve1",
            "name": "pve1",
            "nodeid": 1,
            "ip": MEMBER,
            "local": 1,
            "online": 1,
            "level": "",
        },
        {
            "type": "node",
            "id": "node/pve2",
            "name": "pve2",
            "nodeid": 2,
            "local": 0,
            "online": 0,
            "level": "",
        },
    ]


async def test_configuration(lab: Lab) -> None:
    """What comes from corosync.conf comes as strings."""
    assert await data(lab, "/cluster/config/nodes") == [
        {"node": "pve1", "name": "pve1", "nodeid": "1", "quorum_votes": "1", "ring0_addr": MEMBER}
    ]
    assert await data(lab, "/cluster/config/totem") == {
        "cluster_name": "lab",
        "config_version": "1",
        "interface": {"0": {"linknumber": "0"}},
        "ip_version": "ipv4-6",
        "link_mode": "passive",
        "secauth": "on",
        "version": "2",
    }
    assert await data(lab, "/cluster/config/apiversion") == 1
    assert await data(lab, "/cluster/config/qdevice") == {}
    assert [entry["name"] for entry in await data(lab, "/cluster/config")] == [
        "nodes",
        "totem",
        "join",
        "qdevice",
        "apiversion",
    ]


async def test_join_information(lab: Lab) -> None:
    """The join information names each node's served fingerprint; a node without certificate spoils it."""
    info = await data(lab, "/cluster/config/join")
    assert info["preferred_node"] == "pve1"
    assert info["nodelist"] == [
        {
            "name": "pve1",
            "nodeid": "1",
            "quorum_votes": "1",
            "ring0_addr": MEMBER,
            "pve_addr": MEMBER,
            "pve_fp": lab.cluster.fingerprint("pve1"),
        }
    ]
    assert len(info["config_digest"]) == 40
    answer = await get(lab, "/cluster/config/join?node=x")
    assert (answer.status_code, answer.reason_phrase) == (500, "unknown node 'x'")
    with lab.cluster.edit() as state:
        state.faults.drop_after_step = 11
    await lab.add()
    answer = await get(lab, "/cluster/config/join")
    assert (answer.status_code, answer.reason_phrase) == (
        500,
        "'/etc/pve/nodes/pve5/pve-ssl.pem' does not exist!",
    )


async def test_stand_alone(tmp_path: Path) -> None:
    """A node that is in no cluster says so with one entry, an empty list, and 424; it can found a cluster."""
    async with open_lab(tmp_path, name=None) as lab:
        add_tokens(lab)
        alone = {"type": "node", "id": "node/pve1", "name": "pve1", "ip": MEMBER, "local": 1}
        assert await data(lab, "/cluster/status") == [{**alone, "nodeid": 0, "online": 1, "level": ""}]
        assert await data(lab, "/cluster/config/nodes") == []
        answer = await get(lab, "/cluster/config/join")
        assert (answer.status_code, answer.reason_phrase) == (
            424,
            "node is not in a cluster, no join info available!",
        )
        status = await lab.run(lab.member, "pvecm", "status")
        assert (status.out, status.status) == ("", 2)
        async with lab.root_session() as client:
            upid = (await client.post("/cluster/config", data={"clustername": "new"})).json()["data"]
            task = (await client.get(f"/nodes/pve1/tasks/{upid}/status")).json()["data"]
            assert (task["type"], task["exitstatus"]) == ("clustercreate", "OK")
            again = await client.post("/cluster/config", data={"clustername": "new"})
            assert again.reason_phrase == "cluster config '/etc/pve/corosync.conf' already exists"
        assert (await data(lab, "/cluster/status"))[0]["name"] == "new"


async def test_add_and_delete(lab: Lab) -> None:
    """Adding hands out corosync's key and raises the votes at once; deleting takes them back."""
    async with lab.root_session() as client:
        path = "/cluster/config/nodes/pve5"
        answer = await client.post(path, data={"apiversion": "1", "new_node_ip": NEWCOMER})
        admission = answer.json()["data"]
        assert len(admission["corosync_authkey"].encode("latin-1")) == 256
        assert admission["warnings"] == []
        assert f"ring0_addr: {NEWCOMER}\n" in admission["corosync_conf"]
        [cluster, *_] = (await client.get("/cluster/status")).json()["data"]
        assert (cluster["nodes"], cluster["version"], cluster["quorate"]) == (2, 2, 0)
        answer = await client.delete(path)
        assert (answer.status_code, answer.reason_phrase) == (500, "cluster not ready - no quorum?")
        with lab.cluster.edit() as state:
            state.expected_votes = 1
        assert (await client.delete(path)).json() == {"data": None}
        assert lab.cluster.read().quorate
        answer = await client.delete("/cluster/config/nodes/pve1")
        assert answer.reason_phrase == "Cannot delete myself from cluster!"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        (
            {"apiversion": -1},
            "error: unsupported old API version on joining node (-1), cluster node has 1 and supports >= 0."
            " Please upgrade node before joining",
        ),
        ({}, "no links and no fallback ip (new_node_ip) given, cannot join cluster"),
        (
            {"link0": NEWCOMER, "link1": NEWCOMER},
            "corosync: link 1 specified for new node doesn't exist in cluster config",
        ),
        ({"link0": MEMBER}, f"corosync: address '{MEMBER}' already used on link ring0_addr by node 'pve1'"),
    ],
)
async def test_addnode_refusals(lab: Lab, parameters: dict[str, Any], reason: str) -> None:
    """What the member refuses, it refuses with 500 and its text."""
    async with lab.root_session() as client:
        answer = await client.post("/cluster/config/nodes/pve5", json=parameters)
        assert (answer.status_code, answer.reason_phrase) == (500, reason)


async def test_two_links_need_two_addresses(lab: Lab) -> None:
    """The fallback address serves clusters of one link only."""
    with lab.cluster.edit() as state:
        state.nodes["pve1"].links["1"] = "127.78.0.1"
    async with lab.root_session() as client:
        answer = await client.post("/cluster/config/nodes/pve5", data={"new_node_ip": NEWCOMER})
        assert answer.reason_phrase.startswith("no links given but multiple links found on other nodes")


async def test_high_availability(lab: Lab) -> None:
    """Without resources there is the quorum's line alone; with them master, managers and services."""
    assert [row["type"] for row in await data(lab, "/cluster/ha/status/current")] == ["quorum"]
    assert await data(lab, "/cluster/ha/resources") == []
    with lab.cluster.edit() as state:
        state.ha_resources = [HaResource(sid="vm:100", node="pve1")]
        state.ha_maintenance = ["pve1"]
        state.profile = "pve92"
    rows = await data(lab, "/cluster/ha/status/current")
    assert [row["type"] for row in rows] == ["quorum", "fencing", "master", "lrm", "service"]
    assert (await data(lab, "/cluster/ha/resources"))[0]["sid"] == "vm:100"
    manager = await data(lab, "/cluster/ha/status/manager_status")
    assert manager["manager_status"]["node_status"] == {"pve1": "maintenance"}


async def test_certificates(lab: Lab) -> None:
    """The certificates' list has the CA, the leaf, and a custom leaf, which is the one that is served."""
    with lab.cluster.edit() as state:
        state.faults.peer_other_cert = ["pve1"]
    files = {entry["filename"]: entry for entry in await data(lab, "/nodes/pve1/certificates/info")}
    assert list(files) == ["pve-root-ca.pem", "pve-ssl.pem", "pveproxy-ssl.pem"]
    assert files["pve-ssl.pem"]["issuer"] == files["pve-root-ca.pem"]["subject"]
    custom = files["pveproxy-ssl.pem"]
    assert custom["issuer"] != files["pve-root-ca.pem"]["subject"]
    assert custom["fingerprint"] == lab.cluster.fingerprint("pve1")
    assert len(custom["fingerprint"]) == 95
    assert {MEMBER, "pve1"} <= set(custom["san"])


async def test_proxied_calls(lab: Lab) -> None:
    """A call about another node fails in the proxy's own ways: down, gone, or with a certificate too new."""
    lab.cluster.add_member("pve2", "127.77.0.2")
    path = "/nodes/pve2/certificates/info"
    assert len(await data(lab, path)) == 2

    async def failure() -> tuple[int, str, bytes]:
        answer = await get(lab, path)
        return answer.status_code, answer.reason_phrase, answer.content

    def two(state: ClusterState) -> Any:
        return state.nodes["pve2"]

    with lab.cluster.edit() as state:
        state.faults.peer_down = ["pve2"]
    assert await failure() == (595, "Connection refused", b"")
    with lab.cluster.edit() as state:
        state.faults.peer_down = []
        two(state).online = False
    assert await failure() == (595, "No route to host", b"")
    with lab.cluster.edit() as state:
        two(state).online = True
        state.faults.peer_other_cert = ["pve2"]
    assert (await failure())[0] == 596


# --- joining by API ---------------------------------------------------------------------------------


async def serve_newcomer(lab: Lab) -> None:
    await lab.nursery.start(partial(serve_api, lab.cluster, "pve5", root=lab.newcomer))


async def finished(client: httpx.AsyncClient, upid: str) -> str:
    with trio.fail_after(20):
        while True:
            task = (await client.get(f"/nodes/pve5/tasks/{upid}/status")).json()["data"]
            if task["status"] == "stopped":
                return str(task["exitstatus"])
            await trio.sleep(0.01)


async def test_join_parameters(lab: Lab) -> None:
    """Missing, malformed and unknown parameters are all named."""
    await serve_newcomer(lab)
    async with lab.root_session(NEWCOMER, "local") as client:
        answer = await client.post("/cluster/config/join", data={"fingerprint": "AB", "x": "1"})
        assert answer.status_code == 400
        assert answer.json()["errors"] == {
            "fingerprint": "value does not match the regex pattern",
            "hostname": "property is missing and it is not optional",
            "password": "property is missing and it is not optional",
            "x": "property is not defined in schema and the schema does not allow additional properties",
        }


async def test_join_that_fails_is_a_task_that_fails(lab: Lab) -> None:
    """A wrong password is a success of the call, and shows in the task alone."""
    await serve_newcomer(lab)
    async with lab.root_session(NEWCOMER, "local") as client:
        wish = {"hostname": MEMBER, "fingerprint": lab.cluster.fingerprint("pve1"), "password": "wrong"}
        answer = await client.post("/cluster/config/join", data=wish)
        upid = answer.json()["data"]
        assert upid.startswith("UPID:pve5:")
        assert await finished(client, upid) == "401 authentication failure"
        log = (await client.get(f"/nodes/pve5/tasks/{upid}/log")).json()["data"]
        assert log == [
            {"n": 1, "t": f"Establishing API connection with host '{MEMBER}'"},
            {"n": 2, "t": "TASK ERROR: 401 authentication failure"},
        ]
        unknown = await client.get(f"/nodes/pve5/tasks/{upid.replace('clusterjoin', 'other')}/status")
        assert (unknown.status_code, unknown.json()["errors"]) == (400, {"upid": "no such task"})


async def test_join_by_api(lab: Lab) -> None:
    """After a join by API the newcomer is a member, with another certificate, and forgets its old tickets."""
    await serve_newcomer(lab)
    with lab.cluster.edit() as state:
        state.timings.cert_cache = 0
    async with lab.root_session(NEWCOMER, "local") as client:
        wish = {
            "hostname": MEMBER,
            "fingerprint": lab.cluster.fingerprint("pve1"),
            "password": PASSWORD,
            "link0": NEWCOMER,
        }
        upid = (await client.post("/cluster/config/join", data=wish)).json()["data"]
        cookie = client.headers, client.cookies
    async with lab.root_session() as member:
        with trio.fail_after(20):
            while True:  # unreachable by proxy until it is online
                answer = await member.get(f"/nodes/pve5/tasks/{upid}/status")
                if answer.status_code == 200 and answer.json()["data"].get("exitstatus"):
                    break
                await trio.sleep(0.01)
        assert answer.json()["data"]["exitstatus"] == "OK"
    async with lab.client(NEWCOMER) as client:
        client.headers, client.cookies = cookie
        refused: httpx.Response | None = None
        with trio.fail_after(10):
            while refused is None:
                try:
                    refused = await client.get("/version")
                except httpx.TransportError:  # restarting
                    await trio.sleep(0.01)
        assert refused.status_code == 401
    async with lab.client(NEWCOMER, f"{AUDITOR}={SECRET}") as client:
        stream = (await client.get("/cluster/status")).json()["data"]
        assert {row["name"]: row["local"] for row in stream if row["type"] == "node"} == {
            "pve1": 0,
            "pve5": 1,
        }


async def test_firewalled_newcomer(lab: Lab) -> None:
    """With the cluster's firewall on, a newcomer answers addresses of the management set only."""
    with lab.cluster.edit() as state:
        state.faults.firewall_on_after_join = True
        state.timings.api_restart = 0
    assert (await lab.add()).err == ""
    await serve_newcomer(lab)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = lab.cluster.read().api_port
    async with await trio.open_ssl_over_tcp_stream(NEWCOMER, port, ssl_context=context) as stream:
        with trio.move_on_after(0.2) as dropped:
            await stream.do_handshake()
        assert dropped.cancelled_caught
    with lab.cluster.edit() as state:
        state.management = ["127.0.0.1"]
    async with lab.client(NEWCOMER, f"{AUDITOR}={SECRET}") as client:
        assert (await client.get("/version")).status_code == 200


async def test_machine_between_two_lives(lab: Lab) -> None:
    """While pmxcfs is stopped, and when its node was deleted, a machine's API has no answers."""
    await serve_newcomer(lab)
    with lab.cluster.edit() as state:
        state.faults.udp_blocked = True
    async with lab.root_session(NEWCOMER, "local") as client:
        process = await lab.start_add()
        with trio.fail_after(10):
            while (answer := await client.get("/version")).status_code == 200:
                pass
        assert (answer.status_code, answer.reason_phrase) == (
            500,
            "ipcc_send_rec[1] failed: Connection refused",
        )
        stop_pvecm(lab.newcomer)
        await process.wait()
    assert not Machine(lab.newcomer).read().joined


def test_fingerprint_form() -> None:
    """A fingerprint is 95 characters, upper case, with colons."""
    assert (
        fingerprint_of(b"")
        == "E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55"
    )
