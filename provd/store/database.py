"""The database file: how it is opened, migrated, read and written. The tables' own files know SQL.

One connection writes, in a worker thread, one transaction at a time: an fsync takes a tenth of a
millisecond on an NVMe and a second on a tired SD card, and the event loop must wait for neither.
Another connection reads, on the loop itself: a point query takes microseconds, a tenth of what it
costs to reach a thread.

`synchronous=FULL` because what is acknowledged must survive the power cut: "the answer is out, never
offer the installer again" is such a row.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import trio

from provd.domain.errors import StoreError

T = TypeVar("T")
Db = sqlite3.Connection

BUSY_MILLISECONDS = 5_000
"""How long to wait for another process (`provd token create`) that is writing just now."""


class Store:
    """Hand it functions that take a connection; one call is one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = _connect(path)
        self._reader = _connect(path)
        self._turn = trio.CapacityLimiter(1)

    async def write(self, work: Callable[[Db], T]) -> T:
        """Run `work` in one transaction and return when it is on disk.

        An exception from `work` undoes all of it and comes out here; a full disk or a database that
        stays locked is a `StoreError`. A cancellation that arrives
        while the transaction runs does not stop it: the caller learns the result and meets the
        cancellation at its next checkpoint.
        """
        return await trio.to_thread.run_sync(self._transaction, work, limiter=self._turn)

    async def fold_log(self) -> None:
        """Empty the write-ahead log into the file: what was wiped is then gone from both.

        Another process that reads just now may put it off until the next time.
        """

        def fold() -> None:
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        await trio.to_thread.run_sync(fold, limiter=self._turn)

    def read(self, query: Callable[[Db], T]) -> T:
        """Run a short query, here and now, on what was committed last."""
        return query(self._reader)

    def _transaction(self, work: Callable[[Db], T]) -> T:
        try:
            with transaction(self._writer):
                return work(self._writer)
        except sqlite3.OperationalError as exc:
            raise StoreError(f"{self.path} could not be written, nothing has changed: {exc}") from exc

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open the database at `path`, making or migrating it first. Raises `StoreError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with closing(_connect(path)) as db:
            migrate(db, migrations())
        store = Store(path)
    except (sqlite3.Error, OSError) as exc:
        raise StoreError(f"the database {path} cannot be used: {exc}") from exc
    with closing(store):
        yield store


@contextmanager
def transaction(db: Db) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def migrate(db: Db, steps: Sequence[str]) -> None:
    """Bring the schema up to this program's, each step and its number in one transaction.

    `executescript` would commit whatever is open and break exactly that, so each statement is
    executed on its own.
    """
    version = schema_version(db)
    if version > len(steps):
        raise StoreError(
            f"the database has schema {version}, this program knows {len(steps)}: "
            "it was written by a newer provd; install that one again or restore an older backup"
        )
    for number, script in enumerate(steps[version:], start=version + 1):
        with transaction(db):
            for statement in statements(script):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")


def schema_version(db: Db) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrations() -> list[str]:
    """The scripts `NNNN_what.sql`, in order. Forward only, and never edited once released."""
    folder = files("provd.store") / "migrations"
    scripts = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [script.read_text(encoding="utf-8") for script in scripts]


def statements(script: str) -> Iterator[str]:
    """Split SQL text at the line ends that end a statement: those inside a trigger do not."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise StoreError(f"a migration ends in the middle of a statement: {statement.strip()[:60]!r}")


def timestamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def optional_moment(text: str | None) -> datetime | None:
    return None if text is None else moment(text)


def now() -> datetime:
    """UTC, as fine as the database keeps it."""
    return moment(timestamp(datetime.now(UTC)))


def _connect(path: Path) -> Db:
    # Explicit BEGIN and COMMIT: the one mode that means the same from Python 3.11 to 3.14.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        db.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA trusted_schema = OFF")
        # A wiped key must not live on in a free page.
        db.execute("PRAGMA secure_delete = ON")
    except BaseException:
        db.close()
        raise
    return db
