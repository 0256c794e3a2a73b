"""The six packets of TFTP as bytes (RFC 1350 §5, RFC 2347 §2). What an option means is not known here.

Requests, OACK and ERROR go through tftpy's packet classes. DATA and ACK, of which there is one for
each block, are two numbers: `struct` does those at a twentieth of the cost.
"""

import struct
from enum import IntEnum
from functools import lru_cache

from attrs import frozen
from tftpy.TftpPacketFactory import TftpPacketFactory  # type: ignore[import-untyped]  # it has no types
from tftpy.TftpPacketTypes import (  # type: ignore[import-untyped]
    TftpPacketERR,
    TftpPacketOACK,
    TftpPacketRRQ,
    TftpPacketWRQ,
)
from tftpy.TftpShared import TftpException  # type: ignore[import-untyped]

from provd.domain.errors import BadPacket

HEADER = struct.Struct("!HH")
"""Opcode and block number, or opcode and error code: the first four bytes of DATA, ACK and ERROR."""
DATA, ACK, ERROR = 3, 4, 5

FACTORY = TftpPacketFactory()
REQUESTS = {b"\0\1": TftpPacketRRQ, b"\0\2": TftpPacketWRQ}
LONGEST_MESSAGE = 128
"""Characters of an error message that are read. It ends in a log line."""


class ErrorCode(IntEnum):
    """RFC 1350, appendix, as far as a read-only server has a use for them."""

    FILE_NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    ILLEGAL_OPERATION = 4


@frozen(kw_only=True)
class Request:
    """RRQ or WRQ."""

    write: bool
    name: str
    """As sent. A byte that is not ASCII stands there as U+FFFD."""
    mode: str
    """In lower case, whatever it is."""
    options: tuple[tuple[str, str], ...]
    """Names as the client spells them, in its order; of a name sent twice the last value."""


@frozen
class Refusal:
    """An ERROR from the client."""

    code: int
    message: str


@lru_cache(maxsize=16)
def parse_request(data: bytes) -> Request:
    """The request in a datagram, which the caller has cut to a sane length. Raises `BadPacket`.

    What many machines say alike is read once (`lru_cache`): tftpy takes longer over it than all the rest
    of a transfer's beginning.
    """
    if data[:2] not in REQUESTS:
        raise BadPacket("not a TFTP request")
    raw_name, nul, rest = data[2:].partition(b"\0")
    name = raw_name.decode("ascii", "replace")
    try:
        # A name that is not ASCII is one that no file has, and that is to be said: tftpy would only fail.
        packet = FACTORY.parse(data[:2] + name.encode("ascii", "replace") + nul + rest)
    except (TftpException, struct.error, ValueError) as exc:
        raise BadPacket("a malformed TFTP request") from exc
    return Request(
        write=isinstance(packet, TftpPacketWRQ),
        name=name,
        mode=packet.mode,
        options=tuple(packet.options.items()),
    )


def parse_refusal(data: bytes) -> Refusal:
    """What an ERROR packet says. Raises `BadPacket`.

    Not by tftpy, which logs each one as an error: for a boot ROM it is the way to ask a file's size.
    """
    if len(data) < HEADER.size or data[:2] != b"\0\5":
        raise BadPacket("not a TFTP error")
    message = data[HEADER.size :].partition(b"\0")[0][:LONGEST_MESSAGE]
    return Refusal(HEADER.unpack_from(data)[1], message.decode("ascii", "replace"))


def build_error(code: ErrorCode) -> bytes:
    """With tftpy's text for the code, which is the RFC's."""
    packet = TftpPacketERR()
    packet.errorcode = code
    return bytes(packet.encode().buffer)


@lru_cache(maxsize=16)
def build_oack(options: tuple[tuple[str, str], ...]) -> bytes:
    packet = TftpPacketOACK()
    packet.options = dict(options)
    return bytes(packet.encode().buffer)
