"""What provd is doing to a host. One operation has a host at a time, and holds its lock."""

from datetime import datetime
from enum import StrEnum

from attrs import frozen

from provd.domain.hosts import HostId, OperationId


class Kind(StrEnum):
    REBUILD = "rebuild"


class Outcome(StrEnum):
    """How control left the operation; an active one has none yet.

    A stop of the daemon is not an outcome: the next start takes the operation up again.
    """

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@frozen(kw_only=True)
class Operation:
    id: OperationId
    host_id: HostId | None
    """None once the host was removed."""
    hostname: str
    """As it was when the operation began: the host may be gone or renamed since."""
    kind: Kind
    started_by: str
    started_at: datetime
    outcome: Outcome | None = None
    detail: str = ""
    finished_at: datetime | None = None

    @property
    def active(self) -> bool:
        return self.outcome is None
