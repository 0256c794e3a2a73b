"""What is said of a cluster: each state of things has its finding, and each finding its way out."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from attrs import evolve

from provd.config import ProxmoxSection
from provd.doctor.cluster import Access, judge, troubles
from provd.doctor.findings import Finding, Result
from provd.domain.cluster import Certificate, Cluster, HaService, Node, Survey

NOW = datetime(2026, 5, 1, tzinfo=UTC)
PIN = ":".join(["AA"] * 32)
OTHER = ":".join(["BB"] * 32)
SECTION = ProxmoxSection(existing_node=ip_address("10.0.0.1"), join_fingerprint=PIN)
EQUIPPED = Access(
    password=False, token="provd@pve!reads", key=True, doors={"pve1": "", "pve2": "", "pve3": ""}
)


def nodes(count: int, *, away: int = 0) -> tuple[Node, ...]:
    return tuple(
        Node(name=f"pve{n}", nodeid=n, online=n <= count - away, address=ip_address(f"10.0.0.{n}"))
        for n in range(1, count + 1)
    )


def cluster(count: int = 3, *, away: int = 0, **changes: Any) -> Cluster:
    quorate = count - away >= count // 2 + 1
    return evolve(Cluster(name="lab", version=1, quorate=quorate, nodes=nodes(count, away=away)), **changes)


def survey(lab: Cluster | None, **changes: Any) -> Survey:
    ends = NOW + timedelta(days=400)
    found = Survey(
        at=NOW,
        asked="pve1 (10.0.0.1)",
        release="9.1.4",
        cluster=lab,
        guests=(),
        ha_services=(),
        ha_maintenance=frozenset(),
        ha_rules=(),
        replication=(),
        storages=(),
        ceph_nodes=frozenset(),
        certificates=tuple(
            Certificate(node=f"pve{n}", fingerprint=PIN if n == 1 else f"{n}", not_after=ends)
            for n in (1, 2, 3)
        ),
        releases={"pve1": "9.1.4", "pve2": "9.1.4"},
    )
    return evolve(found, **changes)


def said(found: Survey | None, access: Access = EQUIPPED, failure: str = "") -> list[Finding]:
    return judge(SECTION, access, found, failure, NOW)


def only(findings: list[Finding], check: str) -> Finding:
    [found] = [each for each in findings if each.check == check and each.result is not Result.OK]
    return found


def test_a_healthy_cluster_has_nothing_to_mend() -> None:
    """Three members, a token, a key that opens all doors."""
    findings = said(survey(cluster()))
    assert {each.result for each in findings} == {Result.OK}
    assert any("3 of 3 votes are there, 2 are needed, 1 is to spare" in each.what for each in findings)


@pytest.mark.parametrize(
    ("lab", "result", "words"),
    [
        (cluster(3, away=1), Result.WARNING, "no vote is to spare"),
        (cluster(2), Result.WARNING, "no vote is to spare"),
        (cluster(1), Result.WARNING, "single member"),
        (cluster(3, away=2), Result.PROBLEM, "no quorum"),
        (cluster(3, quorate=False), Result.PROBLEM, "no quorum"),
    ],
)
def test_votes(lab: Cluster, result: Result, words: str) -> None:
    """None to spare is a warning, none at all a problem."""
    found = only(said(survey(lab)), "quorum")
    assert (found.result, words in found.what) == (result, True)
    assert found.mend


def test_a_member_that_is_away() -> None:
    """It is named."""
    assert only(said(survey(cluster(4, away=1))), "members").what == "pve4 is offline"


@pytest.mark.parametrize(
    ("access", "check", "words"),
    [
        (evolve(EQUIPPED, token=""), "access", "cluster_token_file"),
        (evolve(EQUIPPED, key=False), "SSH key", "ssh-keygen -t ed25519"),
    ],
)
def test_what_provd_lacks(access: Access, check: str, words: str) -> None:
    """With the commands that give it."""
    found = only(said(survey(cluster()), access), check)
    assert found.result is Result.WARNING
    assert words in found.mend


def test_doors_that_do_not_open() -> None:
    """One that does not is a warning, none that does a problem."""
    some = said(survey(cluster()), evolve(EQUIPPED, doors={"pve1": "", "pve2": "refused"}))
    assert only(some, "SSH").what == "pve2 does not let provd in: refused"
    none = said(survey(cluster()), evolve(EQUIPPED, doors={"pve1": "refused"}))
    assert Result.PROBLEM in {each.result for each in none}


def test_a_token_that_does_not_see_the_guests() -> None:
    """Unknown is not none, and the privilege is named."""
    hidden = survey(cluster(), guests=None, unseen={"guests": "provd@pve!reads does not have VM.Audit"})
    found = only(said(hidden), "permissions")
    assert "VM.Audit" in found.what
    assert "PVEAuditor" in found.mend


@pytest.mark.parametrize(
    ("days", "words"), [(29, None), (28, "ends on 2026-05-29"), (1, "ends on 2026-05-02"), (-1, "ended on")]
)
def test_certificates_that_end(days: int, words: str | None) -> None:
    """Four weeks ahead, with the node."""
    certificate = Certificate(node="pve2", fingerprint="2", not_after=NOW + timedelta(days=days))
    found = survey(cluster(), certificates=(Certificate(node="pve1", fingerprint=PIN), certificate))
    findings = [each for each in said(found) if each.check == "certificates"]
    assert bool(findings) is (words is not None)
    assert all(words in each.what and "pve2" in each.what for each in findings if words)


def test_the_configuration_names_a_former_member() -> None:
    """By address and certificate; an address of another network is no reproach."""
    changed = (Certificate(node="pve1", fingerprint=OTHER),)
    moved = evolve(cluster(), nodes=nodes(3)[1:])
    assert "not a member" in only(said(survey(moved, certificates=())), "proxmox.existing_node").what
    found = only(said(survey(cluster(), certificates=changed)), "proxmox.join_fingerprint")
    assert PIN in found.what
    assert OTHER in found.what
    assert OTHER in found.mend
    inside = tuple(evolve(node, address=None, links={0: f"192.168.9.{node.nodeid}"}) for node in nodes(3))
    assert Result.WARNING not in {each.result for each in said(survey(evolve(cluster(), nodes=inside)))}


def test_other_things_that_matter() -> None:
    """Releases that differ, maintenance, a service in error, a QDevice."""
    found = said(
        survey(
            cluster(4, qdevice_votes=1, qdevice_online=False),
            releases={"pve1": "9.1.4", "pve2": "8.4.14"},
            ha_maintenance=frozenset({"pve3"}),
            ha_services=(HaService(sid="vm:100", node="pve1", state="error"),),
        )
    )
    words = " ".join(each.what for each in found if each.result is Result.WARNING)
    assert all(word in words for word in ("pve2 8.4.14", "pve3 is in maintenance", "vm:100", "not connected"))


def test_no_cluster_and_no_answer() -> None:
    """Where there is none, nothing is reproached; where it does not answer, that is a problem."""
    [alone] = judge(ProxmoxSection(), EQUIPPED, None, "", NOW)
    assert alone.result is Result.SKIPPED
    assert "in no cluster" in only(said(survey(None)), "cluster").what
    failed = only(said(None, failure="pve1: Connection refused"), "cluster")
    assert (failed.result, "Connection refused" in failed.what) == (Result.PROBLEM, True)


def test_what_is_told_as_history() -> None:
    """Members that went, quorum that was lost, a certificate that ends; nothing of a healthy cluster."""
    assert troubles(survey(cluster()), NOW) == {}
    ending = (Certificate(node="pve1", fingerprint=PIN, not_after=NOW + timedelta(days=3)),)
    found = troubles(survey(cluster(3, away=2), certificates=ending), NOW)
    assert found.keys() == {"offline/pve2", "offline/pve3", "quorum", "certificate/pve1"}
