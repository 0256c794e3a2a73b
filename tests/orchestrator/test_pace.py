"""How long stages usually take: from rebuilds that came to their end, by type, and from nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import count
from pathlib import Path

import pytest

from provd.domain.activity import News
from provd.domain.hosts import Host, HostId, HostOptions, Mac, OperationId
from provd.domain.lifecycle import ROAD, State
from provd.domain.operations import Kind, Operation, Outcome
from provd.orchestrator.pace import SAMPLES, Pace, Usual, stays, usual
from provd.store import activity, hosts, operations
from provd.store.activity import Passage
from provd.store.database import Db, Store, open_store

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
NUMBERS = count(1)


def passing(operation: int, *seconds: float, server_type: str = "nuc") -> Iterator[Passage]:
    """A rebuild that stays for so many seconds in one stage after the other."""
    at = START
    for state, lasting in zip(ROAD, (*seconds, 0.0), strict=False):
        yield Passage(operation_id=OperationId(operation), server_type=server_type, after=state, at=at)
        at += timedelta(seconds=lasting)


def test_the_usual_is_the_median() -> None:
    """One rebuild that hung for an hour does not make the next one look early."""
    history = stays([*passing(1, 10, 60), *passing(2, 20, 80), *passing(3, 3600, 70)])
    assert usual(history, ROAD[:-1], State.PXE_BOOTED) == Usual(
        samples=3, state_seconds=70, before_seconds=20, total_seconds=90
    )


def test_only_the_newest_count() -> None:
    """A faster disk is known after as many rebuilds as are looked at."""
    history = stays(
        [one for n in range(SAMPLES) for one in passing(n, 500)]
        + [one for n in range(SAMPLES) for one in passing(1000 + n, 100)]
    )
    found = usual(history, ROAD[:-1], State.PXE_READY)
    assert found is not None
    assert (found.state_seconds, found.samples) == (100, SAMPLES)


@pytest.mark.parametrize("state", [State.READY, State.FAILED, State.REGISTERED, State.JOINING])
def test_where_nobody_has_been_nothing_is_usual(state: State) -> None:
    """Neither off the road nor at its end, nor in a stage that no rebuild has left yet."""
    assert usual(stays(passing(1, 10, 60)), ROAD[:-1], state) is None


# --- from the database -----------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "provd.db") as store:
        yield store


def a_host(db: Db, server_type: str) -> Host:
    number = next(NUMBERS)
    mac = Mac.parse(f"52:54:00:00:00:{number:02x}")
    host = hosts.register(db, f"h{number}", mac, server_type, HostOptions(), START)
    hosts.set_address(db, host.id, ip_address("192.0.2.1"), "x")
    return host


def rebuilt(db: Db, host: Host, seconds: float, outcome: Outcome | None = Outcome.DONE) -> Operation:
    """A rebuild that spends `seconds` in each stage."""
    operation = operations.open_(db, host, Kind.REBUILD, "a test", START)
    before = State.REGISTERED
    for number, state in enumerate(ROAD):
        line = News(
            event="x", message="x", host_id=host.id, operation_id=operation.id, before=before, after=state
        )
        activity.append(db, line, START + number * timedelta(seconds=seconds))
        before = state
    hosts.set_state(db, host.id, State.INSTALLING, START)
    if outcome is not None:
        operations.close(db, operation.id, outcome, "", START)
    return operation


async def test_a_type_has_its_own_pace(store: Store) -> None:
    """The median of its own rebuilds; of all where it has none. What failed or runs is no history."""

    def fill(db: Db) -> tuple[Host, Host, Host]:
        quick, slow, new = a_host(db, "nuc"), a_host(db, "server"), a_host(db, "odd")
        rebuilt(db, quick, 10)
        rebuilt(db, slow, 100)
        rebuilt(db, quick, 9999, Outcome.FAILED)
        return quick, slow, new

    quick, slow, new = await store.write(fill)
    pace = Pace(store)

    async def asked(host: Host) -> float | None:
        running = await store.write(lambda db: rebuilt(db, host, 5555, None))
        found = pace.usual(store.read(lambda db: hosts.get(db, host.id)), running)
        return found.state_seconds if found else None

    assert [await asked(one) for one in (quick, slow, new)] == [10, 100, 55]


async def test_history_is_read_again_when_there_is_more(store: Store) -> None:
    """A rebuild that ends is part of what is usual at once; nothing is usual while nothing runs."""
    host = await store.write(lambda db: a_host(db, "nuc"))
    pace = Pace(store)
    first = await store.write(lambda db: rebuilt(db, host, 30, None))
    present = store.read(lambda db: hosts.get(db, host.id))
    assert pace.usual(present, first) is None
    await store.write(lambda db: operations.close(db, first.id, Outcome.DONE, "", START))
    second = await store.write(lambda db: rebuilt(db, host, 30, None))
    found = pace.usual(present, second)
    assert found is not None
    assert (found.state_seconds, found.before_seconds, found.total_seconds) == (30, 60, 180)
    assert pace.usual(present, None) is None


async def test_a_strip_holds_the_newest_of_each_host(store: Store) -> None:
    """So many of every host, the newest last, in one query."""

    def fill(db: Db) -> tuple[HostId, HostId]:
        one, other = a_host(db, "nuc"), a_host(db, "nuc")
        for _ in range(5):
            rebuilt(db, one, 1)
        rebuilt(db, other, 1, Outcome.FAILED)
        return one.id, other.id

    one, other = await store.write(fill)
    found = store.read(lambda db: operations.builds(db, 3))
    assert [operation.id for operation in found[one]] == [3, 4, 5]
    assert [operation.outcome for operation in found[other]] == [Outcome.FAILED]
