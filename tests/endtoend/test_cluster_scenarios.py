"""What can happen to a cluster while provd changes it: every scenario, and where it is played.

By the numbers of what a simulated cluster can do, `joins` being test_join_scenarios:

 1  a good join                                 test_rebuild, `joins` (WELL)
 2  a wrong password                            `joins` (BEFORE)
 3  standard input closed                       no way there; tests/proxmox/test_join, tests/simulator
 4  a wrong fingerprint                         `joins` (BEFORE)
 5  no fingerprint                              no way there, the configuration insists; tests/simulator
 6  a second factor                             `joins` (BEFORE)
 7  the name exists                             `joins` (BEFORE)
 8  the name exists, --force                    test_join_variants; here: number, votes, and an unclean host
 9  no quorum                                   `joins` (BEFORE)
10  guests or a key left on the host            `joins` (BY_PVECM); with --force here
11  UDP is blocked                              `joins`, test_rejoin
12  a join cut off half-way                     `joins` (HALF_WAY), test_rejoin, test_kill
13  two at once, the lock is busy               `joins` (BY_PVECM); while a member leaves: here
14  the configuration changes during a join     `joins`; tried again: here
15  a join to a cluster of one                  `joins`, test_members (a member of two)
16  where keys go                               `joins`, tests/simulator/test_cluster_keys
17  keys in a regular file                      `joins`
18  delnode on itself                           no way there, the one that leaves is not asked: here
    delnode without quorum, of the unknown, of who is offline                      here
19  an API token where root's ticket is wanted  no way there: without password or key nothing begins: here
20  a token without VM.Audit                    tests/web/test_rehearsal; through the whole daemon: here
21  join information of a machine alone         provd does not ask for it; `joins` (BEFORE: in no cluster)
22  a member's certificate was replaced         `joins` (BEFORE); while another one serves: here
23  the certificate after a join                `joins` (WELL)
24  no cluster, and one without quorum          tests/proxmox/test_join; `joins` (BEFORE)
25  an old release                              `joins` (WELL)

Besides: members that go down while another one leaves, and a machine that comes back with its old disk.
"""

import os
import signal
from pathlib import Path

import pytest
import trio

from endtoend.test_members import cluster_with, never_below_quorum
from endtoend.world import PATIENCE, Json, World, open_world
from provd.simulator.cluster.machine import Machine as PveRoot
from provd.simulator.machine.machine import Machine, Phase

WHOLE = {"pve1": True, "pve2": True, "pve3": True}
FIVE = WHOLE | {"pve4": True, "pve5": True}


def set_fault(world: World, name: str, value: object) -> None:
    with world.cluster.edit() as state:
        setattr(state.faults, name, value)


def exactly(world: World, states: dict[str, bool], *, version: int) -> None:
    """Members and votes are these, nothing was done beside, and nobody holds anything."""
    state = world.cluster.read()
    assert world.member_states() == states
    assert state.config_version == version
    assert state.expected_votes == len(states)
    assert state.quorate
    assert len({node.nodeid for node in state.nodes.values()}) == len(states)
    assert sorted(path.name for path in (world.cluster.pve / "nodes").iterdir()) == sorted(states)
    assert world.rows("SELECT * FROM locks") == []


async def done(world: World, operation: Json) -> list[str]:
    with trio.fail_after(3 * PATIENCE):
        while (await world.operation(operation))["active"]:
            await trio.sleep(0.1)
    over = await world.operation(operation)
    story = await world.story(over)
    assert over["outcome"] == "done", story
    return story


# --- a member leaves ----------------------------------------------------------------------------------


async def test_a_busy_lock_is_waited_for(tmp_path: Path) -> None:
    """The node that leaves is offline meanwhile; it is struck out as soon as the lock is free."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        set_fault(world, "lock_busy", True)
        operation = await world.rebuild(host)
        await world.heard(operation, "got lock request timeout")
        assert world.member_states() == WHOLE | {"pve3": False}
        assert world.cluster.read().config_version == version
        set_fault(world, "lock_busy", False)
        await done(world, operation)
        exactly(world, WHOLE, version=version + 2)
        assert (machine.wipes(), never_below_quorum(world)) == (1, True)


async def test_the_member_that_was_asked_goes_down(tmp_path: Path) -> None:
    """Another one strikes it out: the cluster has told who there is."""
    async with cluster_with(tmp_path, 5, members=4) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        set_fault(world, "lock_busy", True)
        operation = await world.rebuild(host)
        await world.heard(operation, "got lock request timeout")
        await world.member_down("pve1")
        set_fault(world, "lock_busy", False)
        await world.heard(operation, "was struck out")
        await done(world, operation)
        exactly(world, FIVE | {"pve1": False}, version=version + 2)
        assert (machine.wipes(), never_below_quorum(world)) == (1, True)


async def test_all_others_go_down(tmp_path: Path) -> None:
    """Nobody can be asked: it waits, says so, and goes on when one after the other is back."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        set_fault(world, "lock_busy", True)
        operation = await world.rebuild(host)
        await world.heard(operation, "got lock request timeout")
        await world.member_down("pve1")
        await world.member_down("pve2")
        set_fault(world, "lock_busy", False)
        await world.heard(operation, "cannot be asked")
        await world.member_up("pve1")
        await world.heard(operation, "has no quorum to strike pve3 out with: bring pve2 back")
        assert world.cluster.read().config_version == version
        await world.member_up("pve2")
        await done(world, operation)
        exactly(world, WHOLE, version=version + 2)
        assert machine.wipes() == 1


async def test_others_go_down_between_its_release_and_its_end(tmp_path: Path) -> None:
    """It stays a member as long as its vote is needed, and is struck out when the others are back."""
    async with cluster_with(tmp_path, 5, members=4) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        assert machine.sshd_pid
        os.kill(machine.sshd_pid, signal.SIGSTOP)  # provd does not get in yet
        operation = await world.rebuild(host)
        await world.until(host, "pxe_ready")
        await world.member_down("pve3")
        await world.member_down("pve4")
        os.kill(machine.sshd_pid, signal.SIGCONT)
        await world.heard(operation, "without pve5 the others have no quorum: bring pve3, pve4 back")
        assert world.cluster.read().quorate
        await world.member_up("pve3")
        await world.member_up("pve4")
        await done(world, operation)
        exactly(world, FIVE, version=version + 2)
        assert (machine.wipes(), never_below_quorum(world)) == (1, True)


async def test_somebody_else_strikes_it_out(tmp_path: Path) -> None:
    """What is not listed any more need not be struck out, and the number is the same as before."""
    async with cluster_with(tmp_path, 3, members=2, trusted=False) as (world, [machine], [host]):
        before = world.cluster.read()
        operation = await world.rebuild(host)
        await world.until(host, "pxe_ready")
        await world.power_off(machine)
        root = world.cluster.machine_root("pve1")
        assert root is not None
        await trio.run_process([root / "usr/local/bin/pvecm", "delnode", "pve3"], capture_stdout=True)
        world.power_on(machine)
        assert not any("was struck out" in line for line in await done(world, operation))
        exactly(world, WHOLE, version=before.config_version + 2)
        assert world.cluster.read().nodes["pve3"].nodeid == before.nodes["pve3"].nodeid


async def test_the_configured_member_is_rebuilt(tmp_path: Path) -> None:
    """It is never asked about itself: the others are known from it, and the configuration keeps its place."""
    async with open_world(tmp_path, members=2, trusted=True) as world:
        machine = world.member_machine(3)

        def configured(document: Json) -> None:
            document["proxmox"] |= {
                "existing_node": machine.ip,
                "join_fingerprint": world.cluster.fingerprint("pve3"),
            }

        world.configure(configured)
        await world.start()
        host = await world.register_member(machine)
        await world.power_on_member(machine)
        await world.call("POST", "/api/cluster")
        world.begun = len(world.cluster.history())
        version = world.cluster.read().config_version
        await done(world, await world.rebuild(host))
        exactly(world, WHOLE, version=version + 2)
        assert never_below_quorum(world)


async def test_a_machine_comes_back_with_its_old_disk(tmp_path: Path) -> None:
    """Struck out and disarmed, its rebuild given up: the old system boots, and stays outside."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        await world.doorway.close()  # its firmware waits there for what to boot
        operation = await world.rebuild(host)
        await world.heard(operation, "was restarted")
        with trio.fail_after(PATIENCE):
            await machine.wait_phase(Phase.FIRMWARE)
        over = await world.call("POST", f"/api/operations/{operation['id']}/cancel")
        assert over["outcome"] == "cancelled"
        world.doorway.open.set()
        with trio.fail_after(PATIENCE):
            await machine.wait_phase(Phase.IDLE)
        exactly(world, {"pve1": True, "pve2": True}, version=version + 1)
        assert (await world.host(host))["state"] == "failed"
        assert (machine.wipes(), never_below_quorum(world)) == (0, True)
        assert not PveRoot(machine.root).read().corosync

        again = await world.rebuild(host)
        await world.power_off(machine)
        world.power_on(machine)
        await done(world, again)
        exactly(world, WHOLE, version=version + 2)
        assert (machine.wipes(), never_below_quorum(world)) == (1, True)


# --- a member keeps its entry -------------------------------------------------------------------------


async def kept(world: World, machine: Machine, host: Json) -> Json:
    operation = await world.rebuild(host, keep_entry=True)
    await world.until(host, "pxe_ready")
    await world.power_off(machine)
    world.power_on(machine)
    return await world.until_over(operation)


async def test_a_kept_entry_keeps_number_and_votes(tmp_path: Path) -> None:
    """One change of the configuration, and not two; votes and number are those of the old entry."""
    async with cluster_with(tmp_path, 4, members=3) as (world, [machine], [host]):
        with world.cluster.edit() as state:
            state.nodes["pve4"].nodeid = 9
        before = world.cluster.read()
        over = await kept(world, machine, host)
        assert over["outcome"] == "done", await world.story(over)
        exactly(world, WHOLE | {"pve4": True}, version=before.config_version + 1)
        assert world.cluster.read().nodes["pve4"].nodeid == 9
        assert never_below_quorum(world)


async def test_a_host_that_is_not_clean_does_not_take_over_its_entry(tmp_path: Path) -> None:
    """--force would turn what pvecm refuses into warnings: guests and old keys are refused before."""
    async with cluster_with(tmp_path, 4, members=3) as (world, [machine], [host]):
        version = world.cluster.read().config_version

        async def leave_a_key() -> None:
            await trio.lowlevel.checkpoint()
            (machine.root / "etc/corosync/authkey").write_bytes(b"of an earlier life")

        machine.before_pveproxy = leave_a_key
        over = await kept(world, machine, host)
        assert over["outcome"] == "failed"
        assert "cannot join under its old entry" in over["detail"]
        assert "Retry from join" in over["detail"]
        exactly(world, WHOLE | {"pve4": False}, version=version)


async def test_a_member_of_two_cannot_keep_its_entry(tmp_path: Path) -> None:
    """Its vote would be expected all the time that it is away: that is refused, and it works as it did."""
    async with cluster_with(tmp_path, 2, members=1) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        wish = {"keep_entry": True, "force": "pve2"}
        refused = await world.call("POST", f"/api/hosts/{host['id']}/rebuild", wish, expect=409)
        assert "keeps its entry" in refused["detail"]
        exactly(world, {"pve1": True, "pve2": True}, version=version)
        assert (machine.wipes(), never_below_quorum(world)) == (0, True)


# --- a host joins -------------------------------------------------------------------------------------


async def test_a_join_during_which_the_configuration_changed_is_tried_again(tmp_path: Path) -> None:
    """The host's corosync stopped because of an old configuration; struck out and entered anew, it joins."""
    async with open_world(tmp_path, members=2) as world:
        world.configure(lambda document: document.update(deadlines={"joining": "6s"}))
        set_fault(world, "config_bump_between", True)
        await world.start()
        machine = world.machine()
        host, over = await world.whole_rebuild(machine)
        assert over["outcome"] == "failed"
        version = world.cluster.read().config_version
        await done(world, await world.call("POST", f"/api/hosts/{host['id']}/rejoin", expect=202))
        exactly(world, {"pve1": True, "pve2": True, "nuc1": True}, version=version + 2)
        assert machine.wipes() == 1


async def test_members_that_went_down_while_the_daemon_was_away_are_missed(tmp_path: Path) -> None:
    """A host that has its turn is not entered into a cluster that its vote would cost the majority."""
    async with open_world(tmp_path, members=4) as world:
        set_fault(world, "udp_blocked", True)
        await world.start()
        first, second = world.machine(1), world.machine(2)
        before_it = await world.rebuild(await world.register(first))
        world.power_on(first)
        await world.heard(before_it, "waiting for quorum")
        host = await world.register(second)
        operation = await world.rebuild(host)
        world.power_on(second)
        await world.heard(operation, "waits for its turn: nuc1 is joining")
        assert second.sshd_pid
        os.kill(second.sshd_pid, signal.SIGSTOP)  # it gets its turn, and provd does not get in
        await world.call("POST", f"/api/operations/{before_it['id']}/cancel")
        await world.until(host, "joining")
        await world.kill()
        set_fault(world, "udp_blocked", False)
        await world.member_down("pve4")
        version = world.cluster.read().config_version
        os.kill(second.sshd_pid, signal.SIGCONT)
        await world.start()
        over = await world.until_over(operation)
        assert over["outcome"] == "failed"
        assert "only 3 of the cluster's 5 votes are there" in over["detail"]
        assert "Retry from join" in over["detail"]
        assert all(moment.quorate for moment in world.cluster.history())
        assert world.member_states() == WHOLE | {"pve4": False, "nuc1": False}
        assert world.cluster.read().config_version == version
        await world.member_up("pve4")
        await done(world, await world.call("POST", f"/api/hosts/{host['id']}/rejoin", expect=202))
        assert world.member_states() == {**WHOLE, "pve4": True, "nuc1": False, "nuc2": True}
        assert world.cluster.read().config_version == version + 1
        assert second.wipes() == 1


async def test_a_renewed_certificate_does_not_matter_while_another_member_serves(tmp_path: Path) -> None:
    """The configured one is not believed any more, and that is said; the others are known by theirs."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        await world.call("POST", "/api/cluster")
        version = world.cluster.read().config_version
        old = world.cluster.fingerprint("pve1")
        set_fault(world, "peer_other_cert", ["pve1"])
        await done(world, await world.rebuild(host))
        exactly(world, WHOLE, version=version + 2)
        assert machine.wipes() == 1
        [warning] = world.rows("SELECT message FROM activity WHERE event = 'cluster.certificate_changed'")
        for words in (
            old,
            world.cluster.fingerprint("pve1"),
            "change the configuration",
            "was asked instead",
        ):
            assert words in warning[0]


# --- credentials that do not reach --------------------------------------------------------------------


async def test_a_token_alone_changes_nothing(tmp_path: Path) -> None:
    """It only reads: without root's password or a key nothing begins."""
    async with open_world(tmp_path, members=2, trusted=True) as world:
        for name in ("cluster_password_file", "cluster_ssh_key_file"):
            world.configure(lambda document, name=name: document["credentials"].pop(name))
        await world.start()
        version = world.cluster.read().config_version
        host = await world.register(world.machine())
        refused = await world.call("POST", f"/api/hosts/{host['id']}/rebuild", expect=422)
        assert "credentials.cluster_password_file" in refused["detail"]
        exactly(world, {"pve1": True, "pve2": True}, version=version)
        assert world.rows("SELECT * FROM operations") == []


@pytest.mark.parametrize("force", [False, True], ids=["as it is", "overridden"])
async def test_guests_that_the_token_may_not_see_are_unknown(tmp_path: Path, force: bool) -> None:
    """An empty list without VM.Audit means nothing: the rebuild is refused, or somebody answers for it."""
    async with open_world(tmp_path, members=2, trusted=True) as world:
        world.configure(lambda document: document["credentials"].pop("cluster_password_file"))
        with world.cluster.edit() as state:
            for token in state.tokens.values():
                token.privs = {"/": ["Sys.Audit"]}
        await world.start()
        machine = world.member_machine(3)
        host = await world.register_member(machine)
        await world.power_on_member(machine)
        version = world.cluster.read().config_version
        if force:
            story = await done(world, await world.rebuild(host, force="pve3"))
            assert any("guests" in line for line in story)
            exactly(world, WHOLE, version=version + 2)
            return
        refused = await world.call("POST", f"/api/hosts/{host['id']}/rebuild", expect=409)
        assert "guests" in [check["name"] for check in refused["checks"] if check["result"] == "unknown"]
        exactly(world, WHOLE, version=version)
        assert machine.wipes() == 0
