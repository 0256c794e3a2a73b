"""A rehearsal as the API and the dialog show it, and what is said when one stands in the way."""

from collections.abc import Sequence

import attrs
import trio
from quart import Response

from provd.domain.activity import Level, News
from provd.domain.cluster import Survey
from provd.domain.operations import Operation
from provd.domain.rehearsal import Check, Rehearsal, Verdict
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.situation import Situation
from provd.web.problems import problem
from provd.web.views import View, rfc3339

WRITE_DOWN_SECONDS = 5.0


def rehearsal_view(rehearsal: Rehearsal, it: Situation) -> View:
    services = it.survey.ha_services if isinstance(it.survey, Survey) and it.member is not None else ()
    return {
        "host_id": rehearsal.host_id,
        "hostname": rehearsal.hostname,
        "at": rfc3339(rehearsal.at),
        "verdict": rehearsal.verdict,
        "sentence": sentence(rehearsal),
        "overridable": bool(rehearsal.blockers) and not rehearsal.final_blockers,
        "erases": [] if isinstance(it.plan, str) else list(it.plan.disks),
        "drain": it.drain,
        "can_drain": services is None or any(it.is_me(service.node) for service in services),
        "checks": [check_view(check) for check in rehearsal.checks],
    }


def check_view(check: Check) -> View:
    return attrs.asdict(check)


def sentence(rehearsal: Rehearsal) -> str:
    """The verdict in words, for who reads nothing else."""
    name, blockers = rehearsal.hostname, rehearsal.blockers
    match rehearsal.verdict:
        case Verdict.YES:
            return f"Yes: nothing stands in the way of rebuilding {name}."
        case Verdict.YES_BUT:
            return f"Yes, but: {name} can be rebuilt, and you should know what is said below."
    return f"No: {name} should not be rebuilt now, because of {', '.join(check.name for check in blockers)}."


def blocked(rehearsal: Rehearsal, blockers: Sequence[Check]) -> Response:
    """409: nothing was started. Its `checks` are those that stand in the way (RFC 9457 §3.2)."""
    reasons = " ".join(f"{check.name}: {check.what}" for check in blockers)
    way_on = "" if rehearsal.final_blockers else f" Who knows better may set force to {rehearsal.hostname!r}."
    return problem(
        409,
        "The rehearsal says no",
        f"{rehearsal.hostname} is not rebuilt, because of {reasons}{way_on}",
        checks=[check_view(check) for check in blockers],
    )


async def tell_overridden(fleet: Fleet, operation: Operation, rehearsal: Rehearsal, who: str) -> None:
    """Who went on in spite of what, in the operation's history, even when the client has hung up."""
    names = ", ".join(check.name for check in rehearsal.blockers)
    what = " ".join(check.what for check in rehearsal.blockers)
    with trio.move_on_after(WRITE_DOWN_SECONDS, shield=True):
        await fleet.note(
            News(
                event="rebuild.overridden",
                message=f"{who} overrode {names} of the rehearsal: {what}",
                level=Level.WARNING,
                host_id=operation.host_id,
                operation_id=operation.id,
            )
        )
