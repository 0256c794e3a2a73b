"""The ways to become ready: by key and not by password, over several links, with a number, or not at all."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from endtoend.world import Json, World, open_world
from provd.simulator.cluster.machine import Machine as PveRoot
from provd.simulator.machine.machine import Machine


@asynccontextmanager
async def started(directory: Path, *, members: int = 1, trusted: bool = False) -> AsyncIterator[World]:
    async with open_world(directory, members=members, trusted=trusted) as world:
        yield world


async def rebuilt(world: World, machine: Machine, **options: Any) -> tuple[Json, list[str]]:
    """The host when its rebuild is over, and what was told."""
    host = await world.register(machine, options=options)
    operation = await world.rebuild(host)
    world.power_on(machine)
    over = await world.until_over(operation)
    story = await world.story(over)
    assert over["outcome"] == "done", story
    return await world.host(host), story


def join_words(machine: Machine) -> str:
    (log,) = (machine.root / "var/log/pve/tasks").rglob("*clusterjoin*")
    return log.read_text()


async def test_a_host_joins_without_anybody_having_the_password(tmp_path: Path) -> None:
    """With a key and a token all goes over SSH; the key of the new root is in the cluster once."""
    async with started(tmp_path, members=3, trusted=True) as world:
        world.configure(lambda document: document["credentials"].pop("cluster_password_file"))
        await world.start()
        machine = world.machine()
        host, _ = await rebuilt(world, machine)
        assert host["state"] == "ready"
        assert world.member_states() == {"pve1": True, "pve2": True, "pve3": True, "nuc1": True}
        assert "copy corosync auth key" in join_words(machine)
        assert sum(line.endswith(" root@nuc1") for line in world.cluster.authorized_keys()) == 1


async def test_a_member_is_rebuilt_without_anybody_having_the_password(tmp_path: Path) -> None:
    """Struck out by `pvecm delnode` on another member, joined by --use_ssh."""
    async with started(tmp_path, members=2, trusted=True) as world:
        world.configure(lambda document: document["credentials"].pop("cluster_password_file"))
        await world.start()
        machine = world.member_machine(3)
        host = await world.register_member(machine)
        await world.power_on_member(machine)
        over = await world.until_over(await world.rebuild(host))
        assert over["outcome"] == "done", await world.story(over)
        assert world.member_states() == {"pve1": True, "pve2": True, "pve3": True}
        assert machine.wipes() == 1


async def test_a_cluster_of_two_links_is_joined_over_both(tmp_path: Path) -> None:
    """The second link's address stands in the host's options, and goes to corosync's second link."""
    async with started(tmp_path) as world:
        with world.cluster.edit() as state:
            state.nodes["pve1"].links["1"] = "127.78.0.1"
        await world.start()
        machine = world.machine()

        async def second_address() -> None:
            with PveRoot(machine.root).edit() as pve:
                pve.addresses = ["127.78.1.1"]

        machine.before_pveproxy = second_address
        await rebuilt(world, machine, links=["127.78.1.1"])
        assert world.cluster.read().nodes["nuc1"].links == {"0": machine.ip, "1": "127.78.1.1"}


async def test_a_host_gets_the_number_that_it_was_given(tmp_path: Path) -> None:
    """`nodeid` in its options is its number in the cluster."""
    async with started(tmp_path) as world:
        await world.start()
        await rebuilt(world, world.machine(), nodeid="7")
        assert world.cluster.read().nodes["nuc1"].nodeid == 7


async def test_a_member_keeps_its_entry_where_that_is_wanted(tmp_path: Path) -> None:
    """It is not struck out: the number of expected votes never changes, and it joins by --force."""
    async with started(tmp_path, members=2, trusted=True) as world:
        await world.start()
        machine = world.member_machine(3)
        host = await world.register_member(machine)
        await world.power_on_member(machine)
        begun = len(world.cluster.history())
        operation = await world.rebuild(host, keep_entry=True)
        await world.until(host, "pxe_ready")
        await world.power_off(machine)
        world.power_on(machine)
        over = await world.until_over(operation)
        assert over["outcome"] == "done", await world.story(over)
        assert world.member_states() == {"pve1": True, "pve2": True, "pve3": True}
        assert {moment.expected_votes for moment in world.cluster.history()[begun:]} == {3}


async def test_a_host_that_shall_stand_alone_is_ready_without_a_join(tmp_path: Path) -> None:
    """The cluster is not touched, and our key is gone all the same."""
    async with started(tmp_path) as world:
        await world.start()
        machine = world.machine()
        host, story = await rebuilt(world, machine, cluster="none")
        assert host["state"] == "ready"
        assert world.member_states() == {"pve1": True}
        assert any("ready, and stands alone" in line for line in story)
        assert any("the host refuses it" in line for line in story)
        assert not (machine.root / "root/.ssh/authorized_keys2").exists()


async def test_where_there_is_no_cluster_every_host_stands_alone(tmp_path: Path) -> None:
    """Without proxmox.existing_node no password is needed either."""
    async with started(tmp_path) as world:

        def no_cluster(document: Json) -> None:
            del document["proxmox"]["existing_node"], document["proxmox"]["join_fingerprint"]
            del document["credentials"]["cluster_password_file"]

        world.configure(no_cluster)
        await world.start()
        host, _ = await rebuilt(world, world.machine())
        assert host["state"] == "ready"
