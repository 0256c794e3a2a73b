"""Members on their way out, and the turn to change the cluster's members: what is kept, and when it ends."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import evolve

from provd.domain.cluster import Node
from provd.domain.hosts import HostOptions, Mac
from provd.domain.operations import Departure, Kind, Operation, Outcome, Stage, Wish
from provd.store import departures, hosts, operations
from provd.store.database import Db, open_store
from provd.store.departures import Turn

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
PVE3 = Node(name="pve3", nodeid=7, votes=2, online=True)
DEPARTURE = Departure.of(PVE3, Wish(member=PVE3, drain=True))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    with open_store(tmp_path / "provd.db") as store:
        yield store.read(lambda db: db)


def begin(db: Db, number: int, kind: Kind = Kind.REBUILD) -> Operation:
    host = hosts.register(db, f"nuc{number}", Mac(f"02:00:00:00:00:{number:02x}"), "nuc", HostOptions(), NOW)
    return operations.open_(db, host, kind, "a test", NOW)


# --- departures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", list(Stage))
def test_a_departure_comes_back_as_it_was_written(db: Db, stage: Stage) -> None:
    """Every field, at every stage; an operation without one has none."""
    for number, drain in enumerate((True, False)):
        written = evolve(DEPARTURE, drain=drain, keep_entry=not drain, stage=stage)
        operation = begin(db, number)
        assert departures.of(db, operation.id) is None
        departures.put(db, operation.id, written)
        assert departures.of(db, operation.id) == written


def test_a_stage_is_that_of_one_operation(db: Db) -> None:
    """The others stay where they are."""
    one, other = begin(db, 1), begin(db, 2)
    for operation in (one, other):
        departures.put(db, operation.id, DEPARTURE)
    departures.set_stage(db, one.id, Stage.LEFT)
    assert departures.of(db, one.id) == evolve(DEPARTURE, stage=Stage.LEFT)
    assert departures.of(db, other.id) == DEPARTURE


def test_the_schema_knows_the_stages(db: Db) -> None:
    """A word that is none of them is not written."""
    operation = begin(db, 1)
    departures.put(db, operation.id, DEPARTURE)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE departures SET stage = 'gone'")


def test_whom_other_operations_have_released(db: Db) -> None:
    """Neither one's own, nor who was only asked or is struck out already, nor whose operation is over."""
    mine, released, asked, left, over = (begin(db, number) for number in range(5))
    for operation, name, stage in (
        (mine, "pve0", Stage.RELEASED),
        (released, "pve1", Stage.RELEASED),
        (asked, "pve2", Stage.ASKED),
        (left, "pve3", Stage.LEFT),
        (over, "pve4", Stage.RELEASED),
    ):
        departures.put(db, operation.id, evolve(DEPARTURE, node=name, stage=stage))
    operations.close(db, over.id, Outcome.FAILED, "", NOW)
    assert departures.released_beside(db, mine.id) == {"pve1"}
    assert departures.released_beside(db, asked.id) == {"pve0", "pve1"}


# --- whose turn it is -----------------------------------------------------------------------------


def test_the_turn_is_one_operations_at_a_time(db: Db) -> None:
    """Whoever has it has it still when it asks again, since when it took it; nobody else gets it."""
    one, other = begin(db, 1), begin(db, 2)
    assert departures.turn(db) is None
    assert departures.take_turn(db, one.id, NOW)
    assert departures.take_turn(db, one.id, NOW + timedelta(minutes=1))
    assert not departures.take_turn(db, other.id, NOW)
    assert departures.turn(db) == Turn(operation_id=one.id, hostname="nuc1", since=NOW)


def test_only_its_holder_ends_a_turn(db: Db) -> None:
    """The end of somebody else's, or of none, changes nothing; a lock of a host is not touched."""
    one, other = begin(db, 1), begin(db, 2)
    departures.take_turn(db, one.id, NOW)
    departures.end_turn(db, other.id)
    assert not departures.take_turn(db, other.id, NOW)
    for _ in range(2):
        departures.end_turn(db, one.id)
    assert departures.take_turn(db, other.id, NOW)
    assert len(operations.locks(db)) == 3


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("kind", list(Kind))
def test_a_turn_ends_with_its_operation(db: Db, kind: Kind, outcome: Outcome) -> None:
    """However that ends, and whatever it was."""
    operation = begin(db, 1, kind)
    departures.take_turn(db, operation.id, NOW)
    operations.close(db, operation.id, outcome, "", NOW)
    assert departures.turn(db) is None
    assert operations.locks(db) == {}
