"""What a firmware sends, made to measure; and what real ones sent, from captures. provd has no part in it."""

import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from attrs import frozen

PCAPS = Path(__file__).parent / "pcaps"
MAC = "52:54:00:12:34:56"
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
GUID = (97, bytes([0]) + bytes(range(16)))
FEATURES = bytes([0x13, 1, 1, 0x24, 1, 1])
"""HTTP and EFI, as iPXE says it in option 175."""


def packet(
    message_type: int | None = DISCOVER,
    *,
    mac: str = MAC,
    architecture: int | None = 7,
    vendor_class: bytes | None = b"PXEClient:Arch:00007:UNDI:003000",
    options: Sequence[tuple[int, bytes]] = (GUID,),
    xid: int = 0x11223344,
    flags: int = 0x8000,
    secs: int = 0,
    hops: int = 0,
    ciaddr: str = "0.0.0.0",
    giaddr: str = "0.0.0.0",
    op: int = 1,
    htype: int = 1,
    hlen: int = 6,
    sname: bytes = b"",
    file: bytes = b"",
    magic: bytes = bytes([99, 130, 83, 99]),
    tail: bytes = b"\xff",
) -> bytes:
    """A client's packet; `options` stand behind those that have names of their own here."""
    said = [] if message_type is None else [(53, bytes([message_type]))]
    said += [] if vendor_class is None else [(60, vendor_class)]
    said += [] if architecture is None else [(93, struct.pack("!H", architecture))]
    said += options
    head = struct.pack(
        "!BBBBIHH4s4s4s4s16s64s128s4s",
        op, htype, hlen, hops, xid, secs, flags, IPv4Address(ciaddr).packed, bytes(4), bytes(4),
        IPv4Address(giaddr).packed, bytes.fromhex(mac.replace(":", "")), sname, file, magic,
    )  # fmt: skip
    return head + b"".join(bytes((code, len(value))) + value for code, value in said) + tail


LINKS = {1: 14, 101: 0}
"""Bytes in front of an IP packet, by link type: Ethernet's, and none where provd's own recorder wrote."""


@frozen(kw_only=True)
class Captured:
    """A UDP datagram of a capture."""

    file: str
    number: int
    source: tuple[str, int]
    target: tuple[str, int]
    payload: bytes

    def __str__(self) -> str:
        return f"{self.file}-{self.number}"


def captured(file: str) -> Iterator[Captured]:
    """The UDP datagrams of a capture that are whole, in order."""
    content = (PCAPS / f"{file}.pcap").read_bytes()
    magic, link = struct.unpack_from("<I16xI", content)
    assert magic == 0xA1B2C3D4, "not a capture in little endian"
    head = LINKS[link]
    at, number = 24, 0
    while at < len(content):
        length = int.from_bytes(content[at + 8 : at + 12], "little")
        frame = content[at + 16 : at + 16 + length]
        at, number = at + 16 + length, number + 1
        ip = frame[head:]
        if (head and frame[12:14] != b"\x08\x00") or ip[9] != 17:
            continue
        udp = ip[(ip[0] & 15) * 4 :]
        source, target, size = struct.unpack_from("!HHH", udp)
        if len(udp) >= size:
            yield Captured(
                file=file,
                number=number,
                source=(str(IPv4Address(ip[12:16])), source),
                target=(str(IPv4Address(ip[16:20])), target),
                payload=udp[8:size],
            )


def all_captures() -> list[str]:
    return sorted(path.stem for path in PCAPS.glob("*.pcap"))


def client_packets() -> list[Captured]:
    """Every packet that a client sent to a DHCP server or a boot server."""
    ports = (67, 4011)
    return [
        each
        for file in all_captures()
        for each in captured(file)
        if each.target[1] in ports and each.payload[0] == 1
    ]
