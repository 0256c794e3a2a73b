"""A whole rebuild, on real HTTP, real SSH and a real database, from register to ready."""

from endtoend.world import World


async def test_a_machine_becomes_a_member(world: World) -> None:
    """Registered, rebuilt, ready: it is in the cluster, and what was configured has its effect on it."""
    await world.start()
    machine = world.machine()
    host, operation = await world.whole_rebuild(machine)
    assert operation["outcome"] == "done", await world.story(operation)
    assert host["state"] == "ready"
    assert host["hostname"] == "nuc1"
    assert host["ip"] == machine.ip
    assert world.member_states() == {"pve1": True, "nuc1": True}
