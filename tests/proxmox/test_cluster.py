"""The view of a cluster through one member: a simulated member over real HTTPS, and answers of every kind."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.errors import ClusterFailed
from provd.domain.secrets import Secret
from provd.http_client import Response
from provd.proxmox.cluster import (
    ClusterStatus,
    ConfigNode,
    LoginRefused,
    Member,
    NodeStatus,
    Ticket,
    open_member,
    parse_status,
)
from provd.proxmox.envelope import complaint, parse, read_envelope
from provd.simulator.cluster import Cluster
from provd.simulator.cluster.api import serve_api

PASSWORD = Secret("root's own password")
WRONG = ":".join(["AB"] * 32)

WHOLE = {"type": "cluster", "id": "cluster", "name": "lab", "nodes": 1, "version": 7, "quorate": 1}
NODE = {"type": "node", "id": "node/pve1", "name": "pve1", "nodeid": 1, "ip": "10.0.0.1", "online": 1}


@frozen
class Served:
    cluster: Cluster
    port: int

    async def status(self) -> ClusterStatus:
        async with self.open() as member:
            return await member.status()

    @asynccontextmanager
    async def open(self, password: Secret = PASSWORD, fingerprint: str = "") -> AsyncIterator[Member]:
        pin = fingerprint or self.cluster.fingerprint("pve1")
        async with open_member("127.0.0.1", self.port, pin, password) as member:
            yield member


@asynccontextmanager
async def served(directory: Path, name: str | None = "lab", profile: str = "pve91") -> AsyncIterator[Served]:
    """A cluster whose first member `pve1` answers on the loopback, at once also when it refuses."""
    cluster = Cluster.create(
        directory / "cluster", name=name, ip="127.0.0.1", root_password=PASSWORD.reveal(), profile=profile
    )
    with cluster.edit() as state:
        state.timings.auth_delay = 0
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            _, port = await nursery.start(serve_api, cluster, "pve1")
            yield Served(cluster, port)
            nursery.cancel_scope.cancel()


# --- a member that behaves -------------------------------------------------------------------------


async def test_status_of_a_cluster(tmp_path: Path) -> None:
    """Name, quorum, version and every member, online or not, are what the cluster has."""
    async with served(tmp_path) as lab:
        lab.cluster.add_member("pve2", "127.0.0.2")
        lab.cluster.add_member("pve3", "127.0.0.3", online=False)
        with lab.cluster.edit() as state:
            state.nodes["pve3"].seen = False
        status = await lab.status()
        version = lab.cluster.read().config_version
    assert (status.name, status.quorate, status.version) == ("lab", True, version)
    assert sorted(status.nodes, key=lambda node: node.name) == [
        NodeStatus(name="pve1", nodeid=1, ip=ip_address("127.0.0.1"), online=True, local=True),
        NodeStatus(name="pve2", nodeid=2, ip=ip_address("127.0.0.2"), online=True),
        NodeStatus(name="pve3", nodeid=3, ip=None, online=False),
    ]


async def test_status_without_quorum(tmp_path: Path) -> None:
    """A cluster that lost its majority says so."""
    async with served(tmp_path) as lab:
        for number in (2, 3):
            lab.cluster.add_member(f"pve{number}", f"127.0.0.{number}", online=False)
        assert not (await lab.status()).quorate


async def test_status_of_a_machine_alone(tmp_path: Path) -> None:
    """A machine in no cluster has no name, version 0, and one node: itself."""
    async with served(tmp_path, name=None) as lab:
        status = await lab.status()
        async with lab.open() as member:
            configured = await member.config_nodes()
    me = NodeStatus(name="pve1", nodeid=0, ip=ip_address("127.0.0.1"), online=True, local=True)
    assert status == ClusterStatus(name=None, quorate=True, version=0, nodes=(me,))
    assert configured == ()


async def test_configured_nodes(tmp_path: Path) -> None:
    """corosync.conf's numbers, which arrive as text, are numbers here."""
    async with served(tmp_path) as lab:
        lab.cluster.add_member("pve2", "127.0.0.2", online=False)
        async with lab.open() as member:
            nodes = await member.config_nodes()
    assert sorted(nodes, key=lambda node: node.nodeid) == [
        ConfigNode(name=f"pve{n}", nodeid=n, quorum_votes=1, ring0_addr=ip, links={0: ip})
        for n, ip in ((1, "127.0.0.1"), (2, "127.0.0.2"))
    ]


# --- a member that says no -------------------------------------------------------------------------


async def test_a_wrong_password(tmp_path: Path) -> None:
    """The refusal names the member and not the password, and is not to be repeated."""
    async with served(tmp_path) as lab:
        with pytest.raises(LoginRefused, match="the cluster refused root's password") as caught:
            async with lab.open(password=Secret("a guess")):
                raise AssertionError("not reached")
    assert f"127.0.0.1:{lab.port}" in str(caught.value)
    assert "guess" not in str(caught.value)


async def test_a_second_factor(tmp_path: Path) -> None:
    """Root with two factors cannot be used, and the sentence says what to do."""
    async with served(tmp_path) as lab:
        with lab.cluster.edit() as state:
            state.tfa = "totp"
        with pytest.raises(LoginRefused, match=r"second factor.*Two Factor"):
            async with lab.open():
                raise AssertionError("not reached")


async def test_another_certificate(tmp_path: Path) -> None:
    """A member that changed its certificate is told nothing; the sentence has both fingerprints."""
    async with served(tmp_path) as lab:
        with pytest.raises(ClusterFailed, match="certificate") as caught:
            async with lab.open(fingerprint=WRONG):
                raise AssertionError("not reached")
        assert lab.cluster.fingerprint("pve1") in str(caught.value)
    assert WRONG in str(caught.value)


async def test_nobody_there(tmp_path: Path) -> None:
    """A member that is down is named with the reason."""
    async with served(tmp_path) as lab:
        pass
    with pytest.raises(ClusterFailed, match=rf"127\.0\.0\.1:{lab.port} cannot be asked: Connection refused"):
        async with lab.open():
            raise AssertionError("not reached")


@pytest.mark.parametrize("address", ["::1", "127.0.0.1/x", "1.2.3.4@127.0.0.1", "[", ""])
async def test_an_address_where_nobody_is(address: str) -> None:
    """Whatever stands where the address should, the outcome is a sentence and no request elsewhere."""
    with trio.fail_after(10), pytest.raises(ClusterFailed, match="cannot be asked"):
        async with open_member(address, 1, WRONG, PASSWORD):
            raise AssertionError("not reached")


@pytest.mark.parametrize("profile", ["pve91", "pve81"])
async def test_a_refused_request_has_the_members_words(tmp_path: Path, profile: str) -> None:
    """The reason is found in the body of new members and in the status line of old ones."""
    async with served(tmp_path, profile=profile) as lab, lab.open() as member:
        with pytest.raises(ClusterFailed, match=r"/nowhere answered 501 Method 'GET /nowhere' not impl"):
            await member.get("/nowhere")


# --- answers of every kind -------------------------------------------------------------------------


def answering(status: int, body: bytes, reason: bytes = b"Because") -> Response:
    return Response(status, content=body, extensions={"reason_phrase": reason})


def status_of(body: bytes) -> ClusterStatus:
    return parse_status(read_envelope(answering(200, body), "pve1"), "pve1")


def enveloped(data: object) -> bytes:
    return json.dumps({"data": data}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b"[]",
        b"null",
        enveloped(None),
        enveloped({}),
        enveloped([]),
        enveloped([1]),
        enveloped([WHOLE]),
        enveloped([WHOLE, WHOLE, NODE]),
        enveloped([NODE, {"type": "qdevice"}]),
        enveloped([NODE, {}]),
        enveloped([NODE, {**WHOLE, "quorate": "yes"}]),
        enveloped([NODE, {**WHOLE, "quorate": 2}]),
        enveloped([NODE, {**WHOLE, "quorate": None}]),
        enveloped([NODE, {**WHOLE, "version": 1.5}]),
        enveloped([NODE, {**WHOLE, "version": "-1"}]),
        enveloped([NODE, {**WHOLE, "version": "9" * 5000}]),
        enveloped([NODE, {**WHOLE, "name": 7}]),
        enveloped([WHOLE, {**NODE, "online": []}]),
        enveloped([WHOLE, {**NODE, "ip": "10.0.0.999"}]),
        enveloped([WHOLE, {**NODE, "ip": 1}]),
        enveloped([WHOLE, {**NODE, "name": "a\nb"}]),
        enveloped([WHOLE, {**NODE, "name": "\ud800"}]),
        enveloped([WHOLE, {key: value for key, value in NODE.items() if key != "online"}]),
    ],
)
def test_a_strange_status_is_not_believed(body: bytes) -> None:
    """What is not exactly a status, quorum above all, is an error in one printable line, never a guess."""
    with pytest.raises(ClusterFailed, match="something else than Proxmox VE does") as caught:
        status_of(body)
    assert str(caught.value).isprintable()


def test_numbers_may_come_as_text() -> None:
    """Perl's "1" is 1, and keys that a newer version adds are nobody's business."""
    whole = {**WHOLE, "version": "7", "quorate": "1", "new": {}}
    node = {**NODE, "nodeid": "1", "online": "0", "new": []}
    status = status_of(enveloped([node, whole]))
    assert (status.version, status.quorate) == (7, True)
    assert status.nodes == (NodeStatus(name="pve1", nodeid=1, ip=ip_address("10.0.0.1"), online=False),)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["type", "name", "nodeid", "ip", "online", "quorate", "version", "ring0_addr"])
likely = st.sampled_from(["node", "cluster", 1, "1", "10.0.0.1"])
documents = st.lists(st.dictionaries(keys, json_values | likely, max_size=7) | json_values, max_size=3)


@pytest.mark.parametrize("shape", [Ticket, NodeStatus, ConfigNode])
@given(data=documents | json_values)
def test_any_document_is_a_value_or_an_error(shape: type[object], data: object) -> None:
    """Whatever JSON a member answers gives a value or `ClusterFailed` in one line, nothing else."""
    complaints = []
    for read in (parse_status, partial(parse, shape)):
        try:
            read(data, "pve1")
        except ClusterFailed as exc:
            complaints.append(str(exc))
    assert all(complaint.isprintable() for complaint in complaints)


@given(st.binary(max_size=60), st.integers(201, 599))
def test_any_other_status_is_an_error(body: bytes, status: int) -> None:
    """Whatever comes with another status than 200 is `ClusterFailed` with that status."""
    with pytest.raises(ClusterFailed, match=f"pve1 answered {status}"):
        read_envelope(answering(status, body), "pve1")


def test_a_complaint_names_the_parameters() -> None:
    """The message and the reason for each parameter stand in one line."""
    envelope = {"message": "Parameter verification failed.\n", "errors": {"node": "invalid\nformat"}}
    assert complaint(answering(400, b""), envelope) == (
        "400 Parameter verification failed. (node: invalid format)"
    )
    assert complaint(answering(595, b"", b"No route to host"), {}) == "595 No route to host"


async def test_a_ticket_is_not_shown(tmp_path: Path) -> None:
    """Neither the parsed ticket nor the member that uses it has it in its `repr`."""
    assert "PVE:root@pam" not in repr(Ticket(ticket="PVE:root@pam:1234"))
    async with served(tmp_path) as lab, lab.open() as member:
        assert "PVE" in member.headers["Cookie"]
        assert "PVE" not in repr(member)
