"""The operations, and what exists only while one does: its key, its machine token, its answer.

The schema's triggers take the host's lock when an operation is inserted and, when its outcome is
written, release the lock and wipe the secrets. No function here can forget to.
"""

import sqlite3
from datetime import datetime

from attrs import frozen

from provd.domain.errors import Conflict, NotFound
from provd.domain.hosts import Host, HostId, Mac, OperationId
from provd.domain.operations import Kind, Operation, Outcome
from provd.store.database import Db, moment, optional_moment, timestamp

_COLUMNS = "id, host_id, hostname, kind, started_by, started_at, outcome, detail, finished_at"
_OPERATION = f"SELECT {_COLUMNS} FROM operations"


@frozen(kw_only=True)
class SealedKey:
    """The ephemeral SSH key as the database knows it: the private half can be read by nobody here."""

    public_line: str
    sealed: bytes


@frozen(kw_only=True)
class ServedAnswer:
    """What was answered, when, to whom and how often: the same machine may ask for it again at once."""

    sealed: bytes
    at: datetime
    to: str
    times: int


def open_(db: Db, host: Host, kind: Kind, started_by: str, at: datetime) -> Operation:
    """Begin an operation and take its host's lock, or raise `Conflict` naming who has it."""
    if (who := busy(db, host)) is not None:
        raise Conflict(who)
    cursor = db.execute(
        "INSERT INTO operations (host_id, hostname, kind, started_by, started_at) VALUES (?, ?, ?, ?, ?)",
        (host.id, host.hostname, kind, started_by, timestamp(at)),
    )
    return get(db, OperationId(cursor.lastrowid or 0))


def busy(db: Db, host: Host) -> str | None:
    """Who has the host, as a sentence; None: nobody."""
    holder = active_on(db, host.id)
    if holder is None:
        return None
    return (
        f"{host.hostname} is busy: {holder.kind} {holder.id} has been running since "
        f"{holder.started_at:%Y-%m-%d %H:%M:%S} UTC; wait for it or cancel it first"
    )


def close(db: Db, operation_id: OperationId, outcome: Outcome, detail: str, at: datetime) -> None:
    """Write the outcome. The lock is free and the secrets are gone in the same instant."""
    db.execute(
        "UPDATE operations SET outcome = ?, detail = ?, finished_at = ? WHERE id = ? AND outcome IS NULL",
        (outcome, detail, timestamp(at), operation_id),
    )


def get(db: Db, operation_id: OperationId) -> Operation:
    row = db.execute(f"{_OPERATION} WHERE id = ?", (operation_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no operation {operation_id}")
    return _operation(row)


def active_on(db: Db, host_id: HostId) -> Operation | None:
    row = db.execute(f"{_OPERATION} WHERE host_id = ? AND outcome IS NULL", (host_id,)).fetchone()
    return _operation(row) if row is not None else None


def active(db: Db) -> list[Operation]:
    return [_operation(row) for row in db.execute(f"{_OPERATION} WHERE outcome IS NULL ORDER BY id")]


def latest(db: Db, limit: int, *, host_id: HostId | None = None) -> list[Operation]:
    """Newest first, of one host when one is given."""
    rows = db.execute(
        f"{_OPERATION} WHERE (:host IS NULL OR host_id = :host) ORDER BY id DESC LIMIT :limit",
        {"host": host_id, "limit": limit},
    )
    return [_operation(row) for row in rows]


def builds(db: Db, each: int) -> dict[HostId, list[Operation]]:
    """The newest `each` of every host that has any, the newest last."""
    # Not by a window function: that reads every operation there ever was, this only what it returns.
    rows = db.execute(
        f"""SELECT {_COLUMNS} FROM operations WHERE id IN
                   (SELECT one.id FROM hosts JOIN operations AS one ON one.id IN
                           (SELECT id FROM operations WHERE host_id = hosts.id ORDER BY id DESC LIMIT ?))
             ORDER BY id""",
        (each,),
    )
    found: dict[HostId, list[Operation]] = {}
    for row in rows:
        found.setdefault(HostId(row["host_id"]), []).append(_operation(row))
    return found


def done_among(db: Db, newest: int) -> tuple[int, int]:
    """The newest operation's id, and how many of the `newest` are done. Reads no more than those."""
    row = db.execute(
        """SELECT coalesce(max(id), 0) AS latest, count(CASE outcome WHEN 'done' THEN 1 END) AS done
             FROM (SELECT id, outcome FROM operations ORDER BY id DESC LIMIT ?)""",
        (newest,),
    ).fetchone()
    return row["latest"], row["done"]


def locks(db: Db) -> dict[str, OperationId]:
    return {row["name"]: OperationId(row["operation_id"]) for row in db.execute("SELECT * FROM locks")}


def keep_key(db: Db, operation_id: OperationId, key: SealedKey) -> None:
    db.execute(
        "UPDATE operations SET public_key = ?, sealed_key = ? WHERE id = ? AND outcome IS NULL",
        (key.public_line, key.sealed, operation_id),
    )


def key(db: Db, operation_id: OperationId) -> SealedKey | None:
    row = db.execute("SELECT public_key, sealed_key FROM operations WHERE id = ?", (operation_id,)).fetchone()
    if row is None or row["sealed_key"] is None:
        return None
    return SealedKey(public_line=row["public_key"], sealed=row["sealed_key"])


def keep_answer(
    db: Db,
    operation_id: OperationId,
    *,
    sealed: bytes,
    token_hash: bytes,
    to: str,
    management_mac: Mac,
    at: datetime,
) -> None:
    db.execute(
        """UPDATE operations
              SET sealed_answer = ?, token_hash = ?, answered_to = ?, management_mac = ?, answered_at = ?,
                  answers_served = 1
            WHERE id = ? AND outcome IS NULL""",
        (sealed, token_hash, to, str(management_mac), timestamp(at), operation_id),
    )


def management_mac(db: Db, operation_id: OperationId) -> Mac | None:
    """The NIC that the answer asked the installer to manage the host by."""
    row = db.execute("SELECT management_mac FROM operations WHERE id = ?", (operation_id,)).fetchone()
    return Mac(row["management_mac"]) if row is not None and row["management_mac"] else None


def answer(db: Db, operation_id: OperationId) -> ServedAnswer | None:
    row = db.execute(
        """SELECT sealed_answer, answered_at, answered_to, answers_served FROM operations
            WHERE id = ? AND sealed_answer IS NOT NULL""",
        (operation_id,),
    ).fetchone()
    if row is None:
        return None
    return ServedAnswer(
        sealed=row["sealed_answer"],
        at=moment(row["answered_at"]),
        to=row["answered_to"],
        times=row["answers_served"],
    )


def count_answer(db: Db, operation_id: OperationId) -> None:
    db.execute("UPDATE operations SET answers_served = answers_served + 1 WHERE id = ?", (operation_id,))


def token_hash(db: Db, operation_id: OperationId) -> bytes | None:
    """The hash of the machine token; None when there is none yet, or no more."""
    row = db.execute("SELECT token_hash FROM operations WHERE id = ?", (operation_id,)).fetchone()
    return row["token_hash"] if row is not None else None


def _operation(row: sqlite3.Row) -> Operation:
    return Operation(
        id=OperationId(row["id"]),
        host_id=row["host_id"],
        hostname=row["hostname"],
        kind=Kind(row["kind"]),
        started_by=row["started_by"],
        started_at=moment(row["started_at"]),
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        detail=row["detail"],
        finished_at=optional_moment(row["finished_at"]),
    )


def set_image(db: Db, operation_id: OperationId, image_id: int) -> None:
    """What this operation installs, whatever becomes the default meanwhile."""
    db.execute("UPDATE operations SET image_id = ? WHERE id = ?", (image_id, operation_id))


def image_of(db: Db, operation_id: OperationId) -> int | None:
    row = db.execute("SELECT image_id FROM operations WHERE id = ?", (operation_id,)).fetchone()
    return row["image_id"] if row is not None else None
