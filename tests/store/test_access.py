"""Tokens, links and sessions in a real database file."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from provd.domain.errors import Conflict, NotFound
from provd.store import access
from provd.store.database import Store, open_store

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "provd.db") as store:
        yield store


async def test_token_is_found_by_its_hash_alone(store: Store) -> None:
    """A token's row comes back for its hash, and for no other."""
    await store.write(lambda db: access.add_token(db, "laptop", b"1" * 32, NOON))
    token = store.read(lambda db: access.token_of(db, b"1" * 32))
    assert token is not None
    assert (token.name, token.created_at, token.last_used_at, token.revoked_at) == (
        "laptop",
        NOON,
        None,
        None,
    )
    assert store.read(lambda db: access.token_of(db, b"2" * 32)) is None


async def test_name_of_a_living_token_is_taken(store: Store) -> None:
    """Two living tokens never share a name; a revoked one gives its name back, and keeps nothing else."""
    await store.write(lambda db: access.add_token(db, "laptop", b"1" * 32, NOON))
    with pytest.raises(Conflict, match="'laptop'"):
        await store.write(lambda db: access.add_token(db, "laptop", b"2" * 32, NOON))
    await store.write(lambda db: access.revoke_token(db, "laptop", NOON))
    await store.write(lambda db: access.add_token(db, "laptop", b"3" * 32, NOON))
    assert [token.revoked_at for token in store.read(access.tokens)] == [None]
    assert store.read(lambda db: access.token_of(db, b"1" * 32)) is None


async def test_replacing_takes_the_name_over(store: Store) -> None:
    """`replace_token` leaves one token of that name: the new one."""
    await store.write(lambda db: access.add_token(db, "environment", b"1" * 32, NOON))
    await store.write(lambda db: access.replace_token(db, "environment", b"2" * 32, NOON))
    assert store.read(lambda db: access.token_of(db, b"1" * 32)) is None
    assert store.read(lambda db: access.token_of(db, b"2" * 32)) is not None


async def test_revoking_is_once(store: Store) -> None:
    """A revoked token stays listed; revoking it again, or one that never was, is `NotFound`."""
    await store.write(lambda db: access.add_token(db, "laptop", b"1" * 32, NOON))
    await store.write(lambda db: access.revoke_token(db, "laptop", NOON + SECOND))
    assert [token.revoked_at for token in store.read(access.tokens)] == [NOON + SECOND]
    for name in ("laptop", "stranger"):
        with pytest.raises(NotFound, match=name):
            await store.write(partial(access.revoke_token, name=name, at=NOON))


async def test_touching_notes_the_time(store: Store) -> None:
    """`last_used_at` is what was said last."""
    await store.write(lambda db: access.add_token(db, "laptop", b"1" * 32, NOON))
    [token] = store.read(access.tokens)
    await store.write(lambda db: access.touch_token(db, token.id, NOON + SECOND))
    assert [token.last_used_at for token in store.read(access.tokens)] == [NOON + SECOND]


async def test_link_works_once(store: Store) -> None:
    """The second use of a link is refused, and so is an unknown one."""
    await store.write(lambda db: access.add_link(db, b"1" * 32, NOON, NOON + 2 * SECOND))
    assert not await store.write(lambda db: access.use_link(db, b"2" * 32, NOON))
    assert await store.write(lambda db: access.use_link(db, b"1" * 32, NOON + SECOND))
    assert not await store.write(lambda db: access.use_link(db, b"1" * 32, NOON + SECOND))


async def test_link_is_worth_nothing_from_its_last_moment_on(store: Store) -> None:
    """A link expires at `expires_at`, not after it."""
    await store.write(lambda db: access.add_link(db, b"1" * 32, NOON, NOON + SECOND))
    assert not await store.write(lambda db: access.use_link(db, b"1" * 32, NOON + SECOND))


async def test_dead_links_are_forgotten(store: Store) -> None:
    """A new link clears away those that were used or are too old, and none that still works."""
    for number, expires in ((b"1", SECOND), (b"2", 9 * SECOND), (b"3", 9 * SECOND)):
        await store.write(partial(access.add_link, hash=number * 32, at=NOON, expires_at=NOON + expires))
    await store.write(lambda db: access.use_link(db, b"2" * 32, NOON))
    later = NOON + 2 * SECOND
    await store.write(lambda db: access.add_link(db, b"4" * 32, later, later + SECOND))
    kept = store.read(lambda db: [row["hash"][:1] for row in db.execute("SELECT hash FROM sign_in_links")])
    assert sorted(kept) == [b"3", b"4"]


async def test_session_lives_from_opening_to_end(store: Store) -> None:
    """A session is there between `add_session` and `end_session`, and knows when it was seen."""
    await store.write(lambda db: access.add_session(db, b"1" * 32, NOON))
    await store.write(lambda db: access.touch_session(db, b"1" * 32, NOON + SECOND))
    assert store.read(lambda db: access.session(db, b"1" * 32)) == access.Session(
        created_at=NOON, last_seen_at=NOON + SECOND
    )
    await store.write(lambda db: access.end_session(db, b"1" * 32))
    assert store.read(lambda db: access.session(db, b"1" * 32)) is None


async def test_old_and_idle_sessions_are_forgotten(store: Store) -> None:
    """Either age is enough."""
    for number, at in ((b"1", NOON), (b"2", NOON + 5 * SECOND), (b"3", NOON + 5 * SECOND)):
        await store.write(partial(access.add_session, hash=number * 32, at=at))
    for number in (b"1", b"3"):
        await store.write(partial(access.touch_session, hash=number * 32, at=NOON + 9 * SECOND))
    await store.write(
        lambda db: access.forget_sessions(db, created_before=NOON + SECOND, seen_before=NOON + 6 * SECOND)
    )
    alive = [n for n in (b"1", b"2", b"3") if store.read(partial(access.session, hash=n * 32))]
    assert alive == [b"3"]
