"""The life of a host, as tables.

Two rules, after h11: everything that decides how a state changes is in this file, and nothing in
this file knows who asks. There is no clock here, no database and no network.

`TRANSITIONS` is the only way a state changes. `IGNORED` holds what is heard, written down, and
changes nothing: a webhook that comes twice, a script fetched by a machine that booted again, a
report from an installation that was given up. Every pair of a state and a fact stands in exactly
one of the two, so that nobody has to guess what a late packet does.

`BOOTS` is the dangerous table. The Proxmox installer wipes disks, and it is offered in two states
only. From the moment the answer is out, a host boots its own disk, whatever else goes wrong.
"""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a host stands. The values are the operator's words: pages, API and log use them."""

    REGISTERED = "registered"
    PXE_READY = "pxe_ready"
    PXE_BOOTED = "pxe_booted"
    INSTALLING = "installing"
    INSTALLED = "installed"
    FIRST_BOOT = "first_boot"
    JOINING = "joining"
    READY = "ready"
    FAILED = "failed"


class Fact(StrEnum):
    """What happened, in the past tense. The first group comes from machines, the rest from operations."""

    SCRIPT_FETCHED = "script_fetched"
    ANSWER_SENT = "answer_sent"
    INSTALL_REPORTED = "install_reported"
    PHONED_HOME = "phoned_home"

    REBUILD_STARTED = "rebuild_started"
    REJOIN_STARTED = "rejoin_started"
    JOIN_STARTED = "join_started"
    COMPLETED = "completed"
    BROKEN_OFF = "broken_off"


class Boots(StrEnum):
    """What a machine is given when it asks the network what to boot."""

    INSTALLER = "installer"
    LOCAL_DISK = "local_disk"
    NOTHING = "nothing"


S, F = State, Fact

TRANSITIONS: Mapping[tuple[State, Fact], State] = {
    (S.REGISTERED, F.REBUILD_STARTED): S.PXE_READY,
    (S.READY, F.REBUILD_STARTED): S.PXE_READY,
    (S.FAILED, F.REBUILD_STARTED): S.PXE_READY,
    # A join that failed left an installed system, which is not wiped to try again.
    (S.FAILED, F.REJOIN_STARTED): S.FIRST_BOOT,
    #
    (S.PXE_READY, F.SCRIPT_FETCHED): S.PXE_BOOTED,
    (S.PXE_BOOTED, F.ANSWER_SENT): S.INSTALLING,
    (S.INSTALLING, F.INSTALL_REPORTED): S.INSTALLED,
    # The installer posts its webhook once and never again. A machine that calls from its new system
    # was installed, whether or not that one request got through.
    (S.INSTALLING, F.PHONED_HOME): S.FIRST_BOOT,
    (S.INSTALLED, F.PHONED_HOME): S.FIRST_BOOT,
    (S.FIRST_BOOT, F.JOIN_STARTED): S.JOINING,
    # A host that stands alone is ready as it is.
    (S.FIRST_BOOT, F.COMPLETED): S.READY,
    (S.JOINING, F.COMPLETED): S.READY,
    #
    (S.PXE_READY, F.BROKEN_OFF): S.FAILED,
    (S.PXE_BOOTED, F.BROKEN_OFF): S.FAILED,
    (S.INSTALLING, F.BROKEN_OFF): S.FAILED,
    (S.INSTALLED, F.BROKEN_OFF): S.FAILED,
    (S.FIRST_BOOT, F.BROKEN_OFF): S.FAILED,
    (S.JOINING, F.BROKEN_OFF): S.FAILED,
}

IGNORED: Mapping[State, frozenset[Fact]] = {
    S.REGISTERED: frozenset(Fact) - {F.REBUILD_STARTED},
    S.PXE_READY: frozenset(Fact) - {F.SCRIPT_FETCHED, F.BROKEN_OFF},
    S.PXE_BOOTED: frozenset(Fact) - {F.ANSWER_SENT, F.BROKEN_OFF},
    S.INSTALLING: frozenset(Fact) - {F.INSTALL_REPORTED, F.PHONED_HOME, F.BROKEN_OFF},
    S.INSTALLED: frozenset(Fact) - {F.PHONED_HOME, F.BROKEN_OFF},
    S.FIRST_BOOT: frozenset(Fact) - {F.JOIN_STARTED, F.COMPLETED, F.BROKEN_OFF},
    S.JOINING: frozenset(Fact) - {F.COMPLETED, F.BROKEN_OFF},
    S.READY: frozenset(Fact) - {F.REBUILD_STARTED},
    S.FAILED: frozenset(Fact) - {F.REBUILD_STARTED, F.REJOIN_STARTED},
}

BOOTS: Mapping[State, Boots] = {
    S.REGISTERED: Boots.LOCAL_DISK,
    S.PXE_READY: Boots.INSTALLER,
    S.PXE_BOOTED: Boots.INSTALLER,
    S.INSTALLING: Boots.LOCAL_DISK,
    S.INSTALLED: Boots.LOCAL_DISK,
    S.FIRST_BOOT: Boots.LOCAL_DISK,
    S.JOINING: Boots.LOCAL_DISK,
    S.READY: Boots.LOCAL_DISK,
    S.FAILED: Boots.LOCAL_DISK,
}

SETTLED: frozenset[State] = frozenset({S.REGISTERED, S.READY, S.FAILED})
"""In every other state exactly one operation has the host. In one of these it has one only while that has not
changed anything yet: a member waits for its turn to leave the cluster, and works as it did."""

ROAD: tuple[State, ...] = (
    S.PXE_READY,
    S.PXE_BOOTED,
    S.INSTALLING,
    S.INSTALLED,
    S.FIRST_BOOT,
    S.JOINING,
    S.READY,
)
"""The way of a rebuild, in order: what an operation waits for, and how far a page's progress is drawn."""


def advance(state: State, fact: Fact) -> State:
    """Where `fact` takes a host from `state`; the same state when it changes nothing."""
    return TRANSITIONS.get((state, fact), state)


def has_reached(state: State, goal: State) -> bool:
    """Whether a host on the road stands at `goal` or beyond. One that is not on the road does not."""
    return state in ROAD and ROAD.index(state) >= ROAD.index(goal)


def diagram() -> str:
    """The table as a Mermaid state diagram, for the README. A test compares the two."""
    arrows = {
        (before, after): sorted(
            str(fact) for (b, fact), a in TRANSITIONS.items() if (b, a) == (before, after)
        )
        for (before, _), after in TRANSITIONS.items()
    }
    lines = [f"    {before} --> {after}: {', '.join(facts)}" for (before, after), facts in arrows.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {State.REGISTERED}", *lines])
