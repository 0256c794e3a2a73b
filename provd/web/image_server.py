"""Kernel, initrd and ISO at wire speed: a listener of its own, for `/TOKEN/NAME` and nothing else.

h11 speaks the protocol; the bytes leave by sendfile(2). Hypercorn cannot do that, and two gigabytes for
each of ten machines must not stand in the way of an answer or a page. Who may read what, what is the
right reply and how bytes get onto the wire is not known here: only connections, how many and how long.

Nothing is shielded: a stop ends every download at once, and a machine that was cut off tries again.
"""

import logging
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from email.utils import formatdate
from typing import Any, Protocol, cast

import h11
import trio
from attrs import frozen

from provd.domain.errors import BadImage
from provd.orchestrator.downloads import Download, Downloads
from provd.orchestrator.installers import Served
from provd.web.door import Places, open_doors
from provd.web.image_replies import Content, Reply, parse_target, refusal, reply_to
from provd.web.sendfile import CutOff, Sender, open_parts

log = logging.getLogger(__name__)

Address = tuple[str, int]

MOST_CONNECTIONS = 256
MOST_FROM_ONE_ADDRESS = 64
"""One machine reads one file at a time; there may be a router with several of them behind it."""

LARGEST_HEADERS = 8 * 1024
RECEIVE_BYTES = 8 * 1024

IDLE_SECONDS = 10
"""Between two requests, and for the whole of a request's headers."""
LINGER_SECONDS = 2
REFUSAL_SECONDS = 0.2
"""Before a stranger learns that there is nothing: time to guess is what a guess costs."""

READERS = 8
"""Threads that wait for a disk."""


class Library(Protocol):
    def find(self, token: str, name: str) -> Served | None:
        """None: there is no such thing. Raises `BadImage` where it cannot be read just now."""


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
    hall = Hall(library, downloads)
    with open_doors(sockets, hall.places) as doors:
        task_status.started([sock.getsockname()[:2] for sock in sockets])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(downloads.ring)
            await trio.serve_listeners(hall.receive, doors, handler_nursery=nursery)


class Hall:
    """Who is being served, and how many there may be."""

    def __init__(self, library: Library, downloads: Downloads) -> None:
        self.places = Places(MOST_CONNECTIONS, MOST_FROM_ONE_ADDRESS)
        self.disk = trio.CapacityLimiter(READERS)
        self.library = library
        self.downloads = downloads

    async def receive(self, stream: trio.SocketStream) -> None:
        """Serve one connection. Whatever happens in it ends this connection and nothing else."""
        try:
            with suppress(OSError), closing_now(stream):
                address = stream.socket.getpeername()[0]
                with self.places.counted(address) as welcome:
                    if welcome:
                        await Connection(self, stream.socket, address).run()
        except Exception:
            # As in provd/web/server.py: a bug that a stranger finds must not end the daemon.
            log.exception("a connection of the image server was dropped")
        finally:
            self.places.give_back()


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
        wanted = parse_target(request.target)
        if wanted is None:
            return refusal(404)
        try:
            served = self._hall.library.find(*wanted)
        except BadImage as exc:
            self._complain(exc)
            return refusal(500)
        return reply_to(request, served) if served is not None else refusal(404)

    async def _send(self, reply: Reply) -> None:
        """Raises `OSError` when it could not be sent to its end."""
        with ExitStack() as files:
            content, progress = reply.content, None
            try:
                parts = open_parts(content.parts(), files) if content is not None else []
            except BadImage as exc:
                self._complain(exc)
                reply, content, parts = refusal(500), None, []
            if content is not None:
                download = self._begin(content)
                files.callback(download.end)
                progress = download.advance
            sender = Sender(self._sock, self._hall.disk, progress)
            try:
                await sender.send(self._head(reply), parts)
            except BadImage as exc:
                self._complain(exc)
                raise CutOff from exc

    def _begin(self, content: Content) -> Download:
        served = content.served
        return self._hall.downloads.begin(
            served.host_id,
            served.operation_id,
            served.name,
            served.file.size,
            self._address,
            start=content.start,
            stop=content.stop,
        )

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
