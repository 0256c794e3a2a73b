"""Hosts that are members of the cluster already: they leave it properly, are rebuilt, and come back.

With provd's own SSH key the old system is disarmed, struck out while it runs, and restarted into its network
boot. Without it, somebody switches the machine off and on, and it is struck out when the cluster misses it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from endtoend.world import PATIENCE, Json, World, open_world
from provd.simulator.cluster.state import HaResource
from provd.simulator.machine.machine import Machine


@asynccontextmanager
async def cluster_with(
    directory: Path, *numbers: int, members: int, trusted: bool = True
) -> AsyncIterator[tuple[World, list[Machine], list[Json]]]:
    """`members` that are no machines, and running machines `pve<number>` that are members and hosts too."""
    async with open_world(directory, members=members, trusted=trusted) as world:
        await world.start()
        machines, hosts = [], []
        for number in numbers:  # one after the other: who is off misses a change of members
            machines.append(world.member_machine(number))
            hosts.append(await world.register_member(machines[-1]))
            await world.power_on_member(machines[-1])
        assert all(world.member_states().values())
        world.begun = len(world.cluster.history())
        yield world, machines, hosts


def never_below_quorum(world: World) -> bool:
    return all(moment.quorate for moment in world.cluster.history()[world.begun :])


async def test_a_member_is_struck_out_rebuilt_and_joins_again(tmp_path: Path) -> None:
    """Nobody presses anything: disarmed, struck out, restarted, installed, a member with its old number."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [machine], [host]):
        before = world.cluster.read().nodes["pve3"]
        old_key = [line for line in world.cluster.authorized_keys() if line.endswith(" root@pve3")]
        over = await world.until_over(await world.rebuild(host))
        story = await world.story(over)
        assert over["outcome"] == "done", story
        after = world.cluster.read().nodes["pve3"]
        assert world.member_states() == {"pve1": True, "pve2": True, "pve3": True}
        assert (after.nodeid, after.votes, after.links) == (before.nodeid, before.votes, before.links)
        assert machine.wipes() == 1
        assert never_below_quorum(world)
        new_key = [line for line in world.cluster.authorized_keys() if line.endswith(" root@pve3")]
        assert len(new_key) == 1
        assert new_key != old_key
        told = "\n".join(story)
        for words in ("will not start again", "was struck out", "a copy is on", "was restarted"):
            assert words in told
        assert world.rows("SELECT * FROM locks") == []


async def test_without_an_ssh_key_the_member_is_switched_off_by_hand(tmp_path: Path) -> None:
    """It works until somebody switches it off; the cluster is told as soon as it misses it."""
    async with cluster_with(tmp_path, 3, members=2, trusted=False) as (world, [machine], [host]):
        operation = await world.rebuild(host)
        await world.until(host, "pxe_ready")
        assert world.member_states()["pve3"]
        await world.power_off(machine)
        world.power_on(machine)
        over = await world.until_over(operation)
        assert over["outcome"] == "done", await world.story(over)
        assert world.member_states() == {"pve1": True, "pve2": True, "pve3": True}
        assert never_below_quorum(world)


async def test_a_member_of_two_leaves_without_a_moment_below_quorum(tmp_path: Path) -> None:
    """Disarmed, it is struck out while it runs: the other one is never without a majority by that."""
    async with cluster_with(tmp_path, 2, members=1) as (world, [_], [host]):
        operation = await world.rebuild(host)
        await world.heard(operation, "was struck out")
        assert never_below_quorum(world)
        over = await world.until_over(operation)
        assert over["outcome"] == "done", await world.story(over)
        assert world.member_states() == {"pve1": True, "pve2": True}


async def test_three_rebuilds_at_once_on_five_nodes(tmp_path: Path) -> None:
    """They take turns by themselves: five members at the end, quorate throughout."""
    async with cluster_with(tmp_path, 3, 4, 5, members=2) as (world, machines, hosts):
        operations = [await world.rebuild(host) for host in hosts]
        with trio.fail_after(4 * PATIENCE):
            for operation in operations:
                while (await world.operation(operation))["active"]:
                    await trio.sleep(0.2)
        for operation in operations:
            over = await world.operation(operation)
            assert over["outcome"] == "done", await world.story(operation)
        assert world.member_states() == {f"pve{number}": True for number in range(1, 6)}
        assert never_below_quorum(world)
        assert [machine.wipes() for machine in machines] == [1, 1, 1]


async def test_a_member_is_drained_first(tmp_path: Path) -> None:
    """HA moves its services away before anything else happens, and may bring them back at the end."""
    async with cluster_with(tmp_path, 3, members=2) as (world, [_], [host]):
        with world.cluster.edit() as state:
            state.ha_resources.append(HaResource(sid="vm:100", node="pve3"))
        over = await world.until_over(await world.rebuild(host, drain=True))
        story = await world.story(over)
        assert over["outcome"] == "done", story
        drained = next(i for i, line in enumerate(story) if "no HA service is on pve3" in line)
        armed = next(i for i, line in enumerate(story) if "the installer will be offered" in line)
        assert drained < armed
        assert world.cluster.read().ha_maintenance == []


async def test_a_rebuild_cancelled_before_its_turn_leaves_the_member_as_it_was(tmp_path: Path) -> None:
    """Two of three may not be away at once: the second one waits, and a cancellation changes nothing."""
    async with cluster_with(tmp_path, 2, 3, members=1, trusted=False) as (world, [_, second], hosts):
        first = await world.rebuild(hosts[0])
        await world.until(hosts[0], "pxe_ready")
        waiting = await world.rebuild(hosts[1])
        await world.heard(waiting, "waits for its turn: without pve3 the cluster would have 1 of 3 votes")
        assert (await world.host(hosts[1]))["state"] == "registered"
        await world.call("POST", f"/api/operations/{waiting['id']}/cancel")
        assert (await world.host(hosts[1]))["state"] == "registered"
        assert second.wipes() == 0
        await world.call("POST", f"/api/operations/{first['id']}/cancel")
        assert world.member_states() == {"pve1": True, "pve2": True, "pve3": True}


@pytest.mark.parametrize("trusted", [True, False], ids=["key", "password"])
async def test_a_member_leaves_for_good(tmp_path: Path, trusted: bool) -> None:
    """Out of the cluster, tidied up after, switched off, and forgotten; the disk is as it was."""
    async with cluster_with(tmp_path, 3, members=2, trusted=trusted) as (world, [machine], [host]):
        await world.call("DELETE", f"/api/hosts/{host['id']}", expect=409)
        operation = await world.call("DELETE", f"/api/hosts/{host['id']}?cluster=remove", expect=202)
        if not trusted:
            await world.heard(operation, "please switch pve3 off")
            await world.power_off(machine)
        over = await world.until_over(operation)
        assert over["outcome"] == "done", await world.story(operation)
        assert world.member_states() == {"pve1": True, "pve2": True}
        await world.call("GET", f"/api/hosts/{host['id']}", expect=404)
        assert machine.wipes() == 0
        assert never_below_quorum(world)
        if trusted:
            assert not (world.cluster.pve / "nodes" / "pve3").exists()
            with trio.fail_after(PATIENCE):
                await machine.wait_phase(machine.phase.OFF)
