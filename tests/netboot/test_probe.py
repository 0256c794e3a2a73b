"""What the probe says and hears: as bytes, and among real DHCP servers in a LAN of namespaces."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.probe_lab import PROVD, ROGUE, ROUTER, Lan, ask, inside, needs_lan, open_lan
from provd.domain.errors import BadPacket
from provd.netboot import dhcp_packet
from provd.netboot.probe import (
    COOKIE,
    HEADER,
    PROBE_MAC,
    RAW_MAC,
    TRANSACTIONS,
    Offer,
    build_discover,
    parse_offer,
    text,
    walk,
)

XID = next(iter(TRANSACTIONS))
SHORT = 1.0
"""Seconds to listen: real servers here answer at once (`no-ping`)."""


def offer(options: bytes, *, sname: bytes = b"", file: bytes = b"", **header: bytes) -> bytes:
    """A DHCPOFFER to the probe; `header` overrides addresses by their names in RFC 2131."""
    addresses = [header.get(name, bytes(4)) for name in ("ciaddr", "yiaddr", "siaddr", "giaddr")]
    packed = HEADER.pack(2, 1, 6, 0, XID, 0, 0x8000, *addresses, RAW_MAC, sname, file, COOKIE)
    return packed + b"\x35\x01\x02" + options


# --- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("xid", "architecture"), TRANSACTIONS.items())
def test_provds_own_server_takes_the_discover_for_a_machines(xid: int, architecture: int) -> None:
    """The server's reader, which knows nothing of the probe, finds all that firmware sends."""
    packet = build_discover(architecture, xid)
    request = dhcp_packet.parse(packet)
    assert (request.mac, request.xid, request.architectures) == (PROBE_MAC, xid, (architecture,))
    assert request.message_type == 1
    assert request.flags & 0x8000
    assert request.vendor_class.startswith(
        b"HTTPClient:Arch:00016" if architecture == 16 else b"PXEClient:Arch"
    )
    assert len(request.machine_id) == 17
    assert len(packet) >= 300


def test_nothing_is_ever_asked_for_but_an_offer() -> None:
    """No request type other than DISCOVER, and no wish for an address (options 50 and 54)."""
    for xid, architecture in TRANSACTIONS.items():
        options = walk(build_discover(architecture, xid)[HEADER.size :])
        assert options[53] == b"\x01"
        assert not {50, 54} & options.keys()


def test_an_offer_is_read_from_its_options_and_from_its_header() -> None:
    """Options 66 and 67 come first, the header's fields where these are missing."""
    both = parse_offer(
        offer(b"\x43\x05a.efi\x42\x02s1\xff", sname=b"s2", file=b"b.efi", siaddr=b"\x0a\0\0\1")
    )
    assert (both.server_name, both.boot_file, str(both.next_server)) == ("s1", "a.efi", "10.0.0.1")
    header = parse_offer(offer(b"\xff", sname=b"s2", file=b"b.efi", yiaddr=b"\x0a\0\0\x09"))
    assert (header.server_name, header.boot_file, str(header.address)) == ("s2", "b.efi", "10.0.0.9")


def test_a_proxys_offer_is_told_by_its_class_and_its_lack_of_an_address() -> None:
    """Both are needed: firmware looks at both."""
    kind = b"\x3c\x09PXEClient\xff"
    assert parse_offer(offer(kind)).proxy
    assert not parse_offer(offer(kind, yiaddr=b"\x0a\0\0\x09")).proxy
    assert not parse_offer(offer(b"\xff")).proxy


def test_overloaded_fields_and_split_options_are_joined() -> None:
    """RFC 2131 §4.1 and RFC 3396: options go on in `file` and `sname`, which then are no names."""
    read = parse_offer(offer(b"\x34\x01\x03\x43\x02ab\xff", file=b"\x43\x02cd\xff", sname=b"\x3c\x03xyz\xff"))
    assert (read.boot_file, read.vendor_class, read.server_name) == ("abcd", "xyz", "")


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        offer(b"\xff")[:239],
        offer(b"\x43\x09ab"),
        offer(b"\x43"),
        b"\x01" + offer(b"\xff")[1:],
        offer(b"\xff").replace(COOKIE, b"abcd"),
        offer(b"\xff").replace(b"\x35\x01\x02", b"\x35\x01\x05"),
        offer(b"\xff").replace(RAW_MAC, b"\x52\x54\0\0\0\1"),
        offer(b"\xff").replace(struct.pack("!I", XID), struct.pack("!I", XID + 1)),
    ],
    ids=[
        "empty",
        "short",
        "torn",
        "no length",
        "a request",
        "no cookie",
        "an ACK",
        "another's",
        "another time",
    ],
)
def test_what_is_no_offer_to_the_probe_is_refused(packet: bytes) -> None:
    """It is not taken for one."""
    with pytest.raises(BadPacket):
        parse_offer(packet)


@given(st.binary(max_size=600), st.binary(max_size=128), st.binary(max_size=64))
def test_any_bytes_give_an_offer_or_a_bad_packet(options: bytes, file: bytes, sname: bytes) -> None:
    """Nothing else comes out of the reader, and nothing unprintable of what it has read."""
    for packet in (options, offer(options, file=file, sname=sname)):
        try:
            read = parse_offer(packet)
        except BadPacket:
            continue
        assert isinstance(read, Offer)
        for words in (read.vendor_class, read.boot_file, read.server_name):
            assert words.isascii()
            assert words == "" or words.isprintable()


def test_a_strangers_text_cannot_command_a_terminal() -> None:
    """Control characters and bytes beyond ASCII become question marks; a NUL ends the text."""
    assert text(b"a\x1b[2J\xff\n\0tail") == "a?[2J??"


# --- the wire -------------------------------------------------------------------------------------


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    with open_lan(tmp_path) as lan:
        yield lan


DHCP = "dhcp-range=10.77.0.100,10.77.0.200,1h"


@needs_lan
def test_silence_is_heard_as_nobody(lan: Lan) -> None:
    """A LAN without a DHCP server gives an empty list, and no error."""
    assert ask(lan.add(PROVD), SHORT) == []


@needs_lan
def test_every_server_is_heard_with_its_mac_and_what_it_offers(lan: Lan) -> None:
    """The LAN's own server, a foreign proxy, and a proxy on the probing machine itself."""
    router, rogue, here = lan.add(ROUTER), lan.add(ROGUE), lan.add(PROVD)
    lan.dnsmasq(router, DHCP)
    lan.dnsmasq(rogue, "dhcp-range=10.77.0.0,proxy", "pxe-service=X86-64_EFI,rogue,rogue.efi")
    lan.dnsmasq(here, "dhcp-range=10.77.0.0,proxy", "pxe-service=x86PC,own,undionly")
    heard = ask(here, SHORT)
    by_source = {each["source"]: each for each in heard}
    assert set(by_source) == {ROUTER, ROGUE, PROVD}
    assert not by_source[ROUTER]["proxy"]
    assert by_source[ROUTER]["address"].startswith("10.77.0.1")
    assert by_source[ROGUE]["proxy"]
    assert by_source[PROVD]["proxy"]
    for namespace, address in ((router, ROUTER), (rogue, ROGUE), (here, PROVD)):
        shown = inside(namespace, "cat", "/sys/class/net/up0/address").stdout.strip()
        assert by_source[address]["mac"] == shown
    asked = {each["firmware"] for each in heard if each["source"] == ROUTER}
    assert asked == {"BIOS", "UEFI x64", "UEFI x64 by HTTP"}


@needs_lan
def test_no_address_is_taken(lan: Lan) -> None:
    """However often it is asked, the server leases nothing."""
    router, here = lan.add(ROUTER), lan.add(PROVD)
    lan.dnsmasq(router, DHCP)
    first, second = ask(here, SHORT), ask(here, SHORT)
    assert {each["address"] for each in first} == {each["address"] for each in second}
    assert [file.read_text() for file in lan.folder.glob("leases*")] in ([], [""])
