"""A file as it goes over the wire: in blocks, each made once for all the clients that read it.

A room of machines reads one file in blocks of one size. To copy each block out of it again for each of
them would be a twentieth of a transfer's whole cost. Who reads, and when, is not known here.
"""

from functools import lru_cache

from attrs import frozen

from provd.netboot.tftp_packet import ACK, DATA, HEADER

KEPT = 4096
"""Blocks: some loaders whole, in about 6 MiB. Whoever asks for more has it made again each time."""

pack = HEADER.pack


@frozen(eq=False)
class Blocks:
    """From `blocks_of`, which gives all readers the same: they are looked up by identity, with each block."""

    content: bytes
    size: int
    """Bytes of each but the last, which is shorter."""

    @property
    def last(self) -> int:
        """The last one's number. They count from 1."""
        return len(self.content) // self.size + 1


@lru_cache(maxsize=64)
def blocks_of(content: bytes, size: int) -> Blocks:
    return Blocks(content, size)


@lru_cache(maxsize=KEPT)
def exchange(blocks: Blocks, number: int) -> tuple[bytes, bytes]:
    """The DATA packet of a block, and the ACK that answers it. On the wire 0 follows 65535."""
    start = (number - 1) * blocks.size
    wire_number = number & 0xFFFF
    return pack(DATA, wire_number) + blocks.content[start : start + blocks.size], pack(ACK, wire_number)


@lru_cache(maxsize=2)
def netascii(content: bytes) -> bytes:
    """A text as RFC 1350 §1 sends it: LF as CR LF, CR as CR NUL (RFC 764).

    Remembered for a few files, so that many clients of one do not cost its size many times.
    """
    return content.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
