"""How an operation stands: what its page shows beside its log, and is told anew while somebody looks."""

from collections.abc import Sequence

from provd.domain.activity import Activity
from provd.domain.hosts import Host
from provd.domain.lifecycle import State
from provd.domain.operations import Kind, Operation, Outcome
from provd.orchestrator.failure import Failure, explain
from provd.orchestrator.undo import Standing, undone
from provd.store import activity, departures, hosts, operations
from provd.store.database import now
from provd.web.host_views import lacks_password
from provd.web.parts import Parts
from provd.web.steps import Step, step_view, steps
from provd.web.views import View, activity_view, operation_view

EVIDENCE = 2
"""Lines that prove a failure."""


def standing_view(parts: Parts, operation: Operation) -> View:
    read = parts.store.read
    host = _host_of(parts, operation)
    state = host.state if host is not None else None
    departure = read(lambda db: departures.of(db, operation.id))
    lines = read(lambda db: activity.turning_points(db, operation.id))
    _, first = read(lambda db: activity.extent(db, operation.id))
    undo: Sequence[str] = []
    if operation.active and host is not None:
        undo = undone(
            Standing(
                operation=operation,
                state=host.state,
                departure=departure,
                joins=parts.entering.joins(host),
                reaches_members=parts.cluster_key is not None,
            )
        )
    latest = read(lambda db: operations.latest(db, 1, host_id=host.id)) if host is not None else []
    newer = latest[0].id if latest and latest[0].id != operation.id else None
    return {
        "operation": operation_view(operation),
        "steps": [_step_view(step, first) for step in steps(operation, state, departure, lines)],
        "undo": list(undo),
        "failure": _failure_view(explain(operation, _ended_in(lines), _evidence(parts, operation))),
        "retry": _retry(operation, host) if newer is None else None,
        "newer": newer,
        "needs_password": operation.active and host is not None and lacks_password(parts, host, operation),
    }


def _step_view(step: Step, first: int) -> View:
    """The step with which an operation begins has its first line."""
    begins = step.since is not None and step.line is None
    return {**step_view(step), "line": (first or None) if begins else step.line}


def _host_of(parts: Parts, operation: Operation) -> Host | None:
    host_id = operation.host_id
    return parts.store.read(lambda db: hosts.get(db, host_id)) if host_id is not None else None


def _ended_in(lines: Sequence[Activity]) -> State | None:
    """What state the host was taken out of when it was given up; None: it was not."""
    return next((line.before for line in reversed(lines) if line.after is State.FAILED), None)


def _evidence(parts: Parts, operation: Operation) -> Sequence[Activity]:
    if operation.active or operation.outcome is Outcome.DONE:
        return []
    warned = parts.store.read(lambda db: activity.troubles(db, operation.id, EVIDENCE))
    return warned or parts.store.read(lambda db: activity.seen_last(db, operation.id))


def _retry(operation: Operation, host: Host | None) -> str | None:
    """What can be done once more: `rejoin`, `rebuild` or `remove`."""
    if host is None or operation.active or operation.outcome is Outcome.DONE:
        return None
    if operation.kind is Kind.DECOMMISSION:
        return "remove"
    can_rejoin = host.retry_until is not None and host.retry_until > now()
    return "rejoin" if can_rejoin and host.state is State.FAILED else "rebuild"


def _failure_view(failure: Failure | None) -> View | None:
    if failure is None:
        return None
    return {
        "cause": failure.cause,
        "evidence": [activity_view(line) for line in failure.evidence],
        "advice": list(failure.advice),
    }
