"""What provd changes in a cluster, through members over real HTTPS and real SSH."""

from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio

from orchestrator.cluster_admin_lab import KILL_OWN_SSHD, PASSWORD, Lab, open_admin
from provd.domain.errors import ClusterFailed
from provd.domain.hosts import HostOptions, Mac
from provd.domain.secrets import Secret
from provd.orchestrator.membership.admin import ClusterAdmin, Tidied
from provd.proxmox.cluster import CertificateChanged, LoginRefused
from provd.remote.keys import KeyPair
from provd.simulator.cluster import ssh_keys
from provd.simulator.cluster.state import Guest, HaResource, HaRule
from provd.store import hosts, members
from provd.store.database import Db, now


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_admin(tmp_path) as lab:
        yield lab


def nodes(lab: Lab) -> list[str]:
    return sorted(lab.cluster.read().nodes)


# --- looking --------------------------------------------------------------------------------------


async def test_the_cluster_is_seen_by_another_member(lab: Lab) -> None:
    """Never by the one that it is about, which may be gone in the next moment; votes and links included."""
    for name in ("pve1", "PVE2", "stranger"):
        cluster = await lab.admin.look(PASSWORD, beside=name)
        assert [(node.name, node.votes, node.online) for node in cluster.nodes] == [
            ("pve1", 1, True),
            ("pve2", 1, True),
            ("pve3", 1, True),
        ]
        assert cluster.quorate
    await lab.off("pve2")
    seen = (await lab.admin.look(PASSWORD, beside="pve1")).node("pve2")
    assert seen is not None
    assert not seen.online


async def test_whom_to_join_through(lab: Lab) -> None:
    """A member that answers, with its address and certificate; not the host itself, nor one that is off."""
    assert (await lab.admin.peer(PASSWORD, beside="pve5")).name == "pve1"
    assert (await lab.admin.peer(PASSWORD, beside="pve1")).name in ("pve2", "pve3")
    await lab.off("pve1")
    await lab.off("pve2")
    peer = await lab.admin.peer(PASSWORD, beside="pve5")
    assert (peer.name, peer.address) == ("pve3", lab.members.members["pve3"].ip)
    assert peer.fingerprint == lab.cluster.fingerprint("pve3")


async def test_a_machine_alone_is_no_cluster(tmp_path: Path) -> None:
    """The sentence says what to run there."""
    async with open_admin(tmp_path, size=1) as lab:
        with lab.cluster.edit() as state:
            state.name = None
        with pytest.raises(ClusterFailed, match="run `pvecm create` there first"):
            await lab.admin.look(PASSWORD, beside="pve5")


async def test_services_of_a_node(lab: Lab) -> None:
    """Those that are on it now, in order."""
    with lab.cluster.edit() as state:
        for vmid, node in ((102, "pve3"), (101, "pve3"), (100, "pve1")):
            state.guests.append(Guest(vmid=vmid, node=node))
            state.ha_resources.append(HaResource(sid=f"vm:{vmid}", node=node))
    assert await lab.admin.services_on("PVE3", None) == ["vm:101", "vm:102"]
    assert await lab.admin.services_on("pve2", PASSWORD) == []


async def test_certificates_are_compared(lab: Lab) -> None:
    """What a member serves with what the others know of it; what they do not know is said to be unknown."""
    address = ip_address(lab.members.members["pve3"].ip)
    await lab.admin.compare_certificate("pve3", address, PASSWORD)
    with pytest.raises(CertificateChanged) as caught:
        await lab.admin.compare_certificate("pve3", ip_address(lab.members.members["pve2"].ip), PASSWORD)
    assert caught.value.expected == lab.cluster.fingerprint("pve3")
    assert caught.value.actual == lab.cluster.fingerprint("pve2")
    with pytest.raises(ClusterFailed, match="knows no certificate of pve9"):
        await lab.admin.compare_certificate("pve9", address, PASSWORD)
    await lab.off("pve3")
    with pytest.raises(ClusterFailed, match="cannot be asked"):
        await lab.admin.compare_certificate("pve3", address, PASSWORD)


# --- striking out and tidying up ------------------------------------------------------------------


@pytest.mark.parametrize("password", [PASSWORD, None], ids=["by API", "by SSH"])
async def test_a_node_is_struck_out_and_tidied_up_after(lab: Lab, password: Secret | None) -> None:
    """With either credential; then nobody lists it, its key is gone, and what it left is in a copy."""
    await lab.off("pve3")
    await lab.admin.strike_out("pve3", password)
    assert nodes(lab) == ["pve1", "pve2"]
    assert any(line.endswith(" root@pve3") for line in lab.cluster.authorized_keys())

    tidied = await lab.admin.tidy_up("pve3", "17")
    assert tidied.guests == ()
    assert (lab.members.members[tidied.member].root / tidied.copy.lstrip("/")).stat().st_size > 0
    assert not (lab.cluster.pve / "nodes/pve3").exists()
    names = [line.split()[-1] for line in lab.cluster.authorized_keys() if line.startswith("ssh-rsa")]
    assert sorted(names) == ["root@pve1", "root@pve2"]
    assert await lab.admin.tidy_up("pve3", "17") == Tidied(member=tidied.member)

    with pytest.raises(ClusterFailed, match="not a known host"):
        await lab.admin.strike_out("pve3", password)


@pytest.mark.parametrize("password", [PASSWORD, None], ids=["by API", "by SSH"])
async def test_without_quorum_nobody_is_struck_out(lab: Lab, password: Secret | None) -> None:
    """The member's own words come out; to be content with fewer votes is what helps, with care."""
    await lab.off("pve2")
    await lab.off("pve3")
    with pytest.raises(ClusterFailed, match="no quorum"):
        await lab.admin.strike_out("pve3", password)
    assert nodes(lab) == ["pve1", "pve2", "pve3"]
    await lab.admin.expect_votes(1, beside="pve3")
    await lab.admin.strike_out("pve3", password)
    assert nodes(lab) == ["pve1", "pve2"]


async def test_guests_stay_where_they_are(lab: Lab) -> None:
    """They are named, and all else is tidied."""
    guest = lab.cluster.pve / "nodes/pve3/qemu-server/100.conf"
    guest.parent.mkdir()
    guest.write_text("a machine")
    await lab.off("pve3")
    await lab.admin.strike_out("pve3", None)
    tidied = await lab.admin.tidy_up("pve3", "17")
    assert (tidied.guests, tidied.copy != "") == (("100",), True)
    assert guest.read_text() == "a machine"


async def test_ha_rules_name_it_no_more(lab: Lab) -> None:
    """What each was is said, for a human to put it back; a token may not do that."""
    with lab.cluster.edit() as state:
        state.ha_rules = [
            HaRule(rule="prefers", nodes=["pve3:2", "pve1"], resources=["vm:100"]),
            HaRule(rule="only", nodes=["pve3"], resources=["vm:101"]),
            HaRule(rule="others", nodes=["pve1", "pve2"], resources=["vm:102"]),
        ]
    with pytest.raises(ClusterFailed, match="still names pve3"):
        await lab.admin.forget_in_ha_rules("pve3", None)
    said = await lab.admin.forget_in_ha_rules("pve3", PASSWORD)
    assert sorted(said) == [
        "the HA rule only (nodes: pve3) was removed, since it named nobody else",
        "the HA rule prefers (nodes: pve3:2,pve1) names it no more",
    ]
    assert {rule.rule: rule.nodes for rule in lab.cluster.read().ha_rules} == {
        "prefers": ["pve1"],
        "others": ["pve1", "pve2"],
    }
    assert await lab.admin.forget_in_ha_rules("pve3", PASSWORD) == []


async def test_maintenance(lab: Lab) -> None:
    """On and off again, each as often as one likes; a stranger is refused in the program's words."""
    for on in (True, True, False, False):
        await lab.admin.set_maintenance("pve3", on=on)
        assert ("pve3" in lab.cluster.read().ha_maintenance) is on
    with pytest.raises(ClusterFailed, match="no such cluster node 'pve9'"):
        await lab.admin.set_maintenance("pve9", on=True)


async def test_a_newcomers_key_is_admitted_everywhere(lab: Lab, tmp_path: Path) -> None:
    """Once, and the member that it shall join through comes with the host keys to know it by."""
    line = ssh_keys.make_root_key(tmp_path, "root@pve5")
    for _ in range(2):
        peer = await lab.admin.admit("pve5", line)
        assert lab.cluster.authorized_keys().count(line) == 1
    assert peer.name in lab.members.members
    root = lab.members.members[peer.name].root
    told = {path.read_text().rsplit(" ", 1)[0] for path in root.glob("etc/ssh/ssh_host_*_key.pub")}
    assert set(peer.ssh_host_keys) <= told
    assert peer.ssh_host_keys
    for member in lab.members.members:
        assert (await lab.members.ssh(member, "true", key=tmp_path / "id_rsa")).status == 0


# --- whom it goes through -------------------------------------------------------------------------

CHANGES: dict[str, Callable[[ClusterAdmin], Awaitable[object]]] = {
    "strike_out": lambda admin: admin.strike_out("pve3", None),
    "tidy_up": lambda admin: admin.tidy_up("pve3", "17"),
    "set_maintenance": lambda admin: admin.set_maintenance("pve3", on=True),
    "expect_votes": lambda admin: admin.expect_votes(2, beside="pve3"),
    "admit": lambda admin: admin.admit("pve3", "ssh-rsa AAAA root@pve3"),
}


@pytest.mark.parametrize("change", list(CHANGES))
async def test_without_a_key_it_says_how_to_give_it_one(lab: Lab, change: str) -> None:
    """Everything that goes over SSH."""
    with pytest.raises(ClusterFailed, match=r"set credentials\.cluster_ssh_key_file"):
        await CHANGES[change](lab.admin_with(None))


async def test_a_member_that_is_down_is_passed_over(lab: Lab) -> None:
    """Any that is there does; where none is, each that was asked is named."""
    first, second, third = (one.name for one in lab.link.remembered())
    await lab.off(first)
    await lab.admin.expect_votes(2, beside=third)  # by the second
    await lab.off(second)
    with pytest.raises(ClusterFailed) as caught:
        await lab.admin.expect_votes(2, beside=third)
    for name in (first, second):
        assert f"{lab.members.members[name].ip}:" in str(caught.value)
    assert lab.members.members[third].ip not in str(caught.value)


async def test_a_member_that_hangs_is_passed_over(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An sshd that takes the connection and says nothing costs its time, and no more."""
    monkeypatch.setattr("provd.orchestrator.membership.admin.KNOCK_SECONDS", 1.5)
    first = lab.link.remembered()[0].name
    await lab.off(first)

    async def say_nothing(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(
            lab.cluster.read().ssh_port, host=lab.members.members[first].ip
        )
        nursery.start_soon(trio.serve_listeners, say_nothing, listeners)
        await lab.admin.expect_votes(2, beside="nobody")
        assert lab.cluster.read().expected_votes == 2
        nursery.cancel_scope.cancel()


async def test_a_key_that_no_member_takes(lab: Lab) -> None:
    """Each that was asked is named, with the key by its comment."""
    with pytest.raises(ClusterFailed, match=r"does not accept the key 'a stranger'.*; .*a stranger"):
        await lab.admin_with(KeyPair.generate("a stranger")).expect_votes(3, beside="pve3")


async def test_a_connection_that_breaks_is_a_cluster_that_failed(lab: Lab) -> None:
    """Whoever tries again for a while does so then too."""
    member = lab.link.remembered()[0].name
    pvecm = lab.members.members[member].root / "usr/local/bin/pvecm"
    pvecm.write_text(KILL_OWN_SSHD)
    with pytest.raises(ClusterFailed, match=f"SSH to .*{lab.members.members[member].ip}"):
        await lab.admin.expect_votes(3, beside="nobody")


async def test_a_password_that_is_wrong(lab: Lab) -> None:
    """It is said to be wrong, and no key takes its place unasked."""
    with pytest.raises(LoginRefused, match="password"):
        await lab.admin.strike_out("pve3", Secret("a guess"))
    assert nodes(lab) == ["pve1", "pve2", "pve3"]


# --- by which keys the members are known ----------------------------------------------------------


def pinned(lab: Lab) -> dict[str, tuple[str, ...]]:
    return {one.name: one.ssh_host_keys for one in lab.link.remembered()}


async def test_a_host_key_is_pinned_at_the_first_contact(lab: Lab) -> None:
    """Of the member that was visited, and told once, with the way to unpin it."""
    assert not any(pinned(lab).values())
    for _ in range(2):
        async with lab.admin.open_node("pve2") as session:
            assert (await session.run("cat /etc/hostname; echo $PROVD_ROOT")).stdout.endswith("/pve2\n")
    assert [name for name, keys in pinned(lab).items() if keys] == ["pve2"]
    [told] = lab.told()
    assert "first SSH contact with pve2" in told
    assert "`provd cluster forget pve2` unpins it" in told


async def test_another_host_key_is_refused(lab: Lab) -> None:
    """Both fingerprints and the way out are in the sentence; nothing was run there, and others serve."""
    async with lab.admin.open_node("pve1"):
        pass
    [before] = pinned(lab)["pve1"]
    root = lab.members.members["pve1"].root
    await lab.off("pve1")
    ssh_keys.make_host_keys(root / "etc/ssh", "root@pve1")
    await lab.members.up("pve1")

    await lab.admin.expect_votes(3, beside="nobody")
    await lab.off("pve2")
    await lab.off("pve3")
    with pytest.raises(ClusterFailed) as caught:
        await lab.admin.expect_votes(1, beside="nobody")
    assert lab.cluster.read().expected_votes == 3
    assert pinned(lab)["pve1"] == (before,)
    sentence = str(caught.value)
    assert sentence.count("SHA256:") >= 2
    assert "provd cluster forget pve1" in sentence

    await lab.store.write(lambda db: members.pin_host_keys(db, "pve1", []))
    await lab.admin.expect_votes(1, beside="nobody")
    assert lab.cluster.read().expected_votes == 1


async def test_a_host_that_provd_installed_is_known_by_what_it_told(lab: Lab) -> None:
    """Without a first contact; what was pinned before its installation does not count any more."""
    stale = KeyPair.generate("from before").public_line
    root = lab.members.members["pve2"].root
    own = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().strip()

    def install(db: Db) -> None:
        host = hosts.register(db, "PVE2", Mac("02:00:00:00:00:02"), "nuc", HostOptions(), now())
        hosts.set_address(db, host.id, ip_address(lab.members.members["pve2"].ip), "dmi-2")
        hosts.set_host_keys(db, host.id, (own,))
        members.pin_host_keys(db, "pve2", [stale])

    await lab.store.write(install)
    async with lab.admin.open_node("pve2"):
        pass
    assert pinned(lab)["pve2"] == (stale,)
    assert lab.told() == []
