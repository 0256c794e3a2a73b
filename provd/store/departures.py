"""Members on their way out of the cluster, and whose turn it is to change the cluster's members.

The turn is a row of `locks`, which the schema's trigger frees at the end of the operation, however it
ends: a restart of the daemon does not lose it, and nobody can keep it.
"""

import sqlite3
from datetime import datetime

from attrs import frozen

from provd.domain.hosts import OperationId
from provd.domain.operations import Departure, Stage
from provd.store.database import Db, moment, timestamp

CLUSTER = "cluster"


def put(db: Db, operation_id: OperationId, departure: Departure) -> None:
    db.execute(
        """INSERT INTO departures (operation_id, node, nodeid, votes, drain, keep_entry, stage)
           VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (
            operation_id,
            departure.node,
            departure.nodeid,
            departure.votes,
            departure.drain,
            departure.keep_entry,
            departure.stage,
        ),
    )


def of(db: Db, operation_id: OperationId) -> Departure | None:
    row = db.execute("SELECT * FROM departures WHERE operation_id = ?", (operation_id,)).fetchone()
    return _departure(row) if row is not None else None


def set_stage(db: Db, operation_id: OperationId, stage: Stage) -> None:
    db.execute("UPDATE departures SET stage = ? WHERE operation_id = ?", (stage, operation_id))


def released(db: Db) -> frozenset[str]:
    """Members that an operation may take away at any moment, and has not struck out yet."""
    return released_beside(db, OperationId(0))


def released_beside(db: Db, operation_id: OperationId) -> frozenset[str]:
    """Members that other operations may take away at any moment, and have not struck out yet."""
    rows = db.execute(
        """SELECT node FROM departures JOIN operations ON id = operation_id
            WHERE outcome IS NULL AND stage = ? AND operation_id <> ?""",
        (Stage.RELEASED, operation_id),
    )
    return frozenset(row["node"] for row in rows)


@frozen(kw_only=True)
class Turn:
    """Who may change the cluster's members now."""

    operation_id: OperationId
    hostname: str
    since: datetime


def turn(db: Db) -> Turn | None:
    row = db.execute(
        """SELECT operation_id, hostname, taken_at
             FROM locks JOIN operations ON id = operation_id
            WHERE name = ?""",
        (CLUSTER,),
    ).fetchone()
    if row is None:
        return None
    return Turn(
        operation_id=OperationId(row["operation_id"]),
        hostname=row["hostname"],
        since=moment(row["taken_at"]),
    )


def take_turn(db: Db, operation_id: OperationId, at: datetime) -> bool:
    """True: it is this operation's turn, from now on or already."""
    db.execute(
        "INSERT INTO locks (name, operation_id, taken_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
        (CLUSTER, operation_id, timestamp(at)),
    )
    holder = turn(db)
    return holder is not None and holder.operation_id == operation_id


def end_turn(db: Db, operation_id: OperationId) -> None:
    db.execute("DELETE FROM locks WHERE name = ? AND operation_id = ?", (CLUSTER, operation_id))


def _departure(row: sqlite3.Row) -> Departure:
    return Departure(
        node=row["node"],
        nodeid=row["nodeid"],
        votes=row["votes"],
        drain=bool(row["drain"]),
        keep_entry=bool(row["keep_entry"]),
        stage=Stage(row["stage"]),
    )
