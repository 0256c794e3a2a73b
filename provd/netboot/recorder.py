"""The flight recorder: each machine's last datagrams, as a capture for Wireshark or tcpdump.

It knows neither DHCP nor TFTP, and not what a machine is. The payloads are what was on the wire; the
IP and UDP headers around them are reconstructed from the addresses, for no socket of ours sees the
real ones: TTL, identification, fragments and link layer are not evidence.

Whoever feeds it leaves the middle of a long transfer out: the ring is short, and its interesting end
is how a conversation began and stopped.
"""

import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv4Address

from attrs import define, field, frozen

from provd.domain.hosts import Mac

PACKETS = 128
"""For each machine; a whole network boot has about thirty that are no file's contents."""
OCTETS = 64 * 1024
"""Of payload, for each machine."""
MACHINES = 512
"""A stranger can make up MACs; with `OCTETS` this bounds the whole recorder at 32 MiB."""

LONGEST_PAYLOAD = 65_535 - 28
"""What an IPv4 datagram can carry behind its own header and UDP's (RFC 791 §3.1, RFC 768)."""

Endpoint = tuple[str, int]

# draft-ietf-opsawg-pcap §4: magic number (microseconds), version 2.4, zone, accuracy, snapshot length,
# and link type 101: each record is a bare IPv4 packet.
FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)
RECORD_HEADER = struct.Struct("<IIII")
IP_HEADER = struct.Struct("!BBHHHBBH4s4s")
UDP_HEADER = struct.Struct("!HHHH")


@frozen(kw_only=True)
class Packet:
    at: int
    """Wall clock, in nanoseconds since 1970."""
    source: Endpoint
    target: Endpoint
    payload: bytes


@define
class Reel:
    """One machine's last packets."""

    packets: deque[Packet] = field(factory=deque)
    octets: int = 0


class FlightRecorder:
    def __init__(self, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._reels: OrderedDict[Mac, Reel] = OrderedDict()

    def record(self, mac: Mac, *, source: Endpoint, target: Endpoint, payload: bytes) -> None:
        """Keep a datagram that `mac` sent or was sent; its oldest ones go when there are too many.

        Addresses are IPv4 in dotted form. What no datagram can carry is cut off.
        """
        reel = self._reels.setdefault(mac, Reel())
        self._reels.move_to_end(mac)
        kept = bytes(payload[:LONGEST_PAYLOAD])
        reel.packets.append(Packet(at=self._clock(), source=source, target=target, payload=kept))
        reel.octets += len(kept)
        while len(reel.packets) > PACKETS or reel.octets > OCTETS:
            reel.octets -= len(reel.packets.popleft().payload)
        while len(self._reels) > MACHINES:
            self._reels.popitem(last=False)

    def macs(self) -> list[Mac]:
        """Who is on record, the one heard last at the end."""
        return list(self._reels)

    def count(self, mac: Mac) -> int:
        """How many of its packets there are."""
        return len(self._reels[mac].packets) if mac in self._reels else 0

    def pcap(self, mac: Mac) -> bytes:
        """Its packets as a capture file; one without packets when it was never heard."""
        reel = self._reels.get(mac, Reel())
        return FILE_HEADER + b"".join(map(build_record, reel.packets))


def build_record(packet: Packet) -> bytes:
    seconds, nanoseconds = divmod(packet.at, 1_000_000_000)
    datagram = build_datagram(packet.source, packet.target, packet.payload)
    return RECORD_HEADER.pack(seconds, nanoseconds // 1000, len(datagram), len(datagram)) + datagram


def build_datagram(source: Endpoint, target: Endpoint, payload: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram in it. UDP's checksum is 0: "there is none" (RFC 768)."""
    udp = UDP_HEADER.pack(source[1], target[1], UDP_HEADER.size + len(payload), 0) + payload
    length = IP_HEADER.size + len(udp)
    addresses = IPv4Address(source[0]).packed, IPv4Address(target[0]).packed
    blank = IP_HEADER.pack(0x45, 0, length, 0, 0, 64, 17, 0, *addresses)
    return IP_HEADER.pack(0x45, 0, length, 0, 0, 64, 17, checksum(blank), *addresses) + udp


def checksum(header: bytes) -> int:
    """The complement of the one's complement sum of its 16-bit words (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
