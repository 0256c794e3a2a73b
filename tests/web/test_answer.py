"""The preview of an answer file: what would be sent, without what nobody may see."""

from typing import Any

from provd.domain.hardware import Hardware, Link
from provd.domain.hosts import Host
from provd.orchestrator.rehearsal.draft import MASK
from provd.store import hardware
from provd.web.parts import Parts
from web.looking import HASH, TYPES, get, register


async def preview(parts: Parts, host: Host) -> dict[str, Any]:
    response = await get(parts, f"/api/hosts/{host.id}/answer")
    assert response.status_code == 200
    assert HASH not in await response.get_data(as_text=True)
    found: dict[str, Any] = await response.get_json()
    return found


async def test_it_is_the_answer_with_a_mask(parts: Parts) -> None:
    """All that the installer would read stands there, but for the hash; nothing would stop it."""
    host = await register(parts, "m1", server_type="mirror")
    found = await preview(parts, host)
    assert f'root-password-hashed = "{MASK}"' in found["toml"]
    assert 'fqdn = "m1.' in found["toml"]
    assert 'raid = "raid1"' in found["toml"]
    assert (found["machine"], found["wrong"], found["problem"]) == ("assumed", [], "")


async def test_a_machine_that_was_seen_is_known(parts: Parts) -> None:
    """Its own NIC is what the answer was made for; a machine without that NIC is still a guess."""
    host = await register(parts, "pve1")
    machine = Hardware(identity="x", product="NUC", installer=(8, 4), links=(Link("eno1", host.mac),))
    await parts.fleet.change(lambda change: hardware.keep(change.db, host.id, machine, change.at))
    found = await preview(parts, host)
    assert (found["machine"], found["release"]) == ("reported", "8.4")


async def test_why_there_is_none(parts: Parts) -> None:
    """A server type that is gone leaves a sentence, and no text."""
    host = await register(parts, "m1", server_type="mirror")
    parts.book.path.write_text(TYPES.replace("mirror:", "other:"))
    assert parts.book.reload()
    found = await preview(parts, host)
    assert found["toml"] == ""
    assert "no server type 'mirror'" in found["problem"]
    assert (await get(parts, "/api/hosts/99/answer")).status_code == 404
