"""The preview of an answer file: what would be sent, without what nobody may see."""

import json
import tomllib
from typing import Any, cast

from attrs import evolve

from provd.domain.hardware import Hardware, Link
from provd.domain.hosts import Host
from provd.domain.operations import Kind
from provd.orchestrator.rehearsal.draft import MASK, TOKEN
from provd.store import hardware, images
from provd.web.answer import answer_view
from provd.web.parts import Parts
from web.looking import HASH, TYPES, get, register


async def preview(parts: Parts, host: Host) -> dict[str, Any]:
    response = await get(parts, f"/api/hosts/{host.id}/answer")
    assert response.status_code == 200
    text = await response.get_data(as_text=True)
    assert HASH not in text
    assert HASH.rpartition("$")[2] not in text
    found: dict[str, Any] = await response.get_json()
    return found


async def test_it_is_the_answer_with_a_mask(parts: Parts) -> None:
    """All that the installer would read stands there, but for the hash; nothing would stop it."""
    host = await register(parts, "m1", server_type="mirror")
    found = await preview(parts, host)
    assert f'root-password-hashed = "{MASK}"' in found["toml"]
    assert 'fqdn = "m1.' in found["toml"]
    answer = tomllib.loads(found["toml"])
    assert answer["disk-setup"] == {
        "filesystem": "zfs",
        "disk-list": ["/dev/sda", "/dev/sdb"],
        "zfs": {"raid": "raid1"},
    }
    assert answer["first-boot"]["url"].endswith(f"/api/hosts/{host.id}/first-boot-script?token={TOKEN}")
    assert (found["machine"], found["wrong"], found["problem"]) == ("assumed", [], "")


async def test_a_machine_that_was_seen_is_known(parts: Parts) -> None:
    """Its own NIC is what the answer was made for; a machine without that NIC is still a guess."""
    host = await register(parts, "pve1")
    machine = Hardware(identity="x", product="NUC", installer=(8, 4), links=(Link("eno1", host.mac),))
    await parts.fleet.change(lambda change: hardware.keep(change.db, host.id, machine, change.at))
    found = await preview(parts, host)
    assert (found["machine"], found["release"]) == ("reported", "8.4")


async def test_no_token_of_an_operation_is_in_it(parts: Parts) -> None:
    """While a host is being installed the preview is what it was, and not what its machine got."""
    host = await register(parts, "pve1")
    before = await preview(parts, host)
    await parts.operations.start(host.id, Kind.REBUILD, "a test")
    await parts.desk.script(str(host.mac), "192.0.2.7", None)
    question = {
        "iso": {"release": "9.1"},
        "product": {"product": "pve"},
        "network_interfaces": [{"link": "eno1", "mac": str(host.mac)}],
    }
    sent = tomllib.loads((await parts.desk.answer(json.dumps(question).encode(), "192.0.2.7")).decode())
    token = sent["first-boot"]["url"].rpartition("=")[2]
    assert len(token) == 43
    after = await preview(parts, host)
    assert token not in after["toml"]
    assert (before["machine"], after["machine"]) == ("assumed", "reported")
    shown = tomllib.loads(after["toml"])
    for url in ("post-installation-webhook", "first-boot"):
        assert shown[url].pop("url") == sent[url].pop("url").replace(token, TOKEN)
    assert shown["global"].pop("root-password-hashed") == MASK
    assert sent["global"].pop("root-password-hashed") == HASH
    assert shown == sent


async def test_what_would_stop_the_installer_stands_beside_it(parts: Parts) -> None:
    """An answer that is refused can be read all the same; where none can be made, a sentence says why."""
    host = await register(parts, "pve1")
    foreign = evolve(parts.config.install, keyboard="us")
    refused = answer_view(evolve(parts, config=evolve(parts.config, install=foreign)), host.id)
    assert 'keyboard = "us"' in str(refused["toml"])
    assert refused["problem"] == ""
    assert any("global.keyboard" in sentence for sentence in cast("list[str]", refused["wrong"]))
    old = Hardware(identity="x", product="NUC", installer=(8, 3), links=(Link("eno1", host.mac),))
    await parts.fleet.change(lambda change: hardware.keep(change.db, host.id, old, change.at))
    found = await preview(parts, host)
    assert found["toml"] == ""
    assert "8.4 or later" in found["problem"]


async def test_whose_release_it_is_for(parts: Parts) -> None:
    """The default image's; with another web server's installer, the one that the machine told last."""
    host = await register(parts, "pve1")
    image = images.NewImage(
        name="proxmox-ve_9.2-1",
        product="pve",
        release="9.2-1",
        sha256="0" * 64,
        size=1,
        mode_offset=0,
        prepared_sha256="0" * 64,
    )
    await parts.fleet.change(lambda change: images.add(change.db, image, change.at))
    own = evolve(parts.config, proxmox=evolve(parts.config.proxmox, installer_url=""))
    assert answer_view(evolve(parts, config=own), host.id)["release"] == "9.2"
    assert (await preview(parts, host))["release"] == "9.1"


async def test_why_there_is_none(parts: Parts) -> None:
    """A server type that is gone leaves a sentence, and no text."""
    host = await register(parts, "m1", server_type="mirror")
    parts.book.path.write_text(TYPES.replace("mirror:", "other:"))
    assert parts.book.reload()
    found = await preview(parts, host)
    assert found["toml"] == ""
    assert "has no type 'mirror'" in found["problem"]
    assert (await get(parts, "/api/hosts/99/answer")).status_code == 404
