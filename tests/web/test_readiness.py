"""What is there and what is missing, in one list that costs nothing to ask for."""

from datetime import UTC, datetime
from typing import Any

from attrs import evolve

from provd.cluster_watch import Look
from provd.doctor.findings import Finding, Result
from provd.domain.hosts import Mac
from provd.orchestrator.fleet import Change
from provd.store import registrations
from provd.store.registrations import Pending
from provd.web.parts import Parts
from provd.web.readiness import inventory
from web.looking import get, register

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def items(parts: Parts) -> dict[str, dict[str, Any]]:
    found = await (await get(parts, "/api/readiness")).get_json()
    ready = all(item["state"] in ("ok", "off") for item in found["items"])
    assert found["ready"] is ready
    return {item["name"]: item for item in found["items"]}


async def test_a_new_set_up_says_what_is_to_be_done(parts: Parts) -> None:
    """What is off is said to be so; what somebody has to do stands with the way there."""
    found = await items(parts)
    assert {name: item["state"] for name, item in found.items()} == {
        "Network": "off",
        "Ports": "ok",
        "Image": "ok",
        "Server types": "ok",
        "Cluster": "todo",
        "Inventory": "off",
        "Credentials": "ok",
        "Machines": "todo",
    }
    assert found["Cluster"]["href"] == "/cluster"


async def test_machines_are_heard_then_registered(parts: Parts) -> None:
    """The item follows what happens: nobody, a stranger, a host."""
    assert "None was heard" in (await items(parts))["Machines"]["what"]
    await parts.fleet.sighted(Mac.parse("52:54:00:00:00:01"), "192.0.2.7", "PXE")
    assert (await items(parts))["Machines"]["what"] == "1 heard, none registered."
    await register(parts, "pve1")
    assert (await items(parts))["Machines"]["state"] == "ok"


async def test_what_is_wrong_is_a_problem(parts: Parts) -> None:
    """The cluster's worst finding, types that cannot be read, an inventory that refuses."""
    bad = Finding(check="quorum", result=Result.PROBLEM, what="It has no quorum.", mend="Start pve2.")
    parts.cluster_watch.last = Look(at=NOW, survey=None, failure="", findings=[bad])
    parts.book.path.write_text("server_types: {compute: {boot_dsk: x}}")
    assert not parts.book.reload()
    found = await items(parts)
    assert (found["Cluster"]["state"], found["Cluster"]["mend"]) == ("problem", "Start pve2.")
    assert found["Server types"]["state"] == "problem"
    parts.cluster_watch.last = Look(at=NOW, survey=None, failure="", findings=[])
    assert (await items(parts))["Cluster"]["state"] == "ok"


async def test_an_inventory_is_judged_by_its_last_word(parts: Parts) -> None:
    """Told, refused, or not wanted at all."""
    host = await register(parts, "pve1")
    there = evolve(parts.config.infrastructure, base_url="http://192.0.2.9")
    told = evolve(parts, config=evolve(parts.config, infrastructure=there))

    assert (inventory(parts).state, inventory(told).state) == ("off", "ok")

    def refuse(change: Change) -> None:
        pending = Pending(
            host_id=host.id,
            hardware_id="x",
            hostname="pve1",
            ip="192.0.2.1",
            mac=str(host.mac),
            server_type_id="1",
            operation_id=None,
            next_try_at=NOW,
        )
        registrations.put(change.db, pending)
        registrations.failed(change.db, host.id, "it refuses", NOW)

    await parts.fleet.change(refuse)
    assert (inventory(parts).state, inventory(told).state) == ("off", "problem")
    assert "it refuses" in inventory(told).what
