"""The arithmetic of votes: figures that Proxmox VE's manual gives, and what must hold for any cluster."""

from collections.abc import Collection

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.cluster import Cluster, HaRule, Node

NAMES = ("pve1", "pve2", "pve3", "pve4", "pve5", "pve6", "pve7")


def cluster(*online: bool, qdevice: int = 0, qdevice_online: bool = True) -> Cluster:
    """One vote each: pve1, pve2 and so on."""
    nodes = tuple(Node(name=NAMES[n], nodeid=n + 1, online=there) for n, there in enumerate(online))
    lab = Cluster(
        name="lab",
        version=1,
        quorate=True,
        nodes=nodes,
        qdevice_votes=qdevice,
        qdevice_online=qdevice_online,
    )
    return evolve(lab, quorate=lab.spare_votes() >= 0)


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Of one to seven nodes with any votes, some of them away; sometimes with a QDevice."""
    size = draw(st.integers(1, len(NAMES)))
    nodes = tuple(
        Node(
            name=draw(st.sampled_from([name, name.upper()])),
            nodeid=n + 1,
            votes=draw(st.integers(0, 3)),
            online=draw(st.booleans()),
        )
        for n, name in enumerate(NAMES[:size])
    )
    return Cluster(
        name="lab",
        version=draw(st.integers(1, 99)),
        quorate=draw(st.booleans()),
        nodes=nodes,
        qdevice_votes=draw(st.integers(0, size)),
        qdevice_online=draw(st.booleans()),
    )


away = st.frozensets(st.sampled_from([*NAMES, "PVE2", "stranger"]))


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lab", "expected", "quorum", "spare"),
    [
        (cluster(True), 1, 1, 0),
        (cluster(True, True), 2, 2, 0),
        (cluster(True, False), 2, 2, -1),
        (cluster(True, True, True), 3, 2, 1),
        (cluster(True, True, False), 3, 2, 0),
        (cluster(True, True, True, True), 4, 3, 1),
        (cluster(*[True] * 5), 5, 3, 2),
        (cluster(*[True] * 7), 7, 4, 3),
        (cluster(True, True, qdevice=1), 3, 2, 1),
        (cluster(True, False, qdevice=1), 3, 2, 0),
        (cluster(True, True, qdevice=1, qdevice_online=False), 3, 2, 0),
        (cluster(True, False, qdevice=1, qdevice_online=False), 3, 2, -1),
        # Last man standing: a QDevice of an odd cluster has one vote less than it has nodes.
        (cluster(True, False, False, qdevice=2), 5, 3, 0),
    ],
)
def test_figures(lab: Cluster, expected: int, quorum: int, spare: int) -> None:
    """A majority is more than half of all votes, those of whoever is away included."""
    assert (lab.expected_votes, lab.quorum, lab.spare_votes()) == (expected, quorum, spare)


@pytest.mark.parametrize(
    ("size", "gone", "survives"),
    [
        (1, 0, False),  # the only member waits for the newcomer
        (2, 0, True),
        (2, 1, False),
        (3, 0, True),
        (3, 1, False),  # two of four are no majority
        (4, 1, True),
        (5, 1, True),
        (5, 2, False),
    ],
)
def test_a_newcomers_vote_is_expected_before_it_is_there(size: int, gone: int, survives: bool) -> None:
    """So that a join can cost a cluster that lacks members its quorum."""
    assert cluster(*[True] * (size - gone), *[False] * gone).survives_newcomer() is survives
    assert cluster(*[True] * size).survives_newcomer(1, NAMES[:gone]) is survives


def test_names_are_found_whatever_their_case() -> None:
    """DNS does not tell them apart, and an operator types as he likes."""
    lab = cluster(True, True, True)
    assert lab.node("PVE2") == lab.nodes[1]
    assert lab.node("pve9") is None
    assert lab.spare_votes({"Pve1", "PVE1"}) == 0
    assert [node.name for node in lab.struck("PVE1").nodes] == ["pve2", "pve3"]


# --- what holds for any cluster -------------------------------------------------------------------


@given(clusters(), away)
def test_votes_are_never_negative(lab: Cluster, gone: Collection[str]) -> None:
    """And never more than all of them."""
    assert 0 <= lab.votes_without(gone) <= lab.votes_without() <= lab.expected_votes
    assert lab.expected_votes // 2 < lab.quorum <= lab.expected_votes + 1


@given(clusters(), away, away)
def test_the_more_are_away_the_less_is_spare(
    lab: Cluster, one: frozenset[str], other: frozenset[str]
) -> None:
    """Nobody's absence ever helps."""
    assert lab.spare_votes(one | other) <= min(lab.spare_votes(one), lab.spare_votes(other))


@given(clusters(), st.sampled_from([*NAMES, "stranger"]), away)
def test_to_strike_out_who_is_offline_never_hurts(lab: Cluster, name: str, gone: frozenset[str]) -> None:
    """Its vote was not there, and is not expected any more; the same for one that is not listed."""
    entry = lab.node(name)
    if entry is not None:
        lab = evolve(lab, nodes=tuple(evolve(n, online=n.online and n != entry) for n in lab.nodes))
    assert lab.struck(name).spare_votes(gone) >= lab.spare_votes(gone)
    assert lab.struck(name).votes_without(gone) == lab.votes_without(gone)


@given(clusters(), st.sampled_from(NAMES))
def test_to_strike_out_who_is_away_takes_nothing_else(lab: Cluster, name: str) -> None:
    """The others keep their votes and their order; twice is once."""
    rest = lab.struck(name)
    assert rest.node(name) is None
    assert rest.nodes == tuple(node for node in lab.nodes if node.name.lower() != name)
    assert rest.struck(name.upper()) == rest
    assert rest.votes_without() == lab.votes_without({name})


@given(clusters(), st.integers(0, 3), away)
def test_a_newcomer_is_a_member_that_is_offline(lab: Cluster, votes: int, gone: frozenset[str]) -> None:
    """What is said of a newcomer is what is said of the cluster in which it is listed."""
    newcomer = Node(name="newcomer", nodeid=99, votes=votes, online=False)
    listed = evolve(lab, nodes=(*lab.nodes, newcomer))
    assert lab.survives_newcomer(votes, gone) == (listed.spare_votes(gone) >= 0)


@given(clusters(), away)
def test_two_halves_are_never_both_quorate(lab: Cluster, gone: frozenset[str]) -> None:
    """However the nodes are cut apart, and on whichever side the QDevice is."""
    everyone = {node.name.lower() for node in lab.nodes}
    here = evolve(lab, qdevice_online=True)
    there = evolve(lab, qdevice_online=False)
    others = everyone - {name.lower() for name in gone}
    assert not (here.spare_votes(gone) >= 0 and there.spare_votes(others) >= 0)


# --- HA rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("pve1", ""),
        ("pve1:2", ""),
        ("pve1,pve2", "pve2"),
        ("pve2:1,PVE1:2,pve3", "pve2:1,pve3"),
        ("pve10,pve1,pve11:3", "pve10,pve11:3"),
        (" pve2 , pve1 ,", "pve2"),
        ("pve2", "pve2"),
        ("", ""),
    ],
)
def test_a_node_is_taken_out_of_a_rule(written: str, left: str) -> None:
    """With its priority; the others keep theirs, also one whose name begins alike."""
    nodes = tuple(part.partition(":")[0].strip() for part in written.split(",") if part.strip())
    rule = HaRule(id="r", kind="rule", nodes=nodes, written=written)
    assert rule.written_without("pve1") == left
