"""Retry from join: what a failed join left is cleaned up on both sides, and the host joins without a wipe."""

from pathlib import Path

import pytest
from attrs import frozen

from endtoend.world import Json, World, open_world
from provd.simulator.machine.machine import Machine

SOON = {"joining": "6s"}
"""The deadline of a join that never ends by itself."""


@frozen
class Failure:
    name: str
    members: int
    trusted: bool
    faults: dict[str, object]
    """Of the cluster, while the host joins for the first time."""
    left: tuple[str, ...]
    """What is said to be left, beside the host itself."""


FAILURES = (
    Failure("killed", 3, True, {"drop_after_step": 13}, ("/etc/corosync/authkey", "`pvecm delnode nuc1`")),
    Failure("killed, no key", 3, False, {"drop_after_step": 13}, ("`pvecm delnode nuc1`",)),
    Failure("killed before it was listed", 3, False, {"drop_after_step": 5}, ()),
    Failure(
        "never met the others", 3, True, {"udp_blocked": True}, ("UDP 5405 to 5412", "`pvecm delnode nuc1`")
    ),
    Failure("the only member lost its quorum", 1, True, {"udp_blocked": True}, ("`pvecm expected 1`",)),
    Failure("invalid", 3, False, {"addnode_errors": {"link0": "is wrong"}}, ()),
)


def set_faults(world: World, faults: dict[str, object]) -> None:
    with world.cluster.edit() as state:
        for name, value in faults.items():
            setattr(state.faults, name, value)


async def failed_join(world: World, failure: Failure) -> tuple[Machine, Json, Json]:
    if "udp_blocked" in failure.faults:
        world.configure(lambda document: document.update(deadlines=SOON))
    set_faults(world, failure.faults)
    await world.start()
    machine = world.machine()
    host, over = await world.whole_rebuild(machine)
    assert (host["state"], over["outcome"]) == ("failed", "failed"), await world.story(over)
    world.configure(lambda document: document.pop("deadlines", None))
    await world.restart_killed()
    return machine, host, over


def by_name(failure: Failure) -> str:
    return failure.name


@pytest.mark.parametrize("failure", FAILURES, ids=by_name)
async def test_a_failed_join_is_told_cleaned_and_tried_again(tmp_path: Path, failure: Failure) -> None:
    """The sentence says what is left and names a way on, which ends in membership without another wipe."""
    async with open_world(tmp_path, members=failure.members, trusted=failure.trusted) as world:
        healthy: dict[str, object] = {
            name: getattr(world.cluster.read().faults, name) for name in failure.faults
        }
        machine, host, over = await failed_join(world, failure)
        for words in (*failure.left, "Retry from join"):
            assert words in over["detail"]
        key = (machine.root / "root/.ssh/authorized_keys2").read_text().split()
        assert not any(key[-2] in line for line in world.cluster.authorized_keys())
        assert host["retry_until"] is not None

        set_faults(world, healthy)
        again = await world.call("POST", f"/api/hosts/{host['id']}/rejoin", expect=202)
        assert again["kind"] == "rejoin"
        over = await world.until_over(again)
        assert over["outcome"] == "done", await world.story(again)
        host = await world.host(host)
        assert (host["state"], host["retry_until"]) == ("ready", None)
        assert all(world.member_states().values())
        assert "nuc1" in world.member_states()
        assert machine.wipes() == 1
        assert not (machine.root / "root/.ssh/authorized_keys2").exists()
        assert world.rows("SELECT * FROM retries") == []


async def test_without_a_key_a_cluster_without_quorum_is_put_right_by_a_human(tmp_path: Path) -> None:
    """provd cannot lower the expected votes: it names the commands, and whoever obeys them can try again."""
    async with open_world(tmp_path) as world:
        _, host, _ = await failed_join(world, Failure("", 1, False, {"udp_blocked": True}, ()))
        set_faults(world, {"udp_blocked": False})
        operation = await world.call("POST", f"/api/hosts/{host['id']}/rejoin", expect=202)
        over = await world.until_over(operation)
        assert over["outcome"] == "failed"
        assert "`pvecm expected 1` and then `pvecm delnode nuc1`" in over["detail"]
        with world.cluster.edit() as state:
            state.expected_votes = 1
        again = await world.call("POST", f"/api/hosts/{host['id']}/rejoin", expect=202)
        assert (await world.until_over(again))["outcome"] == "done", await world.story(again)


def no_key_left(machine: Machine) -> bool:
    return not (machine.root / "root/.ssh/authorized_keys2").exists()


async def test_a_retry_can_be_given_up(tmp_path: Path) -> None:
    """A cancelled retry takes the key off the host, and there is no other one after it."""
    async with open_world(tmp_path, members=3) as world:
        machine, host, _ = await failed_join(world, FAILURES[2])
        set_faults(world, {"drop_after_step": None, "udp_blocked": True})
        operation = await world.call("POST", f"/api/hosts/{host['id']}/rejoin", expect=202)
        await world.heard(operation, "waiting for quorum")
        await world.call("POST", f"/api/operations/{operation['id']}/cancel")
        assert no_key_left(machine)
        refused = await world.call("POST", f"/api/hosts/{host['id']}/rejoin", expect=409)
        assert "cannot be tried again" in refused["detail"]


@pytest.mark.parametrize("again", ["rejoin", "rebuild"])
async def test_a_host_that_never_failed_to_join_cannot_retry(tmp_path: Path, again: str) -> None:
    """A rebuild forgets the way back, and before the first one there is none."""
    async with open_world(tmp_path) as world:
        await world.start()
        host = await world.register(world.machine())
        if again == "rejoin":
            await world.call("POST", f"/api/hosts/{host['id']}/rejoin", expect=409)
            return
        operation = await world.rebuild(host)
        await world.call("POST", f"/api/operations/{operation['id']}/cancel")
        await world.call("POST", f"/api/hosts/{host['id']}/rejoin", expect=409)
