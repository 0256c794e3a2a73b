"""What a check has found, and how the checks are run: each in its own time, none in another's way."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import StrEnum

import trio
from attrs import frozen

log = logging.getLogger(__name__)


class Result(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It may work, or work for some machines only."""
    PROBLEM = "problem"
    """No machine is installed before this is mended."""
    SKIPPED = "skipped"


@frozen(kw_only=True)
class Finding:
    check: str
    """What was looked at, in a word or two."""
    result: Result
    what: str
    """One sentence: how it stands."""
    mend: str = ""
    """What to do. Empty where there is nothing to do."""


@frozen(kw_only=True)
class Check:
    name: str
    seconds: float
    """How long it may take."""
    look: Callable[[], Awaitable[Iterable[Finding]]]


def ok(check: str, what: str) -> Finding:
    return Finding(check=check, result=Result.OK, what=what)


def skipped(check: str, what: str, mend: str = "") -> Finding:
    return Finding(check=check, result=Result.SKIPPED, what=what, mend=mend)


def warning(check: str, what: str, mend: str) -> Finding:
    return Finding(check=check, result=Result.WARNING, what=what, mend=mend)


def problem(check: str, what: str, mend: str) -> Finding:
    return Finding(check=check, result=Result.PROBLEM, what=what, mend=mend)


def healthy(findings: Iterable[Finding]) -> bool:
    return all(finding.result is not Result.PROBLEM for finding in findings)


async def run(checks: Sequence[Check]) -> list[Finding]:
    """All of them at the same time; what they found in their own order. Safe to cancel."""
    found: list[list[Finding]] = [[] for _ in checks]

    async def look(number: int, check: Check) -> None:
        with trio.move_on_after(check.seconds) as scope:
            try:
                found[number] += await check.look()
            # A fence: the doctor is called where things are not as anybody foresaw, and one check that
            # stumbles must not hide the others.
            except Exception as exc:
                log.exception("the check of %s failed", check.name)
                what = f"this could not be looked at: {str(exc) or type(exc).__name__}"
                found[number].append(warning(check.name, what, "The journal tells more: journalctl -u provd"))
        if scope.cancelled_caught:
            what = f"this could not be looked at within {check.seconds:.0f} s"
            found[number].append(warning(check.name, what, "Something that it waits for does not answer."))

    async with trio.open_nursery() as nursery:
        for number, check in enumerate(checks):
            nursery.start_soon(look, number, check)
    return [finding for each in found for finding in each]
