from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.lifecycle import (
    BOOTS,
    IGNORED,
    ROAD,
    SETTLED,
    TRANSITIONS,
    Boots,
    Fact,
    State,
    advance,
    diagram,
    has_reached,
)

README = Path(__file__).parents[2] / "README.md"
FACTS = st.lists(st.sampled_from(Fact), max_size=60)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("fact", Fact)
def test_every_pair_is_decided_once(state: State, fact: Fact) -> None:
    """Each fact in each state either changes it or is ignored, never both, never neither."""
    assert ((state, fact) in TRANSITIONS) != (fact in IGNORED[state])


def test_every_state_can_be_reached() -> None:
    """From `registered`, facts lead everywhere."""
    reached = {State.REGISTERED}
    while more := {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached:
        reached |= more
    assert reached == set(State)


def test_every_fact_changes_something() -> None:
    """No fact is without a use."""
    assert {fact for _, fact in TRANSITIONS} == set(Fact)


def test_the_installer_is_offered_in_two_states() -> None:
    """The dangerous table has a row for every state, and the installer in two of them."""
    assert set(BOOTS) == set(State)
    assert {state for state, boots in BOOTS.items() if boots is Boots.INSTALLER} == {
        State.PXE_READY,
        State.PXE_BOOTED,
    }


def test_only_a_rebuild_arms() -> None:
    """A state with the installer is entered from one without by a rebuild, and by nothing else."""
    arming = {
        fact
        for (before, fact), after in TRANSITIONS.items()
        if BOOTS[after] is Boots.INSTALLER and BOOTS[before] is not Boots.INSTALLER
    }
    assert arming == {Fact.REBUILD_STARTED}


@given(FACTS, FACTS)
def test_nothing_is_wiped_twice(before: list[Fact], after: list[Fact]) -> None:
    """Once the answer was sent, no facts whatever bring the installer back before a rebuild is started."""
    state = State.REGISTERED
    for fact in before:
        state = advance(state, fact)
    if advance(state, Fact.ANSWER_SENT) is not State.INSTALLING:
        return
    state = State.INSTALLING
    for fact in after:
        if fact is Fact.REBUILD_STARTED and state in SETTLED:
            return
        state = advance(state, fact)
        assert BOOTS[state] is not Boots.INSTALLER


@given(FACTS)
def test_a_fact_heard_twice_counts_once(facts: list[Fact]) -> None:
    """Repeating any fact at once leaves the state where the first one took it."""
    state = State.REGISTERED
    for fact in facts:
        state = advance(state, fact)
        assert advance(state, fact) is state


@given(FACTS)
def test_no_walk_leaves_the_table(facts: list[Fact]) -> None:
    """Out of order, late or doubled: a walk goes forward on the road, fails, or begins anew."""
    state = State.REGISTERED
    for fact in facts:
        before, state = state, advance(state, fact)
        if before is state:
            continue
        assert (
            state is State.FAILED
            or (before in SETTLED and state in (State.PXE_READY, State.FIRST_BOOT))
            or ROAD.index(before) < ROAD.index(state)
        )


def test_the_straight_way_ends_in_ready() -> None:
    """The facts of a good rebuild, in order, visit the whole road."""
    state, visited = State.REGISTERED, []
    for fact in (
        Fact.REBUILD_STARTED,
        Fact.SCRIPT_FETCHED,
        Fact.ANSWER_SENT,
        Fact.INSTALL_REPORTED,
        Fact.PHONED_HOME,
        Fact.JOIN_STARTED,
        Fact.COMPLETED,
    ):
        state = advance(state, fact)
        visited.append(state)
    assert tuple(visited) == ROAD


def test_a_lost_webhook_does_not_stop_a_host() -> None:
    """A call from the new system counts as installed, also when the installer's report never came."""
    assert advance(State.INSTALLING, Fact.PHONED_HOME) is State.FIRST_BOOT


def test_has_reached_follows_the_road() -> None:
    """A host has reached what lies behind it, and nothing when it is off the road."""
    assert has_reached(State.INSTALLED, State.INSTALLING)
    assert has_reached(State.INSTALLED, State.INSTALLED)
    assert not has_reached(State.INSTALLED, State.FIRST_BOOT)
    assert not any(has_reached(State.FAILED, goal) for goal in ROAD)


def test_an_operation_is_working_exactly_outside_the_settled_states() -> None:
    """Only from a settled state does a rebuild start, and only from another one is something broken off."""
    assert {state for state, fact in TRANSITIONS if fact is Fact.REBUILD_STARTED} == SETTLED
    assert {state for state, fact in TRANSITIONS if fact is Fact.BROKEN_OFF} == set(State) - SETTLED


def test_the_readme_shows_this_table() -> None:
    """The diagram that newcomers see is drawn from the table that runs."""
    assert f"```mermaid\n{diagram()}\n```" in README.read_text()
