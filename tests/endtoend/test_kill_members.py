"""kill -9 at every step of a member's leaving and of a second try to join: finished, and nothing done twice.

A step is held where it is by what it waits for: the cluster's lock is busy, HA does not move a service, or
an sshd is stopped (SIGSTOP) and says nothing. Then nobody has to be quick to kill the daemon in the middle.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import trio
from attrs import frozen

from endtoend.test_members import cluster_with, never_below_quorum
from endtoend.world import PATIENCE, Json, World, open_world
from provd.simulator.cluster.state import HaResource
from provd.simulator.machine.machine import Machine, Phase

WHOLE = {"pve1": True, "pve2": True, "pve3": True}


def lock_is_busy(world: World, busy: bool) -> None:
    with world.cluster.edit() as state:
        state.faults.lock_busy = busy


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """With everything that they have started; what has ended meanwhile is let go."""
    tree = [process for pid in pids for process in [*psutil.Process(pid).children(recursive=True)]]
    processes = [*(psutil.Process(pid) for pid in pids), *tree]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            if process.is_running():
                process.resume()


def sshd_of(world: World, *names: str) -> list[int]:
    pids = [world.members[name].sshd_pid for name in names]
    assert all(pids), "no sshd of its own"
    return [pid for pid in pids if pid]


async def assert_rebuilt_once(world: World, machine: Machine, operation: Json, version: int) -> None:
    over = await world.until_over(operation)
    story = await world.story(over)
    assert over["outcome"] == "done", story
    assert world.member_states() == WHOLE
    assert world.cluster.read().config_version == version + 2, "one delnode and one addnode"
    assert machine.wipes() == 1
    assert never_below_quorum(world)
    assert sum("was struck out" in line for line in story) <= 1
    assert sum(line.endswith(" root@pve3") for line in world.cluster.authorized_keys()) == 1
    assert world.rows("SELECT * FROM locks") == []


@pytest.mark.parametrize("words", ["will be offered", "will not start again", "waits until", "was restarted"])
async def test_killed_while_a_member_leaves(tmp_path: Path, words: str) -> None:
    """As soon as it was said: wherever that finds it, the rest is done once."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        operation = await world.rebuild(host)
        await world.heard(operation, words)
        await world.restart_killed()
        await assert_rebuilt_once(world, machine, operation, version)


async def test_killed_when_it_is_disarmed_and_offline(tmp_path: Path) -> None:
    """It is listed still, since the cluster's lock is busy; the old system is entered again."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        lock_is_busy(world, True)
        operation = await world.rebuild(host)
        await world.heard(operation, "got lock request timeout")
        assert world.member_states()["pve3"] is False
        await world.kill()
        lock_is_busy(world, False)
        await world.start()
        await assert_rebuilt_once(world, machine, operation, version)


async def test_killed_when_it_is_struck_out(tmp_path: Path) -> None:
    """What it left is not tidied up yet; its old system runs, cut off, and nobody but provd restarts it."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        lock_is_busy(world, True)
        operation = await world.rebuild(host)
        await world.heard(operation, "got lock request timeout")
        with stopped(*sshd_of(world, "pve1", "pve2")):
            lock_is_busy(world, False)
            await world.heard(operation, "was struck out")
            assert (world.cluster.pve / "nodes" / "pve3").exists()
            await world.call("POST", f"/api/hosts/{host['id']}/rebuild?dry_run=true")  # it is listed no more
            await world.kill()
        await world.start()
        await world.heard(operation, "was restarted")
        assert "cannot be taken out" not in " ".join(await world.story(operation))
        await assert_rebuilt_once(world, machine, operation, version)


async def test_killed_when_it_is_tidied_up_after(tmp_path: Path) -> None:
    """The old system does not hear that it is to restart; it is told again."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        lock_is_busy(world, True)
        operation = await world.rebuild(host)
        await world.heard(operation, "got lock request timeout")
        assert machine.sshd_pid
        sessions = [process.pid for process in psutil.Process(machine.sshd_pid).children()]
        assert sessions, "provd is not logged in"
        with stopped(*sessions):
            lock_is_busy(world, False)
            await world.heard(operation, "what pve3 left in /etc/pve was removed")
            await world.kill()
            for pid in sessions:  # or it would still find the command in its socket
                os.kill(pid, signal.SIGKILL)
        await world.start()
        await assert_rebuilt_once(world, machine, operation, version)


async def test_killed_while_it_waits_for_its_turn(tmp_path: Path) -> None:
    """Whoever has the turn keeps it, and the other one is rebuilt after it."""
    async with cluster_with(tmp_path, 4, 5, members=3) as (world, machines, hosts):
        version = world.cluster.read().config_version
        lock_is_busy(world, True)
        first = await world.rebuild(hosts[0])
        await world.heard(first, "got lock request timeout")
        second = await world.rebuild(hosts[1])
        await world.heard(second, "waits for its turn: pve4 is leaving the cluster")
        await world.kill()
        assert world.rows("SELECT operation_id FROM locks WHERE name = 'cluster'") == [(first["id"],)]
        lock_is_busy(world, False)
        await world.start()
        for operation in (first, second):
            over = await world.until_over(operation)
            assert over["outcome"] == "done", await world.story(over)
        assert world.member_states() == WHOLE | {"pve4": True, "pve5": True}
        assert world.cluster.read().config_version == version + 4
        assert [machine.wipes() for machine in machines] == [1, 1]
        assert never_below_quorum(world)


async def test_killed_while_a_member_is_drained(tmp_path: Path) -> None:
    """It works as it did, and leaves only when its service is gone; maintenance ends with the rebuild."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        with world.cluster.edit() as state:
            state.ha_resources.append(HaResource(sid="vm:100", node="pve3"))
            state.timings.ha_move = 3600.0
        operation = await world.rebuild(host, drain=True)
        await world.heard(operation, "still on pve3: vm:100")
        await world.kill()
        assert world.member_states() == WHOLE
        await world.start()
        with world.cluster.edit() as state:
            state.timings.ha_move = 0.0
            state.ha_moves_at = dict.fromkeys(state.ha_moves_at, time.time())
        await assert_rebuilt_once(world, machine, operation, version)
        assert world.cluster.read().ha_maintenance == []


async def test_killed_while_a_member_leaves_for_good(tmp_path: Path) -> None:
    """Struck out, but not switched off yet: that is done too before it is forgotten."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        version = world.cluster.read().config_version
        lock_is_busy(world, True)
        operation = await world.call("DELETE", f"/api/hosts/{host['id']}?cluster=remove", expect=202)
        await world.heard(operation, "got lock request timeout")
        with stopped(*sshd_of(world, "pve1", "pve2")):
            lock_is_busy(world, False)
            await world.heard(operation, "was struck out")
            await world.kill()
        await world.start()
        over = await world.until_over(operation)
        assert over["outcome"] == "done", await world.story(over)
        with trio.fail_after(PATIENCE):
            await machine.wait_phase(Phase.OFF)
        assert world.member_states() == {"pve1": True, "pve2": True}
        assert world.cluster.read().config_version == version + 1
        assert not (world.cluster.pve / "nodes" / "pve3").exists()
        assert machine.wipes() == 0
        await world.call("GET", f"/api/hosts/{host['id']}", expect=404)


# --- a second try to join ---------------------------------------------------------------------------------


@frozen
class Hold:
    words: str
    fault: str = ""
    """On from the beginning of the second try until the daemon is dead."""


@pytest.mark.parametrize(
    "hold",
    [
        Hold("took away what the failed join left"),
        Hold("got lock request timeout", "lock_busy"),
        Hold("was struck out"),
        Hold("waiting for quorum", "udp_blocked"),
        Hold("the temporary key is gone"),
    ],
    ids=lambda hold: hold.words,
)
async def test_killed_while_a_join_is_tried_again(tmp_path: Path, hold: Hold) -> None:
    """The old entry is struck out once, the host is entered once more, and no disk is wiped for it."""
    async with open_world(tmp_path, members=3, trusted=True) as world:
        with world.cluster.edit() as state:
            state.faults.drop_after_step = 13
        await world.start()
        machine = world.machine()
        host, over = await world.whole_rebuild(machine)
        assert over["outcome"] == "failed"
        version = world.cluster.read().config_version
        with world.cluster.edit() as state:
            state.faults.drop_after_step = None
            if hold.fault:
                setattr(state.faults, hold.fault, True)
        again = await world.call("POST", f"/api/hosts/{host['id']}/rejoin", expect=202)
        await world.heard(again, hold.words)
        await world.kill()
        with world.cluster.edit() as state:
            state.faults.lock_busy = state.faults.udp_blocked = False
        await world.start()
        over = await world.until_over(again)
        assert over["outcome"] == "done", await world.story(over)
        assert world.member_states() == {**WHOLE, "nuc1": True}
        assert world.cluster.read().config_version == version + 2
        assert (await world.host(host))["state"] == "ready"
        assert machine.wipes() == 1
        assert all(moment.quorate for moment in world.cluster.history())
        assert not (machine.root / "root/.ssh/authorized_keys2").exists()
        assert world.rows("SELECT * FROM locks") + world.rows("SELECT * FROM retries") == []
