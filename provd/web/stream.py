"""The event stream: history as server-sent events (WHATWG HTML §9.2), resumed wherever a reader left off.

The activity table is the buffer: an event's id is its row's, a reader that was away asks for "all
after 17", and a slow one costs nothing but its own delay. This file knows neither SQL nor what an
activity looks like to a browser; it is handed functions for both.

Beside history goes what is true at this moment and nothing but: how far downloads are. Those frames
have no id and are never told again; a reader that comes late is told how things stand now.
"""

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType

import trio
from attrs import define, field, frozen
from quart import Request, Response, current_app, request
from quart.wrappers.response import ResponseBody

from provd.domain.activity import Activity
from provd.orchestrator.bell import Bell
from provd.web.problems import problem

HEARTBEAT_SECONDS = 10.0
"""A reader that pipelined a second request and vanished is noticed by a failing write alone. And a reader
that hears nothing for longer knows that its connection died (`static/stream.js`)."""
RETRY_MILLISECONDS = 2_000
MOST_STREAMS = 64
"""An event costs about 0.2 ms of the loop for each reader, and DHCP answers on the same loop."""

PROGRESS_SECONDS = 0.5
"""Between two frames about downloads, to one reader."""

UNKNOWN = -1
"""Stands for a last id that no row can have had: such a reader starts anew."""


@frozen(kw_only=True)
class Downloads:
    """What is being downloaded: `current` gives one view for each, `bell` rings when they have changed."""

    current: Callable[[], Sequence[Mapping[str, object]]] = tuple
    """Each names its download by `host_id` and `name`."""
    bell: Bell = field(factory=Bell)


NO_DOWNLOADS = Downloads()


@define
class Readers:
    """How many streams are open. One for each app."""

    open: int = 0


class EventStream(ResponseBody):
    """One reader's frames: first the reconnection time, then rows as they are committed, then beats.

    `rows_after` gives a bounded batch, and a batch is one chunk. `bounds` gives the oldest id kept
    and the newest ever given. Without `last_id` the reader sees what happens from now on. One that
    is older than what is kept, or newer than what was ever given (another database), gets a single
    `reset` event that says "load the page again", and goes on from the newest. A `beat` event breaks
    each silence; scripts never see a comment.

    A running download that moved is a `progress` event, at most every `PROGRESS_SECONDS`; one that is
    over, whether or not it came to its end, is told once more, with `running: false`.

    No generator, so that no cancel scope is ever suspended inside one.
    """

    def __init__(
        self,
        *,
        rows_after: Callable[[int], Sequence[Activity]],
        bounds: Callable[[], tuple[int, int]],
        bell: Bell,
        last_id: int | None,
        render: Callable[[Activity], Mapping[str, object]],
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        welcome: Callable[[], bool] = lambda: True,
        downloads: Downloads = NO_DOWNLOADS,
        readers: Readers | None = None,
    ) -> None:
        self._rows_after = rows_after
        self._bell = bell
        self._render = render
        self._heartbeat_seconds = heartbeat_seconds
        self._welcome = welcome
        self._downloads = downloads
        self._shown: dict[tuple[object, object], Mapping[str, object]] = {}
        self._show_at = -math.inf
        self._readers = readers or Readers()
        oldest, newest = bounds()
        known = last_id is not None and oldest - 1 <= last_id <= newest
        self._last = last_id if known and last_id is not None else newest
        self._greeting: bytes | None = b"retry: %d\n\n" % RETRY_MILLISECONDS
        if last_id is not None and not known:
            self._greeting += _frame("reset", {"newest": newest}, newest)

    async def __aenter__(self) -> "EventStream":
        self._readers.open += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._readers.open -= 1

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next chunk. Safe to cancel: what was not returned is not counted as read."""
        if self._greeting is not None:
            greeting, self._greeting = self._greeting, None
            return greeting
        beat_at = trio.current_time() + self._heartbeat_seconds
        while True:
            bells = [self._bell.next(), self._downloads.bell.next()]
            if not self._welcome():
                raise StopAsyncIteration
            rows = self._rows_after(self._last)
            if rows:
                self._last = rows[-1].id
                return b"".join(_frame("activity", self._render(row), row.id) for row in rows)
            may_show = trio.current_time() >= self._show_at
            if may_show and (frames := self._progress()):
                self._show_at = trio.current_time() + PROGRESS_SECONDS
                return frames
            if trio.current_time() >= beat_at:
                return BEAT
            # Downloads ring more often than they are shown: until then nobody listens to them.
            with trio.move_on_at(beat_at if may_show else min(beat_at, self._show_at)):
                await _first_of(bells if may_show else bells[:1])

    def _progress(self) -> bytes:
        """A frame for each download that is not as it was shown last."""
        running = {(view["host_id"], view["name"]): view for view in self._downloads.current()}
        over = [{**view, "running": False} for key, view in self._shown.items() if key not in running]
        moved = [{**view, "running": True} for key, view in running.items() if self._shown.get(key) != view]
        self._shown = running
        return b"".join(_frame("progress", view) for view in over + moved)


async def _first_of(rings: Sequence[trio.Event]) -> None:
    """Wait until one of them rings."""
    async with trio.open_nursery() as nursery:

        async def wait_for(ring: trio.Event) -> None:
            await ring.wait()
            nursery.cancel_scope.cancel()

        for ring in rings:
            nursery.start_soon(wait_for, ring)


def event_response(
    *,
    rows_after: Callable[[int], Sequence[Activity]],
    bounds: Callable[[], tuple[int, int]],
    bell: Bell,
    last_id: int | None,
    render: Callable[[Activity], Mapping[str, object]],
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    welcome: Callable[[], bool] = lambda: True,
    downloads: Downloads = NO_DOWNLOADS,
) -> Response:
    """The answer to `GET /events`; a 503 problem when too many read already.

    `welcome` is asked before every chunk: False ends the stream (a revoked token, a sign-out).
    """
    readers: Readers = current_app.extensions.setdefault("event_stream_readers", Readers())
    if readers.open >= MOST_STREAMS:
        full = problem(503, detail=f"{MOST_STREAMS} event streams are open already; close a page or two")
        full.headers["Retry-After"] = "30"
        return full
    stream = EventStream(
        rows_after=rows_after,
        bounds=bounds,
        bell=bell,
        last_id=last_id,
        render=render,
        heartbeat_seconds=heartbeat_seconds,
        welcome=welcome,
        downloads=downloads,
        readers=readers,
    )
    # Quart answers HEAD with the view for GET, and that one would never end.
    body = stream if request.method == "GET" else b""
    response = Response(body, content_type="text/event-stream; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back until its buffer is full
    response.timeout = None  # Quart's RESPONSE_TIMEOUT would cut the stream after 60 s without a word
    return response


def last_event_id(request: Request) -> int | None:
    """What the reader saw last: the browser's header, else the page's `?after=`.

    Anything that is no id of ours is `UNKNOWN`: better one reload too many than a gap.
    """
    text = request.headers.get("Last-Event-ID") or request.args.get("after")
    if text is None:
        return None
    # Eighteen digits fit into SQLite's integers.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else UNKNOWN


def _frame(event: str, data: Mapping[str, object], id: int | None = None) -> bytes:
    # ASCII JSON has no line break and no lone surrogate: a machine's text cannot break a frame.
    text = json.dumps(data, separators=(",", ":"))
    number = f"id: {id}\n" if id is not None else ""
    return f"{number}event: {event}\ndata: {text}\n\n".encode("ascii")


BEAT = _frame("beat", {})
