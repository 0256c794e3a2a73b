"""What the server does for a connection, and above all what a connection cannot do to it."""

import logging
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from quart import Response, request
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio

from provd.domain.errors import ConfigError
from provd.web import door, server
from provd.web.server import Address, listen, serve

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the option is Linux's")


class Endless(ResponseBody):
    """Chunks without end: as fast as they are taken, or a first one and then silence."""

    def __init__(self, chunk: bytes, *, fast: bool, ended: trio.Event | None = None) -> None:
        self.chunk = chunk
        self.fast = fast
        self.ended = ended
        self.said = False

    async def __aenter__(self) -> "Endless":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.ended is not None:
            self.ended.set()

    def __aiter__(self) -> "Endless":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.said and not self.fast:
            await trio.sleep_forever()
        self.said = True
        return self.chunk


class Site:
    """A small app, with the events that tell what happened in it."""

    def __init__(self) -> None:
        self.app = app = QuartTrio("site")
        app.config["MAX_CONTENT_LENGTH"] = server.LARGEST_BODY
        self.entered = trio.Event()
        self.proceed = trio.Event()
        self.left = trio.Event()

        @app.route("/", methods=["GET", "POST"])
        async def hello() -> str:
            return "hello"

        @app.post("/echo")
        async def echo() -> str:
            return str(len(await request.get_data()))

        @app.get("/slow")
        async def slow() -> str:
            self.entered.set()
            await self.proceed.wait()
            return "at last"

        @app.get("/stream")
        async def stream() -> Response:
            return self.endless(b": hello\n\n", fast=False)

        @app.get("/flood")
        async def flood() -> Response:
            return self.endless(b"x" * 65536, fast=True)

    def endless(self, chunk: bytes, *, fast: bool) -> Response:
        response = Response(
            Endless(chunk, fast=fast, ended=self.left), content_type="text/event-stream; charset=utf-8"
        )
        response.timeout = None
        return response


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[Address]:
    async with trio.open_nursery() as nursery:
        addresses: list[Address] = await nursery.start(serve, app, [listen("127.0.0.1:0")])
        yield addresses[0]
        nursery.cancel_scope.cancel()


async def say(address: Address, data: bytes) -> trio.SocketStream:
    stream = await trio.open_tcp_stream(*address)
    await stream.send_all(data)
    return stream


async def hear(stream: trio.SocketStream, enough: Callable[[bytes], bool] = lambda _: False) -> bytes:
    """What comes until the end, or until it is enough. A reset is an end."""
    heard = b""
    with trio.fail_after(10):
        while not enough(heard):
            try:
                data = await stream.receive_some(65536)
            except trio.BrokenResourceError:
                break
            if not data:
                break
            heard += data
    return heard


async def ask(address: Address, data: bytes) -> bytes:
    """One request, and everything that is said until the server closes."""
    async with await say(address, data) as stream:
        return await hear(stream)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
STREAM = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"


async def still_serves(address: Address) -> bool:
    with trio.fail_after(1):
        return b"hello" in await ask(address, GET + b"Connection: close\r\n\r\n")


# --- listening ---


def test_taken_address_is_a_plain_config_error() -> None:
    """An address in use is said in one sentence, and nothing leaks."""
    with listen("127.0.0.1:0") as sock:
        port = sock.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^cannot listen on 127.0.0.1:{port}: address already in use$"
        ):
            listen(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "address", ["nowhere", "127.0.0.1", "127.0.0.1:99999", "::1:80", "[::1]", "256.1.1.1:0"]
)
def test_what_is_no_address_is_a_config_error(address: str) -> None:
    """Nonsense for an address is never another exception."""
    with pytest.raises(ConfigError, match="cannot listen on"):
        listen(address)


def test_ipv6_in_brackets() -> None:
    """An IPv6 address is written as in a URL."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with listen("[::1]:0") as sock:
        assert sock.family == socket.AF_INET6


@LINUX
async def test_accepted_connections_give_up_a_silent_machine() -> None:
    """TCP_USER_TIMEOUT is set before anybody is accepted, and so on whoever is."""
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    sock = listen("127.0.0.1:0")
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve, app, [sock])
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
        assert await ask(address, GET + b"Connection: close\r\n\r\n")
        nursery.cancel_scope.cancel()
    assert seen == [door.SILENCE_MILLISECONDS]


# --- what must not end the server ---


@pytest.mark.parametrize("settings", [b"A", b"AAA", b"AAAA", b"\xff", b""])
async def test_h2c_upgrade_is_ignored(settings: bytes) -> None:
    """`Upgrade: h2c` gets an ordinary answer. Stock Hypercorn 0.18 ends the process (its issue #225)."""
    async with served(Site().app) as address:
        answer = await ask(
            address,
            GET + b"Upgrade: h2c\r\nHTTP2-Settings: " + settings + b"\r\nConnection: Upgrade, close\r\n\r\n",
        )
        assert answer.startswith(b"HTTP/1.1 200")
        assert await still_serves(address)


async def test_http2_with_prior_knowledge_is_no_language_here() -> None:
    """The HTTP/2 preface is refused, not answered in HTTP/2."""
    async with served(Site().app) as address:
        answer = await ask(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        assert b"\x00\x00" not in answer
        assert await still_serves(address)


async def test_websocket_upgrade_is_ignored() -> None:
    """A WebSocket handshake is an ordinary GET: the other protocol stack is never entered."""
    async with served(Site().app) as address:
        answer = await ask(
            address,
            GET + b"Upgrade: websocket\r\nConnection: upgrade, close\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # TLS to a plain port
        b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET ? HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%ff%00%c0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        GET + b"\r\n" + GET + b"\r\n" + GET + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000,
        b"\r\n" * 20000,
    ],
)
async def test_nonsense_ends_its_own_connection_only(nonsense: bytes) -> None:
    """Whatever is sent, sent twice, and abandoned: the next one is served."""
    async with served(Site().app) as address:
        for _ in range(2):
            async with await say(address, nonsense) as stream:
                with trio.move_on_after(0.05):
                    await hear(stream)
        assert await still_serves(address)


async def test_an_error_inside_hypercorn_ends_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    """What no other fence catches is one log line: here Hypercorn fails while it reports a failure."""

    class FullDisk(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OverflowError("no room for this line")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/bug":
            raise LookupError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    caplog.set_level(logging.INFO, "provd")
    handler, logger = FullDisk(), logging.getLogger("hypercorn.error")
    logger.addHandler(handler)
    try:
        async with served(app) as address:
            await ask(address, b"GET /bug HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await still_serves(address)
    finally:
        logger.removeHandler(handler)
    assert "a connection was dropped: (OverflowError" in caplog.text


async def test_headers_have_a_limit() -> None:
    """A header block beyond 16 KiB is refused, not collected."""
    async with served(Site().app) as address:
        answer = await ask(address, GET + b"X: " + b"y" * server.LARGEST_HEADERS * 2)
        assert answer.startswith(b"HTTP/1.1 431") or answer == b""


async def test_chunked_body_beyond_the_limit_is_refused_before_its_end() -> None:
    """A body without end is answered 413 while it is still coming (Quart 0.23 would wait, and keep it)."""
    piece = b"%x\r\n%s\r\n" % (65536, b"z" * 65536)
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with served(Site().app) as address:
        async with await say(address, head) as stream, trio.open_nursery() as nursery:

            async def pour() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await stream.send_all(piece)

            nursery.start_soon(pour)
            heard = await hear(stream, lambda heard: b"413" in heard)
            nursery.cancel_scope.cancel()
        assert heard.startswith(b"HTTP/1.1 413")
        assert await still_serves(address)


async def test_refusal_of_an_unread_body_reaches_its_sender() -> None:
    """An answer that comes before the body was taken is not lost in a reset, and the connection ends."""
    async with served(Site().app) as address:
        head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n"
        async with await say(address, head) as stream:
            heard = await hear(stream, lambda heard: b"404" in heard)
            for _ in range(4):
                await stream.send_all(b"z" * 100_000)
            with trio.fail_after(server.LINGER_SECONDS + 1):
                await hear(stream)
        assert heard.startswith(b"HTTP/1.1 404")


async def test_an_answer_to_an_unread_body_ends_its_connection_aloud() -> None:
    """The client knows that its next request needs a new connection; one that was read keeps its own."""
    site = Site()
    async with served(site.app) as address:
        refused = await ask(address, b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\nx")
        assert b"connection: close" in refused.lower()
        length = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
        async with await say(address, length + b"ok") as stream:
            kept = await hear(stream, lambda heard: heard.endswith(b"2"))
        assert b"connection: close" not in kept.lower()


async def test_app_that_dies_under_a_flood_lets_go() -> None:
    """A connection ends although nobody takes the body that pours in, and Hypercorn waits for room."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        await trio.testing.wait_all_tasks_blocked()
        raise LookupError

    async with served(app) as address:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with await say(address, head + (b"1\r\nz\r\n" * 50)) as stream:
            with trio.fail_after(server.LINGER_SECONDS + 1):
                await hear(stream)


@pytest.mark.parametrize("target", [b"?x", b"*", b"x:80", b"http://x/"])
async def test_only_paths_are_targets(target: bytes) -> None:
    """Other forms of a request target (RFC 9112 §3.2) are a 400 and reach no app."""
    async with served(Site().app) as address:
        answer = await ask(address, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400")


async def test_one_address_cannot_take_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its share an address is turned away, until one of its connections ends."""
    monkeypatch.setattr(server, "MOST_FROM_ONE_ADDRESS", 2)
    async with served(Site().app) as address:
        async with await say(address, STREAM) as one, await say(address, STREAM) as two:
            await hear(one, lambda heard: b"hello" in heard)
            await hear(two, lambda heard: b"hello" in heard)
            assert await ask(address, GET + b"\r\n") == b""
        with trio.fail_after(2):
            while not await ask(address, GET + b"Connection: close\r\n\r\n"):
                pass


async def test_beyond_the_limit_connections_wait_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds no place is not refused but served when there is one."""
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 1)
    site = Site()
    async with served(site.app) as address:
        first = await say(address, b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        second = await say(address, GET + b"Connection: close\r\n\r\n")
        async with first, second:
            await site.entered.wait()
            with trio.move_on_after(0.05) as impatient:
                await second.receive_some(1)
            assert impatient.cancelled_caught
            site.proceed.set()
            assert (await hear(first)).endswith(b"at last")
            await first.aclose()
            assert (await hear(second)).endswith(b"hello")


# --- timers ---


async def test_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an answer the idle timer runs again. Plain quart-trio on Hypercorn 0.18 never closes it."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    async with served(Site().app) as address:
        async with await say(address, GET + b"\r\n") as stream:
            heard = await hear(stream, lambda heard: heard.endswith(b"hello"))
            await stream.send_all(GET + b"\r\n")
            with trio.fail_after(2):
                heard += await hear(stream)
        assert heard.count(b"hello") == 2


async def test_dripping_headers_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers of a request have the time of an idle connection, however they drip."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    async with served(Site().app) as address, await say(address, b"GET / HT") as stream:
        with trio.fail_after(2):
            assert await hear(stream) == b""


async def test_closed_connection_is_let_go_at_once() -> None:
    """A client that closes is not kept until the idle timer ends."""
    async with served(Site().app) as address, await say(address, GET + b"\r\n") as stream:
        await hear(stream, lambda heard: heard.endswith(b"hello"))
        await stream.send_eof()
        with trio.fail_after(1):
            assert await hear(stream) == b""


async def test_reader_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes nothing for the allowed time loses its connection; the handler ends."""
    monkeypatch.setattr(server, "SEND_SECONDS", 0.2)
    site = Site()
    async with served(site.app) as address, await say(address, b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n"):
        with trio.fail_after(5):
            await site.left.wait()


async def test_client_that_pipelines_and_vanishes_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a second request unread nobody hears the end of a connection; the failing answer does."""
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 1)
    site = Site()
    async with served(site.app) as address:
        async with await say(address, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" * 2) as stream:
            await site.entered.wait()
            # A reset instead of an end.
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        site.proceed.set()
        with trio.fail_after(server.LINGER_SECONDS + 1):
            await ask(address, GET + b"Connection: close\r\n\r\n")


async def test_disconnect_cancels_the_handler() -> None:
    """A reader that goes away ends its stream at once."""
    site = Site()
    async with served(site.app) as address:
        async with await say(address, STREAM) as stream:
            await hear(stream, lambda heard: b"hello" in heard)
        with trio.fail_after(1):
            await site.left.wait()


async def test_client_that_leaves_as_its_answer_is_ready_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whichever comes first in that moment, the end of the client or the answer, nothing is logged."""
    for turns in range(20):
        site = Site()
        async with served(site.app) as address:
            async with await say(address, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"):
                await site.entered.wait()
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            site.proceed.set()
            assert await still_serves(address)
    assert caplog.text == ""


# --- stopping ---


async def test_stop_with_readers_and_a_stalled_one_is_quick() -> None:
    """Fifty open streams and one that stopped reading: the stop takes less than two seconds."""
    site = Site()
    streams: list[trio.SocketStream] = []
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve, site.app, [listen("127.0.0.1:0")])
        for _ in range(50):
            streams.append(await say(address, STREAM))
            await hear(streams[-1], lambda heard: b"hello" in heard)
        streams.append(await say(address, b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n"))
        await hear(streams[-1], lambda heard: len(heard) > 100_000)
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < 1
    for stream in streams:
        await stream.aclose()


async def test_stop_lets_an_answer_out() -> None:
    """A request that is being answered when the stop comes gets its answer, and the stop waits no longer."""
    site = Site()
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve, site.app, [listen("127.0.0.1:0")])
            stream = await say(address, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await site.entered.wait()
            heard: list[bytes] = []

            async def listen_on() -> None:
                async with stream:
                    heard.append(await hear(stream))

            async def proceed_once_the_stop_has_begun() -> None:
                await trio.testing.wait_all_tasks_blocked()
                site.proceed.set()

            outer.start_soon(listen_on)
            outer.start_soon(proceed_once_the_stop_has_begun)
            began = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began < server.GRACE_SECONDS
    assert heard[0].endswith(b"at last")


async def test_stop_does_not_wait_for_a_request_for_ever() -> None:
    """A handler that does not come to an end has the grace period and no more."""
    site = Site()
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve, site.app, [listen("127.0.0.1:0")])
        stream = await say(address, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await site.entered.wait()
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < server.GRACE_SECONDS + 0.5
    await stream.aclose()
