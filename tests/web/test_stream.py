"""The event stream: nothing lost, nothing twice, and no reader a burden."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from quart import Response, request
from quart_trio import QuartTrio

from provd.domain.activity import Activity
from provd.orchestrator.bell import Bell
from provd.web import stream
from provd.web.stream import EventStream, event_response, last_event_id

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
BATCH = 3
BEAT = b"event: beat\ndata: {}\n\n"


class History:
    """Rows and a bell: what the database and the fleet are to a stream."""

    def __init__(self, *, oldest: int = 1, newest: int = 0) -> None:
        self.rows = [self.row(number) for number in range(oldest, newest + 1)]
        self.newest = newest
        self.bell = Bell()

    def row(self, number: int, message: str = "") -> Activity:
        return Activity(id=number, at=AT, event="host.seen", message=message)

    def add(self, count: int = 1, message: str = "") -> None:
        for _ in range(count):
            self.newest += 1
            self.rows.append(self.row(self.newest, message))
        self.bell.ring()

    def after(self, last: int) -> list[Activity]:
        return [row for row in self.rows if row.id > last][:BATCH]

    def bounds(self) -> tuple[int, int]:
        return (self.rows[0].id if self.rows else self.newest + 1, self.newest)

    def stream(self, last_id: int | None = None, **more: Any) -> EventStream:
        return EventStream(
            rows_after=self.after,
            bounds=self.bounds,
            bell=self.bell,
            last_id=last_id,
            render=lambda row: {"message": row.message},
            **more,
        )


def ids(chunk: bytes) -> list[int]:
    return [int(line[4:]) for line in chunk.decode().splitlines() if line.startswith("id: ")]


async def test_new_reader_sees_what_happens_from_now_on() -> None:
    """Without a last id nothing old is told; the reconnection time comes first."""
    history = History(newest=5)
    async with history.stream() as events:
        reader = aiter(events)
        assert await anext(reader) == b"retry: 2000\n\n"
        history.add(message="hello")
        assert await anext(reader) == b'id: 6\nevent: activity\ndata: {"message":"hello"}\n\n'


async def test_reader_resumes_where_it_left_off() -> None:
    """Everything after the last id, in batches, each of them one chunk."""
    async with History(newest=6).stream(2) as events:
        reader = aiter(events)
        await anext(reader)
        assert [ids(await anext(reader)) for _ in range(2)] == [[3, 4, 5], [6]]


@pytest.mark.parametrize("last_id", [0, 8, 21, 10**18, stream.UNKNOWN])
async def test_reader_with_a_gap_is_told_to_start_anew(last_id: int) -> None:
    """Older than what is kept, or from another database: one reset, and on from the newest."""
    history = History(oldest=10, newest=20)
    async with history.stream(last_id) as events:
        reader = aiter(events)
        assert await anext(reader) == b'retry: 2000\n\nid: 20\nevent: reset\ndata: {"newest":20}\n\n'
        history.add()
        assert ids(await anext(reader)) == [21]


@pytest.mark.parametrize("last_id", [9, 10, 20])
async def test_reader_without_a_gap_is_not_reset(last_id: int) -> None:
    """The one before the oldest kept has missed nothing, and neither has the newest."""
    async with History(oldest=10, newest=20).stream(last_id) as events:
        assert await anext(aiter(events)) == b"retry: 2000\n\n"


async def test_silence_is_broken_by_beats(autojump_clock: trio.testing.MockClock) -> None:
    """A frame that scripts can see every heartbeat, and without an id; an event at once when there is one."""
    history = History()
    async with history.stream(heartbeat_seconds=10) as events:
        reader = aiter(events)
        await anext(reader)
        began = trio.current_time()
        assert [await anext(reader) for _ in range(3)] == [BEAT] * 3
        assert trio.current_time() - began == 30
        async with trio.open_nursery() as nursery:

            async def something_happens() -> None:
                await trio.sleep(4)
                history.add()

            nursery.start_soon(something_happens)
            assert ids(await anext(reader)) == [1]
        assert trio.current_time() - began == 34


async def test_ring_without_a_row_is_waited_out(autojump_clock: trio.testing.MockClock) -> None:
    """A bell that rings for nothing makes no frame."""
    history = History()
    async with history.stream() as events, trio.open_nursery() as nursery:
        reader = aiter(events)
        await anext(reader)

        async def ring() -> None:
            await trio.sleep(1)
            history.bell.ring()
            await trio.sleep(1)
            history.add()

        nursery.start_soon(ring)
        assert ids(await anext(reader)) == [1]


async def test_slow_reader_loses_nothing() -> None:
    """However many rows come between two reads, each is delivered once and in order."""
    history = History()
    seen: list[int] = []
    async with history.stream() as events:
        reader = aiter(events)
        await anext(reader)
        for burst in (1, 7, 2, 11):
            history.add(burst)
            seen += ids(await anext(reader))
        while seen[-1] < history.newest:
            seen += ids(await anext(reader))
    assert seen == list(range(1, 22))


async def test_cancelled_wait_loses_nothing() -> None:
    """A read that is cancelled leaves the place where it was."""
    history = History()
    async with history.stream() as events:
        reader = aiter(events)
        await anext(reader)
        with trio.move_on_after(0):
            await anext(reader)
        history.add()
        assert ids(await anext(reader)) == [1]


async def test_revoked_reader_is_shown_out() -> None:
    """Once it is not welcome any more a reader gets no further row."""
    history = History()
    welcome = [True]
    async with history.stream(welcome=lambda: welcome[0]) as events:
        reader = aiter(events)
        await anext(reader)
        welcome[0] = False
        history.add()
        with pytest.raises(StopAsyncIteration):
            await anext(reader)


# --- downloads ---


class Files:
    """What is being downloaded, and a bell: what the image server is to a stream."""

    def __init__(self) -> None:
        self.running: dict[str, int] = {}
        self.bell = Bell()

    def put(self, name: str, sent: int | None) -> None:
        if sent is None:
            del self.running[name]
        else:
            self.running[name] = sent
        self.bell.ring()

    def current(self) -> list[dict[str, object]]:
        return [{"host_id": 1, "name": name, "sent": sent} for name, sent in self.running.items()]

    @property
    def downloads(self) -> stream.Downloads:
        return stream.Downloads(current=self.current, bell=self.bell)


def progress(chunk: bytes) -> list[tuple[str, int, bool]]:
    """Name, bytes and whether it goes on, of a chunk that has progress frames and nothing else."""
    found = []
    for frame in chunk.decode().removesuffix("\n\n").split("\n\n"):
        event, data = frame.split("\n")
        assert event == "event: progress"
        view = json.loads(data.removeprefix("data: "))
        found.append((view["name"], view["sent"], view["running"]))
    return found


async def test_a_late_reader_is_told_how_downloads_stand() -> None:
    """What runs when it comes is told at once, without an id: it is never told again."""
    files = Files()
    files.put("a", 7)
    async with History(newest=5).stream(5, downloads=files.downloads) as events:
        reader = aiter(events)
        await anext(reader)
        assert progress(await anext(reader)) == [("a", 7, True)]


async def test_progress_is_told_twice_a_second_and_never_stale(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """However often the bell rings: a frame each half second, with the newest numbers, the last included."""
    files = Files()
    async with History().stream(downloads=files.downloads) as events, trio.open_nursery() as nursery:
        reader = aiter(events)
        await anext(reader)

        async def download() -> None:
            for number in range(201):
                files.put("a", number)
                await trio.sleep(0.01)

        nursery.start_soon(download)
        began = trio.current_time()
        seen: list[tuple[float, int]] = []
        while not seen or seen[-1][1] < 200:
            [(_, sent, running)] = progress(await anext(reader))
            assert running
            seen.append((round(trio.current_time() - began, 2), sent))
    assert [at for at, _ in seen][:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert all(abs(sent - min(at, 2.0) * 100) <= 1 for at, sent in seen)


async def test_a_download_that_is_over_is_told_once_more(autojump_clock: trio.testing.MockClock) -> None:
    """Gone from the list means over; the one beside it, which did not move, is not repeated."""
    files = Files()
    files.put("a", 1)
    files.put("b", 1)
    async with History().stream(downloads=files.downloads) as events:
        reader = aiter(events)
        await anext(reader)
        assert progress(await anext(reader)) == [("a", 1, True), ("b", 1, True)]
        files.put("a", None)
        assert progress(await anext(reader)) == [("a", 1, False)]
        assert await anext(reader) == BEAT


async def test_progress_and_history_do_not_hold_each_other_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A row comes at once although a frame was sent just now; beats come although the bell rings."""
    files, history = Files(), History()
    files.put("a", 1)
    async with history.stream(downloads=files.downloads) as events, trio.open_nursery() as nursery:
        reader = aiter(events)
        await anext(reader)
        assert progress(await anext(reader)) == [("a", 1, True)]
        began = trio.current_time()
        history.add()
        assert ids(await anext(reader)) == [1]
        assert trio.current_time() == began

        async def ring() -> None:
            while True:
                files.bell.ring()
                await trio.sleep(0.1)

        nursery.start_soon(ring)
        assert await anext(reader) == BEAT
        assert trio.current_time() - began == 10
        nursery.cancel_scope.cancel()


async def test_a_busy_download_does_not_wake_its_readers_all_the_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """History is looked at about as often as a frame is due, not whenever a block was sent."""
    files, history = Files(), History()
    looks = 0

    def rows_after(last: int) -> list[Activity]:
        nonlocal looks
        looks += 1
        return history.after(last)

    reading = EventStream(
        rows_after=rows_after,
        bounds=history.bounds,
        bell=history.bell,
        last_id=None,
        render=lambda row: {},
        downloads=files.downloads,
    )
    async with reading as events, trio.open_nursery() as nursery:

        async def read() -> None:
            async for _ in events:
                pass

        nursery.start_soon(read)
        for number in range(1000):
            files.put("a", number)
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert looks < 100


@given(st.text())
def test_no_text_breaks_a_frame(message: str) -> None:
    """Whatever a machine managed to get into a message: one frame, one line of data, the same text."""
    frame = stream._frame("activity", {"message": message}, 1)
    lines = frame.decode("ascii").split("\n")
    assert lines[0] == "id: 1"
    assert lines[3:] == ["", ""]
    assert json.loads(lines[2].removeprefix("data: "))["message"] == message


# --- the response ---


def app_streaming(history: History) -> QuartTrio:
    app = QuartTrio("test")

    @app.get("/events")
    async def events() -> Response:
        return event_response(
            rows_after=history.after,
            bounds=history.bounds,
            bell=history.bell,
            last_id=last_event_id(request),
            render=lambda row: {},
        )

    return app


async def open_stream(app: QuartTrio, use: Callable[[Any], Any], **more: Any) -> None:
    with trio.CancelScope() as scope:
        async with app.test_client().request("/events", **more) as connection:
            await connection.send_complete()
            await use(connection)
            # Left normally, quart-trio's test connection waits for ever.
            scope.cancel()


async def test_headers_keep_proxies_and_caches_away() -> None:
    """The stream is one for browsers, is kept nowhere, and has no time limit."""
    history = History()
    app = app_streaming(history)

    async def use(connection: Any) -> None:
        assert b"retry" in await connection.receive()
        assert connection.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert connection.headers["Cache-Control"] == "no-store"
        assert connection.headers["X-Accel-Buffering"] == "no"

    await open_stream(app, use)
    async with app.test_request_context("/events"):
        response = await app.make_response(await app.view_functions["events"]())  # type: ignore[misc]
    assert isinstance(response, Response)
    assert response.timeout is None


async def test_head_has_no_stream_behind_it() -> None:
    """HEAD ends, although the GET never would."""
    with trio.fail_after(1):
        response = await app_streaming(History()).test_client().head("/events")
    assert response.content_type == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "headers", "last_id"),
    [
        ("/events", {}, None),
        ("/events", {"Last-Event-ID": "17"}, 17),
        ("/events?after=3", {}, 3),
        ("/events?after=3", {"Last-Event-ID": "17"}, 17),
        ("/events?after=0", {}, 0),
        ("/events", {"Last-Event-ID": "-1"}, stream.UNKNOWN),
        ("/events", {"Last-Event-ID": "x"}, stream.UNKNOWN),
        ("/events", {"Last-Event-ID": "9" * 5000}, stream.UNKNOWN),
        ("/events?after=%C2%B2", {}, stream.UNKNOWN),
    ],
)
async def test_last_id_comes_from_the_browser_else_from_the_page(
    path: str, headers: dict[str, str], last_id: int | None
) -> None:
    """The header wins, since it is younger than the page; nonsense means a fresh start."""
    async with QuartTrio("test").test_request_context(path, headers=headers):
        assert last_event_id(request) == last_id


async def test_there_are_only_so_many_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a reader gets a 503 problem, and a place again when another leaves."""
    monkeypatch.setattr(stream, "MOST_STREAMS", 1)
    app = app_streaming(History())

    async def use(connection: Any) -> None:
        assert b"retry" in await connection.receive()
        refused = await app.test_client().get("/events")
        assert refused.status_code == 503
        assert refused.mimetype == "application/problem+json"
        assert "Retry-After" in refused.headers

    await open_stream(app, use)
    await open_stream(app, use)
