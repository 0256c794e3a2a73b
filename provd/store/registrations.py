"""The outbox to the inventory: what is still to be told, and when to try again."""

import sqlite3
from datetime import datetime

from attrs import frozen

from provd.domain.hosts import HostId, OperationId
from provd.store.database import Db, moment, timestamp


@frozen(kw_only=True)
class Pending:
    host_id: HostId
    hardware_id: str
    hostname: str
    ip: str
    mac: str
    server_type_id: str
    operation_id: OperationId | None
    attempts: int = 0
    next_try_at: datetime
    last_error: str = ""


def put(db: Db, pending: Pending) -> None:
    """A newer registration of the same host replaces the one that was not told yet."""
    db.execute(
        """INSERT OR REPLACE INTO registrations
                  (host_id, hardware_id, hostname, ip, mac, server_type_id, operation_id,
                   attempts, next_try_at, last_error)
           VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, '')""",
        (
            pending.host_id,
            pending.hardware_id,
            pending.hostname,
            pending.ip,
            pending.mac,
            pending.server_type_id,
            pending.operation_id,
            timestamp(pending.next_try_at),
        ),
    )


def everything(db: Db) -> list[Pending]:
    """Whoever is due first, first."""
    return [_pending(row) for row in db.execute("SELECT * FROM registrations ORDER BY next_try_at")]


def of_host(db: Db, host_id: HostId) -> Pending | None:
    row = db.execute("SELECT * FROM registrations WHERE host_id = ?", (host_id,)).fetchone()
    return _pending(row) if row is not None else None


def told(db: Db, host_id: HostId) -> None:
    db.execute("DELETE FROM registrations WHERE host_id = ?", (host_id,))


def try_anew(db: Db, at: datetime) -> None:
    """Make all of them due, as if none had been tried."""
    db.execute("UPDATE registrations SET attempts = 0, next_try_at = ?", (timestamp(at),))


def failed(db: Db, host_id: HostId, error: str, next_try_at: datetime) -> None:
    db.execute(
        """UPDATE registrations SET attempts = attempts + 1, last_error = ?, next_try_at = ?
            WHERE host_id = ?""",
        (error, timestamp(next_try_at), host_id),
    )


def _pending(row: sqlite3.Row) -> Pending:
    return Pending(
        host_id=HostId(row["host_id"]),
        hardware_id=row["hardware_id"],
        hostname=row["hostname"],
        ip=row["ip"],
        mac=row["mac"],
        server_type_id=row["server_type_id"],
        operation_id=row["operation_id"],
        attempts=row["attempts"],
        next_try_at=moment(row["next_try_at"]),
        last_error=row["last_error"],
    )
