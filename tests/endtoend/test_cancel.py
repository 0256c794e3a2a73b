"""A cancel, in every state: the host is failed, free, disarmed and without our key, and can start again."""

import httpx
import pytest

from endtoend.world import Json, World

PACE = 0.3


@pytest.mark.parametrize(
    "state", ["pxe_ready", "pxe_booted", "installing", "installed", "first_boot", "joining"]
)
async def test_cancelled(world: World, state: str) -> None:
    """When the request returns, it is over, and a new rebuild can start."""
    if state == "first_boot":
        # With the password forgotten the host stays in first boot until somebody gives it.
        world.configure(lambda document: document["credentials"].pop("cluster_password_file"))
    if state == "joining":
        with world.cluster.edit() as cluster:
            cluster.faults.udp_blocked = True
    await world.start()
    machine = world.machine(pace=PACE)
    host = await world.register(machine)
    operation = await world.rebuild(host, cluster_password=world.password)
    if state == "first_boot":
        await world.restart_killed()
    if state != "pxe_ready":
        world.power_on(machine)
    await world.until(host, state)
    if state == "first_boot":
        await world.heard(operation, "has forgotten the cluster's root password")
    elif state == "joining":
        await world.heard(operation, "waiting for quorum")
    else:
        await world.doorway.close()  # the machine stays where it is

    over = await world.call("POST", f"/api/operations/{operation['id']}/cancel")

    assert over["outcome"] == "cancelled"
    assert over["detail"] == "cancelled by token environment"
    assert (await world.host(host))["state"] == "failed"
    assert world.rows("SELECT * FROM locks") == []
    assert world.rows("SELECT sealed_key, token_hash, sealed_answer FROM operations") == [(None,) * 3]
    assert "proxmox-start-auto-installer" not in await script_of(world, host)
    if state in ("first_boot", "joining"):
        assert not (machine.root / "root/.ssh/authorized_keys2").exists()
    refused = await world.call("POST", f"/api/operations/{operation['id']}/cancel", expect=409)
    assert "over already" in refused["detail"]
    if state == "joining":  # what the only member of the cluster was told to run
        with world.cluster.edit() as cluster:
            cluster.expected_votes = 1
            del cluster.nodes["nuc1"]
    again = await world.rebuild(host, cluster_password=world.password)
    assert "proxmox-start-auto-installer" in await script_of(world, host)
    assert (await world.call("POST", f"/api/operations/{again['id']}/cancel"))["outcome"] == "cancelled"


async def script_of(world: World, host: Json) -> str:
    """What iPXE would be given now, asked directly."""
    async with httpx.AsyncClient(trust_env=False) as firmware:
        response = await firmware.get(f"{world.lab.public_url}/ipxe/{host['mac']}")
        assert response.status_code == 200
        return response.text


async def test_the_answer_is_withdrawn(world: World) -> None:
    """A machine that had its script before the cancel gets no answer after it, and is not wiped."""
    await world.start()
    machine = world.machine(pace=PACE)
    host = await world.register(machine)
    operation = await world.rebuild(host)
    world.power_on(machine)
    await world.until(host, "pxe_booted")
    await world.doorway.close()
    await world.call("POST", f"/api/operations/{operation['id']}/cancel")
    world.doorway.open.set()
    await machine.wait_phase(machine.phase.INSTALLER_SHELL)
    assert machine.wipes() == 0


async def test_a_deadline_says_what_was_expected_and_where_to_look(world: World) -> None:
    """A machine that never powers on fails its operation with a sentence for a human."""
    world.configure(lambda document: document.update(deadlines={"pxe_ready": "0.3s"}))
    await world.start()
    machine = world.machine()
    machine.faults.never_powers_on = True
    host, operation = await world.whole_rebuild(machine)
    assert (host["state"], operation["outcome"]) == ("failed", "failed")
    assert "boot from the network" in operation["detail"]
    assert "is it powered on" in operation["detail"]


async def test_a_host_at_work_cannot_be_removed_or_rebuilt_twice(world: World) -> None:
    """Both are refused with 409 and name the operation that has the host."""
    await world.start()
    host = await world.register(world.machine())
    operation = await world.rebuild(host)
    for method, path in (("DELETE", ""), ("POST", "/rebuild")):
        refused = await world.call(method, f"/api/hosts/{host['id']}{path}", expect=409)
        assert f"rebuild {operation['id']}" in refused["detail"]
