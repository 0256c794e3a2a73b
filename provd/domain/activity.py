"""One line of history: what the database keeps, the event stream carries and the journal prints."""

from datetime import datetime
from enum import StrEnum

from attrs import frozen

from provd.domain.hosts import HostId, OperationId
from provd.domain.lifecycle import State

RELEASED = "cluster.released"
LEFT = "cluster.left"
REMOVED = "host.removed"
"""Events by which the way of a member out of its cluster, and of a host out of provd, is told."""


class Level(StrEnum):
    INFO = "info"
    WARNING = "warning"
    """A human should look, but nothing has ended."""
    ERROR = "error"
    """Something has ended badly."""


@frozen(kw_only=True)
class Activity:
    """`id` grows without gaps being reused, and is the SSE event id: "everything after 17" is one query."""

    id: int
    at: datetime
    event: str
    """A stable dotted name, e.g. `host.answer_sent` or `operation.done`: for machines."""
    message: str
    """One sentence: for humans. May quote what a machine sent; it is text, never markup."""
    level: Level = Level.INFO
    host_id: HostId | None = None
    hostname: str = ""
    operation_id: OperationId | None = None
    before: State | None = None
    after: State | None = None


@frozen(kw_only=True)
class News:
    """An activity that has not been written down yet."""

    event: str
    message: str
    level: Level = Level.INFO
    host_id: HostId | None = None
    operation_id: OperationId | None = None
    before: State | None = None
    after: State | None = None
