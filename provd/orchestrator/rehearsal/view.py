"""A rehearsal for the world: the verdict in words, and everything else as JSON would have it."""

from collections.abc import Mapping

import attrs

from provd.domain.cluster import Survey
from provd.domain.rehearsal import Check, Rehearsal, Verdict
from provd.orchestrator.rehearsal.situation import Situation
from provd.store.database import timestamp

View = Mapping[str, object]


def rehearsal_view(rehearsal: Rehearsal, it: Situation) -> View:
    services = it.survey.ha_services if isinstance(it.survey, Survey) and it.member is not None else ()
    erases = [] if isinstance(it.plan, str) else list(it.plan.disks)
    return {
        "host_id": rehearsal.host_id,
        "hostname": rehearsal.hostname,
        "at": timestamp(rehearsal.at),
        "verdict": rehearsal.verdict,
        "sentence": sentence(rehearsal),
        "overridable": bool(rehearsal.blockers) and not rehearsal.final_blockers,
        "erases": erases,
        "disks": [it.hardware.describe_disk(name) if it.hardware is not None else name for name in erases],
        "drain": it.drain,
        "can_drain": services is None or any(it.is_me(service.node) for service in services),
        "checks": [check_view(check) for check in rehearsal.checks],
    }


def check_view(check: Check) -> View:
    return attrs.asdict(check)


def sentence(rehearsal: Rehearsal) -> str:
    """The verdict, for who reads nothing else."""
    name, blockers = rehearsal.hostname, rehearsal.blockers
    match rehearsal.verdict:
        case Verdict.YES:
            return f"Yes: nothing stands in the way of rebuilding {name}."
        case Verdict.YES_BUT:
            return f"Yes, but: {name} can be rebuilt, and you should know what is said below."
    return f"No: {name} should not be rebuilt now, because of {', '.join(check.name for check in blockers)}."
