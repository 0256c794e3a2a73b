"""A file cut into blocks, with the numbers that stand on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.tftp_lab import ACK, DATA, parse
from provd.netboot.tftp_blocks import KEPT, blocks_of, exchange, netascii


@given(st.binary(max_size=100), st.integers(8, 40))
def test_all_blocks_are_the_file(content: bytes, size: int) -> None:
    """All are full but the last, which is shorter and may be empty."""
    blocks = blocks_of(content, size)
    data = [exchange(blocks, number)[0][4:] for number in range(1, blocks.last + 1)]
    assert b"".join(data) == content
    assert {len(each) for each in data[:-1]} <= {size}
    assert len(data[-1]) < size


@pytest.mark.parametrize(("number", "on_the_wire"), [(1, 1), (65_535, 65_535), (65_536, 0), (65_537, 1)])
def test_numbers_go_round(number: int, on_the_wire: int) -> None:
    """A block and its ACK have the same number, of 16 bits."""
    data, ack = (parse(packet) for packet in exchange(blocks_of(bytes(8) * 70_000, 8), number))
    assert (data.opcode, data.block) == (DATA, on_the_wire)
    assert (ack.opcode, ack.block) == (ACK, on_the_wire)


def test_readers_share() -> None:
    """Who reads the same file in blocks of the same size gets the very same packets, others do not."""
    content = bytes(5000)
    assert exchange(blocks_of(content, 512), 3) is exchange(blocks_of(bytes(5000), 512), 3)
    assert exchange(blocks_of(content, 512), 3) != exchange(blocks_of(content, 1428), 3)


def test_what_is_kept_is_bounded() -> None:
    """However much is read in however many ways."""
    blocks = blocks_of(bytes(8 * KEPT * 2), 8)
    for number in range(1, blocks.last + 1):
        exchange(blocks, number)
    assert exchange.cache_info().currsize == KEPT


@pytest.mark.parametrize(
    ("text", "sent"),
    [(b"a\nb", b"a\r\nb"), (b"a\rb", b"a\r\0b"), (b"a\r\n", b"a\r\0\r\n"), (b"", b""), (b"plain", b"plain")],
)
def test_netascii(text: bytes, sent: bytes) -> None:
    """LF goes out as CR LF, CR as CR NUL (RFC 1350 §1)."""
    assert netascii(text) == sent


@given(st.binary(max_size=200))
def test_netascii_can_be_undone(content: bytes) -> None:
    """A client that converts back has the file that it asked for."""
    assert netascii(content).replace(b"\r\n", b"\n").replace(b"\r\0", b"\r") == content
