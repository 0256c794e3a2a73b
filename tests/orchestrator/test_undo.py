"""What is said of a cancellation: a sentence for every kind of operation in every state, and no false one."""

import re
from datetime import UTC, datetime
from itertools import product

import pytest

from provd.domain.hosts import HostId, OperationId
from provd.domain.lifecycle import BOOTS, SETTLED, TRANSITIONS, Boots, Fact, State
from provd.domain.operations import Departure, Kind, Operation, Outcome, Stage
from provd.orchestrator import undo
from provd.orchestrator.undo import Standing, undone

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def standing(
    kind: Kind,
    state: State,
    stage: Stage | None = None,
    *,
    drain: bool = False,
    keep_entry: bool = False,
    reaches_members: bool = False,
    joins: bool = True,
    outcome: Outcome | None = None,
) -> Standing:
    operation = Operation(
        id=OperationId(1),
        host_id=HostId(1),
        hostname="host7",
        kind=kind,
        started_by="a test",
        started_at=START,
        outcome=outcome,
    )
    departure = None
    if stage is not None:
        departure = Departure(
            node="node7", nodeid=1, votes=1, drain=drain, keep_entry=keep_entry, stage=stage
        )
    return Standing(
        operation=operation,
        state=state,
        departure=departure,
        joins=joins,
        reaches_members=reaches_members,
    )


@pytest.mark.parametrize(("kind", "state"), list(product(Kind, State)))
def test_something_is_said_of_every_kind_in_every_state(kind: Kind, state: State) -> None:
    """Whole sentences, each once, with every name filled in, whatever became of the member."""
    for stage in (None, *Stage):
        for drain, keep_entry, reaches in product((False, True), repeat=3):
            said = undone(
                standing(kind, state, stage, drain=drain, keep_entry=keep_entry, reaches_members=reaches)
            )
            assert said
            assert len(set(said)) == len(said)
            for sentence in said:
                assert re.fullmatch(r"[^{}]+\.", sentence), sentence


@pytest.mark.parametrize("kind", [Kind.REBUILD, Kind.REJOIN])
@pytest.mark.parametrize("state", State)
def test_it_agrees_with_the_lifecycle(kind: Kind, state: State) -> None:
    """Failed is said where a cancellation fails the host, and nowhere else; no disk was touched only while
    the installer is still offered."""
    said = " ".join(undone(standing(kind, state)))
    fails = TRANSITIONS.get((state, Fact.BROKEN_OFF)) is State.FAILED
    assert ("becomes failed" in said) == fails
    assert ("Nothing has happened" in said) == (state in SETTLED)
    assert ("No disk was touched" in said) == (BOOTS[state] is Boots.INSTALLER)
    assert ("half written" in said) == (state is State.INSTALLING)
    assert ("key is destroyed" in said) == (state not in SETTLED)
    assert ("can be rebuilt at once" in said) == fails


def test_a_join_in_progress_says_what_it_may_leave() -> None:
    """In the cluster, and that it cannot be tried again; a host that stands alone has no join."""
    said = " ".join(undone(standing(Kind.REBUILD, State.JOINING)))
    assert "The cluster may list host7 by then" in said
    assert undo.NO_RETRY in said
    assert undo.NO_RETRY not in " ".join(undone(standing(Kind.REBUILD, State.FIRST_BOOT, joins=False)))


def test_a_member_on_its_way_out() -> None:
    """Waiting it loses nothing; released it is taken back where provd has a key; struck out it is gone."""
    asked = undone(standing(Kind.REBUILD, State.READY, Stage.ASKED, drain=True))
    assert asked == [
        "Nothing has happened to host7 yet: it stays ready and works as it did.",
        "node7 stays a member of the cluster, which is as it was.",
        "node7 is taken out of HA maintenance again: HA may move services back to it.",
    ]
    by_key = undone(standing(Kind.REBUILD, State.PXE_READY, Stage.RELEASED, reaches_members=True))
    assert any("its cluster services are started again" in sentence for sentence in by_key)
    by_hand = undone(standing(Kind.REBUILD, State.PXE_READY, Stage.RELEASED))
    assert undo.STILL_LISTED.format(node="node7") in by_hand
    left = undone(standing(Kind.REBUILD, State.PXE_BOOTED, Stage.LEFT, drain=True))
    assert undo.OUT.format(node="node7") in left
    assert not any("maintenance" in sentence for sentence in left)
    kept = undone(standing(Kind.REBUILD, State.INSTALLING, Stage.LEFT, keep_entry=True))
    assert undo.KEEPS_ENTRY.format(node="node7") in kept
    assert not any("has left the cluster" in sentence for sentence in kept)


def test_a_host_that_leaves_for_good_stays_registered() -> None:
    """Whatever was done to it: its disks are left alone, and nothing is said of a rebuild."""
    for stage in (None, *Stage):
        said = undone(standing(Kind.DECOMMISSION, State.READY, stage))
        assert said[0] == "host7 stays registered here, and its disks are left alone."
        assert not any("rebuilt" in sentence for sentence in said)


def test_what_is_over_has_nothing_to_undo() -> None:
    """However it ended."""
    for outcome in Outcome:
        assert undone(standing(Kind.REBUILD, State.FAILED, outcome=outcome)) == []
