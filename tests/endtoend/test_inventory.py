"""A host becomes ready and the inventory is told: at once, later, after a crash, and not more than wanted."""

import html
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from urllib.parse import quote

import pytest
import trio

from endtoend.canary import Evidence
from endtoend.inventory import TOKEN, TYPE_ID, Inventory, new_inventory, plain, use_inventory
from endtoend.world import PATIENCE, World
from provd.remote.inventory import FIRST_DELAY


async def test_the_inventory_is_told_once(world: World) -> None:
    """With the host's name, addresses, hardware id and the inventory's own word for its type."""
    inventory = new_inventory()
    use_inventory(world, inventory, nuc=TYPE_ID)
    async with inventory.up():
        await world.start()
        machine = world.machine()
        host, operation = await world.whole_rebuild(machine)
        assert host["state"] == "ready", await world.story(operation)
        await world.heard(operation, "nuc1 is in the inventory")
        host = await world.host(host)
        assert host["inventory_pending"] is False
        assert world.rows("SELECT * FROM registrations") == []
    [told] = inventory.told
    assert told.authorization == f"Bearer {TOKEN}"
    assert told.hardware_id == host["hardware_id"]
    assert told.server == {
        "hostname": "nuc1",
        "ip": machine.ip,
        "mac": machine.mac,
        "server_type_id": TYPE_ID,
    }


async def test_an_inventory_that_is_down_is_told_when_it_is_back(world: World) -> None:
    """The host is ready all the same, and shows that the inventory was not told yet."""
    inventory = new_inventory()
    use_inventory(world, inventory, nuc=TYPE_ID)
    await world.start()
    host, operation = await world.whole_rebuild(world.machine())
    assert (host["state"], operation["outcome"]) == ("ready", "done"), await world.story(operation)
    await world.heard(operation, f"the inventory is not told yet, next try in {FIRST_DELAY:.0f} s")
    assert (await world.host(host))["inventory_pending"] is True
    page = await world.client.get(f"/hosts/{host['id']}")
    assert "Connection refused" in page.text
    async with inventory.up():
        await inventory.asked(1)
        await world.heard(operation, "nuc1 is in the inventory")
    assert (await world.host(host))["inventory_pending"] is False
    assert len(inventory.told) == 1


ANSWERS: dict[str, Callable[[str], bytes]] = {
    "500 Internal Server Error": lambda _: plain("500 Internal Server Error", "<h1>Oops</h1>"),
    "401 Unauthorized": lambda shown: plain(
        "401 Unauthorized", json.dumps({"who": shown}).replace("/", r"\/")
    ),
    "400 Bad": lambda shown: plain(f"400 Bad {shown}", html.escape(shown) + quote(shown, safe="")),
    "cannot be reached": lambda shown: b"\x00\xff not HTTP: " + shown.encode() + b"\r\n\r\n",
}
"""By what is heard of them; most echo what they were shown, each in its own way."""


async def test_what_is_still_to_be_told_survives_kill_9_and_every_answer(world: World) -> None:
    """Whatever the inventory says instead of yes, the host is pending and the next start tries at once."""
    inventory = new_inventory()
    use_inventory(world, inventory, nuc=TYPE_ID)
    await world.start()
    host, operation = await world.whole_rebuild(world.machine())
    assert host["state"] == "ready", await world.story(operation)
    await world.heard(operation, "Connection refused")
    async with inventory.up():
        for times, (said, inventory.answer) in enumerate(ANSWERS.items(), start=1):
            await world.restart_killed()
            await inventory.asked(times)
            await world.heard(operation, said)
            assert (await world.host(host))["inventory_pending"] is True
        inventory.answer = Inventory(0).answer
        await world.restart_killed()
        await world.heard(operation, "nuc1 is in the inventory")
    assert (await world.host(host))["inventory_pending"] is False
    assert len({told.hardware_id for told in inventory.told}) == 1
    said_of_it = Evidence()
    said_of_it.add("activity", "\n".join(await world.story(operation)).encode())
    said_of_it.add("log", world.log.read_bytes())
    assert said_of_it.places_of(b"Bearer ***") == {"activity", "log"}
    assert said_of_it.search({"inventory token": TOKEN.encode()}) == []


async def test_a_host_that_is_removed_while_the_inventory_is_asked(world: World) -> None:
    """An answer that comes when its host is gone is nobody's news, and the next host has its turn."""
    inventory = new_inventory()
    use_inventory(world, inventory, nuc=TYPE_ID)
    await world.start()
    gone, there = [await world.register(world.machine(number)) for number in (1, 2)]
    await world.stop()
    with closing(sqlite3.connect(world.lab.directory / "state" / "provd.db")) as db, db:
        db.execute(
            "INSERT INTO registrations "
            "(host_id, hardware_id, hostname, ip, mac, server_type_id, next_try_at) "
            "SELECT id, 'mac-' || mac, hostname, '127.77.1.1', mac, 'x', registered_at FROM hosts"
        )
    inventory.may_answer = trio.Event()
    async with inventory.up():
        await world.start()
        await inventory.asked(1)
        await world.call("DELETE", f"/api/hosts/{gone['id']}", expect=204)
        inventory.may_answer.set()
        with trio.fail_after(PATIENCE):
            while (await world.host(there))["inventory_pending"]:
                await trio.sleep(0.02)
    lines = (await world.call("GET", "/api/activity"))["activity"]
    told = [line["message"] for line in lines if line["event"].startswith("inventory.")]
    assert told == ["nuc2 is in the inventory"]


@pytest.mark.parametrize("base_url", [True, False], ids=["unmapped type", "no inventory"])
async def test_nothing_is_told(world: World, base_url: bool) -> None:
    """A type without an entry is skipped with a warning; without an inventory nothing is said at all."""
    inventory = new_inventory()
    use_inventory(world, inventory, other=TYPE_ID)
    if not base_url:
        world.configure(lambda document: document["infrastructure"].update(base_url=""))
    async with inventory.up():
        await world.start()
        host, operation = await world.whole_rebuild(world.machine())
        assert (host["state"], operation["outcome"]) == ("ready", "done"), await world.story(operation)
        assert host["inventory_pending"] is False
        lines = await world.call("GET", f"/api/activity?operation_id={operation['id']}")
        spoken = [line for line in lines["activity"] if line["event"].startswith("inventory.")]
        assert [line["level"] for line in spoken] == ["warning"] * base_url
        assert all("server_type_map has no entry for 'nuc'" in line["message"] for line in spoken)
    assert inventory.told == []
