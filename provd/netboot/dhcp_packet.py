"""DHCP packets: a client's bytes as a frozen `Request`, and a `Reply` as bytes. No decision is made here.

Scapy composes what is the same in all replies of a kind, once; what differs from machine to machine is
put into that form, because a whole room of machines that powers on shall not wait for it. Requests are
read by a walk of our own. Scapy's reader does not join the pieces of a long option (RFC 3396), does not
follow option overload, reads on behind the END, and one malformed option hides from it all that follow.
The tests hold the two against each other, in both directions.

A `Reply` has no field for an address to hand out, nor for a router, a netmask or a lease: provd cannot say
them by mistake.
"""

import logging
import struct
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address

from attrs import field, frozen
from scapy.config import conf

from provd.domain.errors import BadPacket
from provd.domain.hosts import Mac

# Before the layers are imported: they would read the routing tables of this machine, and say on stderr
# what they think of them. That costs a quarter of the import's time and is not wanted.
logging.getLogger("scapy").setLevel(logging.ERROR)
conf.route_autoload = conf.route6_autoload = conf.ipv6_enabled = False
from scapy.layers.dhcp import BOOTP, DHCP  # noqa: E402

SMALLEST = 240
"""Bytes of the header with its magic number (RFC 2131 §3)."""
LARGEST = 1500
"""More than fits into an Ethernet frame."""
SMALLEST_REPLY = 300
"""Boot ROMs drop shorter ones: BOOTP's 64 bytes of vendor area, always full (RFC 951 §3)."""
IP_AND_UDP = 28
SMALLEST_LIMIT = 576
"""The IP datagram that every client takes (RFC 2132 §9.10)."""
LARGEST_LIMIT = 1500
"""A fragmented answer is lost on many a ROM, whatever it says of itself."""
LONGEST_FILE = 127
"""Bytes in the header's field, which ends with a NUL. A longer name goes into option 67."""

MAGIC = b"\x63\x82\x53\x63"
HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
BOOTREQUEST, BOOTREPLY = 1, 2
ETHERNET, ETHERNET_LENGTH = 1, 6
NOBODY = IPv4Address(0)

PAD, END = 0, 255
REQUESTED_ADDRESS = 50
OVERLOAD = 52
MESSAGE_TYPE = 53
SERVER_ID = 54
MAX_SIZE = 57
VENDOR_CLASS = 60
VENDOR_OPTIONS = 43
BOOT_FILE = 67
USER_CLASS = 77
RELAY_AGENT = 82
ARCHITECTURES = 93
MACHINE_ID = 97
IPXE = 175

OVERLOADED = {1: ("file",), 2: ("sname",), 3: ("file", "sname")}
"""RFC 2132 §9.3, in the order in which RFC 2131 §4.1 has them read."""


class MessageType(IntEnum):
    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


@frozen(kw_only=True)
class Request:
    """What a client sent. An option that it left out is empty, or None where empty is a value."""

    xid: int
    secs: int
    flags: int
    hops: int
    ciaddr: IPv4Address
    giaddr: IPv4Address
    mac: Mac
    chaddr: bytes
    """The header's whole field, as it is to be echoed: the MAC and ten bytes more."""
    message_type: int
    """0: BOOTP, which has none."""
    architectures: tuple[int, ...]
    """Option 93, RFC 4578 §2.1."""
    vendor_class: bytes
    user_classes: tuple[bytes, ...]
    """Option 77, in RFC 3004's form, or raw as iPXE sends it."""
    ipxe_features: frozenset[int]
    """The sub-options of option 175 that are switched on."""
    server_id: IPv4Address | None
    requested_address: IPv4Address | None
    machine_id: bytes
    """Option 97 as it came: a type and a UUID, when the ROM does as RFC 4578 §2.3 says."""
    relay_agent: bytes
    """Option 82 as it came."""
    max_size: int
    """Option 57: the largest IP datagram, in bytes, that the client takes."""


@frozen(kw_only=True)
class Reply:
    """What provd says to a client."""

    message_type: MessageType
    xid: int
    flags: int
    ciaddr: IPv4Address = NOBODY
    giaddr: IPv4Address = NOBODY
    chaddr: bytes
    server: IPv4Address
    """It stands in siaddr, sname and option 54: each is the only one that somebody's firmware reads."""
    file: bytes
    vendor_class: bytes
    vendor_options: bytes = b""
    ipxe_options: bytes = b""
    machine_id: bytes = b""
    relay_agent: bytes = b""
    max_size: int = field(default=SMALLEST_LIMIT)


def parse(data: bytes) -> Request:
    """What is in a datagram. Raises `BadPacket` for all that is not a client's packet, and nothing else.

    An option that provd goes by must be well-formed; of the others a malformed one counts as left out.
    What many machines say alike is read once (`lru_cache`).
    """
    if not SMALLEST <= len(data) <= LARGEST:
        raise BadPacket(f"a DHCP packet of {len(data)} bytes")
    (
        op, htype, hlen, hops, xid, secs, flags, ciaddr, _, _, giaddr, chaddr, sname, file, magic,
    ) = HEADER.unpack_from(data)  # fmt: skip
    if op != BOOTREQUEST or magic != MAGIC:
        raise BadPacket("not a request of a DHCP client")
    if (htype, hlen) != (ETHERNET, ETHERNET_LENGTH):
        raise BadPacket(f"a client on no Ethernet: hardware type {htype}, addresses of {hlen} bytes")
    if chaddr[0] & 1 or not any(chaddr[:hlen]):
        raise BadPacket(f"{chaddr[:hlen].hex(':')} is not one machine's address")
    options: dict[int, bytes] = {}
    _collect(data[SMALLEST:], options)
    if OVERLOAD in options:
        fields = {"sname": sname, "file": file}
        for name in OVERLOADED.get(_number(options[OVERLOAD], OVERLOAD), ()):
            _collect(fields[name], options)
    get = options.get
    size = get(MAX_SIZE, b"")
    return Request(
        xid=xid,
        secs=secs,
        flags=flags,
        hops=hops,
        ciaddr=IPv4Address(ciaddr) if any(ciaddr) else NOBODY,
        giaddr=IPv4Address(giaddr) if any(giaddr) else NOBODY,
        mac=Mac(chaddr[:hlen].hex(":")),
        chaddr=chaddr,
        message_type=_number(options[MESSAGE_TYPE], MESSAGE_TYPE) if MESSAGE_TYPE in options else 0,
        architectures=_architectures(options[ARCHITECTURES]) if ARCHITECTURES in options else (),
        vendor_class=get(VENDOR_CLASS, b""),
        user_classes=_user_classes(get(USER_CLASS, b"")),
        ipxe_features=_features(get(IPXE, b"")),
        server_id=_address(options[SERVER_ID], SERVER_ID) if SERVER_ID in options else None,
        requested_address=IPv4Address(asked) if len(asked := get(REQUESTED_ADDRESS, b"")) == 4 else None,
        machine_id=get(MACHINE_ID, b""),
        relay_agent=get(RELAY_AGENT, b""),
        max_size=int.from_bytes(size, "big") if len(size) == 2 else SMALLEST_LIMIT,
    )


def _collect(area: bytes, options: dict[int, bytes]) -> None:
    """Add an area's options to `options`: one that comes again is continued (RFC 3396 §7)."""
    at, end = 0, len(area)
    while at < end:
        code = area[at]
        if code == END:
            return
        at += 1
        if code == PAD:
            continue
        if at == end or at + 1 + area[at] > end:
            raise BadPacket(f"option {code} is cut off")
        after = at + 1 + area[at]
        options[code] = options.get(code, b"") + area[at + 1 : after]
        at = after


def _number(value: bytes, code: int) -> int:
    if len(value) != 1:
        raise BadPacket(f"option {code} has {len(value)} bytes instead of one")
    return value[0]


def _address(value: bytes, code: int) -> IPv4Address:
    if len(value) != 4:
        raise BadPacket(f"option {code} has {len(value)} bytes and is no address")
    return IPv4Address(value)


@lru_cache
def _architectures(value: bytes) -> tuple[int, ...]:
    if not value or len(value) % 2:
        raise BadPacket(f"option {ARCHITECTURES} has {len(value)} bytes and is no list of architectures")
    return struct.unpack(f"!{len(value) // 2}H", value)


@lru_cache
def _user_classes(value: bytes) -> tuple[bytes, ...]:
    """RFC 3004 §4 puts a length before each. iPXE writes its one class without, so that reads as itself."""
    classes, at = [], 0
    while at < len(value):
        after = at + 1 + value[at]
        if value[at] == 0 or after > len(value):
            return (value,)
        classes.append(value[at + 1 : after])
        at = after
    return tuple(classes)


@lru_cache
def _features(value: bytes) -> frozenset[int]:
    features: dict[int, bytes] = {}
    try:
        _collect(value, features)
    except BadPacket:
        return frozenset()
    return frozenset(code for code, content in features.items() if any(content))


def build(reply: Reply) -> bytes:
    """The datagram for a reply. Raises `BadPacket` where it would be longer than its client takes.

    Option 82 is the last one (RFC 3046 §2.2). The boot file's name ends with a NUL and stands last but
    for that: EDK2 writes a NUL behind it, whatever is there.
    """
    packet = bytearray(
        _form(reply.message_type, reply.server, reply.vendor_class, reply.vendor_options, reply.ipxe_options)
    )
    struct.pack_into("!I2xH4s", packet, 4, reply.xid, reply.flags, reply.ciaddr.packed)
    struct.pack_into("!4s16s", packet, 24, reply.giaddr.packed, reply.chaddr)
    packet += _option(MACHINE_ID, reply.machine_id)
    if len(reply.file) <= LONGEST_FILE:
        struct.pack_into("128s", packet, 108, reply.file)
    else:
        packet += _option(BOOT_FILE, reply.file + b"\0")
    packet += _option(RELAY_AGENT, reply.relay_agent)
    packet.append(END)
    limit = min(max(reply.max_size, SMALLEST_LIMIT), LARGEST_LIMIT) - IP_AND_UDP
    if len(packet) > limit:
        raise BadPacket(f"an answer of {len(packet)} bytes is too long for a client that takes {limit}")
    return bytes(packet.ljust(SMALLEST_REPLY, b"\0"))


@lru_cache(maxsize=64)
def _form(
    message_type: MessageType, server: IPv4Address, vendor_class: bytes, vendor: bytes, ipxe: bytes
) -> bytes:
    """What all replies of one kind have in common, its options not yet ended."""
    options: list[tuple[int, bytes]] = [
        (MESSAGE_TYPE, bytes([message_type])),
        (SERVER_ID, server.packed),
        (VENDOR_CLASS, vendor_class),
        (VENDOR_OPTIONS, vendor),
        (IPXE, ipxe),
    ]
    # Integer keys: scapy leaves out, without a word, an option whose name it does not know.
    return bytes(
        BOOTP(
            op=BOOTREPLY,
            htype=ETHERNET,
            hlen=ETHERNET_LENGTH,
            siaddr=str(server),
            sname=str(server).encode(),
            options=MAGIC,
        )
        / DHCP(options=[(code, value) for code, value in options if value])
    )


def _option(code: int, value: bytes) -> bytes:
    """An option, in as many pieces as it needs (RFC 3396 §6); nothing where there is no value."""
    if not value:
        return b""
    if len(value) <= 255:
        return bytes((code, len(value))) + value
    pieces = (value[at : at + 255] for at in range(0, len(value), 255))
    return b"".join(bytes((code, len(piece))) + piece for piece in pieces)
