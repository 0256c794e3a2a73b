"""Whether a cluster can do without a member now: of two to five nodes, others away, with a QDevice."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.cluster import Cluster, Node
from provd.orchestrator.membership.leaving_rules import why_not_without


def cluster(
    online: str, offline: str = "", *, qdevice: int = 0, qdevice_online: bool = True, heavy: int = 1
) -> Cluster:
    """One vote each, but for `a`, which has `heavy`."""
    there = online.split()
    nodes = tuple(
        Node(name=name, nodeid=n, online=name in there, votes=heavy if name == "a" else 1)
        for n, name in enumerate([*there, *offline.split()], start=1)
    )
    lab = Cluster(
        name="lab",
        version=7,
        quorate=True,
        nodes=nodes,
        qdevice_votes=qdevice,
        qdevice_online=qdevice_online,
    )
    return evolve(lab, quorate=lab.spare_votes() >= 0)


def reason(lab: Cluster, away: str = "", *, key: bool = True) -> str | None:
    return why_not_without(lab, "a", frozenset(away.split()), can_lower_expected=key)


@pytest.mark.parametrize("key", [True, False], ids=["with a key", "without a key"])
@pytest.mark.parametrize(
    ("lab", "away"),
    [
        (cluster("a b c"), ""),
        (cluster("b c", "a"), ""),
        (cluster("a b c d"), ""),
        (cluster("a b c d e"), ""),
        (cluster("a b c d e"), "b"),
        (cluster("a b c d", "e"), ""),
        (cluster("A b c"), ""),
        (cluster("a b c"), "a"),
        (cluster("a b", qdevice=1), ""),
        (cluster("b", "a", qdevice=1), ""),
    ],
)
def test_it_may_go(lab: Cluster, away: str, key: bool) -> None:
    """The others have a majority of all votes, its own included."""
    assert reason(lab, away, key=key) is None


@pytest.mark.parametrize("key", [True, False], ids=["with a key", "without a key"])
@pytest.mark.parametrize(
    ("lab", "away", "words"),
    [
        (cluster("a"), "", "a is the only member of its cluster: give it another one first"),
        (cluster("a", "b"), "", "the cluster has no quorum: bring b back"),
        (cluster("a", "b c"), "", "bring b, c back"),
        (cluster("a b", "c"), "", "1 of 3 votes and no quorum: bring c back"),
        (cluster("a b c"), "b", "1 of 3 votes and no quorum: b must be struck out or back first"),
        (cluster("a b c"), "B a", "B must be struck out or back first"),
        (cluster("a b c d e"), "b c", "2 of 5 votes and no quorum: b, c must be struck out or back first"),
        (cluster("a b c d", "e"), "b", "2 of 5 votes"),
        (cluster("a b c", "d e"), "", "bring d, e back"),
        (cluster("a b", "c", qdevice=2), "b", "2 of 5 votes"),
        (cluster("a b"), "b", "0 of 2 votes"),
        (
            cluster("a b", qdevice=1, qdevice_online=False),
            "",
            "1 of 3 votes and no quorum: bring the QDevice",
        ),
    ],
)
def test_it_has_to_stay(lab: Cluster, away: str, words: str, key: bool) -> None:
    """Whoever is missing is named, and has to come back or be out first."""
    sentence = reason(lab, away, key=key)
    assert sentence is not None
    assert words in sentence


@pytest.mark.parametrize("lab", [cluster("a b"), cluster("a b c", heavy=3), cluster("a b c", heavy=2)])
def test_where_nobody_else_is_missing_the_votes_can_be_lowered(lab: Cluster) -> None:
    """With a key, that is; without one the sentence says what to set."""
    assert reason(lab) is None
    sentence = reason(lab, key=False)
    assert sentence is not None
    assert "set credentials.cluster_ssh_key_file" in sentence


@given(
    st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=7),
    st.frozensets(st.sampled_from("abcdefg")),
    st.booleans(),
    st.tuples(st.integers(0, 3), st.booleans()),
)
def test_nobody_goes_with_whom_quorum_goes(
    members: list[tuple[int, bool]], away: frozenset[str], key: bool, qdevice: tuple[int, bool]
) -> None:
    """But where all others are there, to be told to do without it; a larger `away` never helps."""
    nodes = tuple(
        Node(name="abcdefg"[n], nodeid=n + 1, votes=votes, online=online)
        for n, (votes, online) in enumerate(members)
    )
    votes, there = qdevice
    lab = Cluster(name="lab", version=1, quorate=True, nodes=nodes, qdevice_votes=votes, qdevice_online=there)
    lab = evolve(lab, quorate=lab.spare_votes() >= 0)
    if why_not_without(lab, "a", away, can_lower_expected=key) is not None:
        return
    others = lab.struck("a")
    assert lab.quorate
    lowered = key and not away and all(node.online for node in others.nodes) and others.spare_votes() >= 0
    assert lab.spare_votes({"a", *away}) >= 0 or lowered
    assert others.nodes
    assert why_not_without(lab, "a", frozenset(), can_lower_expected=key) is None
