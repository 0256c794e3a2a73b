"""Why an operation ended otherwise than it should, taken apart: the cause, what proves it, what to try.

`Operation.detail` is one text, made by whoever gave up. Here its parts are told apart again by the
constants that they were made of, and how the machine was left is added, which no sentence says.
"""

from collections.abc import Mapping, Sequence

from attrs import frozen

from provd.domain.activity import Activity
from provd.domain.lifecycle import State
from provd.domain.operations import Kind, Operation, Outcome
from provd.orchestrator.entering import RETRY
from provd.orchestrator.operations import A_BUG
from provd.orchestrator.waits import split_in_vain


@frozen(kw_only=True)
class Failure:
    cause: str
    """One sentence."""
    evidence: Sequence[Activity]
    """The last lines that warned before the end; where none did, the last that was seen."""
    advice: Sequence[str]
    """What to try, the most promising first."""


LEFT_AS: Mapping[State, str] = {
    State.PXE_READY: "No disk was touched: {host} boots its own disk and can be rebuilt at once.",
    State.PXE_BOOTED: "No disk was touched: {host} boots its own disk and can be rebuilt at once.",
    State.INSTALLING: "The disk of {host} may be half written, and its installer may still be running: "
    "look at its screen before you rebuild it.",
    State.INSTALLED: "The new system is on the disk of {host} and boots from there; it has not called home.",
    State.FIRST_BOOT: "The new system of {host} runs, and is no member of the cluster.",
    State.JOINING: "The new system of {host} runs; whether the cluster lists it already is said in the log.",
}
"""How a host is left by what ended in this state."""

AS_IT_WAS: Mapping[Kind, str] = {
    Kind.REBUILD: "{host} was not armed yet: no disk was touched.",
    Kind.REJOIN: "{host} is as it was.",
    Kind.DECOMMISSION: "{host} stays registered here, and its disks are as they were.",
}
"""How it is left by what ended before its state had changed."""


def explain(operation: Operation, ended_in: State | None, evidence: Sequence[Activity]) -> Failure | None:
    """`ended_in` is the state that the host was taken out of, if it was; None for what did not fail."""
    if operation.outcome not in (Outcome.FAILED, Outcome.CANCELLED):
        return None
    rest, advice = operation.detail, []
    if rest.endswith(f"; {RETRY}"):
        rest = rest.removesuffix(f"; {RETRY}")
        advice = [RETRY]
    cause, look_at, added = split_in_vain(rest)
    if cause:
        advice = [look_at, *filter(None, [added]), *advice]
    elif rest.startswith(A_BUG):
        advice = [f"read the traceback: journalctl -u provd PROVD_OPERATION={operation.id}"]
    left = LEFT_AS.get(ended_in) if ended_in is not None else None
    advice.append((left or AS_IT_WAS[operation.kind]).format(host=operation.hostname))
    return Failure(cause=cause or rest or operation.outcome, evidence=evidence, advice=advice)
