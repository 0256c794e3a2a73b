"""From schema 2 to 3, with an operation under way: the table that has it is made anew around it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from provd.domain.errors import Conflict
from provd.domain.hosts import HostId, OperationId
from provd.domain.operations import Kind, Outcome
from provd.store import activity, departures, hosts, images, operations
from provd.store.database import Db, migrate, migrations, open_store, timestamp, transaction
from provd.store.operations import SealedKey

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
BEFORE = 2
TABLES = ("hosts", "operations", "images", "activity", "registrations", "sightings")
SINCE = {"firmware", "ignored"}
"""Columns that later schemas have added."""

CONTENT = """
INSERT INTO hosts VALUES
    (4, 'nuc4', '02:00:00:00:00:04', 'nuc', '{}', 'installing', :at, :at, NULL, NULL, '[]', 16384),
    (5, 'nuc5', '02:00:00:00:00:05', 'nuc', '{}', 'ready', :at, :at, '192.0.2.5', 'dmi-5', '["ssh A"]', 1);
INSERT INTO operations (id, host_id, hostname, kind, started_by, started_at, outcome, detail, finished_at)
VALUES (10, 5, 'nuc5', 'rebuild', 'somebody', :at, 'done', '', :at),
       (11, NULL, 'gone', 'rebuild', 'somebody', :at, 'failed', 'it is gone', :at);
INSERT INTO operations
VALUES (17, 4, 'nuc4', 'rebuild', 'somebody', :at, NULL, '', NULL, 'ssh-ed25519 AAAA', x'00ff', x'01', x'02',
        :at, '192.0.2.9 x', 3, '02:00:00:00:00:04', 1);
INSERT INTO images VALUES
    (1, 'proxmox-ve_9.2-1', 'pve', '9.2-1', printf('%064d', 1), 7, 8, printf('%064d', 2), :at, 1);
INSERT INTO activity (at, event, level, message, host_id, hostname, operation_id)
VALUES (:at, 'host.answer_sent', 'info', 'on the way', 4, 'nuc4', 17);
INSERT INTO registrations
VALUES (5, 'dmi-5', 'nuc5', '192.0.2.5', '02:00:00:00:00:05', 'small', 10, 2, :at, 'no');
INSERT INTO sightings VALUES ('02:00:00:00:00:06', '192.0.2.6', 'dhcp', :at, :at, 1);
"""


def dump(db: Db) -> dict[str, list[tuple[object, ...]]]:
    found: dict[str, list[tuple[object, ...]]] = {}
    for table in TABLES:
        rows = db.execute(f"SELECT * FROM {table}")
        kept = [place for place, (name, *_) in enumerate(rows.description) if name not in SINCE]
        found[table] = [tuple(row[place] for place in kept) for row in rows]
    return found


@pytest.fixture
def before(tmp_path: Path) -> dict[str, list[tuple[object, ...]]]:
    """What a database of schema 2 holds, which lies at `provd.db`."""
    with closing(sqlite3.connect(tmp_path / "provd.db", isolation_level=None)) as db:
        migrate(db, migrations()[:BEFORE])
        with transaction(db):
            for statement in CONTENT.strip().split(";\n"):
                db.execute(statement, {"at": timestamp(NOW)})
        return dump(db)


@pytest.fixture
def db(before: object, tmp_path: Path) -> Iterator[Db]:
    """The same, opened by this program."""
    with open_store(tmp_path / "provd.db") as store:
        yield store.read(lambda db: db)


def test_every_row_is_as_it_was(before: dict[str, list[tuple[object, ...]]], db: Db) -> None:
    """Hosts, operations with their secrets, images, activity, outbox and sightings; and nothing dangles."""
    assert dump(db) == before
    assert all(before.values())
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    assert [row[0] for row in db.execute("PRAGMA integrity_check")] == ["ok"]


def test_the_active_operation_holds_its_host(db: Db) -> None:
    """Its lock is there, with the time when it was taken, and it is the only one."""
    assert operations.locks(db) == {"host/4": OperationId(17)}
    assert db.execute("SELECT taken_at FROM locks").fetchone()[0] == timestamp(NOW)
    with pytest.raises(Conflict, match="rebuild 17 has been running"):
        operations.open_(db, hosts.get(db, HostId(4)), Kind.REBUILD, "a test", NOW)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(
            """INSERT INTO operations (host_id, hostname, kind, started_by, started_at)
               VALUES (4, 'x', 'rebuild', 'x', 'x')"""
        )


def test_its_end_frees_all_locks_and_wipes_its_secrets(db: Db) -> None:
    """The triggers belong to the new table."""
    operation = OperationId(17)
    assert operations.key(db, operation) == SealedKey(public_line="ssh-ed25519 AAAA", sealed=b"\x00\xff")
    assert departures.take_turn(db, operation, NOW)
    operations.close(db, operation, Outcome.FAILED, "no", NOW)
    assert operations.locks(db) == {}
    assert operations.key(db, operation) is None
    assert operations.token_hash(db, operation) is None
    assert operations.answer(db, operation) is None
    assert operations.image_of(db, operation) == 1


@pytest.mark.parametrize("kind", list(Kind))
def test_other_kinds_are_taken(db: Db, kind: Kind) -> None:
    """Each with a lock of its own; numbers go on where they were. What is no kind is refused."""
    operation = operations.open_(db, hosts.get(db, HostId(5)), kind, "a test", NOW)
    assert (operation.kind, operation.id) == (kind, 18)
    assert operations.locks(db) == {"host/4": 17, "host/5": 18}
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE operations SET kind = 'party' WHERE id = 18")


def test_a_host_can_still_be_removed(db: Db) -> None:
    """Its history stays, without it: the reference came along."""
    hosts.remove(db, HostId(5))
    assert operations.get(db, OperationId(10)).host_id is None
    assert [line.message for line in activity.latest(db, 9)] == ["on the way"]
    default = images.default(db)
    assert default is not None
    assert default.name == "proxmox-ve_9.2-1"


def test_a_power_cut_in_the_middle_leaves_schema_2(
    before: dict[str, list[tuple[object, ...]]], tmp_path: Path
) -> None:
    """A statement that fails, the last one even, undoes the whole step; the next start does it."""
    steps = migrations()
    with closing(sqlite3.connect(tmp_path / "provd.db", isolation_level=None)) as db:
        broken = [*steps[:BEFORE], steps[BEFORE] + "\nINSERT INTO nowhere VALUES (1);\n"]
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            migrate(db, broken)
        assert db.execute("PRAGMA user_version").fetchone()[0] == BEFORE
        assert dump(db) == before
        migrate(db, steps)
        assert dump(db) == before
