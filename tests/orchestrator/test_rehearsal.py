"""A rehearsal: what each check says of what it sees, and that nothing unseen ever counts as fine."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest
from attrs import evolve, fields
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.cluster import (
    Certificate,
    Cluster,
    Guest,
    HaRule,
    HaService,
    Node,
    ReplicationJob,
    Storage,
    Survey,
)
from provd.domain.hardware import Disk, Hardware, Link
from provd.domain.hosts import Host, HostId, HostOptions, Mac, StaticAddress
from provd.domain.installation import InstallPlan
from provd.domain.lifecycle import State
from provd.domain.rehearsal import Check, Rehearsal, Result, Verdict
from provd.domain.secrets import Secret
from provd.orchestrator.membership.join_rules import obstacle
from provd.orchestrator.membership.leaving import why_not_without
from provd.orchestrator.rehearsal.rehearse import rehearse
from provd.orchestrator.rehearsal.situation import Credentials, Elsewhere, Other, Situation

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MAC = Mac("02:00:00:00:00:03")
HASH = "$y$j9T$U5J89FSHMFqLqsbwt.dqw0$wVLZ5IBZalitd2qvYwn5YdZvWXXYJVdpYiC3OW6Uvd."
STATIC = StaticAddress(
    cidr=ip_interface("10.0.0.3/24"), gateway=ip_address("10.0.0.254"), dns=ip_address("10.0.0.254")
)


def host(**changes: Any) -> Host:
    return evolve(
        Host(
            id=HostId(3),
            hostname="pve3",
            mac=MAC,
            server_type="nuc",
            options=HostOptions(),
            state=State.READY,
            state_since=NOW,
            registered_at=NOW,
            ip=ip_address("10.0.0.3"),
            memory_mib=32_000,
        ),
        **changes,
    )


PLAN = InstallPlan(
    hostname="pve3",
    domain="lab.example",
    country="at",
    keyboard="de",
    timezone="UTC",
    mailto="root@lab.example",
    root_password_hash=Secret(HASH),
    address=None,
    management_nic=None,
    filesystem="ext4",
    raid=None,
    disks=("/dev/nvme0n1",),
)
HARDWARE = Hardware(
    identity="x",
    product="NUC",
    installer=(9, 1),
    links=(Link("eno1", MAC), Link("wlp1", Mac("02:00:00:00:00:99"))),
    disks=(Disk(device="/dev/nvme0n1", model="Samsung", serial="S6B"), Disk(device="/dev/sda")),
)


def nodes(count: int, offline: tuple[int, ...] = ()) -> tuple[Node, ...]:
    return tuple(
        Node(
            name=f"pve{number}",
            nodeid=number,
            online=number not in offline,
            address=ip_address(f"10.0.0.{number}"),
            links={0: f"10.0.0.{number}"},
        )
        for number in range(1, count + 1)
    )


def cluster(count: int, *offline: int, **changes: Any) -> Cluster:
    return evolve(
        Cluster(name="lab", version=7, quorate=True, nodes=nodes(count, offline)),
        **changes,
    )


SURVEY = Survey(
    at=NOW,
    asked="pve1 (10.0.0.1)",
    release="9.1.4",
    cluster=cluster(5),
    guests=(Guest(vmid=100, kind="qemu", node="pve1", name="web", status="running"),),
    ha_services=(HaService(sid="vm:100", node="pve1", state="started"),),
    ha_maintenance=frozenset(),
    ha_rules=(),
    replication=(),
    storages=(Storage(id="local", kind="dir"),),
    ceph_nodes=frozenset(),
    certificates=(Certificate(node="pve1", fingerprint="AA:BB", not_after=NOW + timedelta(days=700)),),
    releases={f"pve{number}": "9.1.4" for number in range(1, 6)},
)
GOOD = Situation(
    at=NOW,
    host=host(),
    server_type=None,
    plan=PLAN,
    image="9.2-1",
    public_url="http://10.0.0.250:8080",
    hardware=HARDWARE,
    others=(Other(hostname="pve4", addresses=(ip_address("10.0.0.4"),)),),
    survey=SURVEY,
    credentials=Credentials(password=True, token=True, ssh_key=True),
    drain=False,
)
NEWCOMER = evolve(GOOD, survey=evolve(SURVEY, cluster=cluster(2)))
"""pve3 is not a member of this one."""
DRAINED = evolve(GOOD, drain=True)
NO_KEY = evolve(GOOD, credentials=Credentials(password=True, token=True, ssh_key=False))


def seen(it: Situation = GOOD, **changes: Any) -> Situation:
    assert isinstance(it.survey, Survey)
    return evolve(it, survey=evolve(it.survey, **changes))


def hidden(field: str, it: Situation = GOOD) -> Situation:
    return seen(it, **{field: None}, unseen={field: "the token may not"})


def lab(
    count: int, *offline: int, it: Situation = GOOD, away: tuple[str, ...] = (), **changes: Any
) -> Situation:
    return evolve(seen(it, cluster=cluster(count, *offline, **changes)), away=frozenset(away))


def options(it: Situation = GOOD, **wanted: Any) -> Situation:
    return evolve(it, host=evolve(it.host, options=HostOptions(**wanted)))


def guest(vmid: int = 101, **changes: Any) -> Guest:
    return evolve(Guest(vmid=vmid, kind="qemu", node="PVE3", name="db", status="running"), **changes)


def two_links(count: int) -> tuple[Node, ...]:
    return tuple(
        evolve(node, links={0: f"10.0.0.{node.nodeid}", 1: f"10.1.0.{node.nodeid}"}) for node in nodes(count)
    )


HERE = HaService(sid="vm:101", node="pve3", state="started")
FINE, BUT, UNKNOWN, NO = Result.FINE, Result.BUT, Result.UNKNOWN, Result.NO
FINAL = "final"
"""A no that nobody can override."""

CASES: list[tuple[str, Situation, Result | str, str]] = [
    ("host", evolve(GOOD, busy="pve3 is busy: rebuild 7"), FINAL, "rebuild 7"),
    # --- installation
    ("image", GOOD, FINE, "Proxmox VE 9.2-1"),
    ("image", evolve(GOOD, image=Elsewhere("http://x/")), BUT, "did not look at"),
    ("image", evolve(GOOD, image=None), FINAL, "nothing to install"),
    ("memory", GOOD, FINE, "32000 MiB"),
    ("memory", evolve(GOOD, host=host(memory_mib=4000)), NO, "needs 8192 MiB"),
    ("memory", evolve(GOOD, host=host(memory_mib=None)), FINE, "as much memory has run"),
    ("memory", evolve(GOOD, host=host(memory_mib=None), hardware=None), BUT, "not been installed by provd"),
    (
        "memory",
        evolve(GOOD, host=host(memory_mib=None), hardware=evolve(HARDWARE, installer=(8, 4))),
        BUT,
        "is not known",
    ),
    ("plan", GOOD, FINE, "pve3.lab.example, on ext4"),
    ("plan", evolve(GOOD, plan="raid1 needs two disks"), FINAL, "raid1 needs two disks"),
    ("answer", GOOD, FINE, "whole"),
    ("answer", evolve(GOOD, hardware=None), FINE, "whole"),
    ("answer", evolve(GOOD, plan=evolve(PLAN, management_nic="eno9", address=STATIC)), FINE, "whole"),
    ("answer", evolve(GOOD, plan=evolve(PLAN, keyboard="us")), FINAL, "global.keyboard"),
    ("answer", evolve(GOOD, plan=evolve(PLAN, disks=())), FINAL, "no disk is named"),
    ("answer", evolve(GOOD, image="8.3-1"), FINAL, "8.4 or later"),
    ("disks", GOOD, FINE, "/dev/nvme0n1 (Samsung, serial S6B) will be erased; /dev/sda is left alone"),
    ("disks", evolve(GOOD, hardware=None), BUT, "/dev/nvme0n1 will be erased"),
    ("disks", evolve(GOOD, hardware=evolve(HARDWARE, disks=None)), BUT, "its disks are not known"),
    ("disks", evolve(GOOD, plan=evolve(PLAN, disks=("/dev/sdb",))), NO, "had no /dev/sdb"),
    ("disks", evolve(GOOD, hardware=evolve(HARDWARE, disks=())), NO, "had no /dev/nvme0n1"),
    (
        "disks",
        evolve(GOOD, hardware=evolve(HARDWARE, disks=(HARDWARE.disks or ()) * 2)),
        NO,
        "more than one disk",
    ),
    ("nic", GOOD, FINE, "through eno1"),
    ("nic", evolve(GOOD, hardware=None), BUT, "has not seen"),
    ("nic", evolve(GOOD, plan=evolve(PLAN, management_nic="eno9")), NO, "eno9"),
    ("nic", evolve(GOOD, hardware=evolve(HARDWARE, links=())), NO, "02:00:00:00:00:03"),
    # --- identity
    ("name", GOOD, FINE, "as it is now"),
    ("name", NEWCOMER, FINE, "Neither provd nor the cluster"),
    ("name", evolve(GOOD, survey="down"), FINE, "No other host of provd"),
    ("name", evolve(GOOD, others=(Other(hostname="PVE3"),)), FINAL, "2 hosts of provd"),
    ("name", evolve(GOOD, host=host(ip=None)), BUT, "cannot tell whether it is"),
    ("name", options(evolve(GOOD, host=host(ip=None)), address=STATIC), FINE, "as it is now"),
    ("name", evolve(GOOD, host=host(ip=ip_address("10.0.0.33"))), UNKNOWN, "may be another machine"),
    ("name", evolve(lab(5, 3), host=host(ip=ip_address("10.0.0.33"))), BUT, "which is offline"),
    ("address", GOOD, FINE, "comes from DHCP"),
    ("address", options(address=STATIC), FINE, "Nobody else"),
    (
        "address",
        options(address=evolve(STATIC, cidr=ip_interface("10.0.0.1/24"))),
        FINAL,
        "10.0.0.1 is the address of the member pve1",
    ),
    ("address", options(links=(ip_address("10.0.0.2"),)), FINAL, "the member pve2"),
    ("address", options(address=STATIC, links=(ip_address("10.0.0.3"),)), FINAL, "twice"),
    (
        "address",
        evolve(
            options(NEWCOMER, address=evolve(STATIC, cidr=ip_interface("10.0.0.4/24"))),
        ),
        NO,
        "the host pve4",
    ),
    ("address", evolve(GOOD, host=host(ip=ip_address("10.0.0.2"))), BUT, "belongs to pve2 now"),
    ("address", evolve(NEWCOMER, host=host(ip=ip_address("10.0.0.4"))), BUT, "belongs to pve4 now"),
    ("links", GOOD, FINE, "for each corosync link"),
    ("links", lab(5, nodes=two_links(5)), FINAL, "2 corosync links"),
    ("links", options(lab(5, nodes=two_links(5)), links=(ip_address("10.1.0.3"),)), FINE, "links 0, 1"),
    ("links", options(links=(ip_address("10.1.0.3"),)), FINAL, "surplus"),
    ("links", lab(5, nodes=tuple(evolve(node, links={}) for node in nodes(5))), UNKNOWN, "could not be seen"),
    ("nodeid", options(nodeid=3), FINE, "Node id 3"),
    ("nodeid", options(nodeid=9), FINE, "Node id 9"),
    ("nodeid", options(nodeid=1), FINAL, "that is pve1"),
    # --- the way to the cluster
    ("cluster", GOOD, FINE, "5 of 5 members online"),
    ("cluster", evolve(GOOD, survey=None), FINE, "stands alone"),
    ("cluster", evolve(GOOD, survey="all are down"), UNKNOWN, "all are down"),
    ("cluster", seen(cluster=None), FINAL, "pvecm create"),
    ("cluster", seen(asked="pve3 (10.0.0.3)"), NO, "Only pve3 itself answered"),
    ("credentials", GOOD, FINE, "SSH key: yes"),
    ("credentials", NO_KEY, BUT, "Without the SSH key"),
    ("credentials", seen(NO_KEY, cluster=cluster(2)), FINE, "at hand"),
    (
        "credentials",
        evolve(GOOD, credentials=Credentials(password=False, token=True, ssh_key=True)),
        FINE,
        "over SSH, by provd's key",
    ),
    (
        "credentials",
        evolve(GOOD, credentials=Credentials(password=False, token=True, ssh_key=False)),
        FINAL,
        "to strike it out and to let it join",
    ),
    (
        "credentials",
        evolve(GOOD, survey="down", credentials=Credentials(password=False, token=False, ssh_key=False)),
        FINAL,
        "is needed to let it join",
    ),
    ("permissions", GOOD, FINE, "could be read"),
    ("permissions", hidden("guests"), BUT, "the token may not"),
    ("certificate", GOOD, FINE, "for 700 days"),
    ("certificate", seen(certificates=()), BUT, "could not be seen"),
    ("certificate", seen(certificates=(Certificate(node="pve1", fingerprint="AA"),)), BUT, "not be seen"),
    (
        "certificate",
        seen(
            certificates=(
                Certificate(node="PVE1", fingerprint="AA", not_after=NOW + timedelta(days=9, hours=1)),
            )
        ),
        BUT,
        "expires in 9 days",
    ),
    (
        "certificate",
        seen(certificates=(Certificate(node="pve1", fingerprint="AA", not_after=NOW - timedelta(days=9)),)),
        BUT,
        "has expired",
    ),
    ("release", GOOD, FINE, "fits"),
    ("release", evolve(GOOD, image="8.4-1"), BUT, "older than every other"),
    ("release", seen(releases={"pve1": "8.4.1", "pve3": "9.1"}), BUT, "newer than every other"),
    ("release", seen(releases={"pve1": "8.4.1", "pve2": "9.1"}), FINE, "fits"),
    ("release", evolve(GOOD, image=Elsewhere("http://x/")), BUT, "is not known"),
    ("release", seen(releases={"pve1": "strange"}), BUT, "Not all members"),
    ("release", seen(unseen={"releases": "595"}), BUT, "Not all members"),
    # --- quorum
    ("quorum", GOOD, FINE, "with 1 to spare"),
    ("quorum", lab(3), BUT, "just keep their majority"),
    ("quorum", lab(3, 3), BUT, "2 of 3 votes stay, quorum 2"),
    ("quorum", lab(3, 1), FINAL, "because pve1 is offline"),
    ("quorum", lab(5, 1, 2), FINAL, "because pve1, pve2 are offline"),
    ("quorum", lab(5, away=("pve1", "pve2")), BUT, "waits for the rebuild of pve1, pve2"),
    ("quorum", lab(5, away=("pve3",)), FINE, "with 1 to spare"),
    ("quorum", lab(5, quorate=False), FINAL, "no quorum"),
    ("quorum", lab(1, nodes=nodes(3)[2:]), FINAL, "is the whole cluster"),
    ("quorum", lab(2, nodes=nodes(3)[1:]), BUT, "strikes it out while it still runs"),
    ("quorum", lab(2, it=NO_KEY, nodes=nodes(3)[1:]), FINAL, "cluster_ssh_key_file"),
    ("quorum", lab(3, nodes=(*nodes(2), evolve(nodes(3)[2], votes=3))), BUT, "pve1, pve2 have no majority"),
    ("quorum", evolve(lab(2, nodes=nodes(3)[1:]), keep_entry=True), FINAL, "its vote stays expected"),
    (
        "quorum",
        lab(2, nodes=nodes(3)[1:], qdevice_votes=2, qdevice_online=False),
        FINAL,
        "the QDevice is offline",
    ),
    ("quorum", lab(2, nodes=nodes(3)[1:], away=("pve2",)), BUT, "waits for the rebuild of pve2"),
    ("quorum", lab(2, nodes=nodes(3, (2,))[1:]), FINAL, "because pve2 is offline"),
    ("quorum", lab(2, nodes=nodes(3)[1:], qdevice_votes=1), BUT, "just keep"),
    ("joining", GOOD, FINE, "4 of 5 votes are there while it joins, quorum 3"),
    ("joining", lab(3), FINE, "2 of 3 votes"),
    ("joining", evolve(lab(2, nodes=nodes(3)[1:]), keep_entry=True), FINE, "keeps its entry"),
    ("joining", lab(5, 1, 2), FINAL, "pve1, pve2 is missing"),
    ("joining", lab(5, away=("pve1", "pve2")), BUT, "waits for the rebuild of pve1, pve2"),
    ("joining", lab(2, nodes=nodes(3)[1:]), BUT, "pve2 is alone then"),
    ("joining", lab(1, it=NEWCOMER), BUT, "pve1 is alone then"),
    ("joining", lab(1, 1, it=NEWCOMER), FINAL, "pve1 is missing"),
    ("joining", lab(2, it=NEWCOMER), FINE, "2 of 3 votes"),
    ("joining", lab(2, 1, it=NEWCOMER, quorate=False), FINAL, "no quorum"),
    ("qdevice", GOOD, FINE, "no QDevice"),
    ("qdevice", lab(5, qdevice_votes=1), NO, "1 of 6 votes"),
    ("qdevice", seen(unseen={"qdevice_votes": "403"}), UNKNOWN, "403"),
    # --- what it carries
    ("guests", GOOD, FINE, "1 guests in the cluster"),
    ("guests", seen(guests=(guest(),)), NO, "1 guest would be lost with its local disks, 1 of them running"),
    ("guests", seen(guests=(guest(status="stopped"),)), NO, "0 of them running: 101 db (stopped)"),
    ("guests", seen(guests=(guest(template=True),)), NO, "(template)"),
    ("guests", seen(guests=(guest(),), ha_services=(HERE,)), NO, "would be lost"),
    ("guests", seen(DRAINED, guests=(guest(),), ha_services=(HERE,)), BUT, "moved away by HA"),
    ("guests", seen(DRAINED, guests=(guest(), guest(102)), ha_services=(HERE,)), NO, "102 db"),
    ("guests", seen(DRAINED, guests=(guest(kind="lxc"),), ha_services=(HERE,)), NO, "would be lost"),
    ("guests", hidden("ha_services", seen(DRAINED, guests=(guest(),))), NO, "would be lost"),
    ("guests", hidden("guests"), UNKNOWN, "the token may not"),
    ("ha", GOOD, FINE, "no service on it"),
    ("ha", seen(ha_services=(HERE,)), NO, "Rebuild it with drain"),
    ("ha", seen(DRAINED, ha_services=(HERE,)), BUT, "goes into HA maintenance first"),
    ("ha", seen(evolve(NO_KEY, drain=True), ha_services=(HERE,)), NO, "no SSH key to drain"),
    ("ha", evolve(NO_KEY, drain=True), BUT, "is not drained"),
    ("ha", lab(5, 3, it=seen(DRAINED, ha_services=(HERE,))), NO, "cannot be drained"),
    (
        "ha",
        lab(3, it=seen(DRAINED, ha_services=(HERE,), ha_maintenance=frozenset({"pve1"})), away=("pve2",)),
        NO,
        "no other member could take them",
    ),
    ("ha", hidden("ha_services"), UNKNOWN, "the token may not"),
    ("maintenance", GOOD, FINE, "not in HA maintenance"),
    ("maintenance", seen(ha_maintenance=frozenset({"pve3"})), BUT, "node-maintenance disable pve3"),
    ("maintenance", seen(ha_maintenance=frozenset({"pve1"})), FINE, "in maintenance: pve1"),
    ("maintenance", hidden("ha_maintenance"), UNKNOWN, "the token may not"),
    ("replication", GOOD, FINE, "No storage is replicated"),
    *(
        (
            "replication",
            seen(replication=(ReplicationJob(id="100-0", guest=100, source=source, target=target),)),
            NO,
            "100-0",
        )
        for source, target in (("pve3", "pve1"), ("pve1", "pve3"))
    ),
    ("replication", hidden("replication"), UNKNOWN, "the token may not"),
    ("ceph", GOOD, FINE, "Ceph on no node"),
    ("ceph", seen(ceph_nodes=frozenset({"pve1"})), FINE, "Ceph on pve1"),
    ("ceph", seen(ceph_nodes=frozenset({"pve3"})), FINAL, "OSDs"),
    ("ceph", hidden("ceph_nodes"), UNKNOWN, "the token may not"),
    ("storage", GOOD, FINE, "No storage is restricted"),
    ("storage", seen(storages=(Storage(id="fast", kind="zfspool", nodes=("pve3",)),)), BUT, "fast (zfspool)"),
    ("storage", hidden("storages"), UNKNOWN, "the token may not"),
    ("rules", GOOD, FINE, "No HA rule"),
    ("rules", seen(ha_rules=(HaRule(id="gpu", kind="rule", nodes=("pve3", "pve1")),)), BUT, "rule gpu"),
    ("rules", hidden("ha_rules"), UNKNOWN, "the token may not"),
]


def found(it: Situation, name: str) -> Check | None:
    checks = [check for check in rehearse(it).checks if check.name == name]
    assert len(checks) <= 1
    return checks[0] if checks else None


@pytest.mark.parametrize(("name", "it", "result", "words"), CASES)
def test_each_check(name: str, it: Situation, result: Result | str, words: str) -> None:
    """What it concludes, from what, and whether the operator may know better."""
    check = found(it, name)
    assert check is not None
    assert words in f"{check.what} {check.evidence} {check.mend}"
    if result is FINAL:
        assert (check.result, check.overridable) == (NO, False)
    else:
        assert check.result is result, check
        assert check.overridable == (result in (NO, UNKNOWN))
    assert check.what.endswith("."), check.what
    assert check.mend or check.result in (FINE, BUT) or name in ("host", "plan", "answer", *SELF_EVIDENT)


SELF_EVIDENT = ("name", "disks", "address", "links", "ha", "qdevice")
"""Where some of the noes say by themselves what to do."""


def test_every_check_is_tried_with_every_result_it_can_have() -> None:
    """The table above leaves out no check, and has a good and a bad case of each."""
    tried: dict[str, set[bool]] = {}
    for name, _, result, _ in CASES:
        tried.setdefault(name, set()).add(result is FINE)
    names = {check.name for check in rehearse(options(evolve(GOOD, busy="x"), nodeid=3)).checks}
    assert set(tried) == names
    assert {name for name, results in tried.items() if results != {True, False}} == {"host"}


def test_a_member_of_a_healthy_cluster_may_be_rebuilt() -> None:
    """The good case is a plain yes, and each of its checks says why."""
    rehearsal = rehearse(GOOD)
    assert rehearsal.verdict is Verdict.YES, [check for check in rehearsal.checks if check.result is not FINE]
    assert (rehearsal.host_id, rehearsal.hostname, rehearsal.at) == (3, "pve3", NOW)
    assert len(rehearsal.checks) > 20


@pytest.mark.parametrize(
    ("name", "it"),
    [
        *((name, NEWCOMER) for name in ("quorum", "guests", "ha", "ceph", "storage", "nodeid")),
        *((name, evolve(GOOD, plan="no")) for name in ("disks", "nic", "answer")),
        *((name, evolve(GOOD, survey=None)) for name in ("quorum", "joining", "guests", "credentials")),
        *((name, evolve(GOOD, survey="down")) for name in ("quorum", "joining", "guests", "permissions")),
    ],
)
def test_what_does_not_arise_is_not_asked(name: str, it: Situation) -> None:
    """A newcomer carries nothing, and without a survey one check says what was not looked at."""
    assert found(it, name) is None


def test_a_host_without_a_cluster_needs_no_password() -> None:
    """It stands alone, and nothing of a cluster matters."""
    alone = evolve(GOOD, survey=None, credentials=Credentials(password=False, token=False, ssh_key=False))
    assert rehearse(alone).verdict is Verdict.YES


# --- any situation ---------------------------------------------------------------------------------

SEEN_BY = {
    "guests": "guests",
    "ha_services": "ha",
    "ha_maintenance": "maintenance",
    "ha_rules": "rules",
    "replication": "replication",
    "storages": "storage",
    "ceph_nodes": "ceph",
}
"""The fields of a survey that may be None, and the check that each is for."""

names = st.sampled_from([f"pve{number}" for number in range(1, 7)] + ["PVE3"])
numbers = st.integers(1, 12)
addresses = st.builds(lambda last: ip_address(f"10.0.0.{last}"), numbers)


def some(what: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A few of them, or nothing that was seen."""
    return st.none() | st.lists(what, max_size=3).map(tuple)


a_node = st.builds(
    Node,
    name=names,
    nodeid=numbers,
    votes=st.integers(0, 3),
    online=st.booleans(),
    address=st.none() | addresses,
    links=st.dictionaries(st.integers(0, 7), addresses.map(str), max_size=2),
)
a_cluster = st.builds(
    Cluster,
    name=st.just("lab"),
    version=numbers,
    quorate=st.booleans(),
    nodes=st.lists(a_node, min_size=1, max_size=7, unique_by=lambda node: node.name.lower()).map(tuple),
    qdevice_votes=st.integers(0, 1),
    qdevice_online=st.booleans(),
)
a_survey = st.builds(
    Survey,
    at=st.just(NOW),
    asked=names.map(lambda name: f"{name} (10.0.0.1)"),
    release=st.just("9.1.4"),
    cluster=st.none() | a_cluster,
    guests=some(
        st.builds(
            Guest,
            vmid=numbers,
            kind=st.sampled_from(["qemu", "lxc"]),
            node=names,
            name=st.text(max_size=3),
            status=st.sampled_from(["running", "stopped", "unknown"]),
            template=st.booleans(),
        )
    ),
    ha_services=some(
        st.builds(HaService, sid=numbers.map("vm:{}".format), node=names, state=st.just("started"))
    ),
    ha_maintenance=st.none() | st.frozensets(names),
    ha_rules=some(st.builds(HaRule, id=st.text(max_size=3), kind=st.just("rule"), nodes=st.tuples(names))),
    replication=some(st.builds(ReplicationJob, id=st.just("1-0"), guest=numbers, source=names, target=names)),
    storages=some(st.builds(Storage, id=st.just("s"), kind=st.just("dir"), nodes=st.tuples(names))),
    ceph_nodes=st.none() | st.frozensets(names),
    certificates=st.lists(
        st.builds(
            Certificate,
            node=names,
            fingerprint=st.just("AA"),
            not_after=st.none() | st.datetimes(timezones=st.just(UTC)),
        ),
        max_size=2,
    ).map(tuple),
    releases=st.dictionaries(names, st.sampled_from(["8.4.1", "9.0", "10.1", "", "x"])),
    unseen=st.dictionaries(
        st.sampled_from([*SEEN_BY, "qdevice_votes", "certificates", "releases"]), st.text(max_size=5)
    ),
)
a_situation = st.builds(
    Situation,
    at=st.just(NOW),
    host=st.builds(
        host,
        ip=st.none() | addresses,
        memory_mib=st.none() | st.integers(1, 1 << 30),
        options=st.builds(
            HostOptions,
            address=st.none() | st.just(STATIC),
            links=st.none() | st.lists(addresses, min_size=1, max_size=2).map(tuple),
            nodeid=st.none() | numbers,
        ),
    ),
    busy=st.none() | st.text(max_size=5),
    server_type=st.none(),
    plan=st.text(max_size=5)
    | st.sampled_from([PLAN, evolve(PLAN, disks=("/dev/sda",), management_nic="wlp1")]),
    image=st.sampled_from([None, Elsewhere("http://x/"), "8.4-1", "9.2-1"]),
    public_url=st.just("http://10.0.0.250:8080"),
    hardware=st.none()
    | st.sampled_from([HARDWARE, evolve(HARDWARE, disks=None), evolve(HARDWARE, links=(), disks=())]),
    others=st.lists(
        st.builds(Other, hostname=names, addresses=st.lists(addresses, max_size=2).map(tuple)), max_size=3
    ).map(tuple),
    survey=st.none() | st.text(max_size=5) | a_survey,
    away=st.frozensets(names),
    credentials=st.builds(Credentials, password=st.booleans(), token=st.booleans(), ssh_key=st.booleans()),
    drain=st.booleans(),
    keep_entry=st.booleans(),
)


@given(a_situation)
def test_any_situation_has_a_verdict(it: Situation) -> None:
    """No exception; a no exactly where something blocks; and what is final is a part of that."""
    rehearsal: Rehearsal = rehearse(it)
    blockers = [check for check in rehearsal.checks if check.result in (NO, UNKNOWN)]
    assert (rehearsal.verdict is Verdict.NO) == bool(blockers)
    assert tuple(blockers) == rehearsal.blockers
    assert set(rehearsal.final_blockers) <= set(blockers)
    assert len({check.name for check in rehearsal.checks}) == len(rehearsal.checks)
    assert all(check.what for check in rehearsal.checks)


@given(a_situation)
def test_what_was_not_seen_is_never_fine(it: Situation) -> None:
    """A field that is None is unknown where it matters, whatever else is there."""
    results = {check.name: check.result for check in rehearse(it).checks}
    if isinstance(it.survey, str):
        assert results["cluster"] is UNKNOWN
    if isinstance(it.survey, Survey) and it.member is not None:
        for field, name in SEEN_BY.items():
            if getattr(it.survey, field) is None:
                assert results[name] is UNKNOWN
    if isinstance(it.survey, Survey) and it.cluster is not None and "qdevice_votes" in it.survey.unseen:
        assert results["qdevice"] is UNKNOWN
    if it.hardware is None and not isinstance(it.plan, str):
        assert results["disks"] is results["nic"] is BUT


@given(a_situation)
def test_nobody_leaves_who_takes_the_majority_along(it: Situation) -> None:
    """The rule that no setting moves: it stays a majority, or a cluster of two is told so over SSH."""
    if it.cluster is None or it.member is None:
        return
    results = {check.name: check for check in rehearse(it).checks}
    others = [node for node in it.cluster.nodes if not it.is_me(node.name)]
    if it.cluster.spare_votes({it.name}) >= 0 and it.cluster.quorate and others:
        return
    if not it.cluster.quorate or not all(node.online for node in others):
        assert results["quorum"].blocks
        assert not results["quorum"].overridable
    else:
        assert results["quorum"].blocks or it.credentials.ssh_key


@given(a_situation)
def test_a_rehearsal_and_the_gates_that_follow_agree(it: Situation) -> None:
    """What it lets pass is let pass, now or when the others are back; what it stops would wait for ever."""
    checks = {check.name: check for check in rehearse(it).checks}
    cluster = it.cluster
    if cluster is None:
        return
    lowers = it.credentials.ssh_key and not it.keep_entry
    if "quorum" in checks and (it.credentials.ssh_key or it.keep_entry):
        now, alone = (
            why_not_without(cluster, it.name, away, can_lower_expected=lowers)
            for away in (it.others_away, frozenset[str]())
        )
        waits = "waits for" in checks["quorum"].what
        assert checks["quorum"].blocks == (alone is not None), alone
        assert checks["quorum"].blocks or waits == (now is not None), now
    if "joining" in checks and it.member is None and not checks["joining"].blocks:
        assert obstacle(cluster, it.name, frozenset(), votes=1, keep_entry=False) is None


def test_a_survey_has_no_field_that_nobody_asks_for() -> None:
    """What may be None in a survey is known here: a new field needs a check."""
    optional = {field.name for field in fields(Survey) if "None" in str(field.type)}
    assert optional - {"cluster"} == set(SEEN_BY)
