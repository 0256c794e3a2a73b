"""What a rebuild would do, looked at before anything is wiped: yes; yes, but; or no, because.

Each check says what it looked at and what it found. What could not be seen is unknown, never fine.
"""

from datetime import datetime
from enum import StrEnum

from attrs import frozen

from provd.domain.hosts import HostId


class Result(StrEnum):
    """Of one check, from good to bad."""

    FINE = "fine"
    BUT = "but"
    """Goes, and the operator should know."""
    UNKNOWN = "unknown"
    """Could not be seen: counts as a no, which the operator may override."""
    NO = "no"


class Verdict(StrEnum):
    YES = "yes"
    YES_BUT = "yes, but"
    NO = "no"


@frozen(kw_only=True)
class Check:
    name: str
    """A stable short name, e.g. `quorum`, `guests`: for machines and for the left column."""
    result: Result
    what: str
    """One sentence: what was found."""
    evidence: str = ""
    """What that was concluded from, for who wants to see for themselves; e.g. `3 of 3 votes, quorum 2`."""
    mend: str = ""
    """How to put it right; empty where nothing is wrong."""
    overridable: bool = False
    """Whether an operator who types the hostname may go on all the same."""

    @property
    def blocks(self) -> bool:
        return self.result in (Result.NO, Result.UNKNOWN)


@frozen(kw_only=True)
class Rehearsal:
    host_id: HostId
    hostname: str
    at: datetime
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        if any(check.blocks for check in self.checks):
            return Verdict.NO
        if any(check.result is Result.BUT for check in self.checks):
            return Verdict.YES_BUT
        return Verdict.YES

    @property
    def blockers(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.blocks)

    @property
    def final_blockers(self) -> tuple[Check, ...]:
        """Those that nobody can override."""
        return tuple(check for check in self.blockers if not check.overridable)
