"""Wake-on-LAN over real sockets, on loopback."""

from ipaddress import IPv4Address

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.hosts import Mac
from provd.remote.wake import TIMES, WakeFailed, build_magic_packet, wake

MAC = Mac("02:54:00:ab:cd:ef")
LOOPBACK = IPv4Address("127.0.0.1")
BROADCAST = IPv4Address("127.255.255.255")


@given(st.binary(min_size=6, max_size=6))
def test_the_packet_is_six_ones_and_the_address_sixteen_times(octets: bytes) -> None:
    """102 octets: the pattern that a sleeping card compares in hardware."""
    packet = build_magic_packet(Mac(octets.hex(":")))
    assert packet[:6] == b"\xff" * 6
    assert [packet[at : at + 6] for at in range(6, len(packet), 6)] == [octets] * 16


async def test_it_is_broadcast_more_than_once() -> None:
    """Whoever listens on the LAN gets it, by the LAN's broadcast address and by everybody's."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sleeper:
        await sleeper.bind(("0.0.0.0", 0))
        port = sleeper.getsockname()[1]
        await wake(MAC, broadcast=BROADCAST, source=LOOPBACK, port=port)
        with trio.fail_after(5):
            heard = [await sleeper.recvfrom(2048) for _ in range(2 * TIMES)]
    assert {packet for packet, _ in heard} == {build_magic_packet(MAC)}
    assert {sender[0] for _, sender in heard} == {"127.0.0.1"}


@pytest.mark.parametrize("listening_at", ["127.255.255.255", "255.255.255.255"])
async def test_both_broadcast_addresses_are_called(listening_at: str) -> None:
    """A socket that takes only one of the two gets that one, each time."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sleeper:
        await sleeper.bind((listening_at, 0))
        await wake(MAC, broadcast=BROADCAST, source=LOOPBACK, port=sleeper.getsockname()[1])
        with trio.fail_after(5):
            heard = [await sleeper.recv(2048) for _ in range(TIMES)]
    assert heard == [build_magic_packet(MAC)] * TIMES


async def test_a_lan_without_a_broadcast_address_is_called_once_each_time() -> None:
    """A /31 has 255.255.255.255 alone, and is not sent everything twice."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sleeper:
        await sleeper.bind(("255.255.255.255", 0))
        port = sleeper.getsockname()[1]
        await wake(MAC, broadcast=IPv4Address("255.255.255.255"), source=LOOPBACK, port=port)
        # One more, to see that nothing stands before it.
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as last:
            last.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_BROADCAST, 1)
            await last.bind(("127.0.0.1", 0))
            await last.sendto(b"last", ("255.255.255.255", port))
        with trio.fail_after(5):
            heard = [await sleeper.recv(2048) for _ in range(TIMES + 1)]
    assert heard == [build_magic_packet(MAC)] * TIMES + [b"last"]


async def test_what_cannot_be_sent_is_said() -> None:
    """An address that is not ours: the sentence names the machine, the address and the reason."""
    with pytest.raises(WakeFailed, match=r"02:54:00:ab:cd:ef could not be sent from 192\.0\.2\.1: \w"):
        await wake(MAC, broadcast=BROADCAST, source=IPv4Address("192.0.2.1"))
