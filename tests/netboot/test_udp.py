"""Datagrams that know where they arrived, over real sockets on loopback."""

import socket
from collections.abc import AsyncIterator
from contextlib import closing
from ipaddress import IPv4Address

import pytest
import trio

from provd.netboot.udp import IP_PKTINFO, open_udp, receive, send


@pytest.fixture
async def client() -> AsyncIterator[trio.socket.SocketType]:
    with await open_udp("127.0.0.1", 0) as sock:
        yield sock


def port_of(sock: trio.socket.SocketType) -> int:
    port: int = sock.getsockname()[1]
    return port


async def test_a_datagram_tells_which_of_our_addresses_was_used(client: trio.socket.SocketType) -> None:
    """A socket bound to no address learns from each datagram at which one and by what interface it came."""
    with await open_udp("0.0.0.0", 0) as server:
        for address in ("127.0.0.7", "127.9.9.9"):
            await client.sendto(b"hello", (address, port_of(server)))
            datagram = await receive(server, 100)
            assert (datagram.data, datagram.whole) == (b"hello", True)
            assert datagram.peer == client.getsockname()
            assert (datagram.local, datagram.target) == (IPv4Address(address), IPv4Address(address))
            assert datagram.ifindex == socket.if_nametoindex("lo")


async def test_an_answer_leaves_from_the_address_that_it_is_told(client: trio.socket.SocketType) -> None:
    """A client that asked one of many addresses is answered from that one, which is all that it accepts."""
    with await open_udp("0.0.0.0", 0) as server:
        await send(server, b"answer", client.getsockname(), source=IPv4Address("127.3.2.1"))
        assert (await receive(client, 100)).peer == ("127.3.2.1", port_of(server))


async def test_a_long_datagram_is_cut_and_says_so(client: trio.socket.SocketType) -> None:
    """No more is kept than the limit; that there was more is known, and the next datagram is itself."""
    with await open_udp("127.0.0.1", 0) as server:
        for length in (100, 101, 60_000, 1):
            await client.sendto(b"x" * length, server.getsockname())
        seen = [await receive(server, 100) for _ in range(4)]
        assert [(len(each.data), each.whole) for each in seen] == [
            (100, True),
            (100, False),
            (100, False),
            (1, True),
        ]


async def test_an_empty_datagram_is_one(client: trio.socket.SocketType) -> None:
    """Nothing in it is not the end of anything."""
    with await open_udp("127.0.0.1", 0) as server:
        await client.sendto(b"", server.getsockname())
        assert (await receive(server, 100)).data == b""


async def test_an_icmp_error_about_a_reply_does_not_reach_the_reader(
    client: trio.socket.SocketType,
) -> None:
    """A client that is gone answers with "port unreachable"; the next one's datagram is read all the same."""
    with await open_udp("127.0.0.1", 0) as gone:
        nobody = gone.getsockname()
    with await open_udp("127.0.0.1", 0) as server:
        await send(server, b"are you there?", nobody)
        await client.sendto(b"I am", server.getsockname())
        assert (await receive(server, 100)).data == b"I am"


async def test_replies_have_no_df_bit_and_the_class_of_network_control() -> None:
    """Boot ROMs drop answers with DF, and switches shall not drop them first: DF clear, TOS 0xC0."""
    with await open_udp("127.0.0.1", 0) as sock:
        assert sock.getsockopt(socket.IPPROTO_IP, 10) == 0, "IP_MTU_DISCOVER is not IP_PMTUDISC_DONT"
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0xC0
        assert sock.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) == 1


async def test_a_port_is_shared_only_by_those_who_both_want_to() -> None:
    """`share` lets two sockets have one port; without it the second one is refused, and left closed."""
    with await open_udp("127.0.0.1", 0, share=True) as first:
        with await open_udp("127.0.0.1", port_of(first), share=True):
            pass
        with pytest.raises(OSError, match="in use"):
            await open_udp("127.0.0.1", port_of(first))


async def test_an_interface_lets_nothing_in_from_elsewhere() -> None:
    """A socket of an interface that does not exist is refused with an OSError that names no device."""
    with pytest.raises(OSError, match="No such device"):
        await open_udp("127.0.0.1", 0, interface="nosuch0")
    with closing(await open_udp("127.0.0.1", 0, interface="lo")) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).startswith(b"lo\0")
