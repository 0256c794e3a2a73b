"""One file on its way to one client: what is sent next, what again and when, and how it ends.

A transfer has a task and a socket of its own, connected to its client. The task begins, waits for the
end and closes; `receive`, for each datagram, and `tick`, for the clock, are called by the pump and wait
for nothing. Which client may have which file is not known here.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from errno import EINVAL, EIO, EMSGSIZE

import trio
from attrs import frozen

from provd.domain.documents import one_line
from provd.netboot.tftp_blocks import blocks_of, exchange
from provd.netboot.tftp_options import Terms
from provd.netboot.tftp_packet import ACK, ERROR, HEADER, build_oack, parse_refusal
from provd.netboot.tftp_pump import Pump
from provd.netboot.tftp_socket import segment

FIRST_PATIENCE = 1.0
"""Seconds until something is repeated first, while the round trip is not known (RFC 1123 §4.2.3.2)."""
LEAST_PATIENCE = 0.2
"""Seconds. Firmware that polls its network card now and then takes tens of milliseconds to answer."""
LONGEST_PATIENCE = 8.0
"""Seconds, or what the client asked for where that is more."""
TRIES = 6
"""How often anything is sent until the client counts as gone."""
DEADLINE = 600.0
"""Seconds for a whole transfer."""
LONGEST_REPLY = 256
"""Bytes of a client's datagram that are read: an ACK has four, an ERROR a sentence."""

LEAST_SEGMENT = 512
"""Bytes. Smaller blocks are not worth it, and an OACK must not be cut."""
MOST_SEGMENTS = 64
"""UDP_MAX_SEGMENTS in Linux before 6.9."""
MOST_BYTES = 65_000
"""In one write: what an IPv4 datagram can hold, before it is cut."""
UNABLE_TO_SEGMENT = frozenset({EINVAL, EIO, EMSGSIZE})
"""A block is larger than the network's MTU, or the card's driver cannot do it."""

read, write, writev = os.read, os.write, os.writev

FIRST_ACK = HEADER.pack(ACK, 0)


class Outcome(StrEnum):
    DONE = "done"
    """The client has acknowledged the last block."""
    PROBE = "probe"
    """It wanted to know the size only, as EDK2 and Intel's ROMs do before they read."""
    ABORTED = "aborted"
    GAVE_UP = "gave up"
    """It fell silent."""


@frozen(kw_only=True)
class Read:
    """What became of a transfer. With `sent == size` the client may have everything, whatever the outcome."""

    peer: str
    name: str
    sent: int
    """Bytes of the file that went out, each counted once."""
    size: int
    """Bytes that were to go out: in netascii more than the file has."""
    seconds: float
    outcome: Outcome
    reason: str
    """Why it was aborted, fit for a log line; empty otherwise."""
    retransmissions: int
    """Datagrams sent more than once."""


class Transfer:
    """The sender of RFC 1350 with windows (RFC 7440); where none was asked for, a window is one block.

    Blocks count from 1 and never stop; only on the wire 0 follows 65535. Block 0 is the OACK, a window
    of its own. All methods take trio's clock as `now` and return at once.
    """

    def __init__(self, content: bytes, terms: Terms, sock: socket.socket) -> None:
        """`sock` is from `open_socket`. It stays the caller's to close."""
        self.content = content
        self.oack = build_oack(terms.answer) if terms.answer else b""
        self.outcome: Outcome | None = None
        self.reason = ""
        self.retransmissions = 0
        self.over = trio.Event()
        self._sock = sock
        self._fd = sock.fileno()
        """For os.read and os.write, which cost less than the socket's own methods."""
        self._blocks, self._window = blocks_of(content, terms.blksize), terms.windowsize
        self._last = self._blocks.last
        self._per_write = 1
        """Blocks; more where the kernel cuts what is written into datagrams."""
        if (
            terms.windowsize > 1
            and terms.blksize >= LEAST_SEGMENT
            and segment(sock, terms.blksize + HEADER.size)
        ):
            self._per_write = max(1, min(MOST_SEGMENTS, MOST_BYTES // (terms.blksize + HEADER.size)))
        self._acknowledged = 0
        self._sent = 0
        """The highest block that ever went out."""
        self._sent_at = 0.0
        self._awaited: bytes | None = None
        """The ACK of everything that was sent: nearly every datagram that comes. None: it is over."""
        self._settled = False
        """The next answer tells nothing new: the way was measured since the last tick, nothing got lost."""
        self._repeated = False
        """Something of this window went out twice: its ACK does not tell how long the way is (Karn)."""
        self._gap_closed = -1
        """The last acknowledged block at the time when a report of a gap was followed."""
        self._repeats = 0
        """How often this window was repeated for want of an answer."""
        self._backoff = 0
        """The power of two by which patience is longer. Only an undoubted round trip takes it back."""
        self._first_patience = float(terms.timeout or FIRST_PATIENCE)
        self._measured = False
        self._round_trip = 0.0
        """Smoothed, as is its deviation (RFC 6298 §2)."""
        self._deviation = 0.0

    @property
    def sent(self) -> int:
        """Bytes of the content that went out."""
        return min(self._sent * self._blocks.size, len(self.content))

    @property
    def due(self) -> float:
        """When the last packets count as lost."""
        patience = self._first_patience
        if self._measured:
            patience = max(LEAST_PATIENCE, self._round_trip + 4 * self._deviation)
        longest = max(LONGEST_PATIENCE, self._first_patience)
        return self._sent_at + min(longest, patience * (1 << self._backoff))

    @property
    def answered(self) -> bool:
        """Somebody is there, and has acknowledged the OACK or a block."""
        return self._acknowledged > 0 or bool(self.oack and self._sent)

    @property
    def stalled(self) -> bool:
        """The client had begun to read, and does not answer any more."""
        return self._acknowledged > 0 and self._repeats > 0

    def start(self, now: float) -> None:
        """Send the OACK, or the first block where there is none."""
        if self.oack:
            self._send_oack(now)
        else:
            self._send_window(now)

    def end(self, outcome: Outcome, reason: str = "") -> None:
        """The first end counts."""
        if self.outcome is None:
            self.outcome, self.reason = outcome, reason
            self._awaited = None
            self.over.set()

    def receive(self, now: float) -> None:
        """Read one datagram, and send what it makes room for."""
        try:
            data = read(self._fd, LONGEST_REPLY)
        except BlockingIOError:
            return  # the kernel dropped what it had announced: a wrong checksum
        except OSError as exc:
            self._fail(exc)
            return
        if data != self._awaited and data[: HEADER.size] != self._awaited:
            self._receive_other(data, now)
            return
        if not self._settled:
            self._settle(now - self._sent_at)
        self._acknowledged = self._sent
        if self._acknowledged == self._last:
            self.end(Outcome.DONE)
        else:
            self._send_window(now)

    def tick(self, now: float) -> None:
        """Repeat what has not been answered in time, or give up."""
        self._settled = False
        if self.outcome is not None or now < self.due:
            return
        if self._repeats == TRIES - 1:
            self.end(Outcome.GAVE_UP)
            return
        self._repeats += 1
        self._backoff += 1
        self._repeat(now)

    def _receive_other(self, data: bytes, now: float) -> None:
        """Anything but the ACK that was expected. What makes no sense is left alone."""
        if self.outcome is not None or len(data) < HEADER.size:
            return
        opcode, block = HEADER.unpack_from(data)
        if opcode == ERROR:
            refusal = parse_refusal(data)
            if self.oack and not self._sent:
                self.end(Outcome.PROBE)
            else:
                self.end(Outcome.ABORTED, f"the client says {one_line(refusal.message)!r} ({refusal.code})")
        elif opcode == ACK:
            ahead = (block - self._acknowledged) & 0xFFFF
            if 0 < ahead < self._sent - self._acknowledged:
                # It misses the next block: go on behind the one that it has (RFC 7440 §4).
                self._settle(now - self._sent_at)
                self._acknowledged += ahead
                self._repeat(now)
            elif ahead == 0 and self._reports_gap(now):
                self._gap_closed = self._acknowledged
                self._repeat(now)

    def _reports_gap(self, now: float) -> bool:
        """Whether an ACK that came a second time means that the window's first block got lost.

        With windows of one block never: answering it would double all blocks from there on, the
        Sorcerer's Apprentice (RFC 1123 §4.2.3.1). With larger ones RFC 7440 §4 has the client say so.
        It says so for each block behind the gap, and is heard once; and a duplicate that the
        network made arrives sooner than the window's first block could have been answered.
        """
        return (
            self._window > 1
            and self._sent > 0
            and self._gap_closed != self._acknowledged
            and now - self._sent_at >= self._round_trip / 2
        )

    def _settle(self, seconds: float) -> None:
        """An answer has come, `seconds` after what it answers: learn what can be learned (RFC 6298)."""
        self._repeats = 0
        if self._repeated:
            self._repeated = False
            return
        if not self._measured:
            self._measured, self._round_trip, self._deviation = True, seconds, seconds / 2
        else:
            off = seconds - self._round_trip
            self._deviation += (abs(off) - self._deviation) / 4
            self._round_trip += off / 8
        self._backoff = 0
        self._settled = True

    def _repeat(self, now: float) -> None:
        self._settled = False
        self._repeated = True
        self.retransmissions += max(1, self._sent - self._acknowledged)
        if self._sent:
            self._send_window(now)
        else:
            self._send_oack(now)

    def _send_oack(self, now: float) -> None:
        self._sent_at = now
        self._awaited = FIRST_ACK
        try:
            write(self._fd, self.oack)
        except BlockingIOError:
            pass
        except OSError as exc:
            self._fail(exc)

    def _send_window(self, now: float) -> None:
        """All blocks behind the last acknowledged one that the window has room for."""
        first = self._acknowledged
        until = first + self._window
        if until > self._last:
            until = self._last
        self._sent, self._sent_at = until, now
        packet, self._awaited = exchange(self._blocks, until)
        try:
            if until - first == 1:
                write(self._fd, packet)
            else:
                self._send_blocks(first, until)
        except BlockingIOError:
            pass  # the send buffer is full: what did not go is repeated like what got lost
        except OSError as exc:
            self._fail(exc)

    def _send_blocks(self, first: int, until: int) -> None:
        """Blocks `first` + 1 to `until`, in as few writes as can be. Raises OSError."""
        packets = [exchange(self._blocks, number)[0] for number in range(first + 1, until + 1)]
        try:
            for start in range(0, len(packets), self._per_write):
                writev(self._fd, packets[start : start + self._per_write])
        except OSError as exc:
            if self._per_write == 1 or exc.errno not in UNABLE_TO_SEGMENT:
                raise
            self._per_write = 1
            segment(self._sock, 0)
            self._send_blocks(first, until)

    def _fail(self, exc: OSError) -> None:
        if self._sent == self._last and any(data == self._awaited for data in self._last_words()):
            self.end(Outcome.DONE)
        elif isinstance(exc, ConnectionRefusedError):
            self.end(Outcome.ABORTED, "the client has closed its port")
        else:
            self.end(Outcome.ABORTED, str(exc.strerror))

    def _last_words(self) -> Iterator[bytes]:
        """What the client said before it closed its port. The kernel tells of the port first."""
        with suppress(OSError):
            for _ in range(self._window):
                yield read(self._fd, LONGEST_REPLY)


async def run_transfer(transfer: Transfer, sock: socket.socket, pump: Pump) -> None:
    """Returns when the transfer has an outcome. The socket is closed then, as after a cancellation."""
    with sock:
        pump.watch(sock.fileno(), transfer.receive, transfer.tick)
        try:
            transfer.start(trio.current_time())
            with trio.move_on_after(DEADLINE):
                await transfer.over.wait()
            transfer.end(Outcome.ABORTED, "it took too long")
        finally:
            pump.forget(sock.fileno())
