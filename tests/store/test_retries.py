"""The key of a failed join: it opens the host for another try, for a while, and is forgotten for sure."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from provd.domain.hosts import Host, HostOptions, Mac, OperationId
from provd.store import hosts, retries
from provd.store.database import Db, open_store
from provd.store.operations import SealedKey
from provd.store.retries import Retry

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
TICK = timedelta(milliseconds=1)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    with open_store(tmp_path / "provd.db") as store:
        yield store.read(lambda db: db)


def register(db: Db, number: int = 1) -> Host:
    mac = Mac(f"02:00:00:00:00:{number:02x}")
    return hosts.register(db, f"nuc{number}", mac, "nuc", HostOptions(), NOW)


def retry(number: int = 17, expires_at: datetime = NOW + timedelta(days=1)) -> Retry:
    key = SealedKey(public_line=f"ssh-ed25519 AAAA {number}", sealed=bytes([number, 0, 255]))
    return Retry(operation_id=OperationId(number), key=key, expires_at=expires_at)


def test_a_retry_comes_back_as_it_was_written(db: Db) -> None:
    """Whole, for its host alone; the operation whose key it was may be long gone."""
    host, other = register(db, 1), register(db, 2)
    retries.put(db, host.id, retry())
    assert retries.of(db, host.id, NOW) == retry()
    assert retries.of(db, other.id, NOW) is None


def test_a_host_has_one(db: Db) -> None:
    """The key of the latest failure is the one that is on the host."""
    host = register(db)
    retries.put(db, host.id, retry(17))
    later = retry(18, NOW + timedelta(days=2))
    retries.put(db, host.id, later)
    assert retries.of(db, host.id, NOW) == later


def test_it_expires(db: Db) -> None:
    """To the millisecond: at `expires_at` it is none any more, though nobody has forgotten it yet."""
    host = register(db)
    retries.put(db, host.id, retry(expires_at=NOW))
    assert retries.of(db, host.id, NOW - TICK) is not None
    assert retries.of(db, host.id, NOW) is None


def test_what_has_expired_is_forgotten_and_no_more(db: Db) -> None:
    """The sealed key leaves the file; one that still counts stays."""
    old, young = register(db, 1), register(db, 2)
    retries.put(db, old.id, retry(17, NOW))
    retries.put(db, young.id, retry(18, NOW + TICK))
    retries.forget_expired(db, NOW)
    assert [row["host_id"] for row in db.execute("SELECT host_id FROM retries")] == [young.id]


def test_it_is_forgotten_with_a_word_or_with_its_host(db: Db) -> None:
    """And to forget one that is not there is harmless."""
    one, other = register(db, 1), register(db, 2)
    for host in (one, other):
        retries.put(db, host.id, retry())
    retries.forget(db, one.id)
    retries.forget(db, one.id)
    assert retries.of(db, one.id, NOW) is None
    assert retries.of(db, other.id, NOW) is not None
    hosts.remove(db, other.id)
    assert db.execute("SELECT count(*) FROM retries").fetchone()[0] == 0
