"""The server among others, in namespaces: a real dnsmasq on the same LAN and the same machine; two LANs."""

import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio
from attrs import frozen

from namespaces import Namespace, bridge, configure, namespaces, needs_namespaces, plug
from netboot.dhcp_checker import Packet, check_reply, read
from netboot.dhcp_client import ACK, GUID, OFFER, REQUEST, packet

ROOT = Path(__file__).parents[2]
RESPONDER = ROOT / "tests" / "netboot" / "dhcp_responder.py"
DNSMASQ = shutil.which("dnsmasq")
LAST = 0xFFFFFFFF
PATIENCE = 20.0
"""Seconds for a program to start on a busy machine, or to answer."""

pytestmark = [
    needs_namespaces,
    pytest.mark.skipif(DNSMASQ is None, reason="needs Debian's package dnsmasq-base"),
]


@frozen(kw_only=True)
class Lan:
    switch: Namespace
    client: Namespace
    server: Namespace
    directory: Path

    @contextmanager
    def firmware(self, interface: str = "eth0", address: str = "0.0.0.0") -> Iterator["Firmware"]:
        with self.client.udp(interface=interface, address=address, port=68) as sock:
            yield Firmware(trio.socket.from_stdlib_socket(sock))

    @asynccontextmanager
    async def provd(self, interface: str = "lan", *, before: tuple[str, ...] = ()) -> AsyncIterator[str]:
        """How it listens, or the sentence with which it refuses to."""
        log = self.directory / "provd.log"
        command = [sys.executable, str(RESPONDER), "--interface", interface, "--subnet", "10.77.0.0/24"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        async with self.server.process(*before, *command, log=log, env=environment):
            said = json.loads(await appears(log, r"^\{.*\}$"))
            assert said.get("address", "10.77.0.2") == "10.77.0.2"
            yield said.get("sharing") or said["refused"]

    @asynccontextmanager
    async def dnsmasq(self, namespace: Namespace, interface: str, *options: str) -> AsyncIterator[None]:
        """A server of addresses only, as on any LAN."""
        log = self.directory / "dnsmasq.log"
        async with namespace.process(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0",
            "--no-ping", f"--interface={interface}", "--dhcp-range=10.77.0.100,10.77.0.200,1h",
            "--dhcp-authoritative", "--pid-file=", f"--dhcp-leasefile={self.directory}/leases",
            "--log-dhcp", "--log-facility=-",
            *options, log=log,
        ):  # fmt: skip
            await appears(log, r"DHCP, IP range|failed to bind")
            yield


@frozen
class Firmware:
    sock: trio.socket.SocketType

    async def ask(self, data: bytes) -> None:
        await self.sock.sendto(data, ("255.255.255.255", 67))

    async def offers(self) -> tuple[bytes, bytes]:
        """That of the proxy, and that of the server of addresses."""
        found: dict[bool, bytes] = {}
        with trio.fail_after(PATIENCE):
            while len(found) < 2:
                data = await self.sock.recv(2048)
                found[read(data).yiaddr != "0.0.0.0"] = data
        return found[False], found[True]

    async def hears_nothing_more(self) -> None:
        """The next that comes is the answer to a new question, by when provd is done with all before it."""
        await self.ask(packet(mac="52:54:00:ff:ff:ff", xid=LAST))
        with trio.fail_after(PATIENCE):
            while True:
                seen = read(await self.sock.recv(2048))
                assert seen.xid == LAST
                if seen.yiaddr == "0.0.0.0":
                    return


async def appears(log: Path, pattern: str) -> str:
    with trio.fail_after(PATIENCE):
        while (found := re.search(pattern, log.read_text(), re.MULTILINE)) is None:
            await trio.sleep(0.02)
    return found[0]


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    """A switch at 10.77.0.1, provd's machine at 10.77.0.2, and a machine without an address."""
    with namespaces("switch", "client", "server") as (switch, client, server):
        bridge(switch, "br0", "10.77.0.1/24")
        plug(client, "eth0", switch, "br0")
        plug(server, "lan", switch, "br0", "10.77.0.2/24")
        yield Lan(switch=switch, client=client, server=server, directory=tmp_path)


async def get_lease(firmware: Firmware, server: str) -> Packet:
    """A PXE client's exchange: two offers, the one's address, and nothing more of the other."""
    asked = packet(options=[GUID])
    await firmware.ask(asked)
    ours, theirs = await firmware.offers()
    assert read(ours).option(53) == read(theirs).option(53) == bytes([OFFER])
    assert check_reply(ours, asked, server="10.77.0.2").boot_file == "x64.efi"
    address = read(theirs).yiaddr
    chosen = [(54, IPv4Address(server).packed), (50, IPv4Address(address).packed)]
    await firmware.ask(packet(REQUEST, options=[GUID, *chosen]))
    with trio.fail_after(PATIENCE):
        lease = read(await firmware.sock.recv(2048))
    assert (lease.option(53), lease.yiaddr) == (bytes([ACK]), address)
    await firmware.hears_nothing_more()
    return lease


async def test_beside_the_lans_own_dhcp_server(lan: Lan) -> None:
    """A client hears both offers, and gets its address from the one that has addresses, undisturbed."""
    async with lan.dnsmasq(lan.switch, "br0", "--bind-interfaces"), lan.provd() as sharing:
        assert sharing == "ALONE"
        with lan.firmware() as firmware:
            await get_lease(firmware, "10.77.0.1")
    heard = json.loads((lan.directory / "provd.log").read_text().splitlines()[1])
    assert heard["message"] == "UEFI x64 asked for a boot server and got x64.efi by TFTP"


async def test_only_the_lan_that_is_configured_is_answered(lan: Lan) -> None:
    """Of two LANs the other one hears nothing, neither our answers to it nor those to the first."""
    bridge(lan.switch, "br1")
    plug(lan.server, "other", lan.switch, "br1", "10.78.0.2/24")
    plug(lan.client, "eth1", lan.switch, "br1")
    async with lan.provd():
        with lan.firmware("eth0") as here, lan.client.udp(interface="eth1", port=68) as there:
            there.sendto(packet(xid=1), ("255.255.255.255", 67))
            await here.hears_nothing_more()
            with pytest.raises(BlockingIOError):
                there.recv(2048)


async def test_the_address_in_the_subnet_is_named_on_an_interface_with_several(lan: Lan) -> None:
    """The kernel would name its first one; the client hears of, and from, the one in pxe.subnet."""
    lan.server.ip("address", "flush", "dev", "lan")
    configure(lan.server, "lan", ["172.20.0.2/16", "10.77.0.2/24"])
    async with lan.provd():
        with lan.firmware() as firmware:
            asked = packet()
            await firmware.ask(asked)
            with trio.fail_after(PATIENCE):
                data, sender = await firmware.sock.recvfrom(2048)
            assert sender == ("10.77.0.2", 67)
            check_reply(data, asked, server="10.77.0.2")


async def renew(lan: Lan, lease: Packet) -> Packet:
    """A client with an address extends it by unicast (RFC 2131 §4.4.5)."""
    configure(lan.client, "eth0", [f"{lease.yiaddr}/24"])
    with lan.firmware(address=lease.yiaddr) as firmware:
        asked = packet(REQUEST, vendor_class=None, architecture=None, ciaddr=lease.yiaddr, xid=77, flags=0)
        await firmware.sock.sendto(asked, ("10.77.0.2", 67))
        with trio.fail_after(PATIENCE):
            return read(await firmware.sock.recv(2048))


@pytest.mark.parametrize(
    ("options", "provd_first", "expected"),
    [
        (["--bind-interfaces"], False, "BROADCASTS"),
        (["--bind-interfaces"], True, "ALONE"),
        # On more than one interface its socket is bound to none, which makes it the weaker one.
        (["--bind-interfaces", "--interface=other"], False, "BROADCASTS"),
        (["--bind-interfaces", "--interface=other"], True, "ALONE"),
        (["--bind-dynamic"], True, "ALONE"),
        ([], False, "RAW"),
    ],
    ids=["first", "later", "first, two interfaces", "later, two interfaces", "dynamic", "keeps the port"],
)
async def test_a_dhcp_server_on_the_same_machine_is_unharmed(
    lan: Lan, options: list[str], provd_first: bool, expected: str
) -> None:
    """Both answer broadcasts, and the unicast renewals of its clients reach the server of addresses."""
    bridge(lan.switch, "br1")
    plug(lan.server, "other", lan.switch, "br1", "10.78.0.2/24")
    async with AsyncExitStack() as stack:
        if not provd_first:
            await stack.enter_async_context(lan.dnsmasq(lan.server, "lan", *options))
        assert await stack.enter_async_context(lan.provd()) == expected
        if provd_first:
            await stack.enter_async_context(lan.dnsmasq(lan.server, "lan", *options))
        with lan.firmware() as firmware:
            lease = await get_lease(firmware, "10.77.0.2")
        renewed = await renew(lan, lease)
        assert (renewed.option(53), renewed.yiaddr) == (bytes([ACK]), lease.yiaddr)


async def test_whoever_shares_the_port_later_gets_the_unicasts(lan: Lan) -> None:
    """A server whose socket is bound to neither device nor address is preferred to ours all the same."""
    async with lan.provd() as sharing:
        assert sharing == "ALONE"
        configure(lan.client, "eth0", ["10.77.0.9/24"])
        with lan.server.udp(port=67) as other, lan.client.udp(address="10.77.0.9") as client:
            client.sendto(b"renewal", ("10.77.0.2", 67))
            with trio.fail_after(PATIENCE):
                await trio.lowlevel.wait_readable(other)
            assert other.recv(100) == b"renewal"


async def test_a_raw_socket_does_all_that_the_others_do(lan: Lan) -> None:
    """Where the port is kept: relays are answered, from port 67, with a checksum that the kernel accepts."""
    async with lan.dnsmasq(lan.server, "lan"), lan.provd() as sharing:
        assert sharing == "RAW"
        configure(lan.client, "eth0", ["10.77.0.9/24"])
        asked = packet(giaddr="10.77.0.9", options=[GUID, (82, b"\1\4eth0")])
        with lan.client.udp(address="10.77.0.9", port=67) as plain:
            relay = trio.socket.from_stdlib_socket(plain)
            await relay.sendto(asked, ("10.77.0.2", 67))
            with trio.fail_after(PATIENCE):
                while read((heard := await relay.recvfrom(2048))[0]).yiaddr != "0.0.0.0":
                    pass
        assert heard[1] == ("10.77.0.2", 67)
        check_reply(heard[0], asked, server="10.77.0.2")


async def test_a_port_that_is_kept_needs_the_capability(lan: Lan) -> None:
    """Without CAP_NET_RAW provd says who has the port, and what can be done."""
    before = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
    async with lan.dnsmasq(lan.server, "lan"), lan.provd(before=before) as sentence:
        assert re.match(r"UDP port 67 is in the sole hands of dnsmasq \(process \d+\): ", sentence)
