"""The members of the cluster as it told them last: whom to ask when the configured one is away."""

import json
from collections.abc import Collection, Iterable
from datetime import datetime

from attrs import frozen

from provd.store.database import Db, moment, timestamp


@frozen(kw_only=True)
class RememberedMember:
    name: str
    address: str
    fingerprint: str
    """SHA-256 of the certificate that its API serves: upper-case pairs with colons."""
    ssh_host_keys: tuple[str, ...] = ()
    """Lines of `.pub` files, pinned at the first contact; empty before."""
    seen_at: datetime
    """When the cluster listed it last."""


def everyone(db: Db) -> tuple[RememberedMember, ...]:
    """The ones seen last come first."""
    rows = db.execute("SELECT * FROM cluster_members ORDER BY seen_at DESC, name")
    return tuple(
        RememberedMember(
            name=row["name"],
            address=row["address"],
            fingerprint=row["fingerprint"],
            ssh_host_keys=tuple(json.loads(row["ssh_host_keys"])),
            seen_at=moment(row["seen_at"]),
        )
        for row in rows
    )


def remember(db: Db, seen: Iterable[RememberedMember]) -> None:
    """Host keys that were pinned stay; a name keeps one row, however it is spelled."""
    db.executemany(
        """INSERT INTO cluster_members (name, address, fingerprint, seen_at) VALUES (?, ?, ?, ?)
           ON CONFLICT (name) DO UPDATE
              SET name = excluded.name, address = excluded.address, fingerprint = excluded.fingerprint,
                  seen_at = excluded.seen_at""",
        [(one.name, one.address, one.fingerprint, timestamp(one.seen_at)) for one in seen],
    )


def pin_host_keys(db: Db, name: str, keys: Collection[str]) -> None:
    db.execute("UPDATE cluster_members SET ssh_host_keys = ? WHERE name = ?", (json.dumps(list(keys)), name))


def forget(db: Db, names: Iterable[str]) -> int:
    """How many there were."""
    return db.executemany("DELETE FROM cluster_members WHERE name = ?", [(name,) for name in names]).rowcount
