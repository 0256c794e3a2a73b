"""Kernel, initrd and ISO at wire speed: a listener of its own, for `/TOKEN/NAME` and nothing else.

h11 speaks the protocol; the bytes go from the page cache to the socket without passing through Python
(sendfile(2)). Hypercorn cannot do that, and two gigabytes for each of ten machines must not stand in
the way of an answer or a page. Who may read what is not known here.

Nothing is shielded: a stop ends every download at once, and a machine that was cut off tries again.
"""

import errno
import logging
import os
import re
import socket
import stat
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, cast

import h11
import trio
from attrs import frozen

from provd.domain.errors import BadImage
from provd.domain.virtual_file import Extent
from provd.orchestrator.downloads import Download, Downloads
from provd.orchestrator.installers import Served

log = logging.getLogger(__name__)

Address = tuple[str, int]

MOST_CONNECTIONS = 256
MOST_FROM_ONE_ADDRESS = 64
"""One machine reads one file at a time; there may be a router with several of them behind it."""

LARGEST_HEADERS = 8 * 1024
RECEIVE_BYTES = 8 * 1024

IDLE_SECONDS = 10
"""Between two requests, and for the whole of a request's headers."""
STALL_SECONDS = 30
"""How long a reader may not take a single byte: iPXE moves an initrd around in memory now and then."""
SILENCE_MILLISECONDS = 30_000
LINGER_SECONDS = 2
REFUSAL_SECONDS = 0.2
"""Before a stranger learns that there is nothing: time to guess is what a guess costs."""

WINDOW = 2 << 20
"""Bytes per call of sendfile: less than a millisecond in which nobody else has a turn."""
TURN = 4 << 20
"""Bytes until the others have their turn, where the reader is so fast that it never makes us wait."""
READERS = 8
"""Threads that wait for a disk."""

TARGET = re.compile(rb"(?:https?://[^/?#]+)?/([0-9A-Za-z-]{1,100})/([0-9A-Za-z.-]{1,100})", re.IGNORECASE)
"""The absolute form must be understood, though only proxies use it (RFC 9112 §3.2.2)."""
RANGE = re.compile(rb"bytes=[ \t]*(?:([0-9]{1,100})-([0-9]{0,100})|-([0-9]{1,100}))[ \t]*", re.IGNORECASE)
ENTITY_TAG = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


class Library(Protocol):
    def find(self, token: str, name: str) -> Served | None:
        """None: there is no such thing. Raises `BadImage` where it cannot be read just now."""


# --- what to answer: decided without touching a socket -------------------------------------------


@frozen(kw_only=True)
class Reply:
    status: HTTPStatus
    headers: Sequence[tuple[str, str]] = ()
    length: int | None = 0
    """What Content-Length says. None: nothing, for a 304 has no content to speak of."""
    content: "Content | None" = None
    last: bool = False
    """The connection is closed behind it."""


@frozen(kw_only=True)
class Content:
    """Bytes `start` up to `stop` of a file."""

    served: Served
    start: int
    stop: int


def refusal(status: int, *headers: tuple[str, str]) -> Reply:
    return Reply(status=HTTPStatus(status), headers=headers, last=True)


def reply_to(request: h11.Request, served: Served) -> Reply:
    """The answer to a GET or HEAD for what exists, in the order of RFC 9110 §13.2.2."""
    size, etag = served.file.size, served.file.etag
    validator = [("ETag", etag), ("Cache-Control", "no-store")]
    if_match = values(request, b"if-match")
    if if_match and not lists(if_match, etag, weak=False):
        return Reply(status=HTTPStatus.PRECONDITION_FAILED, headers=validator)
    if lists(values(request, b"if-none-match"), etag, weak=True):
        return Reply(status=HTTPStatus.NOT_MODIFIED, headers=validator, length=None)

    about = [*validator, ("Accept-Ranges", "bytes"), ("Content-Type", "application/octet-stream")]
    if request.method == b"HEAD":  # Range is defined for GET only (RFC 9110 §14.2)
        return Reply(status=HTTPStatus.OK, headers=about, length=size)
    part = None
    if is_of_this_file(values(request, b"if-range"), etag):
        part = byte_range(values(request, b"range"), size)
    if part == ():
        headers = [*validator, ("Content-Range", f"bytes */{size}")]
        return Reply(status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
    start, stop = part or (0, size)
    return Reply(
        status=HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK,
        headers=[*about, ("Content-Range", f"bytes {start}-{stop - 1}/{size}")] if part else about,
        length=stop - start,
        content=Content(served=served, start=start, stop=stop),
    )


def byte_range(lines: Sequence[bytes], size: int) -> tuple[int, int] | tuple[()] | None:
    """Start and stop of the one range that is asked for (RFC 9110 §14.1.2); () when it has no byte.

    None for no range, for several and for nonsense: then the whole file is the right answer (§14.2).
    """
    match = RANGE.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None:
        return None
    if match[3]:
        start, stop = max(size - int(match[3]), 0), size
    else:
        start, stop = int(match[1]), int(match[2]) + 1 if match[2] else size
        if match[2] and stop <= start:
            return None
    return (start, min(stop, size)) if start < min(stop, size) else ()


def is_of_this_file(if_range: Sequence[bytes], etag: str) -> bool:
    """Whether the part that the client has is of it (RFC 9110 §13.1.5). A date never is."""
    return not if_range or list(if_range) == [etag.encode()]


def lists(lines: Sequence[bytes], etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags has this one (RFC 9110 §8.8.3.2), or is `*`."""
    text = b",".join(lines).strip()
    return text == b"*" or any(
        tag == etag.encode() and (weak or not prefix) for prefix, tag in ENTITY_TAG.findall(text)
    )


def values(request: h11.Request, name: bytes) -> list[bytes]:
    return [value for key, value in request.headers if key == name]


# --- connections ---------------------------------------------------------------------------------


async def serve(
    library: Library,
    downloads: Downloads,
    sockets: Sequence[socket.socket],
    *,
    task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve what `library` has on listening sockets until cancelled, and close them.

    `started` gets the (host, port) of each. Cancelling ends everything at once.
    """
    with ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(closing(sock))
            sock.setblocking(False)
            # Accepted sockets inherit these on Linux. The last one frees what was sent to a machine that
            # was switched off.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MILLISECONDS)
        hall = Hall(library, downloads)
        doors = [Door(trio.SocketListener(trio.socket.from_stdlib_socket(sock)), hall) for sock in sockets]
        task_status.started([sock.getsockname()[:2] for sock in sockets])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(downloads.ring)
            await trio.serve_listeners(hall.receive, doors, handler_nursery=nursery)


class Hall:
    """Who is being served, and how many there may be."""

    def __init__(self, library: Library, downloads: Downloads) -> None:
        self.places = trio.Semaphore(MOST_CONNECTIONS)
        self.disk = trio.CapacityLimiter(READERS)
        self.library = library
        self.downloads = downloads
        self._from: Counter[str] = Counter()

    async def receive(self, stream: trio.SocketStream) -> None:
        """Serve one connection. Whatever happens in it ends this connection and nothing else."""
        try:
            with suppress(OSError), closing_now(stream):
                address = stream.socket.getpeername()[0]
                with self._counted(address) as welcome:
                    if welcome:
                        await Connection(self, stream.socket, address).run()
        except Exception:
            # As in provd/web/server.py: a bug that a stranger finds must not end the daemon.
            log.exception("a connection of the image server was dropped")
        finally:
            self.places.release()

    @contextmanager
    def _counted(self, address: str) -> Iterator[bool]:
        self._from[address] += 1
        try:
            yield self._from[address] <= MOST_FROM_ONE_ADDRESS
        finally:
            self._from[address] -= 1
            if not self._from[address]:
                del self._from[address]


class Door(trio.abc.Listener[trio.SocketStream]):
    """Lets in as many as there are places. The others wait in the kernel's queue, and are not refused."""

    def __init__(self, listener: trio.SocketListener, hall: Hall) -> None:
        self._listener = listener
        self._places = hall.places

    async def accept(self) -> trio.SocketStream:
        await self._places.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self._places.release()
            raise

    async def aclose(self) -> None:
        await self._listener.aclose()


@contextmanager
def closing_now(stream: trio.SocketStream) -> Iterator[None]:
    """Close without waiting, and after a cancellation or an error without what is still to be sent.

    Megabytes may wait in the kernel for a machine that takes none; a reset frees them, and tells a
    client that is alive what a plain end may not: this was not all.
    """
    try:
        yield
    except BaseException:
        with suppress(OSError):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise
    finally:
        stream.socket.close()


class CutOff(OSError):
    """This connection has to end in the middle of an answer."""


class Connection:
    def __init__(self, hall: Hall, sock: trio.socket.SocketType, address: str) -> None:
        self._hall = hall
        self._sock = sock
        self._address = address
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEADERS)
        # Trio's streams keep no more than 16 KiB in the kernel unsent: a wake-up for each of those.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)

    async def run(self) -> None:
        """Answer requests until one side has enough. Raises `OSError` when the other side is gone."""
        while (request := await self._next_request()) is not None:
            reply = request if isinstance(request, Reply) else self._decide(request)
            if reply.last:
                await trio.sleep(REFUSAL_SECONDS)
            await self._send(reply)
            if self._http.our_state is not h11.DONE:
                await self._linger()
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> h11.Request | Reply | None:
        """A request, or the refusal of what came instead of one; None when nothing came."""
        began = bool(self._http.trailing_data[0])
        request: h11.Request | None = None
        with trio.move_on_after(IDLE_SECONDS):
            try:
                while True:
                    match self._http.next_event():
                        case h11.NEED_DATA if request is None:
                            data = await self._sock.recv(RECEIVE_BYTES)
                            began = began or bool(data)
                            self._http.receive_data(data)
                        case h11.Request() as event:
                            if event.method not in (b"GET", b"HEAD"):
                                return refusal(405, ("Allow", "GET, HEAD"))
                            request = event
                        case h11.EndOfMessage() if request is not None:
                            return request
                        case h11.ConnectionClosed():
                            return None
                        case _:
                            return refusal(400)  # content: no request here has any
            except h11.RemoteProtocolError as exc:
                return refusal(exc.error_status_hint)
        return refusal(408) if began else None

    def _decide(self, request: h11.Request) -> Reply:
        match = TARGET.fullmatch(request.target)
        if match is None:
            return refusal(404)
        try:
            served = self._hall.library.find(match[1].decode(), match[2].decode())
        except BadImage as exc:
            self._complain(exc)
            return refusal(500)
        return reply_to(request, served) if served is not None else refusal(404)

    async def _send(self, reply: Reply) -> None:
        """Raises `OSError` when it could not be sent to its end."""
        with ExitStack() as files:
            content = reply.content
            try:
                parts = open_parts(content, files) if content is not None else []
            except BadImage as exc:
                self._complain(exc)
                reply, content, parts = refusal(500), None, []
            sender = Sender(self._sock, self._hall.disk)
            if content is not None:
                served = content.served
                sender.download = self._hall.downloads.begin(
                    served.host_id,
                    served.operation_id,
                    served.name,
                    served.file.size,
                    self._address,
                    start=content.start,
                    stop=content.stop,
                )
                files.callback(sender.download.end)
            try:
                await sender.send(self._head(reply), parts)
            except BadImage as exc:
                self._complain(exc)
                raise CutOff from exc

    def _head(self, reply: Reply) -> bytes:
        """The status line and headers; h11 is told that the content follows."""
        headers = [("Date", formatdate(usegmt=True)), *reply.headers]
        if reply.length is not None:
            headers.append(("Content-Length", str(reply.length)))
        if reply.last:
            headers.append(("Connection", "close"))
        response = h11.Response(status_code=reply.status, headers=headers, reason=reply.status.phrase)
        head = self._http.send(response) or b""
        if reply.content is not None:
            length = Length(reply.content.stop - reply.content.start)
            self._http.send_with_data_passthrough(h11.Data(data=cast("Any", length)))
        self._http.send(h11.EndOfMessage())
        return head

    def _complain(self, exc: BadImage) -> None:
        log.warning("%s did not get its installer: %s", self._address, exc)

    async def _linger(self) -> None:
        """Let the other side finish speaking: unread bytes would turn the close into a reset, and the
        answer that said why would be lost on its way (RFC 9112 §9.6)."""
        with trio.move_on_after(LINGER_SECONDS):
            self._sock.shutdown(socket.SHUT_WR)
            while await self._sock.recv(RECEIVE_BYTES):
                pass


@frozen
class Length:
    """Stands for content in h11, which wants to know no more of it (`send_with_data_passthrough`)."""

    length: int

    def __len__(self) -> int:
        return self.length


# --- bytes ---------------------------------------------------------------------------------------


@frozen
class Opened:
    """An extent of an open file."""

    extent: Extent
    fd: int


def open_parts(content: Content, files: ExitStack) -> list[bytes | Opened]:
    """Open what there is to send; `files` closes it. Raises `BadImage` when it is not there in full."""
    opened: dict[Path, int] = {}
    parts: list[bytes | Opened] = []
    for part in content.served.file.slice(content.start, content.stop):
        if isinstance(part, bytes):
            parts.append(part)
            continue
        if part.path not in opened:
            try:
                # A FIFO in the place of the file must not hang the daemon.
                fd = os.open(part.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as exc:
                reason = (exc.strerror or str(exc)).lower()
                raise BadImage(f"{part.path} cannot be read: {reason}") from exc
            files.callback(os.close, fd)
            opened[part.path] = fd
        fd = opened[part.path]
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size < part.offset + part.length:
            raise too_short(part.path)
        parts.append(Opened(part, fd))
    return parts


def too_short(path: Path) -> BadImage:
    return BadImage(f"{path} is shorter than it was: import the image again")


class Sender:
    """Writes one answer to a socket."""

    def __init__(self, sock: trio.socket.SocketType, disk: trio.CapacityLimiter) -> None:
        self.download: Download | None = None
        self._sock = sock
        self._disk = disk
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
                    sent = await trio.to_thread.run_sync(
                        os.sendfile, out, fd, offset, count, limiter=self._disk
                    )
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
        if count and self.download is not None:
            self._patience.deadline = trio.current_time() + STALL_SECONDS
            self.download.advance(count)


def in_page_cache(fd: int, offset: int, count: int) -> bool:
    """Whether it can be sent without waiting for a disk. False, too, where the file system cannot say."""
    byte = bytearray(1)
    try:
        return all(os.preadv(fd, [byte], at, os.RWF_NOWAIT) == 1 for at in (offset, offset + count - 1))
    except OSError:
        return False
