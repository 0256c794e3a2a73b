"""A DISCOVER as firmware would send it, and everybody who answers.

It shows what a machine on this LAN would hear: the LAN's own DHCP server, provd, others that hand out
boot files. Nothing is ever requested, so no address is taken. What the answers mean is not judged here.

Heard are answers to the broadcast address, for which a client asks with the flag of RFC 2131 §4.1; a
server that disregards it, and writes to the address that it offers, is not.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address

import trio
from attrs import frozen

from provd.domain.architectures import FIRMWARES, Firmware, Via
from provd.domain.errors import BadPacket
from provd.domain.hosts import Mac
from provd.netboot import udp
from provd.netboot.interfaces import Interface
from provd.netboot.neighbours import Neighbours

PROBE_MAC = Mac.parse("02:70:72:6f:76:64")
"""Whoever asks here: locally administered, and "provd" in ASCII.

Always the same, so that a server's pool does not wear out, and that provd knows itself.
"""

RAW_MAC = bytes.fromhex(PROBE_MAC.text.replace(":", ""))

TRANSACTIONS: Mapping[int, int] = {0x70726F00 | number: number for number in (0, 7, 16)}
"""The architectures that are asked for: BIOS, UEFI x64, and UEFI x64 by HTTP.

Their transactions are always the same: to a proxy that counts attempts (provd's own does), a second
probe repeats the first, and is no machine that turns in circles.
"""

SERVER, CLIENT = ("255.255.255.255", 67), 68
DISCARD = 9
LARGEST = 2048
MOST_OFFERS = 200
"""Of a LAN gone mad, no more than this is kept."""

HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
"""RFC 2131 §2, and the cookie of RFC 1497."""
COOKIE = b"\x63\x82\x53\x63"
BROADCAST = 0x8000
DISCOVER, OFFER = 1, 2
PAD, END, OVERLOAD = 0, 255, 52

# Subnet, router, DNS, name, vendor's own, server, class, boot server and file, GUID, and the menu's.
WANTED = bytes([1, 3, 6, 12, 15, 43, 54, 60, 66, 67, 97, 128, 129, 130, 131, 132, 133, 134, 135])


@frozen(kw_only=True)
class Offer:
    """One DHCPOFFER. Texts are printable ASCII, whatever the server sent."""

    asked: Firmware
    """What the probe pretended to be."""
    server: IPv4Address | None
    """Option 54; None where it is missing, which makes UEFI firmware ignore the offer."""
    address: IPv4Address | None
    """What the client may have; None from a proxy."""
    vendor_class: str
    """Option 60."""
    vendor_options: bytes
    """Option 43."""
    next_server: IPv4Address | None
    """`siaddr`. Many DHCP servers put themselves there, which means nothing without a boot file."""
    server_name: str
    """Option 66, else `sname`."""
    boot_file: str
    """Option 67, else `file`."""

    @property
    def proxy(self) -> bool:
        """Whether firmware takes it for a proxy's (PXE 2.1 §2.2; UEFI and iPXE look at these two)."""
        return self.address is None and bool(self.vendor_class)


@frozen(kw_only=True)
class Server:
    """Who answered, and with what."""

    source: IPv4Address
    mac: str
    """Empty where the kernel has no neighbour of that address."""
    offers: Sequence[Offer]


# --- the packets ----------------------------------------------------------------------------------


def build_discover(architecture: int, xid: int) -> bytes:
    """RFC 4578 §2: what firmware of that architecture (option 93) broadcasts first."""
    name = "HTTPClient" if FIRMWARES[architecture].via is Via.HTTP else "PXEClient"
    undi = (1, 3, 16) if architecture else (1, 2, 1)
    options = {
        53: bytes([DISCOVER]),
        55: WANTED,
        57: struct.pack("!H", 1472),
        60: f"{name}:Arch:{architecture:05}:UNDI:{undi[1]:03}{undi[2]:03}".encode(),
        93: struct.pack("!H", architecture),
        94: bytes(undi),
        97: b"\0" + RAW_MAC.rjust(16, b"\0"),
    }
    nothing = bytes(4)
    header = HEADER.pack(
        *(1, 1, 6, 0, xid, 0, BROADCAST, nothing, nothing, nothing, nothing),
        *(RAW_MAC, b"", b"", COOKIE),
    )
    body = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    return (header + body + bytes([END])).ljust(300, b"\0")


def parse_offer(data: bytes) -> Offer:
    """Raises `BadPacket` for all but a DHCPOFFER to the probe."""
    if len(data) < HEADER.size:
        raise BadPacket("it is too short for DHCP")
    op, _, _, _, xid, _, _, _, yiaddr, siaddr, _, chaddr, sname, file, cookie = HEADER.unpack_from(data)
    if op != 2 or cookie != COOKIE or chaddr[:6] != RAW_MAC or xid not in TRANSACTIONS:
        raise BadPacket("it is no DHCP reply to the probe")
    options = walk(data[HEADER.size :])
    overload = int.from_bytes(options.get(OVERLOAD, b"")[:1])
    if overload & 1:
        options, file = joined(options, walk(file)), b""
    if overload & 2:
        options, sname = joined(options, walk(sname)), b""
    if options.get(53) != bytes([OFFER]):
        raise BadPacket("it is no offer")
    server = options.get(54, b"")
    return Offer(
        asked=FIRMWARES[TRANSACTIONS[xid]],
        server=IPv4Address(server) if len(server) == 4 else None,
        address=IPv4Address(yiaddr) if any(yiaddr) else None,
        vendor_class=text(options.get(60, b"")),
        vendor_options=options.get(43, b""),
        next_server=IPv4Address(siaddr) if any(siaddr) else None,
        server_name=text(options.get(66, b"")) or text(sname),
        boot_file=text(options.get(67, b"")) or text(file),
    )


def walk(area: bytes) -> dict[int, bytes]:
    """Options by number, those that come twice joined (RFC 3396). Raises `BadPacket` for a torn one."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(area) and area[at] != END:
        if area[at] == PAD:
            at += 1
            continue
        value = area[at + 2 : at + 2 + (area[at + 1] if at + 1 < len(area) else 0)]
        if at + 1 >= len(area) or len(value) < area[at + 1]:
            raise BadPacket("an option ends behind the packet")
        found[area[at]] = found.get(area[at], b"") + value
        at += 2 + area[at + 1]
    return found


def joined(first: Mapping[int, bytes], second: Mapping[int, bytes]) -> dict[int, bytes]:
    return {code: first.get(code, b"") + second.get(code, b"") for code in [*first, *second]}


def text(raw: bytes) -> str:
    """Up to the first NUL; a stranger wrote it, and it ends on a terminal."""
    known = raw.partition(b"\0")[0].decode("ascii", "replace")[:255]
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in known)


# --- the wire -------------------------------------------------------------------------------------


async def ask(interface: Interface, seconds: float) -> Sequence[Server]:
    """Broadcast three DISCOVERs by `interface` and listen for `seconds`.

    Halfway those are repeated that nobody has answered. Servers come in the order in which they
    answered. Raises `OSError`: with EADDRINUSE where another program has port 68 for itself, with EACCES
    where this one may not bind it. Safe to cancel.
    """
    heard: list[tuple[IPv4Address, Offer]] = []
    with await udp.open_udp("0.0.0.0", CLIENT, interface=interface.name, broadcast=True, share=True) as sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, sock, interface, heard)
            for _ in range(2):
                answered = {offer.asked for _, offer in heard}
                for xid, architecture in TRANSACTIONS.items():
                    if FIRMWARES[architecture] not in answered:
                        packet = build_discover(architecture, xid)
                        await udp.send(sock, packet, SERVER, ifindex=interface.index)
                await trio.sleep(seconds / 2)
            nursery.cancel_scope.cancel()
    ours = {each.ip: interface.mac for each in interface.addresses}
    known = Neighbours()
    return by_server(heard, lambda source: ours.get(source) or str(known.mac_of(source) or ""))


async def listen(
    sock: trio.socket.SocketType, interface: Interface, heard: list[tuple[IPv4Address, Offer]]
) -> None:
    while len(heard) < MOST_OFFERS:
        datagram = await udp.receive(sock, LARGEST)
        try:
            offer = parse_offer(datagram.data)
        except BadPacket:
            continue
        source = IPv4Address(datagram.peer[0])
        if all(source != known for known, _ in heard):
            # Broadcasts teach the kernel no MAC; one empty datagram makes it ask.
            with suppress(OSError):
                await udp.send(sock, b"", (str(source), DISCARD), ifindex=interface.index)
        heard.append((source, offer))


def by_server(
    heard: Iterable[tuple[IPv4Address, Offer]], mac_of: Callable[[IPv4Address], str]
) -> Sequence[Server]:
    """An offer that came twice counts once."""
    offers: dict[IPv4Address, list[Offer]] = {}
    for source, offer in dict.fromkeys(heard):
        offers.setdefault(source, []).append(offer)
    return tuple(
        Server(source=source, mac=mac_of(source), offers=tuple(found)) for source, found in offers.items()
    )
