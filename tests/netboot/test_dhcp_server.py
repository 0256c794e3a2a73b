"""The server over real sockets, on loopback: broadcasts, relays, boot server requests, nonsense, storms."""

import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from attrs import define, evolve, field, frozen

from netboot.dhcp_checker import check_reply
from netboot.dhcp_client import GUID, MAC, OFFER, REQUEST, packet
from netboot.dhcp_responder import DIRECTIONS
from provd.config import Unknown
from provd.domain.contacts import Contact, Hop
from provd.domain.errors import ConfigError
from provd.domain.hosts import Mac
from provd.domain.lifecycle import Boots
from provd.netboot.desk import Policy
from provd.netboot.dhcp_server import Outgoing, Post, Responder, attend, serve
from provd.netboot.dhcp_sockets import Sharing, open_boot_server, open_dhcp
from provd.netboot.neighbours import Neighbours
from provd.netboot.proxy_dhcp import Door, Ports
from provd.netboot.udp import Datagram, open_udp, send
from provd.simulator.lab import free_port

HOME = IPv4Address("127.0.0.1")
LOOPBACK = IPv4Network("127.0.0.0/8")
LO = socket.if_nametoindex("lo")
INSTALL = Policy(boots=Boots.INSTALLER)
Endpoint = tuple[str, int]


@define
class Desk:
    strangers: set[str] = field(factory=set)
    contacts: list[Contact] = field(factory=list)

    def policy(self, mac: Mac) -> Policy:
        return Policy(boots=None) if str(mac) in self.strangers else INSTALL

    def heard(self, contact: Contact) -> None:
        self.contacts.append(contact)


@define
class Recorder:
    packets: list[tuple[str, Endpoint, Endpoint, bytes]] = field(factory=list)

    def record(self, mac: Mac, *, source: Endpoint, target: Endpoint, payload: bytes) -> None:
        self.packets.append((str(mac), source, target, payload))


@frozen(kw_only=True)
class World:
    ports: Ports
    desk: Desk
    recorder: Recorder
    neighbours: Neighbours
    client: trio.socket.SocketType
    """On the port where a firmware listens."""

    async def broadcast(self, data: bytes) -> None:
        target = "127.255.255.255", self.ports.dhcp
        await send(self.client, data, target, source=HOME, ifindex=LO)

    async def answer(self) -> bytes:
        with trio.fail_after(5):
            return await self.client.recv(2048)

    async def hears_nothing_more(self) -> None:
        """What came before is dealt with: a question is answered, and its answer is the next."""
        question = packet(mac="52:54:00:ff:ff:ff", xid=0xFFFFFFFF)
        await self.broadcast(question)
        check_reply(await self.answer(), question, server=str(HOME))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    ports = Ports(dhcp=free_port(), boot_server=free_port(), client=free_port())
    desk, recorder, neighbours = Desk(), Recorder(), Neighbours()
    with await open_udp("0.0.0.0", ports.client, broadcast=True) as client:
        async with trio.open_nursery() as nursery:

            async def serve_here(task_status: trio.TaskStatus[tuple[Post, Sharing]]) -> None:
                await serve(
                    desk,
                    interface="lo",
                    subnet=LOOPBACK,
                    directions=DIRECTIONS,
                    unknown=Unknown.LOG,
                    neighbours=neighbours,
                    recorder=recorder,
                    ports=ports,
                    task_status=task_status,
                )

            post, sharing = await nursery.start(serve_here)
            assert (post.address, post.index, sharing) == (HOME, LO, Sharing.ALONE)
            yield World(ports=ports, desk=desk, recorder=recorder, neighbours=neighbours, client=client)
            nursery.cancel_scope.cancel()


async def test_a_broadcast_is_answered_by_a_broadcast(world: World) -> None:
    """A firmware without an address asks everybody; the offer comes from our address and port, to all."""
    question = packet()
    await world.broadcast(question)
    with trio.fail_after(5):
        data, sender = await world.client.recvfrom(2048)
    assert sender == (str(HOME), world.ports.dhcp)
    assert check_reply(data, question, server=str(HOME)).boot_file == "x64.efi"


async def test_the_desk_hears_and_the_recorder_keeps(world: World) -> None:
    """Each contact is told in a sentence; each packet is kept, in and out, with both its ends."""
    question = packet()
    await world.broadcast(question)
    data = await world.answer()
    assert world.desk.contacts == [
        Contact(
            mac=Mac(MAC),
            hop=Hop.DISCOVER,
            message="UEFI x64 asked for a boot server and got x64.efi by TFTP",
            firmware="UEFI x64",
        )
    ]
    client, ours = (str(HOME), world.ports.client), (str(HOME), world.ports.dhcp)
    assert world.recorder.packets == [
        (MAC, client, ("127.255.255.255", world.ports.dhcp), question),
        (MAC, ours, ("255.255.255.255", world.ports.client), data),
    ]


async def test_a_relay_is_answered_from_the_address_that_it_asked(world: World) -> None:
    """A relay asks one of our addresses by name, and is told to come back to that one."""
    with await open_udp("127.0.0.5", world.ports.dhcp, share=True) as relay:
        question = packet(giaddr="127.0.0.5", options=[GUID, (82, b"\1\4eth0")])
        await relay.sendto(question, ("127.0.0.9", world.ports.dhcp))
        with trio.fail_after(5):
            data, sender = await relay.recvfrom(2048)
    assert sender == ("127.0.0.9", world.ports.dhcp)
    assert check_reply(data, question, server="127.0.0.9").giaddr == "127.0.0.5"


async def test_the_boot_server_answers_where_it_was_asked_from(world: World) -> None:
    """A unicast REQUEST on port 4011 is acknowledged from port 4011 to its source, whatever the flags."""
    with await open_udp("127.0.0.8", 0) as firmware:
        question = packet(REQUEST, ciaddr="127.0.0.8", flags=0x8000)
        await firmware.sendto(question, (str(HOME), world.ports.boot_server))
        with trio.fail_after(5):
            data, sender = await firmware.recvfrom(2048)
    assert sender == (str(HOME), world.ports.boot_server)
    assert check_reply(data, question, server=str(HOME)).ciaddr == "127.0.0.8"
    assert [(each.hop, each.address) for each in world.desk.contacts] == [(Hop.BOOT_SERVER, "127.0.0.8")]


async def test_ipxe_is_told_apart(world: World) -> None:
    """The second stage asks for its script, and the operator sees that iPXE runs."""
    question = packet(options=[GUID, (77, b"iPXE")])
    await world.broadcast(question)
    seen = check_reply(await world.answer(), question, server=str(HOME))
    assert seen.boot_file == "http://127.0.0.1:8080/ipxe/52-54-00-12-34-56"
    assert [each.hop for each in world.desk.contacts] == [Hop.IPXE]


async def test_a_stranger_gets_silence_and_is_told_of(world: World) -> None:
    """An unregistered machine is not answered; the desk hears of it and decides what that means."""
    world.desk.strangers.add(MAC)
    await world.broadcast(packet())
    await world.hears_nothing_more()
    assert world.desk.contacts[0] == Contact(
        mac=Mac(MAC),
        hop=Hop.DISCOVER,
        message="UEFI x64 asked for a boot server and got no answer: nobody registered it",
        firmware="UEFI x64",
    )


async def test_no_nonsense_ends_it(world: World) -> None:
    """Empty, short, long, cut off, malformed, unanswerable: the next one is served."""
    nonsense = [
        b"", b"\1", packet()[:239], packet().ljust(1501, b"\0"), packet().ljust(60_000, b"\0"), b"\xff" * 300,
        packet(tail=b"\x3c\xff"), packet(op=2), packet(giaddr="240.0.0.1"), packet(giaddr="0.0.0.1"),
        packet(options=[(82, b"x" * 255), (97, b"y" * 255)]),
    ]  # fmt: skip
    for data in nonsense:
        await world.broadcast(data)
        await world.client.sendto(data, (str(HOME), world.ports.boot_server))
    await world.hears_nothing_more()
    question = packet(REQUEST, ciaddr="127.0.0.1")
    await world.client.sendto(question, (str(HOME), world.ports.boot_server))
    check_reply(await world.answer(), question, server=str(HOME))


async def test_every_repetition_is_answered_and_in_order(world: World) -> None:
    """A client that asks again is answered again, at once, one answer for one question."""
    questions = [packet(xid=xid) for xid in (1, 1, 2, 1, 2, 3, 3)]
    for question in questions:
        await world.broadcast(question)
    for question in questions:
        check_reply(await world.answer(), question, server=str(HOME))


async def test_a_machine_that_loops_is_left_alone_and_warned_of(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The fourth offer of a loader within a minute does not come; a script would still."""
    for xid in range(3):
        await world.broadcast(packet(xid=xid))
        await world.answer()
    with caplog.at_level(logging.WARNING):
        await world.broadcast(packet(xid=3))
        await world.hears_nothing_more()
    assert [each.message for each in caplog.records] == [
        f"{MAC} is left alone: it was given iPXE three times within a minute and is back without having "
        "asked for a script"
    ]
    assert "three times" in world.desk.contacts[3].message
    await world.broadcast(packet(xid=4, options=[(77, b"iPXE")]))
    assert await world.answer()


async def test_a_clients_address_is_learnt_from_what_it_accepts(world: World) -> None:
    """A broadcast REQUEST of any machine tells which address it takes; no phone is on record for it."""
    accepted = (50, bytes([10, 0, 0, 9]))
    await world.broadcast(packet(REQUEST, vendor_class=None, options=[accepted, (54, bytes([10, 0, 0, 1]))]))
    await world.hears_nothing_more()
    assert world.neighbours.mac_of(IPv4Address("10.0.0.9")) == Mac(MAC)
    assert {mac for mac, *_ in world.recorder.packets} == {"52:54:00:ff:ff:ff"}, "a phone is on record"


async def test_a_storm_does_not_hold_up_the_loop(world: World) -> None:
    """Of a storm all is answered, and other tasks have their turn after each handful of packets."""
    count, answers, at_each_turn = 160, 0, [0]

    async def take_turns() -> None:
        while answers < count:
            at_each_turn.append(len(world.desk.contacts))
            await trio.lowlevel.checkpoint()

    with (
        await open_udp("127.0.0.5", world.ports.dhcp, share=True) as relay,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as burst,
    ):
        # All of it is there before the server has its first turn: no await in between.
        for number in range(count):
            data = packet(mac=f"52:54:00:00:00:{number:02x}", giaddr="127.0.0.5", xid=number)
            burst.sendto(data, (str(HOME), world.ports.dhcp))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            with trio.fail_after(20):
                while answers < count:
                    await relay.recv(2048)
                    answers += 1
    # Trio shuffles who is ready: two handfuls of eight may come in a row.
    assert max(after - before for before, after in pairwise(at_each_turn)) <= 16


async def test_an_answer_that_cannot_be_sent_is_said_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    """A socket that may not broadcast fails to send one answer; the next one, to a relay, is sent."""
    here = responder([0.0], ports=Ports(dhcp=free_port()))
    line = await open_boot_server(HOME, here.ports.dhcp)
    with closing(line), await open_udp("127.0.0.5", here.ports.dhcp, share=True) as relay:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attend, line, Door.DHCP, here)
            for data in (packet(), packet(giaddr="127.0.0.5")):
                await relay.sendto(data, (str(HOME), here.ports.dhcp))
            with trio.fail_after(5):
                assert await relay.recv(2048)
            nursery.cancel_scope.cancel()
    assert caplog.messages == ["255.255.255.255 could not be answered: Permission denied"]


# --- without sockets -----------------------------------------------------------------------------


def responder(now: list[float], **changes: object) -> Responder:
    made = Responder(
        desk=Desk(),
        post=Post(interface="lo", index=LO, address=IPv4Address("10.9.0.2")),
        directions=DIRECTIONS,
        unknown=Unknown.LOG,
        neighbours=Neighbours(),
        recorder=Recorder(),
        ports=Ports(),
        clock=lambda: now[0],
    )
    return evolve(made, **changes)  # type: ignore[arg-type]


def datagram(data: bytes, **changes: object) -> Datagram:
    made = Datagram(
        data=data,
        whole=True,
        peer=("0.0.0.0", 68),
        local=IPv4Address("10.9.0.99"),
        ifindex=LO,
        target=IPv4Address("255.255.255.255"),
    )
    return evolve(made, **changes)  # type: ignore[arg-type]


def answers(responder: Responder, datagram: Datagram) -> list[Outgoing]:
    sent: list[Outgoing] = []
    responder.respond(datagram, Door.DHCP, sent.append)
    return sent


def test_a_broadcast_is_answered_with_the_address_in_the_subnet() -> None:
    """Of several addresses on an interface the one in pxe.subnet is named, not the kernel's first."""
    question = packet()
    [sent] = answers(responder([0.0]), datagram(question))
    assert (sent.source, sent.target, sent.ifindex) == (IPv4Address("10.9.0.2"), ("255.255.255.255", 68), LO)
    check_reply(sent.data, question, server="10.9.0.2")


def test_the_answer_leaves_first() -> None:
    """A firmware does not wait until it is written down that it asked and what it got."""
    desk, recorder = Desk(), Recorder()
    here = responder([0.0], desk=desk, recorder=recorder)
    noted: list[int] = []

    def send(answer: Outgoing) -> None:
        noted.append(len(desk.contacts) + len(recorder.packets))

    here.respond(datagram(packet()), Door.DHCP, send)
    assert noted == [0]
    assert (len(desk.contacts), len(recorder.packets)) == (1, 2)


def test_what_was_cut_off_is_not_answered() -> None:
    """Even where what is left would make a request."""
    assert answers(responder([0.0]), datagram(packet(), whole=False)) == []


def test_a_warning_is_not_repeated_within_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """Strangers who can cause warnings cannot fill the journal with them."""
    now = [0.0]
    here = responder(now, directions=evolve(DIRECTIONS, loader_for=lambda _, __: None))
    for second in (0.0, 0.5, 0.9, 1.0, 1.5):
        now[0] = second
        assert answers(here, datagram(packet())) == []
    assert len(caplog.records) == 2


def test_another_interface_is_not_ours() -> None:
    """Only what came in by the configured interface counts; its number may change, its name does not."""
    assert responder([0.0]).is_ours(LO)
    assert not responder([0.0]).is_ours(99_999)
    made_anew = Post(interface="lo", index=99_999, address=HOME)
    assert responder([0.0], post=made_anew).is_ours(LO)
    assert not responder([0.0], post=evolve(made_anew, interface="eth7")).is_ours(LO)


# --- what cannot be ------------------------------------------------------------------------------


async def refusal(interface: str, subnet: str, ports: Ports) -> str:
    with pytest.raises(ConfigError) as caught:
        await serve(
            Desk(),
            interface=interface,
            subnet=IPv4Network(subnet),
            directions=DIRECTIONS,
            unknown=Unknown.LOG,
            neighbours=Neighbours(),
            recorder=Recorder(),
            ports=ports,
        )
    return str(caught.value)


async def test_an_interface_that_does_not_fit_is_refused() -> None:
    """The sentence names interface, subnet, and the addresses or interfaces that there are."""
    ports = Ports(dhcp=free_port(), boot_server=free_port(), client=free_port())
    assert "'nosuch0'" in await refusal("nosuch0", "127.0.0.0/8", ports)
    sentence = await refusal("lo", "192.0.2.0/24", ports)
    assert all(word in sentence for word in ("lo", "192.0.2.0/24", "127.0.0.1/8"))


async def test_a_boot_server_beside_another_one_is_refused() -> None:
    """Port 4011 has one meaning; the sentence says who has it, and port 67 is given back."""
    with await open_udp("127.0.0.1", 0) as other:
        ports = Ports(dhcp=free_port(), boot_server=other.getsockname()[1], client=free_port())
        sentence = await refusal("lo", "127.0.0.0/8", ports)
        assert f"UDP port {ports.boot_server} is held by " in sentence
    line, sharing = await open_dhcp(ports.dhcp)
    line.close()
    assert sharing is Sharing.ALONE
    (await open_boot_server(HOME, ports.boot_server)).close()


HELD = """
import socket, sys, trio
from provd.domain.errors import ConfigError
from provd.netboot.dhcp_sockets import open_dhcp
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.bind(("0.0.0.0", int(sys.argv[1])))
try:
    print(trio.run(open_dhcp, int(sys.argv[1]))[1])
except ConfigError as exc:
    print(exc)
"""


def test_a_port_that_another_server_keeps_is_refused_without_the_capability() -> None:
    """Who may not listen along with a raw socket is told who has the port, and three ways out."""
    without = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]
    try:
        subprocess.run([*without, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        without = []  # No root, so there is no such capability to give up.
    port = free_port()
    said = subprocess.run(
        [*without, sys.executable, "-c", HELD, str(port)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    ).stdout
    assert f"UDP port {port} is in the sole hands of " in said
    assert all(way in said for way in ("bind-interfaces", "CAP_NET_RAW", "two machines"))


def test_an_offer_is_no_request() -> None:
    """What another proxy sends to everybody is not answered, so two of them cannot talk for ever."""
    assert answers(responder([0.0]), datagram(packet(OFFER, op=2))) == []
