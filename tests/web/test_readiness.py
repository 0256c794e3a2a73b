"""What is there and what is missing, in one list that costs nothing to ask for."""

from datetime import UTC, datetime
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from attrs import evolve

from namespaces import bridge, namespaces, needs_namespaces, plug
from provd.cluster_watch import Look
from provd.config import PxeSection, Unknown
from provd.doctor.findings import Finding, Result
from provd.domain.architectures import Architecture
from provd.domain.cluster import Cluster, Node, Survey
from provd.domain.hosts import Mac
from provd.domain.secrets import Secret
from provd.netboot.loaders import Loader, Loaders
from provd.network_boot import open_network_boot
from provd.orchestrator.fleet import Change
from provd.proxmox.api_token import ApiToken
from provd.store import registrations
from provd.store.registrations import Pending
from provd.web.parts import Parts
from provd.web.readiness import Item, Ready, cluster, interface, inventory, loaders, machines
from web.looking import get, register

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MAC = Mac.parse("52:54:00:00:00:01")


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
        "iPXE": "off",
        "Image": "ok",
        "Server types": "ok",
        "Cluster": "ok",
        "Inventory": "off",
        "Credentials": "ok",
        "Machines": "todo",
    }
    assert found["Cluster"]["href"] == "/cluster"
    assert "before each rebuild" in found["Cluster"]["what"]


async def test_machines_are_heard_then_registered(parts: Parts) -> None:
    """The item follows what happens: nobody, a stranger, a host."""
    assert "None was heard" in (await items(parts))["Machines"]["what"]
    await parts.fleet.sighted(MAC, "192.0.2.7", "PXE")
    assert (await items(parts))["Machines"]["what"] == "1 heard, none registered."
    await parts.enrolment.ignore(MAC, True, "a test")
    assert "None was heard" in (await items(parts))["Machines"]["what"]
    await register(parts, "pve1")
    assert (await items(parts))["Machines"]["state"] == "ok"


async def test_nobody_waits_for_strangers_that_are_not_listed(parts: Parts) -> None:
    """With pxe.unknown: ignore a machine that is switched on does not appear, and the item says so."""
    deaf = evolve(parts, config=evolve(parts.config, pxe=evolve(parts.config.pxe, unknown=Unknown.IGNORE)))
    assert "pxe.unknown" in machines(deaf).what
    await register(parts, "pve1")
    assert machines(deaf).state == "ok"


async def test_a_cluster_that_can_be_watched_is_waited_for(parts: Parts) -> None:
    """Until the first look, with a credential to look with; then it is what was seen."""
    token = ApiToken.parse(Secret("provd@pve!reads=00000000-0000-0000-0000-000000000000"))
    watched = evolve(parts, cluster_token=token)
    assert cluster(watched).state == "todo"
    survey = Survey(
        at=NOW,
        asked="pve1 (127.0.0.1)",
        release="9.1.4",
        cluster=Cluster(
            name="lab",
            version=1,
            quorate=True,
            nodes=tuple(Node(name=f"pve{number}", nodeid=number, online=True) for number in (1, 2)),
        ),
        guests=None,
        ha_services=None,
        ha_maintenance=None,
        ha_rules=None,
        replication=None,
        storages=None,
        ceph_nodes=None,
        certificates=(),
    )
    parts.cluster_watch.last = Look(at=NOW, survey=survey, failure="", findings=[])
    assert cluster(watched).state == "ok"
    assert cluster(watched).what == "lab has 2 members, and has quorum."


def with_network_boot(parts: Parts, name: str, subnet: str, loader_dir: Path) -> Parts:
    """As the daemon that was started on this interface has them."""
    pxe = PxeSection(interface=name, subnet=IPv4Network(subnet), loader_dir=loader_dir)
    config = evolve(parts.config, pxe=pxe)
    return evolve(parts, config=config, boot=open_network_boot(config))


async def test_the_network_is_looked_at_each_time(parts: Parts, tmp_path: Path) -> None:
    """An interface that has gone, or lost its address, is a problem while provd runs."""
    there = with_network_boot(parts, "lo", "127.0.0.0/8", tmp_path)
    assert interface(there).state == "ok"
    assert "127.0.0.1 on lo" in interface(there).what
    for changed in ({"interface": "nope0"}, {"subnet": IPv4Network("192.0.2.0/24")}):
        gone = evolve(there.config, pxe=evolve(there.config.pxe, **changed))
        found = interface(evolve(there, config=gone))
        assert (found.state, found.href) == ("problem", "/doctor")
    moved = evolve(there.boot, address=IPv4Interface("127.0.0.2/8"))
    assert interface(evolve(there, boot=moved)).mend == "Restart provd."


@needs_namespaces
async def test_a_cable_that_is_unplugged_is_a_problem(parts: Parts, tmp_path: Path) -> None:
    """Whether switched off here or there; plugged in again, all is well."""
    with namespaces("provd", "lan") as (here, lan):
        bridge(lan, "br0")
        plug(here, "eth0", lan, "br0", "192.0.2.1/24")
        with here.entered():
            there = with_network_boot(parts, "eth0", "192.0.2.0/24", tmp_path)
            assert interface(there).state == "ok"
            here.ip("link", "set", "eth0", "down")
            assert interface(there).state == "problem"
            assert "carrier" in interface(there).what
            here.ip("link", "set", "eth0", "up")
            assert interface(there).state == "ok"
            here.ip("address", "delete", "192.0.2.1/24", "dev", "eth0")
            assert "no IPv4 address" in interface(there).what


async def test_without_ipxe_nothing_boots(parts: Parts, tmp_path: Path) -> None:
    """Builds that are missing are a problem; that one is old is only worth a word elsewhere."""
    bare = with_network_boot(parts, "lo", "127.0.0.0/8", tmp_path)
    assert loaders(bare).state == "problem"
    assert "BIOS and UEFI x64" in loaders(bare).what
    both = {
        kind: Loader(
            name=f"{kind}.efi",
            path=tmp_path,
            architecture=kind,
            content=b"",
            version=None,
            signed=False,
        )
        for kind in (Architecture.BIOS, Architecture.X64)
    }
    known = Loaders(directory=tmp_path, by_name={}, usual=both)
    assert known.problems()
    found = loaders(evolve(bare, boot=evolve(bare.boot, loaders=known)))
    assert found == Item("iPXE", Ready.OK, "There is a build for bios, x64.")


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
