"""The codec: against scapy, against a reader of the tests' own, and against everything that is no packet."""

import time
from contextlib import suppress
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from netboot.dhcp_checker import check_reply, read
from netboot.dhcp_client import (
    DISCOVER,
    FEATURES,
    GUID,
    MAC,
    REQUEST,
    Captured,
    client_packets,
    packet,
)
from provd.domain.errors import BadPacket
from provd.domain.hosts import Mac
from provd.netboot.dhcp_packet import MessageType, Reply, Request, build, parse

CLIENTS = client_packets()
NO_DISCOVERY = bytes([6, 1, 8, 255])


def reply(**changes: object) -> Reply:
    fields: dict[str, object] = {
        "message_type": MessageType.OFFER,
        "xid": 0x11223344,
        "flags": 0x8000,
        "chaddr": bytes.fromhex("525400123456").ljust(16, b"\0"),
        "server": IPv4Address("10.9.0.2"),
        "file": b"snponly.efi",
        "vendor_class": b"PXEClient",
        "vendor_options": NO_DISCOVERY,
        "machine_id": GUID[1],
    }
    return Reply(**{**fields, **changes})  # type: ignore[arg-type]


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_real_packets_are_read_as_scapy_reads_them(client: Captured) -> None:
    """Each packet that real firmware sent says the same to us and to scapy."""
    ours, theirs = parse(client.payload), BOOTP(client.payload)
    options: dict[object, object] = dict(each[:2] for each in theirs[DHCP].options if isinstance(each, tuple))
    assert (ours.xid, ours.secs, ours.flags, ours.hops) == (
        theirs.xid,
        theirs.secs,
        int(theirs.flags),
        theirs.hops,
    )
    assert (str(ours.ciaddr), str(ours.giaddr)) == (theirs.ciaddr, theirs.giaddr)
    assert ours.mac == Mac(theirs.chaddr[:6].hex(":"))
    assert ours.message_type == options["message-type"]
    assert (
        b"".join(each.to_bytes(2, "big") for each in ours.architectures) == options["pxe_client_architecture"]
    )
    assert ours.vendor_class == options["vendor_class_id"]
    assert ours.user_classes == ((options["user_class"],) if "user_class" in options else ())
    assert ours.machine_id == options.get("pxe_client_machine_identifier", b"")
    assert ours.max_size == options.get("max_dhcp_size", 576)
    assert str(ours.server_id) == options.get("server_id", "None")
    assert str(ours.requested_address) == options.get("requested_addr", "None")


def test_every_field_of_a_packet_is_read() -> None:
    """What a client says in the header and in its options is what the request holds."""
    relay = bytes([1, 4]) + b"eth0"
    said = [
        GUID,
        (57, b"\x05\xc0"),
        (77, b"\x04iPXE"),
        (54, bytes([10, 0, 0, 1])),
        (50, bytes([10, 0, 0, 9])),
    ]
    data = packet(
        REQUEST, options=[*said, (175, FEATURES), (82, relay)], secs=7, hops=3, ciaddr="10.0.0.9",
        giaddr="10.1.0.1", flags=0,
    )  # fmt: skip
    assert parse(data) == Request(
        xid=0x11223344,
        secs=7,
        flags=0,
        hops=3,
        ciaddr=IPv4Address("10.0.0.9"),
        giaddr=IPv4Address("10.1.0.1"),
        mac=Mac(MAC),
        chaddr=bytes.fromhex("525400123456").ljust(16, b"\0"),
        message_type=3,
        architectures=(7,),
        vendor_class=b"PXEClient:Arch:00007:UNDI:003000",
        user_classes=(b"iPXE",),
        ipxe_features=frozenset({0x13, 0x24}),
        server_id=IPv4Address("10.0.0.1"),
        requested_address=IPv4Address("10.0.0.9"),
        machine_id=GUID[1],
        relay_agent=relay,
        max_size=1472,
    )


REFUSED = {
    "a reply": packet(op=2),
    "no magic number": packet(magic=bytes(4)),
    "no Ethernet": packet(htype=32),
    "an address of seven bytes": packet(hlen=7),
    "an address longer than its field": packet(hlen=17),
    "a group's address": packet(mac="01:00:5e:00:00:01"),
    "no address": packet(mac="00:00:00:00:00:00"),
    "shorter than a header": packet()[:239],
    "longer than a frame": packet(tail=b"\xff" + bytes(1500)),
    "an option without its length": packet(tail=b"\x3c"),
    "an option that is cut off": packet(tail=b"\x3c\x09PXE"),
    "a message type of two bytes": packet(None, options=[(53, b"\1\1")]),
    "an empty message type": packet(None, options=[(53, b"")]),
    "no list of architectures": packet(architecture=None, options=[(93, b"")]),
    "half an architecture": packet(architecture=None, options=[(93, b"\0\7\0")]),
    "a server of three bytes": packet(options=[(54, b"\1\2\3")]),
    "an option that is cut off in the field of the file": packet(
        options=[(52, b"\1")], file=b"\x3c\xff" * 64
    ),
    "a size of the size of UDP": packet().ljust(65_507, b"\0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_client_packet_is_refused(name: str) -> None:
    """Only well-formed requests of Ethernet machines are read: op, magic, size, hardware, options."""
    with pytest.raises(BadPacket):
        parse(REFUSED[name])


def test_the_smallest_packet_is_one() -> None:
    """240 bytes without any option are BOOTP, which says nothing of what we ask for; 1500 fit a frame."""
    smallest = parse(packet(None, vendor_class=None, architecture=None, options=(), tail=b""))
    assert (smallest.message_type, smallest.architectures, smallest.vendor_class) == (0, (), b"")
    assert parse(packet().ljust(1500, b"\0")).architectures == (7,)


def test_pads_are_skipped_and_the_end_ends() -> None:
    """Option 0 may stand anywhere; what follows option 255 is not read, whatever it is."""
    plain = parse(packet())
    assert parse(packet(tail=b"\0\0\x4d\x04iPXE\0\xff" + b"\x3c\xff junk")).user_classes == (b"iPXE",)
    assert parse(packet(tail=b"\xff" + b"\x4d\x04iPXE")) == plain
    assert parse(packet(tail=b"")) == plain


def test_an_option_in_pieces_is_put_together() -> None:
    """The same code twice is one long option (RFC 3396), wherever the pieces stand."""
    parts = [(60, b"PXECl"), (97, GUID[1][:5]), (60, b"ient"), (97, GUID[1][5:])]
    request = parse(packet(vendor_class=None, options=parts))
    assert (request.vendor_class, request.machine_id) == (b"PXEClient", GUID[1])


@pytest.mark.parametrize(
    ("overload", "expected"), [(1, b"PXE-file"), (2, b"PXE-sname"), (3, b"PXE-file-sname")]
)
def test_options_go_on_in_the_header_where_they_are_said_to(overload: int, expected: bytes) -> None:
    """Option 52 has the fields file, sname or both read as options, in this order (RFC 2131 §4.1)."""
    request = parse(
        packet(
            vendor_class=None,
            options=[(60, b"PXE"), (52, bytes([overload]))],
            file=b"\x3c\x05-file\xff",
            sname=b"\x3c\x06-sname\xff",
        )
    )
    assert request.vendor_class == expected


def test_the_header_is_no_place_for_options_where_nobody_says_so() -> None:
    """Without option 52, or with a number that it does not have, file and sname are text."""
    for options in ([], [(52, b"\4")]):
        data = packet(vendor_class=None, options=options, file=b"\x3c\x01!\xff", sname=b"\x3c\x01!\xff")
        assert parse(data).vendor_class == b""


def test_a_malformed_option_hides_no_other() -> None:
    """A one-byte option 57 costs the client its size only; scapy loses all that stand behind it."""
    data = packet(None, vendor_class=None, options=[(57, b"\5"), (53, b"\1"), (60, b"PXEClient")])
    request = parse(data)
    assert (request.max_size, request.message_type, request.vendor_class) == (576, 1, b"PXEClient")
    known = [each[0] for each in BOOTP(data)[DHCP].options if isinstance(each, tuple)]
    assert "vendor_class_id" not in known, "scapy has learnt it: the walk of our own may go"


@pytest.mark.parametrize(
    ("raw", "classes"),
    [
        (b"iPXE", (b"iPXE",)),
        (b"\x04iPXE", (b"iPXE",)),
        (b"\x04iPXE\x03abc", (b"iPXE", b"abc")),
        (b"\x09iPXE", (b"\x09iPXE",)),
        (b"\x00iPXE", (b"\x00iPXE",)),
        (b"", ()),
    ],
)
def test_user_classes_are_read_in_both_forms(raw: bytes, classes: tuple[bytes, ...]) -> None:
    """With lengths as RFC 3004 has them, or as one raw text as iPXE sends it."""
    assert parse(packet(options=[(77, raw)])).user_classes == classes


def test_features_that_make_no_sense_are_none() -> None:
    """Option 175 decides something only where it is well-formed; a feature of value 0 is switched off."""
    assert parse(packet(options=[(175, b"\x13\x01\x00\x24\x01\x01")])).ipxe_features == {0x24}
    assert parse(packet(options=[(175, b"\x13\x01\x01\x24\x09")])).ipxe_features == frozenset()


@given(st.binary(max_size=1600))
def test_any_bytes_are_a_request_or_a_bad_packet(data: bytes) -> None:
    """No datagram makes the reader raise anything else."""
    with suppress(BadPacket):
        parse(data)


@given(
    st.sampled_from(CLIENTS),
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), max_size=12),
    st.data(),
)
@settings(max_examples=400)
def test_a_real_packet_that_was_tampered_with_is_a_request_or_a_bad_packet(
    client: Captured, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Bytes of a real packet changed, and its end cut off: still nothing but BadPacket comes out."""
    content = bytearray(client.payload)
    for at, value in changes:
        content[at % len(content)] = value
    cut = data.draw(st.integers(0, len(content)))
    for tampered in (bytes(content), bytes(content[:cut])):
        try:
            request = parse(tampered)
        except BadPacket:
            continue
        assert len(request.chaddr) == 16


def test_no_packet_takes_long_to_read() -> None:
    """The worst of 1500 bytes, all pads or all empty options, is read in far less than five milliseconds."""
    for area in (bytes(1260), b"\x3c\x00" * 630, b"\x3c\x01x" * 420):
        data = packet(tail=b"")[:240] + area
        start = time.perf_counter()
        for _ in range(20):
            parse(data)
        assert (time.perf_counter() - start) / 20 < 0.005


tlvs = st.lists(
    st.tuples(
        st.sampled_from([12, 43, 50, 54, 55, 60, 61, 66, 77, 93, 94, 97, 175, 200]), st.binary(max_size=40)
    ),
    unique_by=lambda each: each[0],
    max_size=10,
)


@given(tlvs, st.integers(1, 8), st.integers(0, 2**32 - 1), st.integers(0, 65535))
def test_well_formed_packets_are_read_as_the_checker_reads_them(
    options: list[tuple[int, bytes]], message_type: int, xid: int, secs: int
) -> None:
    """Whatever options a packet has, ours and the tests' own reader find the same in it."""
    data = packet(message_type, vendor_class=None, architecture=None, options=options, xid=xid, secs=secs)
    theirs = read(data)
    try:
        ours = parse(data)
    except BadPacket:
        lengths = {code: len(value) for code, value in options}
        assert lengths.get(54, 4) != 4 or lengths.get(93, 2) == 0 or lengths.get(93, 2) % 2
        return
    assert (ours.xid, ours.secs, ours.message_type) == (theirs.xid, theirs.secs, message_type)
    assert ours.vendor_class == (theirs.option(60) or b"")
    assert ours.machine_id == (theirs.option(97) or b"")
    assert ours.architectures == tuple(
        int.from_bytes((theirs.option(93) or b"")[at : at + 2], "big")
        for at in range(0, len(theirs.option(93) or b""), 2)
    )


# --- writing -------------------------------------------------------------------------------------


@given(
    message_type=st.sampled_from([MessageType.OFFER, MessageType.ACK]),
    xid=st.integers(0, 2**32 - 1),
    flags=st.sampled_from([0, 0x8000]),
    ciaddr=st.ip_addresses(v=4),
    giaddr=st.ip_addresses(v=4),
    chaddr=st.binary(min_size=16, max_size=16),
    server=st.ip_addresses(v=4),
    file=st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=127).map(str.encode),
    vendor_class=st.sampled_from([b"PXEClient", b"HTTPClient"]),
    vendor_options=st.sampled_from([b"", NO_DISCOVERY]),
    ipxe_options=st.sampled_from([b"", b"\1\1\1"]),
    machine_id=st.binary(max_size=40),
    relay_agent=st.binary(max_size=100),
)
def test_replies_are_what_scapy_makes_of_them(**fields: object) -> None:
    """What is put together from a form is byte for byte what scapy composes in one piece."""
    made = Reply(**fields)  # type: ignore[arg-type]
    options = [
        (53, bytes([made.message_type])),
        (54, made.server.packed),
        (60, made.vendor_class),
        (43, made.vendor_options),
        (175, made.ipxe_options),
        (97, made.machine_id),
        (82, made.relay_agent),
    ]
    whole = BOOTP(
        op=2, htype=1, hlen=6, xid=made.xid, flags=made.flags, ciaddr=str(made.ciaddr),
        siaddr=str(made.server), giaddr=str(made.giaddr), chaddr=made.chaddr,
        sname=str(made.server).encode(), file=made.file, options=b"\x63\x82\x53\x63",
    ) / DHCP(options=[*((code, value) for code, value in options if value), "end"])  # fmt: skip
    composed = bytearray(bytes(whole))
    # Scapy cuts the field to the six bytes of the address; a client's rest of it is to be echoed.
    composed[28:44] = made.chaddr
    assert build(made) == bytes(composed).ljust(300, b"\0")


def test_replies_read_back_as_what_they_were_made_of() -> None:
    """An independent reader finds in the bytes what was put in, in the order that firmware wants."""
    seen = read(build(reply(relay_agent=b"\1\4eth0", ipxe_options=b"\1\1\1")))
    assert [code for code, _ in seen.options] == [53, 54, 60, 43, 175, 97, 82]
    assert (seen.siaddr, seen.sname.rstrip(b"\0"), seen.boot_file) == ("10.9.0.2", b"10.9.0.2", "snponly.efi")
    assert (seen.yiaddr, seen.hops, seen.secs) == ("0.0.0.0", 0, 0)


@pytest.mark.parametrize("length", [1, 127, 128, 200, 254])
def test_a_long_name_moves_to_option_67(length: int) -> None:
    """127 bytes and their NUL fill the header's field; more goes into option 67, whole and with a NUL."""
    name = b"http://10.9.0.2/".ljust(length, b"x")[:length]
    data = build(reply(file=name, relay_agent=b"\1\4eth0", max_size=1500))
    seen = check_reply(data, packet(options=[GUID, (57, b"\x05\xdc"), (82, b"\1\4eth0")]), server="10.9.0.2")
    assert seen.boot_file.encode() == name
    assert (seen.option(67) is None) == (length <= 127)
    assert seen.file.endswith(b"\0")


def test_a_reply_is_never_longer_than_its_client_takes() -> None:
    """548 bytes where the client says nothing, option 57 where it does, an Ethernet frame at most."""
    long = {"relay_agent": bytes(range(1, 251)), "machine_id": b"x" * 100}
    with pytest.raises(BadPacket, match="548"):
        build(reply(**long))
    with pytest.raises(BadPacket, match="548"):
        build(reply(**long, max_size=68))
    assert len(build(reply(**long, max_size=1024))) > 548
    with pytest.raises(BadPacket, match="1472"):
        build(reply(file=b"x" * 1400, max_size=65_535))


def test_an_option_longer_than_255_bytes_is_split() -> None:
    """A relay's option in two pieces goes back in two pieces (RFC 3396), which read as one."""
    content = bytes(range(256)) + b"more"
    data = build(reply(relay_agent=content, max_size=1500))
    assert [len(value) for code, value in read(data).options if code == 82] == [255, 5]
    assert parse(bytes([1]) + data[1:]).relay_agent == content


def test_discover_is_what_the_tests_send() -> None:
    """The tests' own packets are DISCOVERs unless they say otherwise."""
    assert parse(packet()).message_type == DISCOVER == MessageType.DISCOVER
