"""The database file: migrations, transactions, and what it refuses."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from provd.domain.errors import StoreError
from provd.store.database import migrate, migrations, open_store, schema_version, statements, transaction

SIGHTING = """INSERT INTO sightings (mac, address, via, first_seen, last_seen, times)
              VALUES (?, '', '', 't', 't', 1)"""


def test_a_new_file_gets_the_whole_schema_and_is_private(tmp_path: Path) -> None:
    """Opening makes the file, for its owner alone, with every migration applied and WAL on."""
    path = tmp_path / "deep" / "provd.db"
    with open_store(path) as store:
        assert store.read(schema_version) == len(migrations())
        assert store.read(lambda db: db.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
        assert store.read(lambda db: db.execute("PRAGMA foreign_key_check").fetchall()) == []
    assert path.stat().st_mode & 0o077 == 0


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    """Migrations are applied once."""
    for _ in range(2):
        with open_store(tmp_path / "provd.db") as store:
            tables = store.read(lambda db: db.execute("SELECT sql FROM sqlite_schema").fetchall())
    assert len(tables) > 10


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """A file written by a newer program is left alone, with a sentence that says so."""
    with open_store(tmp_path / "provd.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "provd.db")) as db:
        db.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    with pytest.raises(StoreError, match="newer provd"), open_store(tmp_path / "provd.db"):
        pass


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file of something else is named, and not overwritten."""
    path = tmp_path / "provd.db"
    path.write_text("This is a shopping list, not a database, and it is long enough to be looked at.")
    with pytest.raises(StoreError, match="cannot be used"), open_store(path):
        pass
    assert path.read_text().startswith("This is a shopping list")


def test_a_migration_that_fails_half_way_leaves_neither_table_nor_number(tmp_path: Path) -> None:
    """A step and its number are one transaction."""
    steps = ["CREATE TABLE first (a);\n", "CREATE TABLE second (a);\nCREATE TABLE first (a);\n"]
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as db:
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            migrate(db, steps)
        assert schema_version(db) == 1
        assert [name for (name,) in db.execute("SELECT name FROM sqlite_schema")] == ["first"]


def test_statements_end_where_sqlite_says_so() -> None:
    """A semicolon inside a trigger does not end the statement."""
    script = (
        "CREATE TABLE t (a);\nCREATE TRIGGER x AFTER INSERT ON t\nBEGIN\n  SELECT 1;\n  SELECT 2;\nEND;\n"
    )
    assert len(list(statements(script))) == 2
    with pytest.raises(StoreError, match="middle of a statement"):
        list(statements("CREATE TABLE t ("))


async def test_an_exception_undoes_the_whole_transaction(tmp_path: Path) -> None:
    """What `work` wrote before it raised is not there afterwards."""

    def half(db: sqlite3.Connection) -> None:
        db.execute(SIGHTING, ("u",))
        raise LookupError

    with open_store(tmp_path / "provd.db") as store:
        with pytest.raises(LookupError):
            await store.write(half)
        assert store.read(lambda db: db.execute("SELECT count(*) FROM sightings").fetchone()[0]) == 0


async def test_a_cancelled_write_is_whole(tmp_path: Path) -> None:
    """A cancellation in the middle of a transaction neither stops nor hides it."""
    started = trio.Event()

    def insert(db: sqlite3.Connection) -> None:
        trio.from_thread.run_sync(started.set)
        db.execute(SIGHTING, ("u",))

    with open_store(tmp_path / "provd.db") as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, insert)
            await started.wait()
            nursery.cancel_scope.cancel()
        assert store.read(lambda db: db.execute("SELECT count(*) FROM sightings").fetchone()[0]) == 1


def test_a_read_only_transaction_ends(tmp_path: Path) -> None:
    """The writer is free again after any exception, KeyboardInterrupt included."""
    with (
        open_store(tmp_path / "provd.db"),
        closing(sqlite3.connect(tmp_path / "provd.db", isolation_level=None)) as db,
    ):
        with pytest.raises(KeyboardInterrupt), transaction(db):
            raise KeyboardInterrupt
        with transaction(db):
            pass


async def test_a_full_disk_is_said_and_undone(tmp_path: Path) -> None:
    """What SQLite cannot write is a `StoreError`; the file is whole, and works again when there is room."""
    with open_store(tmp_path / "provd.db") as store:
        await store.write(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())
        with pytest.raises(StoreError, match="nothing has changed"):
            await store.write(
                lambda db: db.executemany(
                    SIGHTING,
                    [("u" * 4000 + str(n),) for n in range(99)],
                )
            )
        assert store.read(lambda db: db.execute("SELECT count(*) FROM sightings").fetchone()[0]) == 0
        assert store.read(lambda db: db.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"
