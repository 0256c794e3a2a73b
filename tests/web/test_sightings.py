"""Machines that nobody registered, through the API: what is known of them, and not wanting to see them."""

import pytest

from provd.domain.hosts import HostOptions, Mac
from provd.store import activity, hosts
from provd.web.app import create_app
from provd.web.parts import Parts
from web.looking import get

MAC = Mac.parse("bc:24:11:00:00:01")
PATH = f"/api/sightings/{MAC}/ignore"


def told(parts: Parts) -> list[str]:
    lines = parts.store.read(lambda db: activity.after(db, 0, 100))
    return [f"{line.event} {line.message}" for line in lines if line.event.startswith("machine.")]


async def test_a_machine_says_what_is_known_of_it(parts: Parts) -> None:
    """Who made its card, how it boots; what a later contact does not tell stays known."""
    await parts.fleet.sighted(MAC, "192.0.2.7", "asked who boots it", "UEFI arm64")
    await parts.fleet.sighted(MAC, "192.0.2.8", "read autoexec.ipxe by HTTP")
    [seen] = (await (await get(parts, "/api/sightings")).get_json())["sightings"]
    assert {name: seen[name] for name in ("mac", "address", "times", "vendor", "firmware", "ignored")} == {
        "mac": str(MAC),
        "address": "192.0.2.8",
        "times": 2,
        "vendor": "Proxmox Server Solutions GmbH",
        "firmware": "UEFI arm64",
        "ignored": False,
    }


async def test_other_tabs_hear_of_it_once(parts: Parts) -> None:
    """Each change is a line of history with who made it; asking for what is so already is none."""
    await parts.fleet.sighted(MAC, "192.0.2.7", "PXE")
    client = create_app(parts).test_client()
    for method in (client.post, client.post, client.delete, client.delete):
        response = await method(PATH)
        assert (response.status_code, await response.get_data()) == (204, b"")
        await parts.fleet.sighted(MAC, "192.0.2.7", "PXE")
    assert told(parts) == [
        f"machine.sighted unknown machine {MAC} at 192.0.2.7: PXE",
        f"machine.ignored unknown machine {MAC} is ignored: nobody (auth off)",
        f"machine.unignored unknown machine {MAC} is shown again: nobody (auth off)",
    ]


async def test_an_ignored_machine_stays_so_and_can_be_registered(parts: Parts) -> None:
    """It is heard as before; as a host it is none of the unknown machines any more."""
    await parts.fleet.sighted(MAC, "192.0.2.7", "PXE")
    client = create_app(parts).test_client()
    as_windows_writes_it = str(MAC).upper().replace(":", "-")
    assert (await client.post(f"/api/sightings/{as_windows_writes_it}/ignore")).status_code == 204
    await parts.fleet.sighted(MAC, "192.0.2.7", "PXE")
    [seen] = parts.store.read(hosts.sightings)
    assert (seen.ignored, seen.times) == (True, 2)
    await parts.enrolment.register(MAC, "compute", "pve1", HostOptions(), "a test")
    assert (await client.post(PATH)).status_code == 404
    assert (await client.delete(PATH)).status_code == 404


@pytest.mark.parametrize(("mac", "status"), [("52:54:00:00:00:99", 404), ("nobody", 422)])
async def test_whoever_was_never_seen_cannot_be_ignored(parts: Parts, mac: str, status: int) -> None:
    """A problem document, and nothing is written down."""
    for method in (create_app(parts).test_client().post, create_app(parts).test_client().delete):
        response = await method(f"/api/sightings/{mac}/ignore")
        assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert told(parts) == []
    assert parts.store.read(hosts.sightings) == []
