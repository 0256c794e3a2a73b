"""Hypercorn's HTTP/1.1 on Trio, in the caller's nursery, so that no stranger can stop the daemon.

Taken from Hypercorn: the protocol (h11 under ASGI) and the idle timer of a connection. Kept here:
accepting, what may end a connection, and what a connection may end. Whatever leans on the inner
shape of Hypercorn 0.18 and quart-trio 0.12/0.13 is in this file, each with what, why and, in
`tests/web/test_server.py`, one test.

There are no lifespan events: what a request needs is opened around `serve`, not by the app. That
leaves quart-trio's `app.nursery` unset on purpose: a crash in there ends it without ending the
server, and what was to run in it never runs again.
"""

import logging
import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    ConnectionState,
    LifespanState,
    Scope,
)
from hypercorn.utils import parse_socket_addr

from provd.domain.errors import ConfigError
from provd.web.door import Places, open_doors

log = logging.getLogger(__name__)

Address = tuple[str, int]

MOST_CONNECTIONS = 256
MOST_FROM_ONE_ADDRESS = 128
"""One machine gone mad must leave room for the others. A reverse proxy is one address, too."""
BACKLOG = 512
"""A machine that must wait for its turn is late; one that is turned away stops in a shell."""

LARGEST_HEADERS = 16 * 1024
LARGEST_BODY = 1024 * 1024
"""Bytes. The gate says less for most paths; beyond this a body is not even taken from the wire."""

IDLE_SECONDS = 10
"""Between two requests, and for the whole of a request's headers."""
SEND_SECONDS = 15
"""How long a reader may not take a single piece of an answer."""
PIECE = 64 * 1024
LINGER_SECONDS = 2
GRACE_SECONDS = 1
"""What a stop leaves to requests that are being answered. An installer asks for its answer once."""


def listen(address: str) -> socket.socket:
    """Listen on "0.0.0.0:8080" or "[::]:8080". Raises `ConfigError` where that cannot be."""
    match = re.fullmatch(r"\[([^\]]*)\]:([0-9]{1,5})|([^:]*):([0-9]{1,5})", address)
    if match is None:
        raise ConfigError(f"cannot listen on {address}: not an address and a port like 0.0.0.0:8080")
    host, port = (match[1] or match[3] or ""), int(match[2] or match[4])
    sock = socket.socket(socket.AF_INET6 if match[2] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as exc:
        sock.close()
        reason = exc.strerror if isinstance(exc, OSError) else None
        raise ConfigError(f"cannot listen on {address}: {(reason or str(exc)).lower()}") from exc
    return sock


async def serve(
    app: ASGIFramework,
    sockets: Sequence[socket.socket],
    *,
    task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on listening sockets until cancelled, and close them.

    `started` gets the (host, port) of each. Cancelling is the graceful stop: nobody is accepted any
    more, idle connections and event streams end at once, and requests that are being answered have
    `GRACE_SECONDS`.
    """
    house = House(app)
    with open_doors(sockets, house.places) as doors:
        task_status.started([sock.getsockname()[:2] for sock in sockets])
        async with trio.open_nursery() as nursery:
            try:
                await trio.serve_listeners(house.receive, doors, handler_nursery=nursery)
            finally:
                with trio.move_on_after(GRACE_SECONDS, shield=True):
                    await house.say_goodbye()


class House:
    """Who is being served, and how many there may be."""

    def __init__(self, app: ASGIFramework) -> None:
        self.places = Places(MOST_CONNECTIONS, MOST_FROM_ONE_ADDRESS)
        self._app = app
        self._config = hypercorn_config()
        self._context = WorkerContext(None)
        self._connections: set[Connection] = set()

    async def receive(self, stream: trio.SocketStream) -> None:
        """Serve one connection. Whatever happens in it ends this connection and nothing else."""
        try:
            with self.places.counted(stream.socket.getpeername()[0]) as welcome:
                if welcome:
                    await self._converse(stream)
        except* OSError:
            pass  # the other side is gone
        except* Exception as errors:
            # One of the four fences. It stands outside the connection's own cancel scope, and lets
            # `Cancelled` pass, alone or mixed with errors. In stock Hypercorn 0.18 these reach the
            # nursery of all connections: "Upgrade: h2c" with "HTTP2-Settings: A" ended the process.
            # A bug in a handler does not come here, Quart answers 500 to those. What does is a
            # protocol that lost its way after nonsense.
            log.info("a connection was dropped: %r", errors.exceptions)
        finally:
            self.places.give_back()

    async def _converse(self, stream: trio.SocketStream) -> None:
        # After a stop began there must be no new shield; before the next checkpoint it cannot begin.
        await trio.lowlevel.checkpoint_if_cancelled()
        connection = Connection(self._app, self._config, self._context, stream)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def say_goodbye(self) -> None:
        # No connection becomes idle again; each is closed behind its answer.
        await self._context.terminated.set()
        for connection in self._connections:
            connection.stop()


class Connection(TCPServer):
    """One accepted connection: Hypercorn's, with its own end.

    The shield means that a stop of the server reaches a connection through `stop`, which knows how
    much time it deserves, and not in the middle of an answer. Every shield has a deadline then.
    """

    def __init__(
        self, app: ASGIFramework, config: Config, context: WorkerContext, stream: trio.SocketStream
    ) -> None:
        # Typed for TLS streams, and used by Hypercorn for both kinds.
        super().__init__(ASGIWrapper(self._answer), config, context, LifespanState(), cast("Any", stream))
        self._asgi = app
        self._scope = trio.CancelScope(shield=True)
        self._closing = False

    async def run(self) -> None:
        sock = cast("trio.SocketStream", self.stream).socket
        client = parse_socket_addr(sock.family, sock.getpeername())
        server = parse_socket_addr(sock.family, sock.getsockname())
        with self._scope:
            async with TaskGroup() as task_group:
                self._task_group = task_group
                self._http = Http1(
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    ConnectionState({}),
                    False,
                    client,
                    server,
                    self.protocol_send,
                )
                self.protocol = cast("Any", self._http)
                await self.idle_task.restart(task_group, self._idle_timeout)
                await self._read_data()
                # Or a connection that the client closed would be held until the timer ends.
                await self.idle_task.stop()

    def stop(self) -> None:
        """At once when nothing, or nothing that ends, is being answered; soon otherwise."""
        self._shorten(GRACE_SECONDS if self._http.answering() else 0)

    def _shorten(self, seconds: float) -> None:
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)

    async def _answer(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """The app, for one request, with what must stand between it and Hypercorn."""
        # Only the origin form of a target (RFC 9112 §3.2): Quart stumbles over an empty path.
        if scope["type"] != "http" or not scope["path"].startswith("/"):
            await send({"type": "http.response.start", "status": 400, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        # Behind an answer to a body that nobody has read, Hypercorn closes; the client has to know, or its
        # next request on this connection is lost (RFC 9112 §9.6).
        taken, unread, answered = 0, announces_body(scope["headers"]), False

        async def take() -> ASGIReceiveEvent:
            nonlocal taken, unread
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    break
                unread = unread and message["more_body"]
                # A body beyond the limit ends early, and Quart answers 413 to what it has. The rest is
                # thrown away. Quart 0.23 counts only when it has all of it, and keeps it until then.
                if taken <= LARGEST_BODY:
                    taken += len(message["body"])
                    return {**message, "more_body": message["more_body"] and taken <= LARGEST_BODY}
            # Hypercorn says "disconnect" after every answer, too. To cancel then would cancel Hypercorn's
            # own return to idle in the middle: the timer never starts again and the connection stays.
            if not answered:
                request.cancel()
            # quart-trio never hears of it: it would cancel the same, but a view that is done by then
            # runs into Quart 0.23's ClientDisconnectedError, which only Quart's asyncio half catches.
            return await trio.sleep_forever()

        async def give(message: ASGISendEvent) -> None:
            nonlocal answered
            if message["type"] == "http.response.start" and unread:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            if message["type"] == "http.response.body" and not message.get("more_body"):
                answered = True
            await send(message)

        try:
            with trio.CancelScope() as request:
                await self._asgi(scope, take, give)
        except BaseException:
            # Nobody takes messages any more, and Hypercorn may wait for room to put one.
            self._shorten(LINGER_SECONDS)
            raise

    async def protocol_send(self, event: Event) -> None:
        """Send under a deadline. Upstream shields this for ever: one stalled reader, no stop (0.18)."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                for start in range(0, len(event.data), PIECE):
                    with trio.fail_after(SEND_SECONDS):
                        await self.stream.send_all(event.data[start : start + PIECE])
            except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
                if self._closing:
                    await self.protocol.handle(Closed())
                    return
                # Nobody is there. To tell the app, as upstream does, is not enough: where a second request
                # waits behind this one quart-trio leaves without waking Hypercorn's reader.
                self._scope.cancel()
                await trio.lowlevel.checkpoint()

    async def _close(self) -> None:
        """Say that no more will come, and let the other side finish speaking.

        Upstream closes at once. With bytes of a refused body still unread the kernel then resets the
        connection, and the answer that said why is lost on its way (RFC 9112 §9.6).
        """
        self._closing = True
        self._shorten(LINGER_SECONDS)
        async with self.send_lock:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await cast("trio.SocketStream", self.stream).send_eof()

    async def _read_data(self) -> None:
        while True:
            try:
                data = await self.stream.receive_some(MAX_RECV)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not self._closing:
                await self.protocol.handle(RawData(bytes(data)))
            if not data:
                break
        await self.protocol.handle(Closed())


def announces_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """RFC 9112 §6.3: by its length or by a transfer coding."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0"))
        for name, value in headers
    )


class Http1(H11Protocol):
    """HTTP/1.1 and nothing else. A server may ignore any Upgrade (RFC 9110 §7.8), and this one does.

    Behind Hypercorn's upgrades are two more protocol stacks, HTTP/2 and WebSocket, that nothing
    here needs and anybody could feed.
    """

    def answering(self) -> bool:
        """Whether a request waits for an answer that has an end."""
        answer = getattr(self.stream, "response", None)
        headers = dict(answer["headers"]) if answer is not None else {}
        return self.stream is not None and not headers.get(b"content-type", b"").startswith(
            b"text/event-stream"
        )

    async def _check_protocol(self, event: h11.Request) -> None:
        pass

    async def _create_stream(self, request: h11.Request) -> None:
        await super()._create_stream(
            h11.Request(
                method=request.method,
                target=request.target,
                headers=[(name, value) for name, value in request.headers if name != b"upgrade"],
                http_version=request.http_version,
            )
        )


def hypercorn_config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.h11_max_incomplete_size = LARGEST_HEADERS
    config.include_server_header = False
    config.keep_alive_timeout = IDLE_SECONDS
    return config
