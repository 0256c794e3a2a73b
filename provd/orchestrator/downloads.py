"""What machines are downloading at this moment, how fast, and until when.

It lives in memory: after a restart nothing is being downloaded. A file counts as one download however
many requests it takes, so that a machine which resumes after a broken connection goes on where it was.
Bytes count when the kernel has taken them; up to a few MiB of those are still on their way.
"""

from collections.abc import Callable
from datetime import datetime
from math import exp

import trio
from attrs import define, frozen

from provd.domain.hosts import HostId, OperationId
from provd.orchestrator.bell import Bell
from provd.store.database import now

RING_SECONDS = 0.3
SAMPLE_SECONDS = 0.25
SMOOTHING_SECONDS = 3.0
"""A change of speed shows within a few seconds, and a hiccup does not."""
SLOWEST = 1024
"""Bytes per second. What is slower has no end that is worth telling."""
KEPT = 256
"""Files that nobody reads just now, remembered for whoever resumes."""


@frozen(kw_only=True)
class Progress:
    """How far one machine is with one file."""

    host_id: HostId
    operation_id: OperationId
    name: str
    address: str
    sent: int
    total: int
    rate: float
    """Bytes per second, smoothed."""
    since: datetime
    complete: bool
    """Every byte of the file was sent, in one piece or in several."""

    @property
    def seconds_left(self) -> float | None:
        """None while next to nothing moves."""
        return (self.total - self.sent) / self.rate if self.rate >= SLOWEST else None


Key = tuple[HostId, OperationId, str]


class Downloads:
    """`finished` hears of a file that was sent to its end, or whose connection was cut before."""

    def __init__(self, finished: Callable[[Progress], None]) -> None:
        self.bell = Bell()
        """Rings when `current` has changed, a few times a second, while `ring` runs."""
        self._finished = finished
        self._files: dict[Key, _File] = {}
        self._changed = trio.Event()

    def begin(
        self,
        host_id: HostId,
        operation_id: OperationId,
        name: str,
        total: int,
        address: str,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> "Download":
        """A request for bytes `start` to `stop` of the file is being answered. Call `end` in any case."""
        key = (host_id, operation_id, name)
        file = self._files.pop(key, None)
        if file is None or file.total != total or (start == 0 and not file.readers):
            file = _File(total=total, since=now(), measured_at=trio.current_time())
        self._files[key] = file
        file.address = address
        file.readers += 1
        file.position = start
        self._forget_old()
        self._changed.set()
        return Download(self, key, file, start, total if stop is None else stop)

    def current(self) -> list[Progress]:
        """Downloads that go on, those that began first in front."""
        moving = [(key, file) for key, file in self._files.items() if file.readers]
        return sorted((_progress(key, file) for key, file in moving), key=lambda each: each.since)

    async def ring(self) -> None:
        """Ring the bell behind changes, at most every `RING_SECONDS`, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            self.bell.ring()
            await trio.sleep(RING_SECONDS)

    def _forget_old(self) -> None:
        idle = [key for key, file in self._files.items() if not file.readers]
        for key in idle[: max(0, len(idle) - KEPT)]:
            del self._files[key]

    def moved(self) -> None:
        self._changed.set()

    def ended(self, key: Key, file: "_File", *, cut: bool) -> None:
        file.readers -= 1
        self._changed.set()
        if file.complete and not file.told:
            file.told = True
            self._finished(_progress(key, file))
        elif cut and not file.complete:
            self._finished(_progress(key, file))


@define
class Download:
    """One request's part in a download."""

    _downloads: Downloads
    _key: Key
    _file: "_File"
    _position: int
    _stop: int

    def advance(self, count: int) -> None:
        self._file.add(self._position, count)
        self._position += count
        self._downloads.moved()

    def end(self) -> None:
        """The request is over. What it was to send and did not was cut off."""
        self._downloads.ended(self._key, self._file, cut=self._position < self._stop)


@define(kw_only=True)
class _File:
    total: int
    since: datetime
    measured_at: float
    address: str = ""
    readers: int = 0
    position: int = 0
    """Where the reader that moved last stands: what a page shows."""
    reached: int = 0
    """All of the file up to here was sent."""
    told: bool = False
    fresh: int = 0
    """Bytes since the last measurement of the speed."""
    speed: float = 0.0
    weight: float = 0.0
    """Of all measurements so far, below one: `speed` started from nothing and is to be divided by it."""

    @property
    def complete(self) -> bool:
        return self.reached >= self.total

    def add(self, start: int, count: int) -> None:
        self.position = start + count
        if start <= self.reached < self.position:
            self.reached = self.position
        self.fresh += count
        self.measure()

    def measure(self) -> None:
        passed = trio.current_time() - self.measured_at
        if passed < SAMPLE_SECONDS:
            return
        old = exp(-passed / SMOOTHING_SECONDS)
        self.speed = old * self.speed + (1 - old) * self.fresh / passed
        self.weight = old * self.weight + (1 - old)
        self.measured_at += passed
        self.fresh = 0


def _progress(key: Key, file: _File) -> Progress:
    host_id, operation_id, name = key
    file.measure()
    return Progress(
        host_id=host_id,
        operation_id=operation_id,
        name=name,
        address=file.address,
        sent=file.position,
        total=file.total,
        rate=file.speed / file.weight if file.weight else 0.0,
        since=file.since,
        complete=file.complete,
    )
