"""UDP sockets that know at which address a datagram arrived, and answer from that very address.

A boot server on several networks, or with several addresses on one, must name and use the address
that the client can reach. The kernel knows it (ip(7), IP_PKTINFO). No protocol is known here.
"""

import socket as stdlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address
from typing import cast

import trio
from attrs import field, frozen

# socket.IP_PKTINFO is younger than Python 3.11; the number is Linux's.
IP_PKTINFO: int = getattr(stdlib, "IP_PKTINFO", 8)
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DONT = 0

PACKET_INFO = struct.Struct("=I4s4s")
"""struct in_pktinfo: interface, the local address for it, the address in the datagram's header."""
ANCILLARY_SPACE = stdlib.CMSG_SPACE(PACKET_INFO.size)
NOWHERE = IPv4Address(0)

LARGEST_QUEUE = 1 << 20
"""Bytes of datagrams that the kernel may keep for us: some thousand small ones (it counts 768 for each)."""


@frozen(kw_only=True)
class Datagram:
    data: bytes
    whole: bool
    """False: there was more, beyond the limit given to `receive`."""
    peer: tuple[str, int]
    local: IPv4Address
    """Our own address for this client: for a broadcast that of the interface it came in by."""
    ifindex: int
    target: IPv4Address = field(default=NOWHERE)
    """Where the client sent it to: our address, or a broadcast address."""


async def open_udp(
    address: str,
    port: int,
    *,
    interface: str | None = None,
    broadcast: bool = False,
    share: bool = False,
) -> trio.socket.SocketType:
    """A bound IPv4 socket that tells where its datagrams arrive. The caller closes it.

    `interface` lets nothing in or out elsewhere (SO_BINDTODEVICE; it needs no capability since Linux
    5.7). `share` lets others bind the same port, if they ask for it too (SO_REUSEADDR).

    Replies leave without the DF bit, which some boot ROMs do not accept, and as network control
    traffic, as dnsmasq's do. Raises OSError, with EADDRINUSE or EACCES among others.
    """
    sock = trio.socket.socket(stdlib.AF_INET, stdlib.SOCK_DGRAM)
    try:
        if share:
            sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        if interface is not None:
            sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_BINDTODEVICE, interface.encode() + b"\0")
        prepare(sock, broadcast=broadcast)
        await sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def prepare(sock: trio.socket.SocketType, *, broadcast: bool) -> None:
    """Let an IPv4 socket tell where its datagrams arrive, and send as boot ROMs like it. Raises OSError."""
    if broadcast:
        sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_BROADCAST, 1)
    sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, LARGEST_QUEUE)
    sock.setsockopt(stdlib.IPPROTO_IP, IP_PKTINFO, 1)
    sock.setsockopt(stdlib.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    sock.setsockopt(stdlib.IPPROTO_IP, stdlib.IP_TOS, 0xC0)


async def receive(sock: trio.socket.SocketType, limit: int) -> Datagram:
    """The next datagram, of which at most `limit` bytes are kept.

    Raises OSError; an ICMP error about an earlier reply is not one, for the socket is not connected.
    """
    return arrived(*await sock.recvmsg(limit, ANCILLARY_SPACE))


def arrived(data: bytes, ancillary: Sequence[tuple[int, int, bytes]], flags: int, peer: object) -> Datagram:
    """What recvmsg gave, as a datagram."""
    host, port = cast(tuple[str, int], peer)
    for level, kind, content in ancillary:
        if level == stdlib.IPPROTO_IP and kind == IP_PKTINFO and len(content) == PACKET_INFO.size:
            ifindex, local, target = PACKET_INFO.unpack(content)
            return Datagram(
                data=data,
                whole=not flags & stdlib.MSG_TRUNC,
                peer=(host, port),
                local=address(local),
                ifindex=ifindex,
                target=address(target),
            )
    raise OSError("the kernel did not say where the datagram arrived")


@lru_cache
def address(packed: bytes) -> IPv4Address:
    """Few addresses arrive many times, and a machine's boot is thousands of datagrams."""
    return IPv4Address(packed)


async def send(
    sock: trio.socket.SocketType,
    data: bytes,
    peer: tuple[str, int],
    *,
    source: IPv4Address = NOWHERE,
    ifindex: int = 0,
) -> None:
    """Send one datagram from one of our addresses, by one interface. Raises OSError.

    0 for either lets the kernel choose. For a broadcast it must not: without a default route there
    is no choice, and with one the packet leaves by it.
    """
    await sock.sendmsg([data], leaving(source, ifindex), 0, peer)


def leaving(source: IPv4Address, ifindex: int) -> list[tuple[int, int, bytes]]:
    """The ancillary data for sendmsg from one of our addresses, by one interface."""
    info = PACKET_INFO.pack(ifindex, source.packed, NOWHERE.packed)
    return [(stdlib.IPPROTO_IP, IP_PKTINFO, info)]
