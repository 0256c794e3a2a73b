"""How a host stands: what its page says first, and is told anew while somebody looks.

What it is, what can be done next, and why something cannot be done: decided here and nowhere in the
scripts, so that the page says the same as it is drawn and as it is kept true.
"""

from collections.abc import Mapping
from datetime import datetime

from attrs import frozen

from provd.domain.hosts import Host
from provd.domain.installation import InstallPlan
from provd.domain.lifecycle import SETTLED, State
from provd.domain.operations import Kind, Operation, Outcome
from provd.orchestrator.planning import plan_or_reason
from provd.orchestrator.waking import BY_HAND
from provd.store import hardware, operations, registrations
from provd.web.host_cards import erased, installation, inventory, machine_view
from provd.web.host_views import lacks_password, lateness_of, lateness_view, one_host
from provd.web.page import duration
from provd.web.parts import Parts
from provd.web.views import View, operation_view, rfc3339

RECENT = 20
"""Operations among which the one is sought that built the host."""

BUILDS = (Kind.REBUILD, Kind.REJOIN)

UNCHANGED: Mapping[Kind, str] = {
    Kind.REBUILD: "Nothing has changed yet: it waits until it can leave the cluster.",
    Kind.REJOIN: "Nothing has changed yet.",
    Kind.DECOMMISSION: "It leaves the cluster, and is forgotten here then. Its disks stay as they are.",
}
"""What an operation does that has a host which stands where it stood."""


@frozen(kw_only=True)
class Facts:
    host: Host
    past: tuple[Operation, ...] = ()
    """Newest first, with the one that has the host now, if any."""
    misfit: str = ""
    """Why it cannot be built as it is configured."""
    can_wake: bool = True
    lacks_password: bool = False
    """Its operation waits for the cluster's root password, or will."""

    @property
    def running(self) -> Operation | None:
        return self.past[0] if self.past and self.past[0].active else None

    @property
    def ended(self) -> Operation | None:
        return next((one for one in self.past if not one.active), None)

    @property
    def built_by(self) -> Operation | None:
        return next((one for one in self.past if one.kind in BUILDS and one.outcome is Outcome.DONE), None)


@frozen(kw_only=True)
class Outlook:
    """`said`, the operation, `how` and `at` are one sentence; what is not there is left out of it.

    `how` follows the operation's name as it stands, with its comma or space.
    """

    said: str
    operation: Operation | None = None
    how: str = ""
    at: datetime | None = None
    why: str = ""
    """What went wrong, in the words of whoever gave up."""
    next: str = ""
    """What can be done now."""


def outlook(facts: Facts) -> Outlook:
    host, running = facts.host, facts.running
    if running is not None:
        return Outlook(
            said="In the hands of",
            operation=running,
            how=f", started by {running.started_by}",
            at=running.started_at,
            next=_ahead(facts, running),
        )
    match host.state:
        case State.FAILED:
            return _failed(facts)
        case State.READY:
            return _ready(facts)
    return _registered(facts)


def _ahead(facts: Facts, running: Operation) -> str:
    unchanged = UNCHANGED[running.kind] if facts.host.state in SETTLED else ""
    asks = f"It needs the cluster's root password: give it on the page of {running.kind} {running.id}."
    return " ".join(filter(None, [unchanged, asks if facts.lacks_password else ""]))


def _failed(facts: Facts) -> Outlook:
    ended = facts.ended
    if facts.host.retry_until is not None:
        ahead = "Its system is still there: “Retry from join” tries the join once more, without installing."
    else:
        ahead = "It boots its own disk meanwhile. See to what is said above, then press Rebuild…"
    if ended is None:
        return Outlook(said="Something went wrong, and it is not on record any more.", next=ahead)
    cancelled = ended.outcome is Outcome.CANCELLED
    return Outlook(
        said="Somebody cancelled" if cancelled else "It failed in",
        operation=ended,
        at=ended.finished_at,
        why=ended.detail,
        next=ahead,
    )


def _ready(facts: Facts) -> Outlook:
    built, ended = facts.built_by, facts.ended
    ahead = "Nothing has to be done."
    if built is None:
        return Outlook(said="It is ready.", next=ahead)
    took = duration((built.finished_at - built.started_at).total_seconds()) if built.finished_at else ""
    return Outlook(
        said="Built by",
        operation=built,
        how=f" in {took}",
        at=built.finished_at,
        why=_came_to_nothing(ended) if ended is not built else "",
        next=ahead,
    )


def _registered(facts: Facts) -> Outlook:
    return Outlook(
        said="Never built by provd.",
        why=_came_to_nothing(facts.ended),
        next="" if facts.misfit else "Press Rebuild… to install Proxmox VE on it.",
    )


def _came_to_nothing(operation: Operation | None) -> str:
    """What ended without changing the host, and is the last that was tried."""
    if operation is None or operation.outcome is Outcome.DONE:
        return ""
    return f"The last attempt, {operation.kind} {operation.id}, {operation.outcome}: {operation.detail}"


def blocked(facts: Facts) -> Mapping[str, str]:
    """Why there can be nothing that needs the host for itself, no rebuild, no wake-up; empty: there can."""
    running = facts.running
    return {
        "busy": f"{running.kind} {running.id} has this host; cancel it, or wait for its end"
        if running is not None
        else "",
        "rebuild": f"as it is configured it cannot be installed: {facts.misfit}" if facts.misfit else "",
        "wake": ""
        if facts.can_wake
        else f"pxe.enabled is false, so provd knows no LAN to send a packet to: {BY_HAND}",
    }


def standing_view(parts: Parts, host: Host, note: str) -> View:
    """`note` is what was said about it last, for a host that something is being done to."""
    read = parts.store.read
    past = read(lambda db: operations.latest(db, RECENT, host_id=host.id))
    plan, reported = plan_of(parts, host), read(lambda db: hardware.get(db, host.id))
    facts = Facts(
        host=host,
        past=tuple(past),
        misfit=plan if isinstance(plan, str) else "",
        can_wake=parts.waker.can_wake,
        lacks_password=lacks_password(parts, host, past[0] if past and past[0].active else None),
    )
    said, late = outlook(facts), lateness_of(parts, host, facts.running)
    told = any(note in reason.sentence for reason in late.reasons)
    return {
        "host": one_host(parts, host),
        "outlook": {
            "said": said.said,
            "operation": operation_view(said.operation) if said.operation is not None else None,
            "how": said.how,
            "at": rfc3339(said.at) if said.at is not None else None,
            "next": said.next,
        },
        "note": said.why or ("" if told else note),
        "late": lateness_view(late),
        "blocked": blocked(facts),
        "installation": installation(plan),
        "erases": erased(plan, reported.hardware if reported is not None else None),
        "machine": machine_view(host, reported),
        "inventory": inventory(host, read(lambda db: registrations.of_host(db, host.id))),
    }


def plan_of(parts: Parts, host: Host) -> InstallPlan | str:
    """What a rebuild would install; else why it cannot even be planned."""
    return plan_or_reason(parts.config, parts.book.current.get(host.server_type), host)
