"""What a cancellation would undo, and what it cannot: one sentence for each thing, as tables.

What is said here is done in `operations.py` (`_close`), `entering.py` (`clean_up`, `break_off`) and
`membership/leaving.py` (`take_back`).
"""

from collections.abc import Mapping, Sequence

from attrs import frozen

from provd.domain.lifecycle import SETTLED, State
from provd.domain.operations import Departure, Kind, Operation, Stage


@frozen(kw_only=True)
class Standing:
    """Where an operation is."""

    operation: Operation
    state: State
    """Of its host."""
    departure: Departure | None = None
    """The host was a member when it began."""
    joins: bool = True
    """It shall become a member in the end."""
    reaches_members: bool = False
    """provd has an SSH key of its own to the cluster's members."""


UNTOUCHED = "Nothing has happened to {host} yet: it stays {state} and works as it did."
DISARMED = "{host} becomes failed. The installer is not offered to it any more: it boots its own disk."
NO_DISK = "No disk was touched."
BOOT_DISK = "{host} becomes failed and boots its own disk from here on."
KEY_HERE = "provd's temporary key is destroyed here."
KEY_THERE = "provd's temporary key is destroyed here, and taken off {host} where that answers."
KEY_STAYS = (
    "provd's temporary key is destroyed here; the new system has not called home, so it stays on {host}, "
    "where it ends by itself within a day."
)
ANSWER = "The boot answer is withdrawn: what the machine has of it opens nothing any more."
NO_RETRY = "“Retry from join” is not offered after that."
AGAIN = "{host} can be rebuilt at once."

BY_STATE: Mapping[State, Sequence[str]] = {
    **dict.fromkeys(SETTLED, (UNTOUCHED,)),
    State.PXE_READY: (DISARMED, NO_DISK, KEY_HERE),
    State.PXE_BOOTED: (
        DISARMED,
        "An installer that is starting gets no answer and stops: restart the machine then.",
        NO_DISK,
        KEY_HERE,
    ),
    State.INSTALLING: (
        "The installer cannot be stopped from here: the disk of {host} may be half written, or it is "
        "installed to the end and nobody takes it further.",
        BOOT_DISK,
        ANSWER,
        KEY_HERE,
    ),
    State.INSTALLED: (
        "The new system stays on the disk of {host}, and nobody takes it further.",
        BOOT_DISK,
        ANSWER,
        KEY_STAYS,
    ),
    State.FIRST_BOOT: (
        "{host} keeps its new system and becomes failed; the cluster is not touched.",
        KEY_THERE,
    ),
    State.JOINING: (
        "pvecm is stopped on {host}, which becomes failed.",
        "The cluster may list {host} by then, as a member that is offline: whether it does, and the command "
        "that strikes it out, is written into the log.",
        KEY_THERE,
    ),
}
"""For a rebuild and a rejoin."""

STAYS_REGISTERED = "{host} stays registered here, and its disks are left alone."

DRAINED = "{node} is taken out of HA maintenance again: HA may move services back to it."
SERVICES_AGAIN = (
    "As long as the cluster lists {node}, its cluster services are started again where it answers."
)
STILL_LISTED = "The cluster may list {node} still: its old system is a member again when it boots."
KEEPS_ENTRY = "The cluster keeps the entry of {node}, as a member that is offline."
OUT = "{node} has left the cluster and does not come back by itself."

BY_STAGE: Mapping[Stage, Sequence[str]] = {
    Stage.ASKED: ("{node} stays a member of the cluster, which is as it was.",),
    Stage.RELEASED: ("{node} may have left the cluster by then: the log says whether it has.",),
    Stage.LEFT: (OUT,),
}
"""For a host that was a member when the operation began."""


def undone(now: Standing) -> Sequence[str]:
    """What a cancellation would undo or leave as it is now; empty when there is nothing to cancel."""
    if not now.operation.active:
        return []
    own: Sequence[str] = BY_STATE[now.state]
    again: Sequence[str]
    if now.operation.kind is Kind.DECOMMISSION:
        own = [STAYS_REGISTERED]
        again = []
    elif now.state in SETTLED:
        again = []
    elif now.joins and now.state in (State.FIRST_BOOT, State.JOINING):
        again = [NO_RETRY, AGAIN]
    else:
        again = [AGAIN]
    said = [*own, *_cluster(now), *again]
    names = {
        "host": now.operation.hostname,
        "state": now.state,
        "node": now.departure.node if now.departure is not None else "",
    }
    return [sentence.format(**names) for sentence in said]


def _cluster(now: Standing) -> Sequence[str]:
    """What becomes of a member that is on its way out."""
    departure = now.departure
    if departure is None:
        return []
    drained = [DRAINED] if departure.drain and departure.stage is not Stage.LEFT else []
    if departure.stage is Stage.LEFT and departure.keep_entry:
        return [KEEPS_ENTRY]
    if departure.stage is Stage.LEFT and now.state is State.JOINING:
        return []  # it is about to be listed anew
    if departure.stage is not Stage.RELEASED:
        return [*BY_STAGE[departure.stage], *drained]
    if departure.keep_entry:
        return [STILL_LISTED, *drained]
    taken_back = SERVICES_AGAIN if now.reaches_members else STILL_LISTED
    return [*BY_STAGE[Stage.RELEASED], taken_back, *drained]
