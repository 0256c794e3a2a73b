"""What happened, append-only. The event stream reads from here, so a slow reader needs no queue."""

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from attrs import frozen

from provd.domain.activity import LEFT, RELEASED, REMOVED, Activity, Level, News
from provd.domain.hosts import HostId, OperationId
from provd.domain.lifecycle import State
from provd.store.database import Db, moment, timestamp

KEPT = timedelta(days=90)


@frozen(kw_only=True)
class Passage:
    """A host came into a state, on the way of a rebuild that came to its end."""

    operation_id: OperationId
    server_type: str
    """What the host is now: its history tells nothing of what it was."""
    after: State
    at: datetime


def append(db: Db, news: News, at: datetime) -> Activity:
    name = db.execute("SELECT hostname FROM hosts WHERE id = ?", (news.host_id,)).fetchone()
    hostname = name["hostname"] if name is not None else ""
    cursor = db.execute(
        """INSERT INTO activity (at, event, level, message, host_id, hostname, operation_id, before, after)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            timestamp(at),
            news.event,
            news.level,
            news.message,
            news.host_id,
            hostname,
            news.operation_id,
            news.before,
            news.after,
        ),
    )
    row = db.execute("SELECT * FROM activity WHERE id = ?", (cursor.lastrowid,)).fetchone()
    return _activity(row)


def after(
    db: Db,
    last_id: int,
    limit: int,
    *,
    host_id: HostId | None = None,
    operation_id: OperationId | None = None,
    until: int | None = None,
) -> list[Activity]:
    """What came after `last_id`, and no later than `until`, oldest first."""
    where = {"id >": last_id, "id <=": until, "host_id =": host_id, "operation_id =": operation_id}
    return _select(db, where, "ORDER BY id", limit)


def bounds(db: Db) -> tuple[int, int]:
    """The oldest id kept, or the next to be given when none is, and the newest ever given (0: none)."""
    row = db.execute(
        """SELECT (SELECT min(id) FROM activity) AS oldest,
                  coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'activity'), 0) AS newest"""
    ).fetchone()
    return (row["oldest"] or row["newest"] + 1, row["newest"])


def latest(
    db: Db,
    limit: int,
    *,
    host_id: HostId | None = None,
    operation_id: OperationId | None = None,
    before: int | None = None,
) -> list[Activity]:
    """The newest `limit` lines, newest first; of one host or operation, or before a line, where given."""
    where = {"id <": before, "host_id =": host_id, "operation_id =": operation_id}
    return _select(db, where, "ORDER BY id DESC", limit)


def turning_points(db: Db, operation_id: OperationId) -> list[Activity]:
    """The lines of an operation that changed its host's state, or how its host leaves; oldest first."""
    rows = db.execute(
        """SELECT * FROM activity
            WHERE operation_id = ? AND (before IS NOT after OR event IN (?, ?, ?))
            ORDER BY id""",
        (operation_id, RELEASED, LEFT, REMOVED),
    )
    return [_activity(row) for row in rows]


def troubles(db: Db, operation_id: OperationId, limit: int) -> list[Activity]:
    """The last `limit` warnings and errors of an operation that are not its end, oldest first."""
    rows = db.execute(
        """SELECT * FROM activity
            WHERE operation_id = ? AND level <> ? AND event NOT LIKE 'operation.%'
            ORDER BY id DESC LIMIT ?""",
        (operation_id, Level.INFO, limit),
    )
    return [_activity(row) for row in rows][::-1]


def warnings(db: Db, depth: int, host_ids: Iterable[HostId]) -> dict[HostId, str]:
    """The last warning or error of each host since its state changed, among its last `depth` lines."""
    wanted = tuple(host_ids)
    marks = ", ".join("(?)" for _ in wanted)
    rows = db.execute(
        f"""WITH wanted (host_id) AS ({f"VALUES {marks}" if wanted else "SELECT NULL WHERE FALSE"})
            SELECT host_id, message FROM activity
             WHERE level <> ? AND id IN
                   (SELECT (SELECT id FROM (SELECT * FROM activity WHERE host_id = wanted.host_id
                                             ORDER BY id DESC LIMIT ?)
                             WHERE level <> ? OR before IS NOT after
                             ORDER BY id DESC LIMIT 1)
                      FROM wanted)""",
        (*wanted, Level.INFO, depth, Level.INFO),
    )
    return {HostId(row["host_id"]): row["message"] for row in rows}


def seen_last(db: Db, operation_id: OperationId) -> list[Activity]:
    """The last line that was neither its end nor its host's, if there is one."""
    rows = db.execute(
        """SELECT * FROM activity
            WHERE operation_id = ? AND event NOT LIKE 'operation.%' AND after IS NOT ?
            ORDER BY id DESC LIMIT 1""",
        (operation_id, State.FAILED),
    )
    return [_activity(row) for row in rows]


def extent(db: Db, operation_id: OperationId) -> tuple[int, int]:
    """How many lines an operation has, and the id of its first (0: none)."""
    row = db.execute(
        "SELECT count(*) AS lines, coalesce(min(id), 0) AS first FROM activity WHERE operation_id = ?",
        (operation_id,),
    ).fetchone()
    return row["lines"], row["first"]


def passages(db: Db, rebuilds: int) -> list[Passage]:
    """Of the newest `rebuilds` that are done, by operation and within one by time."""
    rows = db.execute(
        """WITH done AS (SELECT id, host_id FROM operations
                          WHERE kind = 'rebuild' AND outcome = 'done' AND host_id IS NOT NULL
                          ORDER BY id DESC LIMIT ?)
           SELECT a.operation_id, a.after, a.at, h.server_type
             FROM done JOIN activity AS a ON a.operation_id = done.id JOIN hosts AS h ON h.id = done.host_id
            WHERE a.after IS NOT NULL AND a.before IS NOT a.after
            ORDER BY a.operation_id, a.id""",
        (rebuilds,),
    )
    return [
        Passage(
            operation_id=row["operation_id"],
            server_type=row["server_type"],
            after=State(row["after"]),
            at=moment(row["at"]),
        )
        for row in rows
    ]


def milestones(db: Db, operation_id: OperationId, events: Iterable[str]) -> list[Activity]:
    """The lines of an operation that tell of one of `events`, oldest first."""
    wanted = tuple(events)
    marks = ", ".join("?" * len(wanted))
    rows = db.execute(
        f"SELECT * FROM activity WHERE operation_id = ? AND event IN ({marks}) ORDER BY id",
        (operation_id, *wanted),
    )
    return [_activity(row) for row in rows]


def prune(db: Db, at: datetime) -> None:
    """Forget what is older than `KEPT`. Ids are never given twice, so a late reader notices."""
    db.execute("DELETE FROM activity WHERE at < ?", (timestamp(at - KEPT),))


def _select(db: Db, where: Mapping[str, int | None], order: str, limit: int) -> list[Activity]:
    """Only with the conditions that are given, so that SQLite finds the index for them."""
    given = {condition: value for condition, value in where.items() if value is not None}
    conditions = " AND ".join(f"{condition} ?" for condition in given) or "TRUE"
    rows = db.execute(f"SELECT * FROM activity WHERE {conditions} {order} LIMIT ?", (*given.values(), limit))
    return [_activity(row) for row in rows]


def _activity(row: sqlite3.Row) -> Activity:
    return Activity(
        id=row["id"],
        at=moment(row["at"]),
        event=row["event"],
        level=Level(row["level"]),
        message=row["message"],
        host_id=row["host_id"],
        hostname=row["hostname"],
        operation_id=row["operation_id"],
        before=State(row["before"]) if row["before"] else None,
        after=State(row["after"]) if row["after"] else None,
    )
