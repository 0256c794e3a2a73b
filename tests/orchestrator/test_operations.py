"""An operation is a cancel scope: every way out of one, with a story that does as the test says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from attrs import define, field

from provd.domain.errors import Conflict, OutsideFailed, SshFailed
from provd.domain.hosts import Host, HostId, HostOptions, Mac
from provd.domain.lifecycle import Fact, State
from provd.domain.operations import Kind, Operation, Outcome, Wish
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.operations import Operations, open_operations
from provd.store import activity, hosts, operations
from provd.store.database import open_store

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@define(eq=False)
class Script:
    """A story whose middle is handed in by the test."""

    fleet: Fleet
    tell_it: Callable[[Operation], Awaitable[None]]
    clean_up_it: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    begun: trio.Event = field(factory=trio.Event)
    cleaned_up: int = 0
    broken_off: list[Outcome] = field(factory=list)

    def begin(self, change: Change, host: Host, operation: Operation, wish: Wish) -> None:
        change.fact(host.id, Fact.REBUILD_STARTED, "begun")

    async def tell(self, operation: Operation) -> None:
        self.begun.set()
        await self.tell_it(operation)

    async def clean_up(self, operation: Operation, outcome: Outcome) -> None:
        self.cleaned_up += 1
        await self.clean_up_it()

    def break_off(self, change: Change, operation: Operation, host: Host, outcome: Outcome) -> None:
        self.broken_off.append(outcome)

    def conclude(self, change: Change, operation: Operation) -> None:
        assert operation.host_id is not None
        for fact in (Fact.SCRIPT_FETCHED, Fact.ANSWER_SENT, Fact.PHONED_HOME, Fact.JOIN_STARTED):
            change.fact(operation.host_id, fact, "on the way")
        change.fact(operation.host_id, Fact.COMPLETED, "there")


@define(eq=False)
class Room:
    fleet: Fleet
    host: Host

    def state(self) -> State:
        return self.fleet.host(self.host.id).state

    def operation(self, known: Operation) -> Operation:
        return self.fleet.store.read(lambda db: operations.get(db, known.id))

    def locks(self) -> int:
        return len(self.fleet.store.read(operations.locks))


@asynccontextmanager
async def open_room(path: Path) -> AsyncIterator[Room]:
    with open_store(path / "provd.db") as store:
        mac = Mac("02:00:00:00:00:01")
        if not store.read(lambda db: hosts.find_by_mac(db, [mac])):
            await store.write(lambda db: hosts.register(db, "nuc1", mac, "nuc", HostOptions(), NOW))
        (host,) = store.read(lambda db: hosts.find_by_mac(db, [mac]))
        yield Room(Fleet(store, Bell()), host)


async def over(room: Room, operation: Operation) -> Operation:
    with trio.fail_after(5):
        while True:
            ring = room.fleet.bell.next()
            if not (now := room.operation(operation)).active:
                return now
            await ring.wait()


async def forever(_: Operation) -> None:
    await trio.sleep_forever()


async def at_once(_: Operation) -> None:
    await trio.lowlevel.checkpoint()


async def test_a_story_that_ends_is_done(tmp_path: Path) -> None:
    """The host is where the story led it, the lock is free, nothing was cleaned up."""
    async with open_room(tmp_path) as room:
        story = Script(room.fleet, at_once)
        async with open_operations(room.fleet, {Kind.REBUILD: story}) as runner:
            operation = await runner.start(room.host.id, Kind.REBUILD, "a test")
            assert (await over(room, operation)).outcome is Outcome.DONE
        assert (room.state(), room.locks(), story.cleaned_up) == (State.READY, 0, 0)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SshFailed("the host does not answer"), "the host does not answer"),
        (ExceptionGroup("a nursery", [OutsideFailed("one"), SshFailed("two")]), "one; two"),
        (
            ZeroDivisionError("secret detail"),
            "a bug in provd (ZeroDivisionError); the journal has the traceback",
        ),
    ],
)
async def test_a_story_that_raises_has_failed(tmp_path: Path, error: Exception, words: str) -> None:
    """A foreseen error's sentence becomes the detail; a bug says no more than that it is one."""

    async def fail(_: Operation) -> None:
        raise error

    async with open_room(tmp_path) as room:
        story = Script(room.fleet, fail)
        async with open_operations(room.fleet, {Kind.REBUILD: story}) as runner:
            result = await over(room, await runner.start(room.host.id, Kind.REBUILD, "a test"))
        assert (result.outcome, result.detail) == (Outcome.FAILED, words)
        assert (room.state(), room.locks(), story.cleaned_up) == (State.FAILED, 0, 1)


async def test_a_cancel_returns_when_it_is_over(tmp_path: Path) -> None:
    """Failed host, free lock, cleaned up; and the next operation can start in the same breath."""
    async with open_room(tmp_path) as room:
        story = Script(room.fleet, forever)
        async with open_operations(room.fleet, {Kind.REBUILD: story}) as runner:
            operation = await runner.start(room.host.id, Kind.REBUILD, "a test")
            await story.begun.wait()
            result = await runner.cancel(operation.id, "somebody")
            assert (result.outcome, result.detail) == (Outcome.CANCELLED, "cancelled by somebody")
            assert (room.state(), room.locks(), story.cleaned_up) == (State.FAILED, 0, 1)
            await runner.start(room.host.id, Kind.REBUILD, "a test")
            with pytest.raises(Conflict, match="over already: cancelled"):
                await runner.cancel(operation.id, "somebody")


async def test_a_cancel_before_the_first_step_counts(tmp_path: Path) -> None:
    """Between the start and the task's first breath there is no gap in which a cancel is lost."""
    async with (
        open_room(tmp_path) as room,
        open_operations(room.fleet, {Kind.REBUILD: Script(room.fleet, forever)}) as runner,
    ):
        operation = await runner.start(room.host.id, Kind.REBUILD, "a test")
        assert (await runner.cancel(operation.id, "somebody")).outcome is Outcome.CANCELLED


async def test_a_story_that_fails_while_it_is_cancelled_has_failed(tmp_path: Path) -> None:
    """What went wrong on the way out is not swallowed by the scope."""

    async def break_on_the_way_out(_: Operation) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise SshFailed("could not tidy up")

    async with open_room(tmp_path) as room:
        story = Script(room.fleet, break_on_the_way_out)
        async with open_operations(room.fleet, {Kind.REBUILD: story}) as runner:
            operation = await runner.start(room.host.id, Kind.REBUILD, "a test")
            await story.begun.wait()
            result = await runner.cancel(operation.id, "somebody")
        assert (result.outcome, result.detail) == (Outcome.FAILED, "could not tidy up")
        assert room.locks() == 0


async def test_a_clean_up_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot be reached does not keep its lock."""
    monkeypatch.setattr("provd.orchestrator.operations.CLEAN_UP_SECONDS", 0.05)
    async with open_room(tmp_path) as room:
        story = Script(room.fleet, forever, trio.sleep_forever)
        async with open_operations(room.fleet, {Kind.REBUILD: story}) as runner:
            operation = await runner.start(room.host.id, Kind.REBUILD, "a test")
            await story.begun.wait()
            with trio.fail_after(5):
                await runner.cancel(operation.id, "somebody")
        assert room.locks() == 0


async def test_a_stop_of_the_daemon_is_no_outcome_and_the_next_start_resumes(tmp_path: Path) -> None:
    """Leaving the nursery writes nothing; the story is told again from the database."""
    async with open_room(tmp_path) as room:
        story = Script(room.fleet, forever)
        async with open_operations(room.fleet, {Kind.REBUILD: story}) as runner:
            operation = await runner.start(room.host.id, Kind.REBUILD, "a test")
            await story.begun.wait()
        assert room.operation(operation).active
        assert (room.state(), room.locks(), story.cleaned_up) == (State.PXE_READY, 1, 0)
    async with open_room(tmp_path) as room:
        async with open_operations(room.fleet, {Kind.REBUILD: Script(room.fleet, at_once)}) as runner:
            runner.resume()
            assert (await over(room, operation)).outcome is Outcome.DONE
        assert room.locks() == 0


async def test_what_breaks_because_the_daemon_stops_is_no_failure(tmp_path: Path) -> None:
    """An error that a stop provokes in the story leaves the operation active."""

    async def lose_the_connection(_: Operation) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise SshFailed("the socket was closed under us")

    async with open_room(tmp_path) as room:
        story = Script(room.fleet, lose_the_connection)
        async with open_operations(room.fleet, {Kind.REBUILD: story}) as runner:
            operation = await runner.start(room.host.id, Kind.REBUILD, "a test")
            await story.begun.wait()
        assert room.operation(operation).active


async def test_of_many_racing_starts_one_wins(tmp_path: Path) -> None:
    """The losers are told who has the host, and leave nothing behind."""
    won: list[Operation] = []
    lost: list[Conflict] = []

    async def start(runner: Operations, host_id: HostId) -> None:
        try:
            won.append(await runner.start(host_id, Kind.REBUILD, "a test"))
        except Conflict as exc:
            lost.append(exc)

    async with (
        open_room(tmp_path) as room,
        open_operations(room.fleet, {Kind.REBUILD: Script(room.fleet, forever)}) as runner,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(start, runner, room.host.id)
        assert (len(won), len(lost), room.locks()) == (1, 19, 1)
        assert all(f"rebuild {won[0].id}" in str(exc) for exc in lost)


async def test_a_request_that_hangs_up_while_it_starts_leaves_no_orphan(tmp_path: Path) -> None:
    """An operation that is in the database is in the nursery, whenever its request was cancelled."""
    async with open_room(tmp_path) as room:
        story = Script(room.fleet, at_once)
        async with open_operations(room.fleet, {Kind.REBUILD: story}) as runner:
            with trio.move_on_after(0.001):
                await runner.start(room.host.id, Kind.REBUILD, "a browser that hangs up")
            left = room.fleet.store.read(operations.active)
            for operation in left:
                assert (await over(room, operation)).outcome is Outcome.DONE
        assert room.fleet.store.read(operations.active) == []


async def test_one_cannot_do_without_the_other(tmp_path: Path) -> None:
    """A change that raises leaves neither the new state nor its activity row, and rings no bell."""
    async with open_room(tmp_path) as room:
        ring = room.fleet.bell.next()

        def half(change: Change) -> None:
            change.fact(room.host.id, Fact.REBUILD_STARTED, "begun")
            raise LookupError

        with pytest.raises(LookupError):
            await room.fleet.change(half)
        assert room.state() is State.REGISTERED
        assert room.fleet.store.read(lambda db: activity.latest(db, 10)) == []
        assert not ring.is_set()
