"""Hosts whose join failed, and whose installed system can be tried with again: the key that still opens them.

Such a key outlives its operation. It ends with the next operation of the host, with the host itself, and
at `expires_at` in any case, when the host does not honour it any more either.
"""

from datetime import datetime

from attrs import frozen

from provd.domain.hosts import HostId, OperationId
from provd.store.database import Db, moment, timestamp
from provd.store.operations import SealedKey


@frozen(kw_only=True)
class Retry:
    operation_id: OperationId
    """Whose key it is; the seal is bound to its name."""
    key: SealedKey
    expires_at: datetime


def put(db: Db, host_id: HostId, retry: Retry) -> None:
    db.execute(
        """INSERT INTO retries (host_id, operation_id, public_key, sealed_key, expires_at)
           VALUES (?, ?, ?, ?, ?)
           ON CONFLICT (host_id) DO UPDATE
              SET operation_id = excluded.operation_id, public_key = excluded.public_key,
                  sealed_key = excluded.sealed_key, expires_at = excluded.expires_at""",
        (host_id, retry.operation_id, retry.key.public_line, retry.key.sealed, timestamp(retry.expires_at)),
    )


def of(db: Db, host_id: HostId, at: datetime) -> Retry | None:
    """None when there is none, or none any more."""
    row = db.execute(
        "SELECT * FROM retries WHERE host_id = ? AND expires_at > ?", (host_id, timestamp(at))
    ).fetchone()
    if row is None:
        return None
    return Retry(
        operation_id=OperationId(row["operation_id"]),
        key=SealedKey(public_line=row["public_key"], sealed=row["sealed_key"]),
        expires_at=moment(row["expires_at"]),
    )


def forget(db: Db, host_id: HostId) -> None:
    db.execute("DELETE FROM retries WHERE host_id = ?", (host_id,))


def forget_expired(db: Db, at: datetime) -> None:
    db.execute("DELETE FROM retries WHERE expires_at <= ?", (timestamp(at),))
