import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.tftp_lab import request
from provd.domain.errors import BadPacket
from provd.netboot.tftp_packet import (
    ErrorCode,
    Request,
    build_error,
    build_oack,
    parse_refusal,
    parse_request,
)

WORD = st.text(st.characters(min_codepoint=1, max_codepoint=126), min_size=1, max_size=20)


def test_request() -> None:
    """Opcode, name, mode and options are where RFC 1350 §5 and RFC 2347 put them; the mode has no case."""
    data = b"\0\1/x/ipxe.efi\0OcTet\0BLKSIZE\x001432\0tsize\x000\0"
    assert parse_request(data) == Request(
        write=False, name="/x/ipxe.efi", mode="octet", options=(("BLKSIZE", "1432"), ("tsize", "0"))
    )
    assert parse_request(b"\0\2up\0octet\0").write


@given(WORD, st.sampled_from(["octet", "netascii"]), st.dictionaries(WORD, WORD, max_size=5))
def test_request_round_trip(name: str, mode: str, options: dict[str, str]) -> None:
    """Whatever a client can say properly is understood to the letter."""
    assert parse_request(request(name, mode, options)) == Request(
        write=False, name=name, mode=mode, options=tuple(options.items())
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\1",
        b"\0\1x",
        b"\0\0x\0octet\0",
        b"\0\3\0\1data",
        b"\0\4\0\1",
        b"\0\5\0\1no\0",
        b"\0\6blksize\x008\0",
        b"\0\7x\0octet\0",
        b"\xff\xffx\0octet\0",
        b"\0\1x\0octet",
        b"\0\1x\0octet\0blksize\0",
        b"\0\1x\0octet\0blksize\x00512",
        b"\0\1x\0octet\0blksize\0\0",
        b"\0\1x\0octet\0\xff\x001\0",
        b"\0\1x\0oct\xe9t\0",
    ],
)
def test_malformed_requests(data: bytes) -> None:
    """What breaks off, misses its NUL, pairs oddly or is no request is a bad packet."""
    with pytest.raises(BadPacket):
        parse_request(data)


def test_name_that_is_not_ascii() -> None:
    """It is a request all the same, for a name that no file can have."""
    assert parse_request(b"\0\1caf\xc3\xa9\0octet\0").name == "caf\ufffd\ufffd"


def test_repeated_option() -> None:
    """Of an option that is sent twice one value counts, and it is no error."""
    assert parse_request(b"\0\1x\0octet\0tsize\x000\0tsize\x001\0").options == (("tsize", "1"),)


@given(st.binary(max_size=2048) | st.binary(max_size=200).map(lambda tail: b"\0\1" + tail))
def test_any_bytes(data: bytes) -> None:
    """Any datagram gives a request or BadPacket, and nothing else."""
    try:
        parsed = parse_request(data)
    except BadPacket:
        return
    assert isinstance(parsed, Request)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"\0\5" + tail))
def test_any_bytes_as_a_refusal(data: bytes) -> None:
    """Any datagram gives what the client says, of bounded length, or BadPacket."""
    try:
        refusal = parse_refusal(data)
    except BadPacket:
        assert data[:2] != b"\0\5" or len(data) < 4
        return
    assert 0 <= refusal.code <= 65_535
    assert len(refusal.message) <= 128


@pytest.mark.parametrize("code", ErrorCode)
def test_errors(code: ErrorCode) -> None:
    """An ERROR has opcode 5, its code, a text and a NUL."""
    data = build_error(code)
    assert data[:4] == struct.pack("!HH", 5, code)
    assert data[4:].index(b"\0") == len(data) - 5 > 0


def test_oack() -> None:
    """An OACK has opcode 6 and its options in the given order, with the given case."""
    assert build_oack((("TSIZE", "9"), ("blksize", "1468"))) == b"\0\6TSIZE\x009\0blksize\x001468\0"
