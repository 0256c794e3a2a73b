"""Parts of a virtual file from the page cache to a socket, without passing through Python (sendfile(2)).

A file that is not in memory is waited for in a thread, a reader that is slow is waited for here, and one
that takes nothing is given up. What the bytes are, who reads them and in which protocol is not known here:
what has to stand in front of them is handed in as bytes, too.
"""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import trio
from attrs import frozen

from provd.domain.errors import BadImage
from provd.domain.virtual_file import Extent, Part

STALL_SECONDS = 30
"""How long a reader may not take a single byte: iPXE moves an initrd around in memory now and then."""

WINDOW = 2 << 20
"""Bytes per call of sendfile: less than a millisecond in which nobody else has a turn."""
TURN = 4 << 20
"""Bytes until the others have their turn, where the reader is so fast that it never makes us wait."""


class CutOff(OSError):
    """This connection has to end in the middle of an answer."""


@frozen
class Opened:
    """An extent of an open file."""

    extent: Extent
    fd: int


def open_parts(parts: Iterable[Part], files: ExitStack) -> list[bytes | Opened]:
    """Open what there is to send; `files` closes it. Raises `BadImage` when it is not there in full."""
    fds: dict[Path, int] = {}
    found: list[bytes | Opened] = []
    for part in parts:
        if isinstance(part, bytes):
            found.append(part)
            continue
        if part.path not in fds:
            try:
                # A FIFO in the place of the file must not hang the daemon.
                fd = os.open(part.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as exc:
                reason = (exc.strerror or str(exc)).lower()
                raise BadImage(f"{part.path} cannot be read: {reason}") from exc
            files.callback(os.close, fd)
            fds[part.path] = fd
        fd = fds[part.path]
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size < part.offset + part.length:
            raise too_short(part.path)
        found.append(Opened(part, fd))
    return found


def too_short(path: Path) -> BadImage:
    return BadImage(f"{path} is shorter than it was: import the image again")


class Sender:
    """Writes one answer to a socket, and tells `progress` how many bytes of the parts are out.

    `disk` bounds the threads that wait for a disk.
    """

    def __init__(
        self,
        sock: trio.socket.SocketType,
        disk: trio.CapacityLimiter,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._sock = sock
        self._disk = disk
        self._progress = progress
        self._patience = trio.CancelScope()

    async def send(self, head: bytes, parts: Sequence[bytes | Opened]) -> None:
        """Raises `OSError` when nobody takes it, `BadImage` when a file turns out not to have it."""
        with self._patience:
            # What is small travels in one segment with what follows it: no segment for headers alone.
            self._patience.deadline = trio.current_time() + STALL_SECONDS
            small, counted = bytearray(head), 0
            for part in parts:
                if isinstance(part, bytes):
                    small += part
                    counted += len(part)
                    continue
                await self._send_bytes(small, socket.MSG_MORE)
                self._advance(counted)
                small, counted = bytearray(), 0
                await self._send_file(part)
            await self._send_bytes(small, 0)
            self._advance(counted)
        if self._patience.cancelled_caught:
            raise CutOff

    async def _send_bytes(self, data: bytearray, flags: int) -> None:
        view = memoryview(data)
        while view:
            view = view[await self._sock.send(view, flags) :]

    async def _send_file(self, part: Opened) -> None:
        out, fd = self._sock.fileno(), part.fd
        offset, end = part.extent.offset, part.extent.offset + part.extent.length
        turn = 0
        while offset < end:
            count = min(WINDOW, end - offset)
            try:
                if in_page_cache(fd, offset, count):
                    sent = os.sendfile(out, fd, offset, count)
                else:
                    sent = await sendfile_from_disk(out, fd, offset, count, self._disk)
                if not sent:
                    raise too_short(part.extent.path)
            except BlockingIOError:
                sent = 0
            except OSError as exc:
                if exc.errno in (errno.EIO, errno.ESTALE):
                    raise BadImage(f"{part.extent.path} cannot be read: {os.strerror(exc.errno)}") from exc
                raise
            offset += sent
            turn += sent
            self._advance(sent)
            if sent < count and offset < end:
                await trio.lowlevel.wait_writable(self._sock)
                turn = 0
            elif turn >= TURN:
                await trio.lowlevel.checkpoint()
                turn = 0

    def _advance(self, count: int) -> None:
        if count:
            self._patience.deadline = trio.current_time() + STALL_SECONDS
            if self._progress is not None:
                self._progress(count)


async def sendfile_from_disk(out: int, fd: int, offset: int, count: int, disk: trio.CapacityLimiter) -> int:
    """sendfile(2) in a thread, which a cancellation leaves to itself: a dead disk may hold it for ever.

    Its place in `disk` stays taken until it ends. Our descriptors may be closed before that, or before it
    has come to its call, and their numbers be somebody else's: it has copies. Whoever takes them out of
    `held` closes them: the thread, or we, if it has not begun.
    """
    with ExitStack() as opened:
        out, fd = copy(out, opened), copy(fd, opened)
        held = [opened.pop_all()]

    def send() -> int:
        with held.pop():
            return os.sendfile(out, fd, offset, count)

    try:
        return await trio.to_thread.run_sync(send, abandon_on_cancel=True, limiter=disk)
    finally:
        with suppress(IndexError):
            held.pop().close()


def copy(fd: int, opened: ExitStack) -> int:
    """The same open file under another number, which `opened` closes."""
    copied = os.dup(fd)
    opened.callback(os.close, copied)
    return copied


def in_page_cache(fd: int, offset: int, count: int) -> bool:
    """Whether it can be sent without waiting for a disk. False, too, where the file system cannot say."""
    byte = bytearray(1)
    try:
        return all(os.preadv(fd, [byte], at, os.RWF_NOWAIT) == 1 for at in (offset, offset + count - 1))
    except OSError:
        return False
