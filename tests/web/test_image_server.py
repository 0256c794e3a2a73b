"""Real sockets and curl: the right bytes, whatever is asked, and a server that outlives every client."""

import logging
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from mmap import mmap
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from provd.domain.errors import BadImage
from provd.domain.hosts import HostId, OperationId
from provd.domain.virtual_file import Extent, VirtualFile
from provd.orchestrator.downloads import Downloads, Progress
from provd.orchestrator.installers import Served
from provd.web import image_server, sendfile
from provd.web.image_server import Address, serve
from provd.web.sendfile import in_page_cache
from provd.web.server import listen
from web.hanging_disk import hanging_disk

TOKEN = "7-0123456789abcdef"
ETAG = '"a-tag"'
BIG = 32 << 20
"""More than the kernel keeps for a reader that does not read."""


@define
class Shelf:
    """What is served here: to everybody who knows the token."""

    files: dict[str, VirtualFile] = field(factory=dict)
    asked: list[str] = field(factory=list)

    def find(self, token: str, name: str) -> Served | None:
        self.asked.append(name)
        if name == "bug":
            raise LookupError("a bug")
        if name == "gone":
            raise BadImage("the image is gone: import it again")
        if token != TOKEN or name not in self.files:
            return None
        return Served(name=name, file=self.files[name], host_id=HostId(1), operation_id=OperationId(7))


@define
class Site:
    shelf: Shelf
    content: dict[str, bytes]
    told: list[Progress] = field(factory=list)

    @property
    def downloads(self) -> Downloads:
        return Downloads(self.told.append)


def make_site(directory: Path) -> Site:
    """`plain` is a file; `mixed` is bytes and pieces of files; `big` is larger than any buffer."""
    text = os.urandom(300_000)
    (directory / "text").write_bytes(text)
    (directory / "big").touch()
    os.truncate(directory / "big", BIG)
    mixed = (
        b"head",
        Extent(directory / "text", 5, 250_000),
        b"middle",
        Extent(directory / "text", 0, 7),
        b"end",
    )
    files = {
        "plain": (Extent(directory / "text", 0, len(text)),),
        "mixed": mixed,
        "big": (Extent(directory / "big", 0, BIG),),
        "bytes.only": (b"hello",),
    }
    content = {
        "plain": text,
        "mixed": b"head" + text[5:250_005] + b"middle" + text[:7] + b"end",
        "bytes.only": b"hello",
    }
    return Site(Shelf({name: VirtualFile(parts, ETAG) for name, parts in files.items()}), content)


@pytest.fixture
def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    caplog.set_level(logging.DEBUG)
    yield make_site(tmp_path)
    assert TOKEN not in caplog.text


@asynccontextmanager
async def served(site: Site, downloads: Downloads | None = None) -> AsyncIterator[Address]:
    async with trio.open_nursery() as nursery:
        addresses: list[Address] = await nursery.start(
            serve, site.shelf, downloads or site.downloads, [listen("127.0.0.1:0")]
        )
        yield addresses[0]
        nursery.cancel_scope.cancel()


def get(name: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} /{TOKEN}/{name} HTTP/{version}", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode()


CLOSE = "Connection: close"


async def say(address: Address, data: bytes) -> trio.SocketStream:
    stream = await trio.open_tcp_stream(*address)
    await stream.send_all(data)
    return stream


async def hear(stream: trio.SocketStream, enough: Callable[[bytearray], bool] = lambda _: False) -> bytes:
    """What comes until the end, or until it is enough. A reset is an end."""
    heard = bytearray()
    with trio.fail_after(10), suppress(trio.BrokenResourceError):
        while not enough(heard) and (data := await stream.receive_some(1 << 20)):
            heard += data
    return bytes(heard)


async def ask(address: Address, data: bytes) -> bytes:
    async with await say(address, data) as stream:
        return await hear(stream)


def head_and_body(answer: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status, {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}, body


async def still_serves(address: Address) -> bool:
    with trio.fail_after(2):
        return (await ask(address, get("bytes.only", CLOSE))).endswith(b"hello")


async def curl(*arguments: str) -> bytes:
    done = await trio.run_process(["curl", "-sS", "--max-time", "20", *arguments], capture_stdout=True)
    return done.stdout


# --- what is answered ---


@pytest.mark.parametrize("name", ["plain", "mixed", "bytes.only"])
async def test_curl_gets_every_byte(site: Site, name: str) -> None:
    """The whole of a file, of a virtual file and of mere bytes; and HEAD says the same without them."""
    async with served(site) as (host, port):
        url = f"http://{host}:{port}/{TOKEN}/{name}"
        assert await curl(url) == site.content[name]
        status, headers, body = head_and_body(await curl("-I", url))
    assert status == "HTTP/1.1 200 OK"
    assert body == b""
    assert headers["content-length"] == str(len(site.content[name]))
    assert headers["etag"] == ETAG
    assert headers["accept-ranges"] == "bytes"
    assert "date" in headers


@pytest.mark.parametrize(
    "asked", ["0-0", "2-", "-5", "3-6", "250000-250007", "250003-", "-9999999", "0-9" + 30 * "9"]
)
async def test_curl_gets_ranges_across_the_borders_of_parts(site: Site, asked: str) -> None:
    """A range is what slicing the whole would give, and says where it lies."""
    whole = site.content["mixed"]
    first, last = (int(end) if end else None for end in asked.split("-"))
    start, stop = (first, None if last is None else last + 1) if first is not None else (-(last or 0), None)
    async with served(site) as (host, port):
        url = f"http://{host}:{port}/{TOKEN}/mixed"
        status, headers, body = head_and_body(await curl("-i", "-r", asked, url))
    expected = whole[start:stop]
    assert (status, body) == ("HTTP/1.1 206 Partial Content", expected)
    offset = whole.index(expected) if len(expected) > 4 else len(whole[:start])
    assert headers["content-range"] == f"bytes {offset}-{offset + len(expected) - 1}/{len(whole)}"


async def test_curl_resumes(site: Site, tmp_path: Path) -> None:
    """`curl -C -` completes a file of which it has a part, and that is one download, told once."""
    target = tmp_path / "target"
    whole = site.content["mixed"]
    downloads = site.downloads
    async with served(site, downloads) as address:
        async with await say(address, get("mixed", "Range: bytes=0-99999", CLOSE)) as stream:
            target.write_bytes(head_and_body(await hear(stream))[2])
        assert site.told == []
        await curl("-C", "-", "-o", str(target), f"http://{address[0]}:{address[1]}/{TOKEN}/mixed")
        await trio.testing.wait_all_tasks_blocked()
        assert target.read_bytes() == whole
    [progress] = site.told
    assert progress.complete
    assert (progress.sent, progress.total) == (len(whole), len(whole))
    assert progress.name == "mixed"
    assert progress.address == "127.0.0.1"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Range: bytes=300000-"], 416),
        (["Range: bytes=-0"], 416),
        (["Range: bytes=5-4"], 200),
        (["Range: bytes=0-1,4-5"], 200),
        (["Range: bytes=0-1", "Range: bytes=4-5"], 200),
        (["Range: lines=0-1"], 200),
        (["Range: BYTES=0-1"], 206),
        (["Range: bytes=0-1", f"If-Range: {ETAG}"], 206),
        (["Range: bytes=0-1", 'If-Range: "other"'], 200),
        (["Range: bytes=0-1", f"If-Range: W/{ETAG}"], 200),
        (["Range: bytes=0-1", "If-Range: Sat, 29 Oct 1994 19:43:31 GMT"], 200),
        (["Range: bytes=900000-", 'If-Range: "other"'], 200),
        ([f"If-None-Match: {ETAG}"], 304),
        ([f'If-None-Match: "other", W/{ETAG}'], 304),
        (["If-None-Match: *"], 304),
        (['If-None-Match: "other"'], 200),
        ([f"If-Match: {ETAG}"], 200),
        (["If-Match: *"], 200),
        ([f'If-Match: "other",{ETAG}', "Range: bytes=0-1"], 206),
        (['If-Match: "other"'], 412),
        ([f"If-Match: W/{ETAG}"], 412),
        (["If-Match: nonsense", f"If-None-Match: {ETAG}"], 412),
        ([f"If-None-Match: {ETAG}", "Range: bytes=0-1"], 304),
    ],
)
async def test_conditions_and_ranges(site: Site, headers: list[str], status: int) -> None:
    """The table of RFC 9110 §13.2.2, on one connection that stays open for the next request."""
    async with served(site) as address:
        answer = await ask(address, get("plain", *headers) + get("bytes.only", CLOSE))
    first, second = answer[: answer.rindex(b"HTTP/1.1 ")], answer[answer.rindex(b"HTTP/1.1 ") :]
    line, fields, body = head_and_body(first)
    assert line.startswith(f"HTTP/1.1 {status} ")
    assert body == {200: site.content["plain"], 206: site.content["plain"][:2]}.get(status, b"")
    assert fields.get("content-length") == (None if status == 304 else str(len(body)))
    assert fields.get("content-range") == {416: "bytes */300000", 206: "bytes 0-1/300000"}.get(status)
    assert second.endswith(b"hello")


async def test_head_ignores_a_range(site: Site) -> None:
    """A range is defined for GET (RFC 9110 §14.2); what HEAD says is the whole."""
    async with served(site) as address:
        status, headers, _ = head_and_body(
            await ask(address, get("plain", "Range: bytes=0-1", CLOSE, method="HEAD"))
        )
    assert status == "HTTP/1.1 200 OK"
    assert headers["content-length"] == "300000"


async def test_old_http_is_answered_and_closed(site: Site) -> None:
    """HTTP/1.0, with and without a Host."""
    async with served(site) as address:
        for request in (get("plain", version="1.0"), f"GET /{TOKEN}/plain HTTP/1.0\r\n\r\n".encode()):
            assert head_and_body(await ask(address, request))[2] == site.content["plain"]


async def test_the_absolute_form_is_understood(site: Site) -> None:
    """As a server must (RFC 9112 §3.2.2)."""
    async with served(site) as address:
        request = f"GET http://x:1/{TOKEN}/bytes.only HTTP/1.1\r\nHost: x\r\n{CLOSE}\r\n\r\n".encode()
        assert (await ask(address, request)).endswith(b"hello")


async def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    """Ten at once, without a pause, come back one behind the other."""
    names = ["mixed", "bytes.only"] * 5
    requests = b"".join(get(name) for name in names[:-1]) + get(names[-1], CLOSE)
    async with served(site) as address:
        answer = await ask(address, requests)
    for name in names:
        length = len(site.content[name])
        start = answer.index(b"\r\n\r\n") + 4
        assert answer[start : start + length] == site.content[name]
        answer = answer[start + length :]
    assert answer == b""


# --- what is refused ---


async def test_there_is_one_way_to_say_no(site: Site) -> None:
    """A wrong token, a wrong name and a path of another kind look alike, and none comes at once."""
    targets = [
        "/", f"/{TOKEN}", f"/{TOKEN}/", f"/{TOKEN}/nothing", "/8-0123456789abcdef/plain", f"/{TOKEN}/plain/",
        f"//{TOKEN}/plain", f"/{TOKEN}/plain?x", f"/{TOKEN}/%70lain", f"/{TOKEN}/../{TOKEN}/plain",
        f"/{TOKEN}/{'x' * 200}", "*", "x:80", "/favicon.ico",
    ]  # fmt: skip
    answers = set()
    async with served(site) as address:
        began = trio.current_time()

        async def collect(target: str) -> None:
            answer = await ask(address, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answers.add(re.sub(rb"date: [^\r]*", b"", answer, flags=re.IGNORECASE))
            assert trio.current_time() - began >= image_server.REFUSAL_SECONDS

        async with trio.open_nursery() as nursery:
            for target in targets:
                nursery.start_soon(collect, target)
    [answer] = answers
    assert answer.startswith(b"HTTP/1.1 404 Not Found")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("plain", method="DELETE"), 405),
        (get("plain", "Content-Length: 5", method="POST") + b"hello", 405),
        (get("plain", "Content-Length: 500000", method="PUT") + b"z" * 500_000, 405),
        (get("plain", "Transfer-Encoding: chunked", method="POST") + b"ZZ\r\n", 405),
        (get("plain", "Content-Length: 5") + b"hello", 400),
        (get("plain", "Content-Length: 5"), 400),
        (get("plain", "Content-Length: 5", "Expect: 100-continue"), 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405),
        (get("plain", "X: " + "y" * 20_000), 431),
        (b"GET /" + b"x" * 20_000, 431),
        (b"G", 400),
    ],
)
async def test_nonsense_is_refused_and_closed(site: Site, request_: bytes, status: int) -> None:
    """The refusal arrives, although there may be bytes that nobody read, and the next one is served."""
    async with served(site) as address:
        async with await trio.open_tcp_stream(*address) as stream, trio.open_nursery() as nursery:

            async def pour() -> None:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(request_)
                    await stream.send_eof()

            nursery.start_soon(pour)
            answer = await hear(stream)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.endswith(b"\r\n\r\n")
        assert b"close" in answer
        assert await still_serves(address)


async def test_a_refusal_is_not_lost_behind_an_unread_body(site: Site) -> None:
    """Who goes on speaking is listened to for a while: a reset could overtake the answer (RFC 9112 §9.6)."""
    async with served(site) as address:
        request = get("plain", "Content-Length: 500000", method="PUT")
        async with await say(address, request) as stream:
            assert (await hear(stream, lambda heard: b"405" in heard)).startswith(b"HTTP/1.1 405 ")
            for _ in range(5):
                await stream.send_all(b"z" * 100_000)
            await stream.send_eof()
            assert await stream.receive_some(1) == b""


async def test_slow_headers_and_idle_connections_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that does not come to its end is told so; a connection without any is just closed."""
    monkeypatch.setattr(image_server, "IDLE_SECONDS", 0.2)
    async with served(site) as address:
        assert (await ask(address, b"GET / HT")).startswith(b"HTTP/1.1 408 ")
        assert await ask(address, b"") == b""
        answer = await ask(address, get("bytes.only"))
        assert answer.endswith(b"hello")


async def test_a_file_that_is_gone_is_an_error_of_ours(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Known to be gone, missing, or shorter than it was: 500 before a byte of it, and one line for each."""
    missing = Extent(Path("/nonexistent/iso"), 0, 5)
    short = site.shelf.files["plain"].parts[0]
    assert isinstance(short, Extent)
    site.shelf.files["missing"] = VirtualFile((missing,), ETAG)
    site.shelf.files["short"] = VirtualFile((Extent(short.path, 0, 300_001),), ETAG)
    async with served(site) as address:
        for name in ("gone", "missing", "short"):
            assert (await ask(address, get(name))).startswith(b"HTTP/1.1 500 ")
        assert await still_serves(address)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert "import" in warnings[0]
    assert "/nonexistent/iso cannot be read: no such file" in warnings[1]
    assert "shorter than it was" in warnings[2]


async def test_a_file_that_shrinks_while_it_is_sent(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The connection is cut, never filled up with something else; one line; the server lives."""
    big = site.shelf.files["big"].parts[0]
    assert isinstance(big, Extent)
    async with served(site) as address:
        async with await say(address, get("big")) as stream:
            heard = await hear(stream, lambda heard: len(heard) > 100_000)
            os.truncate(big.path, 1 << 20)
            heard += await hear(stream)
        assert len(heard) < BIG
        assert await still_serves(address)
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "shorter than it was" in line
    assert [progress.complete for progress in site.told if progress.name == "big"] == [False]


async def test_a_bug_ends_one_connection(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is raised in there is a line in the log, and not the end of the daemon."""
    async with served(site) as address:
        assert await ask(address, get("bug")) == b""
        assert await still_serves(address)
    assert "LookupError: a bug" in caplog.text


# --- readers of every kind ---


async def test_a_file_that_is_not_in_memory_is_read_from_disk(site: Site, tmp_path: Path) -> None:
    """Pages that the kernel dropped come from a thread, and are the same bytes."""
    content = os.urandom(8 << 20)
    with mmap(-1, len(content)) as pages:
        pages.write(content)
        try:
            # Past the page cache; what is merely dropped from it may stay there for a while.
            fd = os.open(tmp_path / "cold", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        except OSError:
            pytest.skip("this file system cannot be written past the page cache")
        try:
            assert os.write(fd, pages) == len(content)
        finally:
            os.close(fd)
    with (tmp_path / "cold").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if in_page_cache(file.fileno(), 0, len(content)):
            pytest.skip("this file system kept in memory what was written past it")
    site.shelf.files["cold"] = VirtualFile((Extent(tmp_path / "cold", 0, len(content)),), ETAG)
    async with served(site) as address:
        assert head_and_body(await ask(address, get("cold", CLOSE)))[2] == content
    with (tmp_path / "text").open("rb") as file:
        assert in_page_cache(file.fileno(), 0, 300_000)


async def test_a_slow_reader_is_served_to_the_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes a little now and then takes longer than the allowed silence, and gets all of it."""
    monkeypatch.setattr(sendfile, "STALL_SECONDS", 0.3)
    sock = listen("127.0.0.1:0")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve, site.shelf, site.downloads, [sock])
        began = trio.current_time()
        # Its turn comes ten times within the allowed silence.
        client = trio.socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
        await client.connect(address)
        async with trio.SocketStream(client) as stream:
            await stream.send_all(get("mixed", CLOSE))
            heard = b""
            while data := await stream.receive_some(12_000):
                heard += data
                await trio.sleep(0.03)
        assert trio.current_time() - began > sendfile.STALL_SECONDS
        assert head_and_body(heard)[2] == site.content["mixed"]
        nursery.cancel_scope.cancel()


async def test_a_reader_that_stalls_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loses its connection, the download is told as cut off, and no descriptor stays."""
    monkeypatch.setattr(sendfile, "STALL_SECONDS", 0.2)
    finished = trio.Event()

    def note(progress: Progress) -> None:
        site.told.append(progress)
        finished.set()

    downloads = Downloads(note)
    async with served(site, downloads) as address, await say(address, get("big")) as stream:
        with trio.fail_after(5):
            await finished.wait()
        assert downloads.current() == []
        heard = await hear(stream)
    assert len(heard) < BIG
    [progress] = site.told
    assert not progress.complete
    assert 0 < progress.sent < BIG


async def test_a_stop_does_not_wait_for_gigabytes(site: Site) -> None:
    """Stalled downloads, fast ones, idle connections and half a request: all end at once."""
    streams = []
    downloads = site.downloads
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve, site.shelf, downloads, [listen("127.0.0.1:0")])
        for request in [get("big")] * 10 + [b"", b"GET /", get("nothing"), get("bytes.only")]:
            streams.append(await say(address, request))
        for stream in streams[:10]:
            await hear(stream, lambda heard: len(heard) > 100_000)
        assert len(downloads.current()) == 1  # one machine, one file
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < 0.5
    assert downloads.current() == []
    for stream in streams:
        await stream.aclose()


async def test_a_stop_does_not_wait_for_a_dead_disk(site: Site, tmp_path: Path) -> None:
    """The thread that hangs in it is left behind, and what it holds is given back when it is let go."""
    with ExitStack() as stack:
        (tmp_path / "dead").mkdir()
        before = descriptors()
        try:
            disk = stack.enter_context(hanging_disk(tmp_path / "dead", BIG))
        except OSError as exc:
            pytest.skip(f"no disk that hangs: {exc}")
        site.shelf.files["dead"] = VirtualFile((Extent(disk.path, 0, BIG),), ETAG)
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve, site.shelf, site.downloads, [listen("127.0.0.1:0")])
            stream = await say(address, get("dead"))
            with trio.fail_after(5):
                await disk.wait_read()
            assert await ask(address, get("bytes.only", CLOSE))
            began = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began < 0.5
        await stream.aclose()
    with trio.fail_after(5):
        while descriptors() > before:
            await trio.sleep(0.01)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_no_descriptor_stays(site: Site) -> None:
    """After downloads that ended, broke off, were refused or cut short there are as many as before."""
    async with served(site) as address:
        await still_serves(address)
        before = descriptors()
        for request in [get("plain", CLOSE), get("big"), get("nothing"), get("gone"), get("bug"), b"x"] * 5:
            async with await say(address, request) as stream:
                await hear(stream, lambda heard: bool(heard)) if request != b"x" else None
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with trio.fail_after(5):
            while descriptors() > before:
                await trio.sleep(0.01)


async def test_three_hundred_machines(site: Site) -> None:
    """More than there are places for, from several addresses: everybody gets all of it."""
    downloads = site.downloads
    whole = site.content["mixed"]
    right = 0

    async def machine(number: int) -> None:
        nonlocal right
        sock = trio.socket.socket()
        await sock.bind((f"127.0.1.{number % 30 + 1}", 0))
        await sock.connect(address)
        async with trio.SocketStream(sock) as stream:
            await stream.send_all(get("mixed", CLOSE))
            answer = await hear(stream)
        right += head_and_body(answer)[2] == whole

    async with served(site, downloads) as address, trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(machine, number)
    assert right == 300
    assert downloads.current() == []


async def test_one_address_cannot_take_every_place(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its share it is turned away, until one of its connections ends."""
    monkeypatch.setattr(image_server, "MOST_FROM_ONE_ADDRESS", 2)
    async with served(site) as address:
        async with await say(address, get("big")) as one, await say(address, get("big")) as two:
            await hear(one, lambda heard: bool(heard))
            await hear(two, lambda heard: bool(heard))
            assert await ask(address, get("bytes.only")) == b""
        with trio.fail_after(2):
            while not await ask(address, get("bytes.only", CLOSE)):
                pass


async def test_beyond_the_limit_connections_wait(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds no place is served when there is one."""
    monkeypatch.setattr(image_server, "MOST_CONNECTIONS", 1)
    async with served(site) as address:
        async with await say(address, get("big")) as first:
            await hear(first, lambda heard: bool(heard))
            second = await say(address, get("bytes.only", CLOSE))
            with trio.move_on_after(0.05) as impatient:
                await second.receive_some(1)
            assert impatient.cancelled_caught
        async with second:
            assert (await hear(second)).endswith(b"hello")


async def test_what_goes_on_can_be_watched(site: Site) -> None:
    """While a machine downloads the bell rings, and its progress stands where the bytes are."""
    downloads = site.downloads
    async with served(site, downloads) as address:
        ring = downloads.bell.next()
        async with await say(address, get("big", "Range: bytes=1048576-")) as stream:
            await hear(stream, lambda heard: len(heard) > 1 << 20)
            with trio.fail_after(2):
                await ring.wait()
            [progress] = downloads.current()
        assert (progress.total, progress.name, progress.complete) == (BIG, "big", False)
        assert 2 << 20 < progress.sent < BIG


# --- any bytes ---


WORDS = [
    b"GET ", b"HEAD ", b"POST ", b"/", TOKEN.encode(), b"plain", b"mixed", b"big", b" HTTP/1.1", b" HTTP/1.0",
    b"\r\n", b"\r\n\r\n", b"Host: x", b"Range: bytes=", b"0-", b"-1", b"9" * 50, b",", b"If-Range: ",
    b"If-Match: ", b"If-None-Match: ", ETAG.encode(), b"*", b"W/", b"Content-Length: ", b"5", b"Upgrade: h2c",
    b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: Upgrade", b"Expect: 100-continue",
    b"\0", b"\xff", b" ",
]  # fmt: skip
REQUESTS = (
    st.binary(max_size=200)
    | st.lists(st.sampled_from(WORDS) | st.binary(max_size=5), max_size=20).map(b"".join)
    | st.binary(max_size=60).map(lambda value: get("mixed")[:-2] + b"Range: bytes=" + value + b"\r\n\r\n")
    | st.binary(max_size=60).map(lambda value: get("mixed")[:-2] + b"If-None-Match: " + value + b"\r\n\r\n")
)


@settings(max_examples=15, deadline=None)
@given(st.lists(REQUESTS, min_size=20, max_size=50))
async def test_any_request_is_answered_or_closed(
    tmp_path_factory: pytest.TempPathFactory, requests: list[bytes]
) -> None:
    """Whatever is sent, and then no more: an HTTP answer or a close, and the next one is served."""
    site = make_site(tmp_path_factory.mktemp("any"))
    async with served(site) as address:

        async def try_one(request: bytes) -> None:
            async with await say(address, request) as stream:
                with suppress(trio.BrokenResourceError):
                    await stream.send_eof()
                answer = await hear(stream)
            assert not answer or re.match(
                rb"HTTP/1\.1 (200|206|304|400|404|405|412|416|431|501|505) ", answer
            )

        async with trio.open_nursery() as nursery:
            for request in requests:
                nursery.start_soon(try_one, request)
        assert await still_serves(address)
