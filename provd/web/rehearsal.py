"""What is said and written down when a rehearsal stands in the way of a rebuild."""

from collections.abc import Sequence

import trio
from quart import Response

from provd.domain.activity import Level, News
from provd.domain.operations import Operation
from provd.domain.rehearsal import Check, Rehearsal
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.rehearsal.view import check_view
from provd.web.problems import problem

WRITE_DOWN_SECONDS = 5.0


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
