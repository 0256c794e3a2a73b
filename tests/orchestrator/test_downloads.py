"""What a page is told of downloads: true, in time, and not too often."""

from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from provd.domain.hosts import HostId, OperationId
from provd.orchestrator import downloads as room
from provd.orchestrator.downloads import Download, Downloads, Progress

MIB = 1 << 20
HOST, OPERATION = HostId(1), OperationId(7)


class Watched(Downloads):
    """Keeps what was told."""

    def __init__(self) -> None:
        self.told: list[Progress] = []
        super().__init__(self.told.append)

    def open(
        self, name: str = "iso", total: int = 100 * MIB, start: int = 0, stop: int | None = None
    ) -> Download:
        return self.begin(HOST, OPERATION, name, total, "192.0.2.9", start=start, stop=stop)


async def test_a_whole_file_is_told_once() -> None:
    """At its end, and not before."""
    downloads = Watched()
    download = downloads.open()
    for _ in range(100):
        assert downloads.told == []
        download.advance(MIB)
    [progress] = downloads.current()
    assert progress.sent == progress.total == 100 * MIB
    download.end()
    [told] = downloads.told
    assert told.complete
    assert (told.host_id, told.operation_id, told.name, told.address) == (HOST, OPERATION, "iso", "192.0.2.9")
    assert downloads.current() == []


async def test_a_broken_download_is_told_and_its_resumption_goes_on() -> None:
    """The rest comes by a range: one download, that began when it began, and is whole in the end."""
    downloads = Watched()
    first = downloads.open()
    first.advance(40 * MIB)
    began = downloads.current()[0].since
    first.end()
    assert [(told.complete, told.sent) for told in downloads.told] == [(False, 40 * MIB)]
    second = downloads.open(start=40 * MIB)
    assert (downloads.current()[0].sent, downloads.current()[0].since) == (40 * MIB, began)
    second.advance(60 * MIB)
    second.end()
    assert [told.complete for told in downloads.told] == [False, True]


async def test_a_range_that_was_sent_is_neither_whole_nor_cut_off() -> None:
    """Only what was to be sent and was not counts as cut off; only all of the file as whole."""
    downloads = Watched()
    for start, stop in [(90, 100), (0, 30), (30, 60), (50, 90)]:
        part = downloads.open(start=start * MIB, stop=stop * MIB)
        part.advance((stop - start) * MIB)
        part.end()
        assert downloads.told == []
    part = downloads.open(start=80 * MIB)
    part.advance(20 * MIB)
    part.end()
    assert [told.complete for told in downloads.told] == [True]


async def test_starting_over_starts_over() -> None:
    """A machine that was cut off and begins again from the first byte has nothing yet."""
    downloads = Watched()
    first = downloads.open()
    first.advance(99 * MIB)
    first.end()
    second = downloads.open()
    assert downloads.current()[0].sent == 0
    second.advance(MIB)
    second.end()
    assert [told.complete for told in downloads.told] == [False, False]


async def test_machines_and_files_are_kept_apart() -> None:
    """One entry for each machine and file, in the order in which they began."""
    downloads = Watched()
    downloads.open("vmlinuz")
    downloads.open("iso")
    downloads.begin(HostId(2), OperationId(8), "iso", 5, "192.0.2.10").advance(5)
    assert [(each.host_id, each.name, each.sent) for each in downloads.current()] == [
        (1, "vmlinuz", 0),
        (1, "iso", 0),
        (2, "iso", 5),
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), max_size=12))
def test_whole_is_said_of_what_was_sent_without_a_gap(ranges: list[tuple[int, int, bool]]) -> None:
    """In whatever pieces, of which some break off: never told whole while a byte was never sent."""

    async def main() -> None:
        downloads = Watched()
        sent: set[int] = set()
        for one, other, breaks in ranges:
            start, stop = min(one, other), max(one, other)
            if start == stop:
                continue
            part = downloads.open(total=20, start=start, stop=stop)
            last = stop - 1 if breaks else stop
            part.advance(last - start)
            sent |= set(range(start, last))
            part.end()
            if any(told.complete for told in downloads.told):
                assert sent == set(range(20))

    trio.run(main)


async def at_speed(download: Download, rate: float, seconds: float) -> None:
    for _ in range(int(seconds * 10)):
        download.advance(int(rate / 10))
        await trio.sleep(0.1)


async def test_speed_and_what_is_left(autojump_clock: MockClock) -> None:
    """A steady speed is right from the start; a change shows within seconds; a stall ends the estimate."""
    downloads = Watched()
    download = downloads.open(total=1000 * MIB)

    def now() -> Progress:
        return downloads.current()[0]

    assert now().seconds_left is None
    await at_speed(download, 10 * MIB, 1)
    assert now().rate == pytest.approx(10 * MIB, rel=0.15)
    await at_speed(download, 100 * MIB, 2)
    assert 30 * MIB < now().rate < 80 * MIB
    await at_speed(download, 10 * MIB, 20)
    assert now().rate == pytest.approx(10 * MIB, rel=0.1)
    assert now().seconds_left == pytest.approx((1000 - 10 - 200 - 200) / 10, rel=0.1)
    await trio.sleep(3600)
    assert now().seconds_left is None


async def test_the_bell_rings_a_few_times_a_second_and_for_the_last_change_too(
    autojump_clock: MockClock,
) -> None:
    """However many bytes come; and after the last one nobody is left with an old picture."""
    downloads = Watched()
    seen: list[tuple[float, list[Progress]]] = []

    async def watch() -> None:
        while True:
            ring = downloads.bell.next()
            seen.append((trio.current_time(), downloads.current()))
            await ring.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(downloads.ring)
        await trio.sleep(10)
        assert len(seen) == 1  # nothing happens, nothing rings
        download = downloads.open()
        for _ in range(100):
            download.advance(MIB)
            await trio.sleep(0.02)
        download.end()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    times = [at for at, _ in seen[1:]]
    assert 5 <= len(times) <= 9
    assert all(b - a >= room.RING_SECONDS - 1e-6 for a, b in pairwise(times))
    assert seen[-1][1] == []


async def test_old_downloads_are_forgotten() -> None:
    """What nobody reads any more does not pile up; what goes on is never forgotten."""
    downloads = Watched()
    going_on = downloads.open("first")
    for number in range(room.KEPT * 2):
        downloads.open(f"file {number}").end()
    assert [each.name for each in downloads.current()] == ["first"]
    going_on.advance(100 * MIB)
    assert downloads.current()[0].complete
    assert len(downloads._files) <= room.KEPT + 2
