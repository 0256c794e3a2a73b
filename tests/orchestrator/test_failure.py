"""Why an operation ended, taken apart: every sentence that provd makes is told apart again."""

from datetime import UTC, datetime

import pytest

from provd.domain.errors import JoinFailed
from provd.domain.hosts import HostId, OperationId
from provd.domain.lifecycle import SETTLED, State
from provd.domain.operations import Kind, Operation, Outcome
from provd.orchestrator.entering import RETRY
from provd.orchestrator.failure import AS_IT_WAS, LEFT_AS, Failure, explain
from provd.orchestrator.operations import describe
from provd.orchestrator.waits import WAITS, in_vain

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def explained(
    detail: str, ended_in: State | None = None, kind: Kind = Kind.REBUILD, outcome: Outcome = Outcome.FAILED
) -> Failure:
    operation = Operation(
        id=OperationId(17),
        host_id=HostId(1),
        hostname="pve1",
        kind=kind,
        started_by="a test",
        started_at=START,
        outcome=outcome,
        detail=detail,
        finished_at=START,
    )
    failure = explain(operation, ended_in, ())
    assert failure is not None
    return failure


@pytest.mark.parametrize("state", WAITS)
def test_a_deadline_says_what_to_look_at(state: State) -> None:
    """In every state: the cause without the advice, the advice without the cause."""
    wait = WAITS[state]
    failure = explained(in_vain(90, wait), state)
    assert failure.cause == f"waited 1 min 30 s for {wait.expected}, in vain"
    assert failure.advice == [wait.look_at, LEFT_AS[state].format(host="pve1")]


def test_a_join_that_came_to_nothing_names_what_it_left() -> None:
    """Behind what to look at, and before the way to try again."""
    wait = WAITS[State.JOINING]
    left = "seen last: pvecm: waiting for quorum; the cluster lists pve1 now: run `pvecm delnode pve1`"
    failure = explained(f"{in_vain(600, wait)}; {left}; {RETRY}", State.JOINING)
    assert failure.cause == "waited 10 min for the cluster to accept it, in vain"
    assert failure.advice[:3] == [wait.look_at, left, RETRY]


def test_what_has_no_advice_of_its_own_still_says_how_the_host_is_left() -> None:
    """Its whole sentence is the cause."""
    failure = explained("the answer does not fit its installer: no disk sdx", State.PXE_BOOTED)
    assert failure.cause == "the answer does not fit its installer: no disk sdx"
    assert failure.advice == ["No disk was touched: pve1 boots its own disk and can be rebuilt at once."]
    assert explained("", outcome=Outcome.CANCELLED).cause == "cancelled"


@pytest.mark.parametrize("kind", Kind)
def test_what_ended_before_it_began_left_everything(kind: Kind) -> None:
    """There is a sentence for each kind of operation, and one for each state that can be broken off."""
    assert explained("no luck", None, kind).advice == [AS_IT_WAS[kind].format(host="pve1")]
    assert set(LEFT_AS) == set(State) - SETTLED


def test_a_bug_is_known_by_its_sentence() -> None:
    """The one that `describe` makes, and none that was foreseen."""
    try:
        raise KeyError("x")
    except KeyError as exc:
        failure = explained(describe(exc), State.INSTALLING)
    assert failure.advice[0] == "read the traceback: journalctl -u provd PROVD_OPERATION=17"
    assert len(explained(describe(JoinFailed("no")), State.JOINING).advice) == 1


def test_what_went_well_needs_no_explanation() -> None:
    """Nor does what still runs."""
    for outcome in (None, Outcome.DONE):
        operation = Operation(
            id=OperationId(1),
            host_id=None,
            hostname="pve1",
            kind=Kind.REBUILD,
            started_by="x",
            started_at=START,
            outcome=outcome,
        )
        assert explain(operation, None, ()) is None
