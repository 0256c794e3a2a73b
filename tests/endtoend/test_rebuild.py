"""A whole rebuild, on real HTTP, real SSH and a real database, from register to ready."""

import trio

from endtoend.world import Json, World
from provd.domain.lifecycle import ROAD


async def test_a_machine_becomes_a_member(world: World) -> None:
    """Registered, rebuilt, ready: it is in the cluster, and its disk was wiped once."""
    await world.start()
    machine = world.machine()
    host, operation = await world.whole_rebuild(machine)
    assert operation["outcome"] == "done", await world.story(operation)
    assert host["state"] == "ready"
    assert host["hostname"] == "nuc1"
    assert host["ip"] == machine.ip
    assert host["operation_id"] is None
    assert world.member_states() == {"pve1": True, "nuc1": True}
    assert machine.wipes("nvme0n1") == machine.wipes() == 1


async def test_the_states_come_in_the_order_of_the_road(world: World) -> None:
    """Each state is entered once, in the order that the operator was promised."""
    await world.start()
    _, operation = await world.whole_rebuild(world.machine())
    lines = await world.call("GET", f"/api/activity?operation_id={operation['id']}&limit=1000")
    entered = [line["after"] for line in reversed(lines["activity"]) if line["after"] != line["before"]]
    assert entered == [str(state) for state in ROAD]


async def test_no_key_is_left_anywhere(world: World) -> None:
    """The temporary key is on no file of the host, not in the cluster's, and its private half nowhere."""
    await world.start()
    machine = world.machine()
    await world.whole_rebuild(machine)
    (public,) = world.rows("SELECT public_key FROM operations")[0]
    body = public.split()[1]
    for file in (machine.root / "root/.ssh").iterdir():
        assert body not in file.read_text(), file
    shared = world.cluster.authorized_keys()
    assert shared
    assert body not in "".join(shared)
    assert world.rows("SELECT sealed_key, token_hash, sealed_answer FROM operations") == [(None,) * 3]
    assert world.rows("SELECT * FROM locks") == []


async def test_a_gpu_node_gets_its_iommu(world: World) -> None:
    """`gpu: true` has its effect: the modules are set up, and the kernel runs with IOMMU before it joins."""
    await world.start()
    machine = world.machine()
    host = await world.register(machine, server_type="gpu-node")
    operation = await world.rebuild(host)
    world.power_on(machine)
    assert (await world.until_over(operation))["outcome"] == "done", await world.story(operation)
    assert (await world.host(host))["hostname"] == "gpu1"
    assert "vfio_pci" in (machine.root / "etc/modules-load.d/provd-vfio.conf").read_text()
    assert "iommu=pt" in (machine.root / "proc/cmdline").read_text()
    assert sum("was told to reboot" in line for line in machine.console) == 1


async def test_ten_at_once_join_one_at_a_time(world: World) -> None:
    """Ten rebuilds run side by side; no join begins before the one before it is confirmed."""
    await world.start()
    machines = [world.machine(number) for number in range(1, 11)]
    operations: list[Json] = []
    for machine in machines:
        operations.append(await world.rebuild(await world.register(machine)))
        world.power_on(machine)
    with trio.fail_after(150):
        for operation in operations:
            over = await world.until_over(operation)
            assert over["outcome"] == "done", await world.story(operation)
    lines = await world.call("GET", "/api/activity?limit=1000")
    joins = [
        (line["after"], line["host_id"])
        for line in reversed(lines["activity"])
        if line["before"] != line["after"] and line["after"] in ("joining", "ready")
    ]
    begins, ends = joins[::2], joins[1::2]
    assert [what for what, _ in begins] == ["joining"] * 10
    assert [what for what, _ in ends] == ["ready"] * 10
    assert [host for _, host in begins] == [host for _, host in ends]
    assert sum(world.member_states().values()) == 11
    assert world.cluster.read().config_version == 11


async def test_a_password_given_for_one_operation_is_enough(world: World) -> None:
    """Without a credential file the rebuild must bring the password, and is refused without."""
    world.configure(lambda document: document["credentials"].pop("cluster_password_file"))
    await world.start()
    machine = world.machine()
    host = await world.register(machine)
    refused = await world.call("POST", f"/api/hosts/{host['id']}/rebuild", expect=422)
    assert refused["field"] == "cluster_password"
    assert (await world.host(host))["state"] == "registered"
    operation = await world.rebuild(host, cluster_password=world.password)
    world.power_on(machine)
    assert (await world.until_over(operation))["outcome"] == "done", await world.story(operation)


async def test_a_lost_webhook_is_made_good_by_the_call_home(world: World) -> None:
    """The installer posts once; a host that calls from its new system was installed all the same."""
    await world.start()
    machine = world.machine()
    machine.faults.webhook_lost = True
    host, operation = await world.whole_rebuild(machine)
    assert (host["state"], operation["outcome"]) == ("ready", "done"), await world.story(operation)


async def test_repeated_reports_change_nothing(world: World) -> None:
    """A webhook and a call home that come twice are written down and have no further effect."""
    await world.start()
    machine = world.machine()
    machine.faults.duplicate_webhook = machine.faults.duplicate_phone_home = True
    host, operation = await world.whole_rebuild(machine)
    assert (host["state"], operation["outcome"]) == ("ready", "done"), await world.story(operation)
    assert any("nothing changes" in line for line in await world.story(operation))


async def test_a_lost_answer_is_sent_again_to_the_same_machine(world: World) -> None:
    """The response was lost on its way: the same machine gets the same bytes, and is wiped once."""
    await world.start()
    machine = world.machine()
    machine.faults.answer_response_lost = True
    host, operation = await world.whole_rebuild(machine)
    assert (host["state"], operation["outcome"]) == ("ready", "done"), await world.story(operation)
    assert machine.wipes() == 1
    assert "the same answer sent once more" in " ".join(await world.story(operation))


async def test_another_machine_in_place_of_the_installed_one_is_not_let_near_the_cluster(
    world: World,
) -> None:
    """Host keys that differ from the reported ones end the operation before any login."""
    await world.start()
    machine = world.machine()
    machine.faults.wrong_host_keys_in_webhook = True
    host, operation = await world.whole_rebuild(machine)
    assert (host["state"], operation["outcome"]) == ("failed", "failed")
    assert "host key" in operation["detail"]
    assert world.member_states() == {"pve1": True}


async def test_a_ready_host_that_reboots_boots_its_own_disk(world: World) -> None:
    """After the rebuild, a network boot is answered with the local disk, for ever."""
    await world.start()
    machine = world.machine()
    await world.whole_rebuild(machine)
    machine.power_off()
    await machine.wait_phase(machine.phase.OFF)
    world.power_on(machine)
    await machine.wait_phase(machine.phase.IDLE)
    assert machine.wipes() == 1
