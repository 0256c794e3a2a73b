"""kill -9, at every step: the next start takes the operation up, and it finishes."""

import sys
from pathlib import Path

import pytest
import trio

from endtoend.world import PATIENCE, World

PACE = 0.15
"""Seconds of a machine's visible moment: long enough for a state to be met in time."""


async def test_a_daemon_killed_in_every_state_finishes(world: World) -> None:
    """One rebuild survives a kill -9 in each of its states, and the disk is wiped once."""
    await world.start()
    machine = world.machine(pace=PACE)
    host = await world.register(machine)
    operation = await world.rebuild(host)
    killed_in = []
    for state in ("pxe_ready", "pxe_booted", "installing", "installed", "first_boot", "joining"):
        met = await world.until(host, state, *AFTER[state])
        await world.doorway.close()
        killed_in.append(met["state"])
        await world.restart_killed()
        if state == "pxe_ready":
            world.power_on(machine)
    over = await world.until_over(operation)
    assert over["outcome"] == "done", await world.story(operation)
    assert machine.wipes() == 1
    assert world.member_states()["nuc1"]
    # A state that lasts milliseconds may be missed; those that wait for the machine may not.
    assert {"pxe_ready", "pxe_booted", "installing", "installed"} <= set(killed_in)


AFTER = {
    "pxe_ready": (),
    "pxe_booted": (),
    "installing": (),
    "installed": (),
    "first_boot": ("joining", "ready"),
    "joining": ("ready",),
}


@pytest.mark.parametrize(
    "word",
    [
        "Establishing API connection",
        "Request addition of this node",
        "stopping pve-cluster service",
        "waiting for quorum...",
        "merge authorized SSH keys",
        "successfully added node",
    ],
)
async def test_a_daemon_killed_in_the_middle_of_a_join_finishes(world: World, word: str) -> None:
    """Wherever pvecm stands when the daemon dies, it is not started again and the host becomes ready."""
    with world.cluster.edit() as cluster:
        cluster.faults.slow = 0.1
    await world.start()
    machine = world.machine()
    host = await world.register(machine)
    operation = await world.rebuild(host)
    world.power_on(machine)
    await said(machine.root / f"run/provd-join-{operation['id']}/out", word)
    await world.restart_killed()
    over = await world.until_over(operation)
    assert over["outcome"] == "done", await world.story(operation)
    assert world.cluster.read().config_version == 2
    (public,) = world.rows("SELECT public_key FROM operations")[0]
    keys = machine.root / "root/.ssh/authorized_keys2"
    assert not keys.exists() or public.split()[1] not in keys.read_text()


async def said(file: Path, word: str) -> None:
    """Until pvecm has printed `word` on the host."""
    with trio.fail_after(PATIENCE):
        while not (file.exists() and word in file.read_text()):
            await trio.sleep(0.01)


async def test_a_password_that_a_restart_forgot_is_asked_for_again(world: World) -> None:
    """It lived in memory only; the operation waits for it and then goes on."""
    world.configure(lambda document: document["credentials"].pop("cluster_password_file"))
    await world.start()
    machine = world.machine(pace=PACE)
    host = await world.register(machine)
    operation = await world.rebuild(host, cluster_password=world.password)
    world.power_on(machine)
    await world.until(host, "installing")
    await world.restart_killed()
    await world.until(host, "first_boot")
    await world.heard(operation, "has forgotten the cluster's root password")
    await world.call(
        "POST",
        f"/api/operations/{operation['id']}/cluster-password",
        {"cluster_password": world.password},
        expect=204,
    )
    assert (await world.until_over(operation))["outcome"] == "done", await world.story(operation)


async def test_a_graceful_stop_takes_the_same_way_back(world: World) -> None:
    """SIGTERM in the middle of an installation ends the process, not the operation."""
    await world.start()
    machine = world.machine(pace=PACE)
    host = await world.register(machine)
    operation = await world.rebuild(host)
    world.power_on(machine)
    await world.until(host, "installing")
    assert await world.stop() < 5
    assert world.rows("SELECT outcome FROM operations") == [(None,)]
    await world.start()
    assert (await world.until_over(operation))["outcome"] == "done", await world.story(operation)


async def test_a_second_daemon_on_the_same_state_is_refused(world: World) -> None:
    """It would take up the same operations; it ends with a sentence, and the first one goes on."""
    await world.start()
    first = world.daemon

    def elsewhere(document: dict[str, dict[str, str]]) -> None:
        document["server"]["listen"] = "127.0.0.1:0"

    world.configure(elsewhere)
    second = await trio.run_process(
        [sys.executable, "-m", "provd", "serve", "--config", str(world.lab.configuration)],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert second.returncode == 2
    assert b"another provd is running" in second.stderr
    assert first is not None
    assert first.poll() is None


async def test_a_lost_sealing_key_ends_the_operation_and_not_the_daemon(world: World) -> None:
    """The key in the database can be read by nobody then; the operator is told, and the daemon lives."""
    await world.start()
    machine = world.machine(pace=PACE)
    host = await world.register(machine)
    operation = await world.rebuild(host)
    world.power_on(machine)
    await world.until(host, "installing")
    await world.kill()
    (world.lab.directory / "state" / "sealing.key").unlink()
    await world.start()
    over = await world.until_over(operation)
    assert over["outcome"] == "failed"
    assert f"operations/{operation['id']}/key" in over["detail"]
    await world.rebuild(host)
