"""Who may sign in: API tokens, one-time sign-in links and browser sessions.

Only hashes are here. What a secret looks like, how it is hashed and how long it is good for is
`provd/web/access.py`'s business.
"""

import sqlite3
from datetime import datetime

from attrs import frozen

from provd.domain.errors import Conflict, NotFound
from provd.store.database import Db, moment, optional_moment, timestamp

_WITHOUT_HASH = "SELECT id, name, created_at, last_used_at, revoked_at FROM tokens"


@frozen(kw_only=True)
class Token:
    """An API token without the token."""

    id: int
    name: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


@frozen(kw_only=True)
class Session:
    created_at: datetime
    last_seen_at: datetime


# --- tokens ---


def add_token(db: Db, name: str, hash: bytes, at: datetime) -> None:
    """Raises `Conflict` when a living token has the name. The name of a revoked one is free again."""
    taken = db.execute("SELECT 1 FROM tokens WHERE name = ? AND revoked_at IS NULL", (name,)).fetchone()
    if taken is not None:
        raise Conflict(f"there is a token {name!r} already: revoke it first, or take another name")
    db.execute("DELETE FROM tokens WHERE name = ?", (name,))
    db.execute("INSERT INTO tokens (name, hash, created_at) VALUES (?, ?, ?)", (name, hash, timestamp(at)))


def replace_token(db: Db, name: str, hash: bytes, at: datetime) -> None:
    """As `add_token`, but whoever has the name now loses it."""
    db.execute("DELETE FROM tokens WHERE name = ?", (name,))
    add_token(db, name, hash, at)


def tokens(db: Db) -> list[Token]:
    """In the order they were made, revoked ones included."""
    return [_token(row) for row in db.execute(f"{_WITHOUT_HASH} ORDER BY id")]


def token_of(db: Db, hash: bytes) -> Token | None:
    """Revoked ones included: the caller looks."""
    row = db.execute(f"{_WITHOUT_HASH} WHERE hash = ?", (hash,)).fetchone()
    return _token(row) if row is not None else None


def revoke_token(db: Db, name: str, at: datetime) -> None:
    """Raises `NotFound` when no living token has the name."""
    changed = db.execute(
        "UPDATE tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL", (timestamp(at), name)
    )
    if changed.rowcount == 0:
        raise NotFound(f"there is no token {name!r} that could be revoked")


def touch_token(db: Db, token_id: int, at: datetime) -> None:
    db.execute("UPDATE tokens SET last_used_at = ? WHERE id = ?", (timestamp(at), token_id))


# --- sign-in links ---


def add_link(db: Db, hash: bytes, at: datetime, expires_at: datetime) -> None:
    """Links that can no longer be used are forgotten on the way."""
    db.execute("DELETE FROM sign_in_links WHERE used_at IS NOT NULL OR expires_at <= ?", (timestamp(at),))
    db.execute(
        "INSERT INTO sign_in_links (hash, created_at, expires_at) VALUES (?, ?, ?)",
        (hash, timestamp(at), timestamp(expires_at)),
    )


def use_link(db: Db, hash: bytes, at: datetime) -> bool:
    """Use a link up. False when there is none, or it was used before, or its time is over."""
    changed = db.execute(
        "UPDATE sign_in_links SET used_at = :at WHERE hash = :hash AND used_at IS NULL AND expires_at > :at",
        {"hash": hash, "at": timestamp(at)},
    )
    return changed.rowcount == 1


# --- sessions ---


def add_session(db: Db, hash: bytes, at: datetime) -> None:
    db.execute(
        "INSERT INTO sessions (hash, created_at, last_seen_at) VALUES (:hash, :at, :at)",
        {"hash": hash, "at": timestamp(at)},
    )


def session(db: Db, hash: bytes) -> Session | None:
    row = db.execute("SELECT created_at, last_seen_at FROM sessions WHERE hash = ?", (hash,)).fetchone()
    if row is None:
        return None
    return Session(created_at=moment(row["created_at"]), last_seen_at=moment(row["last_seen_at"]))


def touch_session(db: Db, hash: bytes, at: datetime) -> None:
    db.execute("UPDATE sessions SET last_seen_at = ? WHERE hash = ?", (timestamp(at), hash))


def end_session(db: Db, hash: bytes) -> None:
    db.execute("DELETE FROM sessions WHERE hash = ?", (hash,))


def forget_sessions(db: Db, *, created_before: datetime, seen_before: datetime) -> None:
    db.execute(
        "DELETE FROM sessions WHERE created_at < ? OR last_seen_at < ?",
        (timestamp(created_before), timestamp(seen_before)),
    )


def _token(row: sqlite3.Row) -> Token:
    return Token(
        id=row["id"],
        name=row["name"],
        created_at=moment(row["created_at"]),
        last_used_at=optional_moment(row["last_used_at"]),
        revoked_at=optional_moment(row["revoked_at"]),
    )
