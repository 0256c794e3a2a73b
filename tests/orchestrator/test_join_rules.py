"""What the cluster's words mean for a host that joins: when it waits, is refused, and is believed."""

from ipaddress import ip_address

import pytest
from attrs import evolve

from provd.domain.cluster import Cluster, Node
from provd.domain.errors import ClusterFailed
from provd.orchestrator.membership.join_rules import (
    Newcomer,
    doubt,
    fit_links,
    is_address,
    obstacle,
    remains,
    striking_out,
)


def cluster(
    online: str, offline: str = "", *, quorate: bool | None = None, qdevice: int = 0, version: int = 7
) -> Cluster:
    """One vote each; `online` and `offline` are names."""
    there = online.split()
    nodes = tuple(
        Node(name=name, nodeid=n, online=name in there, links={0: f"192.0.2.{n}"})
        for n, name in enumerate([*there, *offline.split()], start=1)
    )
    lab = Cluster(name="lab", version=version, quorate=True, nodes=nodes, qdevice_votes=qdevice)
    return evolve(lab, quorate=lab.spare_votes() >= 0 if quorate is None else quorate)


# --- whether it may join now ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lab", "away"),
    [
        (cluster("a"), ""),  # its only member waits for the newcomer, whatever is done
        (cluster("a b"), ""),
        (cluster("a b c"), ""),
        (cluster("a b c d", "e"), ""),
        (cluster("a b c d e"), "e"),
        (cluster("a b", qdevice=1), ""),
        (cluster("a", qdevice=1), ""),
        # its own former entry is struck out first, and does not count
        (cluster("a b", "new"), ""),
        (cluster("a b", "NEW"), ""),
        (cluster("a", "new"), ""),  # no quorum: to strike it out says what is in the way
        (cluster("a b", "c new"), ""),
        (cluster("a b c", "new"), "new"),
    ],
)
def test_nothing_in_the_way(lab: Cluster, away: str) -> None:
    """The others stay quorate from the moment it is listed until it has come up."""
    assert obstacle(lab, "new", away.split(), votes=1, keep_entry=False) is None


@pytest.mark.parametrize(
    ("lab", "away"),
    [
        (cluster("a b c"), "c"),
        (cluster("a b"), "b"),
        (cluster("a b c d e"), "e d"),
        (cluster("a b c d", "e"), "d"),
        (cluster("a b", "new"), "b"),
        (cluster("a b", qdevice=1), "B"),
    ],
)
def test_it_waits_for_those_who_may_be_away(lab: Cluster, away: str) -> None:
    """They are named: it goes on when they are struck out or back."""
    sentence = obstacle(lab, "new", away.split(), votes=1, keep_entry=False)
    assert sentence is not None
    assert "would lose its quorum" in sentence
    assert all(name in sentence for name in away.split())


@pytest.mark.parametrize(
    ("lab", "votes", "words"),
    [
        (cluster("a new"), 1, "which is online: .* switch the other one off or register this host under"),
        (cluster("a", "b"), 1, r"no quorum .*\(offline: b\); bring it back first"),
        (cluster("a", "b c"), 1, r"offline: b, c"),
        (cluster("a b", quorate=False), 1, r"no quorum .*\(offline: none\)"),
        (cluster("a b", "c"), 1, "only 2 of the cluster's 3 votes are there.*while new joins; bring more"),
        (cluster("a b c", "d e"), 1, "only 3 of the cluster's 5 votes"),
        (cluster("a b c"), 4, "would lose its quorum while new joins"),
    ],
)
def test_what_waiting_does_not_mend_is_refused(lab: Cluster, votes: int, words: str) -> None:
    """Each sentence has the way out."""
    with pytest.raises(ClusterFailed, match=words) as caught:
        obstacle(lab, "new", (), votes=votes, keep_entry=False)
    assert any(word in str(caught.value) for word in ("bring", "switch"))


def test_an_entry_that_is_kept_is_expected_already() -> None:
    """Its vote costs nothing more; a machine that is online under that name is still another one."""
    lab = cluster("a b", "c new")
    assert obstacle(lab, "new", ("b",), votes=1, keep_entry=True) is None
    with pytest.raises(ClusterFailed, match="two machines cannot have one name"):
        obstacle(cluster("a b new"), "new", (), votes=1, keep_entry=True)


# --- whether it is believed -----------------------------------------------------------------------

NEW = Newcomer(hostname="new", address=ip_address("192.0.2.3"), version=8)
GOOD = cluster("a b new", version=8)


@pytest.mark.parametrize(
    ("lab", "words"),
    [
        (cluster("a b", version=8), "does not list new"),
        (cluster("a b", "new", version=8), "lists new as offline"),
        (cluster("a b new", version=8, quorate=False), "has no quorum"),
        (cluster("a b new", version=7), "has version 7, expected was 8"),
        (cluster("a new b", version=8), "lists new under 192.0.2.2, expected was 192.0.2.3"),
    ],
)
def test_doubts(lab: Cluster, words: str) -> None:
    """What is missing, in a sentence."""
    sentence = doubt(lab, NEW)
    assert sentence is not None
    assert words in sentence


@pytest.mark.parametrize("hostname", ["new", "NEW"])
def test_no_doubt(hostname: str) -> None:
    """Online, quorate, at least the version and its own address; what is not known cannot be doubted."""
    newcomer = evolve(NEW, hostname=hostname)
    assert doubt(GOOD, newcomer) is None
    assert doubt(evolve(GOOD, version=12), newcomer) is None
    assert doubt(evolve(GOOD, version=3), evolve(newcomer, version=None)) is None
    for links in ({}, {0: "new.example.org"}, {0: "192.0.2.3", 1: "10.0.0.9"}, {3: "192.0.2.3"}):
        nodes = (*GOOD.nodes[:2], evolve(GOOD.nodes[2], links=links))
        assert doubt(evolve(GOOD, nodes=nodes), newcomer) is None


@pytest.mark.parametrize(
    ("text", "address", "same"),
    [
        ("192.0.2.3", "192.0.2.3", True),
        ("192.0.2.4", "192.0.2.3", False),
        ("2001:DB8:0::1", "2001:db8::1", True),
        ("2001:db8::2", "2001:db8::1", False),
        ("new.example.org", "192.0.2.3", True),
    ],
)
def test_addresses_are_compared_by_what_they_mean(text: str, address: str, same: bool) -> None:
    """And names are believed."""
    assert is_address(text, ip_address(address)) is same


# --- links ----------------------------------------------------------------------------------------

A, B, C = (ip_address(f"10.0.{n}.5") for n in range(3))


def linked(*numbers: int) -> Cluster:
    lab = cluster("a b")
    links = {number: f"10.0.{number}.1" for number in numbers}
    return evolve(lab, nodes=tuple(evolve(node, links=links) for node in lab.nodes))


def test_each_link_gets_an_address() -> None:
    """In the order of their numbers, which need not follow one another; one to spare is not used."""
    assert fit_links(linked(0), "new", (A, B)) == {0: A}
    assert fit_links(linked(0, 1), "new", (A, B, C)) == {0: A, 1: B}
    assert fit_links(linked(1, 5), "new", (A, B)) == {1: A, 5: B}
    assert fit_links(linked(), "new", (A,)) == {0: A}


def test_a_former_entry_of_the_host_does_not_count() -> None:
    """Its links are gone with it."""
    lab = linked(0)
    former = evolve(lab.nodes[0], name="new", links={0: "x", 1: "y"})
    assert fit_links(evolve(lab, nodes=(*lab.nodes, former)), "NEW", (A,)) == {0: A}


def test_too_few_addresses() -> None:
    """The links that lack one are named, and the option that gives it."""
    with pytest.raises(ClusterFailed, match=r'3 corosync links.*no address for link 1, 4.*options, "links"'):
        fit_links(linked(0, 1, 4), "new", (A,))


# --- what a failed join left ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lab", "words"),
    [
        (cluster("a b"), ""),
        (cluster("a b new"), ""),
        (cluster("a b", "new"), "lists new now: run `pvecm delnode new` on another member"),
        (cluster("a", "new"), "has no quorum: run `pvecm expected 1` and then `pvecm delnode new`"),
        (cluster("a", "b c new"), "has no quorum: bring its other members back and run `pvecm delnode new`"),
        (cluster("a new", quorate=False), "run `pvecm expected 1` and then `pvecm delnode new`"),
    ],
)
def test_what_is_left_comes_with_the_command(lab: Cluster, words: str) -> None:
    """The votes are lowered only where nobody else is missing: that would split the cluster."""
    sentence = remains(lab, "new")
    assert words in sentence
    assert bool(sentence) is bool(words)
    if entry := lab.node("new"):
        assert f"`pvecm delnode {entry.name}`" in striking_out(lab, entry)
