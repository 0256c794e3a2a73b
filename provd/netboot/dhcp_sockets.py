"""Port 67, which a DHCP server on the same machine may want as well. What is said there is not known here.

Measured with Linux 6.18: of several sockets on one port each gets a copy of a broadcast, but only one of
them a unicast. It is the one bound to the very address, else to the device, else the one bound last. So:

- Where nobody has the port, one socket takes it all. It is not bound to an address or a device, and lets
  others join (SO_REUSEADDR, set afterwards: the bind shall tell whether it is alone). A DHCP server that
  starts later is preferred by the kernel, and gets its clients' renewals.
- Where somebody has it and shares it, ours hears broadcasts only, which is all that is to be heard on a LAN
  without relays. (dnsmasq shares with `bind-interfaces`.)
- Where somebody has it for himself, a raw socket listens along. It sees what the other sees and takes
  nothing from him, but needs CAP_NET_RAW.
"""

import ctypes
import socket as stdlib
import struct
from enum import Enum
from errno import EACCES, EADDRINUSE, EPERM
from ipaddress import IPv4Address
from typing import Protocol

import psutil
import trio
from attrs import evolve, frozen

from provd.domain.errors import ConfigError
from provd.netboot import udp
from provd.netboot.udp import Datagram

SO_ATTACH_FILTER = 26
IP_HEADER = 20
"""Bytes, without options: where its fields end that matter here."""
UDP_HEADER = struct.Struct("!HHHH")
PSEUDO_HEADER = struct.Struct("!4s4sxBH")
LONGEST_HEADERS = 60 + UDP_HEADER.size


class Sharing(Enum):
    """How port 67 was had. The values end the sentence "provd listens on port 67, ..."."""

    ALONE = "which nobody else uses here"
    BROADCASTS = "beside another DHCP server: requests that a relay forwards go to that one only"
    RAW = "by a raw socket, for another DHCP server here keeps it to itself"


class Line(Protocol):
    """A way to hear and say DHCP, which waits for nothing but to be asked again."""

    def fileno(self) -> int: ...

    def receive_nowait(self, limit: int) -> Datagram:
        """The next datagram for the port, at most `limit` bytes of it. Raises `BlockingIOError`: none yet."""

    def send_nowait(self, data: bytes, peer: tuple[str, int], *, source: IPv4Address, ifindex: int) -> None:
        """Send from the port. Raises OSError, `BlockingIOError` among them: the queue is full."""

    def close(self) -> None: ...


@frozen
class UdpLine:
    sock: stdlib.socket

    def fileno(self) -> int:
        return self.sock.fileno()

    def receive_nowait(self, limit: int) -> Datagram:
        return udp.arrived(*self.sock.recvmsg(limit, udp.ANCILLARY_SPACE))

    def send_nowait(self, data: bytes, peer: tuple[str, int], *, source: IPv4Address, ifindex: int) -> None:
        self.sock.sendmsg([data], udp.leaving(source, ifindex), 0, peer)

    def close(self) -> None:
        self.sock.close()


@frozen
class RawLine:
    """The kernel hands it a copy of each UDP datagram for `port`, IP header and all (raw(7))."""

    sock: stdlib.socket
    port: int

    def fileno(self) -> int:
        return self.sock.fileno()

    def receive_nowait(self, limit: int) -> Datagram:
        while True:
            packet = udp.arrived(*self.sock.recvmsg(limit + LONGEST_HEADERS, udp.ANCILLARY_SPACE))
            start = (packet.data[0] & 15) * 4
            source, _, length, _ = UDP_HEADER.unpack_from(packet.data, start)
            if length >= UDP_HEADER.size:
                whole = packet.data[start + UDP_HEADER.size : start + length]
                cut = not packet.whole or len(whole) > limit
                peer = packet.peer[0], source
                return evolve(packet, data=whole[:limit], whole=not cut, peer=peer)

    def send_nowait(self, data: bytes, peer: tuple[str, int], *, source: IPv4Address, ifindex: int) -> None:
        target = IPv4Address(peer[0])
        length = UDP_HEADER.size + len(data)
        pseudo = PSEUDO_HEADER.pack(source.packed, target.packed, stdlib.IPPROTO_UDP, length)
        header = UDP_HEADER.pack(self.port, peer[1], length, 0)
        header = UDP_HEADER.pack(self.port, peer[1], length, checksum(pseudo + header + data))
        self.sock.sendmsg([header + data], udp.leaving(source, ifindex), 0, (peer[0], 0))

    def close(self) -> None:
        self.sock.close()


def checksum(content: bytes) -> int:
    """The Internet checksum (RFC 1071). A 0 is sent as its twin, for it means "none" (RFC 768)."""
    padded = content + b"\0" * (len(content) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF) or 0xFFFF


async def open_dhcp(port: int) -> tuple[Line, Sharing]:
    """Port 67, shared with whoever has it. The caller closes the line. Raises `ConfigError`."""
    try:
        alone = await udp.open_udp("0.0.0.0", port, broadcast=True)
    except OSError as exc:
        if exc.errno != EADDRINUSE:
            raise refused(port, exc) from exc
    else:
        alone.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        return UdpLine(plain(alone)), Sharing.ALONE
    try:
        shared = await udp.open_udp("255.255.255.255", port, broadcast=True, share=True)
    except OSError as exc:
        if exc.errno != EADDRINUSE:
            raise refused(port, exc) from exc
    else:
        return UdpLine(plain(shared)), Sharing.BROADCASTS
    return open_raw(port), Sharing.RAW


async def open_boot_server(address: IPv4Address, port: int) -> Line:
    """Port 4011 of our address, which is not shared: it has one meaning. Raises `ConfigError`."""
    try:
        return UdpLine(plain(await udp.open_udp(str(address), port)))
    except OSError as exc:
        raise refused(port, exc) from exc


def plain(sock: trio.socket.SocketType) -> stdlib.socket:
    """The same socket in the standard library's clothes, for calls that do not pass through the scheduler."""
    with sock:
        same = stdlib.fromfd(sock.fileno(), sock.family, sock.type, sock.proto)
    same.setblocking(False)
    return same


def open_raw(port: int) -> RawLine:
    try:
        sock = trio.socket.socket(stdlib.AF_INET, stdlib.SOCK_RAW, stdlib.IPPROTO_UDP)
    except OSError as exc:
        raise ConfigError(
            f"UDP port {port} is in the sole hands of {holder_of(port)}: let it share the port (dnsmasq: "
            "bind-interfaces), give provd CAP_NET_RAW to listen along, or let the two run on two machines"
        ) from exc
    try:
        attach_filter(sock, port)
        udp.prepare(sock, broadcast=True)
    except BaseException:
        sock.close()
        raise
    return RawLine(plain(sock), port)


def attach_filter(sock: trio.socket.SocketType, port: int) -> None:
    """Let the kernel drop what is for other ports: TFTP and its like are not to be copied to us.

    Classic BPF over the IP header (packet(7), struct sock_filter).
    """
    program = [
        (0xB1, 0, 0, 0),  # X = 4 * (P[0] & 15), the length of the IP header
        (0x48, 0, 0, 2),  # A = the 16 bits at P[X + 2], the destination port
        (0x15, 0, 1, port),  # other ports: go on one further
        (0x06, 0, 0, 0xFFFF),  # take all of it
        (0x06, 0, 0, 0),  # take nothing
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    # The kernel copies the program before setsockopt returns; the buffer has to live until then only.
    buffer = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(stdlib.SOL_SOCKET, SO_ATTACH_FILTER, pointer)


def refused(port: int, exc: OSError) -> ConfigError:
    if exc.errno in (EACCES, EPERM):
        return ConfigError(f"UDP port {port} is for root and for programs with CAP_NET_BIND_SERVICE")
    if exc.errno == EADDRINUSE:
        return ConfigError(
            f"UDP port {port} is held by {holder_of(port)}: only one of the two can answer there"
        )
    return ConfigError(f"UDP port {port} cannot be opened: {exc.strerror}")


def holder_of(port: int) -> str:
    """Who has a UDP port, as far as we may see; root sees all."""
    try:
        for each in psutil.net_connections("udp4"):
            if each.laddr and each.laddr.port == port and each.pid:
                return f"{psutil.Process(each.pid).name()} (process {each.pid})"
    except (psutil.Error, OSError):  # with ProcSubset=pid there is no /proc/net
        pass
    return "another program"
