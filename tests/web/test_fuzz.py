"""Twenty thousand broken requests against a served app in a process of its own, which outlives them.

Run as a program this file is that process: the server, the gate, the problems and a few routes.
"""

import os
import random
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio
from quart import Response, g, request
from quart_trio import QuartTrio

from provd.domain.documents import parse_json
from provd.domain.errors import NotYourTurn
from provd.orchestrator.bell import Bell
from provd.store.database import open_store
from provd.web import gate, problems
from provd.web.gate import GateConfig
from provd.web.server import listen, serve
from provd.web.stream import event_response, last_event_id

SEED = 20260501
CONNECTIONS = 4_000
REQUESTS_EACH = 5
AT_ONCE = 40


# --- the process under fire ---


def make_app(store: Any) -> QuartTrio:
    app = QuartTrio("fuzzed", static_folder=None)
    problems.install(app)
    gate.install(app, GateConfig(public_url="http://provd.lan:8080", auth=False), store)
    bell = Bell()

    @app.get("/healthz")
    async def health() -> str:
        return str(os.getpid())

    @app.post("/api/hosts")
    async def register() -> dict[str, object]:
        return {"actor": g.actor, "got": str(parse_json(bytes(await body())))}

    @app.get("/api/hosts/<int:number>")
    async def show(number: int) -> dict[str, object]:
        return {"number": number, "args": request.args.to_dict()}

    @app.post("/api/boot/answer")
    async def answer() -> str:
        return str(len(await body()))

    @app.get("/ipxe/<mac>")
    async def script(mac: str) -> str:
        if mac.startswith("02"):
            raise NotYourTurn("unknown")
        return f"#!ipxe\n# {mac!r}\n"

    @app.get("/events")
    async def events() -> Response:
        return event_response(
            rows_after=lambda last: [],
            bounds=lambda: (1, 0),
            bell=bell,
            last_id=last_event_id(request),
            render=lambda row: {},
        )

    return app


async def body() -> bytes:
    return await request.get_data(cache=True, as_text=False, parse_form_data=False)


async def main(database: Path) -> None:
    with open_store(database) as store, trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve, make_app(store), [listen("127.0.0.1:0")])
            sys.stdout.write(f"{address[1]}\n")
            sys.stdout.flush()
            await anext(signals)
            nursery.cancel_scope.cancel()


# --- what it is fed ---

HONEST = [
    b"GET /healthz HTTP/1.1\r\nHost: provd.lan:8080\r\n\r\n",
    b"GET /api/hosts/7?a=1&b=%20 HTTP/1.1\r\nHost: provd.lan\r\nAccept: */*\r\nCookie: a=b\r\n\r\n",
    b"GET /ipxe/52:54:00:00:00:01 HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: iPXE/1.21.1\r\n\r\n",
    b"GET /events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 3\r\n\r\n",
    b"POST /api/hosts HTTP/1.1\r\nHost: provd.lan\r\nContent-Type: application/json\r\n"
    b'Content-Length: 15\r\n\r\n{"mac": "52:54"}',
    b"POST /api/boot/answer HTTP/1.1\r\nHost: provd.lan\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
    b"POST /sign-in HTTP/1.1\r\nHost: provd.lan\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 7\r\nExpect: 100-continue\r\n\r\ntoken=x",
    b"HEAD / HTTP/1.0\r\nHost: provd.lan\r\n\r\n",
]
CHUNKED = b"POST /api/boot/answer HTTP/1.1\r\nHost: provd.lan\r\nTransfer-Encoding: chunked\r\n\r\n"
KILLERS = [
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\nConnection: Upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\nConnection: Upgrade\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n\x81\x05hello",
    b"GET ?x HTTP/1.1\r\nHost: provd.lan\r\n\r\n",
    b"GET //[::1 HTTP/1.1\r\nHost: provd.lan\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nHost: provd.lan\r\n\r\n",
    b"GET /%ff%fe%00 HTTP/1.1\r\nHost: provd.lan\r\nCookie: \xff=\x80; provd_session=\xfe\r\n\r\n",
    b"GET /events HTTP/1.1\r\nHost: provd.lan\r\nLast-Event-ID: " + b"9" * 4000 + b"\r\n\r\n",
    b"POST /api/hosts HTTP/1.1\r\nHost: provd.lan\r\nContent-Type: application/json\r\n"
    b"Content-Length: 20000\r\n\r\n" + b"[" * 20000,
    CHUNKED + b"fffffffffffffffff\r\n",
    CHUNKED + b"-1\r\n",
    b"POST /api/boot/answer HTTP/1.1\r\nHost: provd.lan\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: provd.lan\r\nX: " + b"y" * 20000 + b"\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: provd.lan\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
]
SPLINTERS = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\x00",
    b"\xff",
    b":",
    b"%",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n",
    b"Expect: 100-continue\r\n",
    b"Host: evil.example\r\n",
    b"Origin: \xff\r\n",
    b"Authorization: Bearer \xff\r\n",
    b"Content-Type: \xff/\xfe; charset=\xff\r\n",
    b"Range: bytes=9-1\r\n",
    b"0" * 50,
]


def mutate(dice: random.Random) -> bytes:
    """An honest request with up to four things wrong with it, or a known killer."""
    if dice.random() < 0.15:
        return dice.choice(KILLERS)
    data = bytearray(dice.choice(HONEST))
    for _ in range(dice.randrange(5)):
        at, to = sorted(dice.randrange(len(data) + 1) for _ in range(2))
        match dice.randrange(6):
            case 0:
                data[at:at] = dice.choice(SPLINTERS)
            case 1:
                del data[at : at + dice.randrange(8)]
            case 2:
                data[at:at] = data[at:to]
            case 3:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 4:
                # Between two headers, where most parsers have their branches.
                line = data.find(b"\r\n", at)
                data[line + 2 : line + 2] = dice.choice(SPLINTERS)
            case 5:
                del data[to:]
    return bytes(data)


async def attack(port: int, dice: random.Random) -> None:
    """One connection with several requests, sent at once or in two parts, and left in one of four ways."""
    data = b"".join(mutate(dice) for _ in range(REQUESTS_EACH))
    cut = dice.randrange(len(data) + 1) if dice.random() < 0.3 else len(data)
    leave, patience = dice.randrange(4), dice.choice((0, 0.002, 0.02))
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        try:
            with trio.move_on_after(2):
                await stream.send_all(data[:cut])
                await trio.lowlevel.checkpoint()
                await stream.send_all(data[cut:])
            if leave == 0:
                await stream.send_eof()
            with trio.move_on_after(patience):
                while await stream.receive_some(65536):
                    pass
        except trio.BrokenResourceError:
            return
        if leave == 1:  # a reset instead of an end
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def pid_behind(port: int) -> int | None:
    """The pid of whoever answers there; None when it has no place for us."""
    heard = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        try:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while data := await stream.receive_some(4096):
                heard += data
        except trio.BrokenResourceError:
            return None
    head, _, pid = heard.rpartition(b"\r\n\r\n")
    return int(pid) if head.startswith(b"HTTP/1.1 200") else None


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_no_stranger_stops_the_server(tmp_path: Path) -> None:
    """After 20,000 mutated requests: the same process, quick answers, no file left open, no traceback."""
    command = [sys.executable, "-W", "error", __file__, str(tmp_path / "provd.db")]
    errors = tmp_path / "stderr"
    with errors.open("wb") as log:
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "PYTHONPATH": os.getcwd()}
        )
    assert process.stdout is not None
    try:
        async with process.stdout:
            with trio.fail_after(30):
                port = int(await process.stdout.receive_some(20))
        assert await pid_behind(port) == process.pid
        before = open_files(process.pid)

        places = trio.CapacityLimiter(AT_ONCE)

        async def one(number: int) -> None:
            async with places:
                await attack(port, random.Random(SEED + number))

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for number in range(CONNECTIONS):
                    nursery.start_soon(one, number)

        with trio.fail_after(30):  # whoever queued up to be accepted is served first
            while await pid_behind(port) is None:
                assert process.poll() is None
        with trio.fail_after(1):
            assert await pid_behind(port) == process.pid
        with trio.fail_after(30):  # its connections end with their timers, and it does not tell when
            while open_files(process.pid) > before:  # another process has no event for us
                await trio.sleep(0.05)
        process.terminate()
        with trio.fail_after(3):
            assert await process.wait() == 0
    finally:
        if process.poll() is None:
            process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()
    assert "Traceback" not in errors.read_text(errors="replace")


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
