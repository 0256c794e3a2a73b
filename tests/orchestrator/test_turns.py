"""One change of members at a time: who waits for whom, what is said of it, and what a restart leaves."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define, field

from provd.domain.cluster import Node
from provd.domain.errors import ClusterFailed
from provd.domain.hosts import HostOptions, Mac
from provd.domain.lifecycle import State
from provd.domain.operations import Departure, Kind, Operation, Outcome, Stage, Wish
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.membership.turns import Turns
from provd.store import activity, departures, hosts, operations
from provd.store.database import open_store

NOW = datetime(2026, 11, 22, tzinfo=UTC)


async def nothing(away: frozenset[str]) -> None:
    await trio.lowlevel.checkpoint()


@define(eq=False)
class Room:
    """Operations on nuc1, nuc2 and so on; each takes a host of its own."""

    fleet: Fleet
    turns: Turns = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.turns = Turns(self.fleet)

    async def begin(self, number: int, state: State = State.FIRST_BOOT) -> Operation:
        mac = Mac(f"02:00:00:00:00:{number:02x}")

        def work(change: Change) -> Operation:
            host = hosts.register(change.db, f"nuc{number}", mac, "nuc", HostOptions(), NOW)
            hosts.set_state(change.db, host.id, state, NOW)
            return operations.open_(change.db, host, Kind.REBUILD, "a test", NOW)

        return await self.fleet.change(work)

    def operation(self, number: int) -> Operation:
        return next(one for one in self.fleet.store.read(operations.active) if one.hostname == f"nuc{number}")

    async def close(self, operation: Operation) -> None:
        await self.fleet.change(
            lambda change: operations.close(change.db, operation.id, Outcome.FAILED, "", NOW)
        )

    async def take(
        self,
        operation: Operation,
        obstacle: Callable[[frozenset[str]], Awaitable[str | None]] = nothing,
        begin: Callable[[Change], None] = lambda change: None,
    ) -> None:
        assert operation.host_id is not None
        await self.turns.take(operation, operation.host_id, obstacle, begin)

    def holder(self) -> str | None:
        turn = self.turns.holder()
        return turn.hostname if turn is not None else None

    async def until_held_by(self, hostname: str) -> None:
        while True:
            ring = self.fleet.bell.next()
            if self.holder() == hostname:
                return
            await ring.wait()

    def told(self) -> list[str]:
        return [line.message for line in self.fleet.store.read(lambda db: activity.after(db, 0, 100))]

    async def until_told(self, words: str) -> None:
        with trio.fail_after(10):
            while True:
                ring = self.fleet.bell.next()
                if any(words in line for line in self.told()):
                    return
                await ring.wait()


@asynccontextmanager
async def open_room(path: Path) -> AsyncIterator[Room]:
    with open_store(path / "provd.db") as store, trio.fail_after(20):
        yield Room(Fleet(store, Bell()))


# --- one at a time --------------------------------------------------------------------------------


async def test_whoever_asks_first_has_it_until_it_ends_it(tmp_path: Path) -> None:
    """The next one gets it in that moment; to end what one has not got takes it from nobody."""
    async with open_room(tmp_path) as room, trio.open_nursery() as nursery:
        one, other = await room.begin(1), await room.begin(2)
        await room.take(one)
        nursery.start_soon(room.take, other)
        await room.until_told("waits for its turn")
        await room.turns.end(other)
        assert room.holder() == "nuc1"
        await room.turns.end(one)
        with trio.fail_after(2):  # it was rung, and did not look by chance
            await room.until_held_by("nuc2")


async def test_of_many_one_has_it_at_any_time(tmp_path: Path) -> None:
    """All get their turn, one after the other."""
    inside, most = 0, 0
    done: list[str] = []

    async def change_members(room: Room, operation: Operation) -> None:
        nonlocal inside, most
        await room.take(operation)
        inside += 1
        most = max(most, inside)
        await trio.testing.wait_all_tasks_blocked()
        inside -= 1
        await room.turns.end(operation)
        done.append(operation.hostname)

    async with open_room(tmp_path) as room:
        each = [await room.begin(number) for number in range(1, 6)]
        async with trio.open_nursery() as nursery:
            for operation in each:
                nursery.start_soon(change_members, room, operation)
        assert most == 1
        assert sorted(done) == [f"nuc{number}" for number in range(1, 6)]
        assert room.holder() is None


@pytest.mark.parametrize(
    ("state", "words"), [(State.JOINING, "nuc1 is joining"), (State.READY, "nuc1 is leaving the cluster")]
)
async def test_for_whom_it_waits_is_told_once(tmp_path: Path, state: State, words: str) -> None:
    """By the holder's name and what it does, however often it looks."""
    async with open_room(tmp_path) as room, trio.open_nursery() as nursery:
        one, other = await room.begin(1, state), await room.begin(2)
        await room.take(one)
        nursery.start_soon(room.take, other)
        await room.until_told(words)
        for _ in range(3):
            room.fleet.bell.ring()
            await trio.testing.wait_all_tasks_blocked()
            await room.fleet.store.write(lambda db: None)  # it looks in a transaction, which comes before
        [told] = room.told()
        assert re.fullmatch(rf"waits for its turn: {words}, for \d s", told)
        nursery.cancel_scope.cancel()


async def test_a_turn_ends_with_its_operation(tmp_path: Path) -> None:
    """Whoever waits for it has it then, without another word."""
    async with open_room(tmp_path) as room, trio.open_nursery() as nursery:
        one, other = await room.begin(1), await room.begin(2)
        await room.take(one)
        nursery.start_soon(room.take, other)
        await room.until_told("nuc1 is")
        await room.close(one)
        with trio.fail_after(2):
            await room.until_held_by("nuc2")


# --- what stands in the way -----------------------------------------------------------------------


@define
class Weather:
    """An obstacle that says what the test says."""

    reason: str | None
    asked: list[frozenset[str]] = field(factory=list)

    async def __call__(self, away: frozenset[str]) -> str | None:
        await trio.lowlevel.checkpoint()
        self.asked.append(away)
        return self.reason


async def test_the_turn_is_free_while_something_stands_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else goes first; each reason is told once, and when none is left it begins."""
    monkeypatch.setattr("provd.orchestrator.membership.turns.LOOK_AGAIN", 0.01)
    weather = Weather("pve3 is offline")
    begun: list[str] = []
    async with open_room(tmp_path) as room, trio.open_nursery() as nursery:
        one, other = await room.begin(1), await room.begin(2)
        nursery.start_soon(room.take, one, weather, lambda change: begun.append("nuc1"))
        await room.until_told("pve3 is offline")
        await room.take(other)
        assert room.holder() == "nuc2"
        await room.until_told("nuc2 is leaving")
        await room.turns.end(other)
        weather.reason = "pve2 is offline"
        await room.until_told("pve2 is offline")
        assert begun == []
        weather.reason = None
        while not begun:
            await room.fleet.bell.next().wait()
        assert room.holder() == "nuc1"
        assert len(set(room.told())) == len(room.told())


async def test_a_cluster_is_not_asked_without_a_pause(tmp_path: Path) -> None:
    """Nothing of what it does itself counts as news, nor what another one that waits does."""
    one_waits, other_waits = Weather("pve3 is offline"), Weather("pve3 is offline")
    async with open_room(tmp_path) as room, trio.open_nursery() as nursery:
        one, other = await room.begin(1), await room.begin(2)
        nursery.start_soon(room.take, one, one_waits)
        nursery.start_soon(room.take, other, other_waits)
        with trio.move_on_after(1):
            while True:
                await room.fleet.bell.next().wait()
        assert 1 <= len(one_waits.asked) <= 4
        assert 1 <= len(other_waits.asked) <= 4
        nursery.cancel_scope.cancel()


async def test_it_is_told_of_those_who_may_go_away(tmp_path: Path) -> None:
    """Members that other operations have released and not struck out yet."""
    async with open_room(tmp_path) as room:
        one, other = await room.begin(1), await room.begin(2)
        member = Node(name="pve2", nodeid=2, online=True)

        def release(change: Change) -> None:
            departures.put(change.db, other.id, Departure.of(member, Wish(member=member)))
            departures.set_stage(change.db, other.id, Stage.RELEASED)

        await room.take(other, nothing, release)
        await room.turns.end(other)
        weather = Weather(None)
        await room.take(one, weather)
        assert weather.asked == [frozenset({"pve2"})]


async def test_what_waiting_does_not_mend_is_raised(tmp_path: Path) -> None:
    """And leaves the turn to the next one; so does a beginning that fails, and with it nothing has begun."""

    async def never(away: frozenset[str]) -> str | None:
        await trio.lowlevel.checkpoint()
        raise ClusterFailed("two machines cannot have one name")

    def fail(change: Change) -> None:
        raise ClusterFailed("no")

    async with open_room(tmp_path) as room:
        operation = await room.begin(1)
        with pytest.raises(ClusterFailed, match="one name"):
            await room.take(operation, never)
        assert room.holder() is None
        with pytest.raises(ClusterFailed, match="no"):
            await room.take(operation, nothing, fail)
        await room.close(operation)
        assert room.holder() is None
        assert room.told() == []


# --- stops and starts -----------------------------------------------------------------------------


async def test_a_stop_while_it_looks_leaves_the_turn_free(tmp_path: Path) -> None:
    """Nothing has begun."""
    looks = trio.Event()

    async def look(away: frozenset[str]) -> str | None:
        looks.set()
        await trio.sleep_forever()

    async with open_room(tmp_path) as room:
        operation = await room.begin(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.take, operation, look)
            await looks.wait()
            assert room.holder() == "nuc1"
            nursery.cancel_scope.cancel()
        assert room.holder() is None


async def test_a_turn_outlives_a_restart_and_is_taken_up_by_its_operation(tmp_path: Path) -> None:
    """At once; all others still wait for it."""
    async with open_room(tmp_path) as room:
        one = await room.begin(1, State.JOINING)
        await room.begin(2)
        await room.take(one)
    async with open_room(tmp_path) as room, trio.open_nursery() as nursery:
        assert room.holder() == "nuc1"
        nursery.start_soon(room.take, room.operation(2))
        await room.until_told("nuc1 is joining")
        await room.take(room.operation(1))
        assert room.holder() == "nuc1"
        nursery.cancel_scope.cancel()
