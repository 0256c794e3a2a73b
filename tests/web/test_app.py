"""The application as a whole: what its routes are, and who they are for."""

from pathlib import Path

import pytest
import trio
from werkzeug.exceptions import NotFound

from house import quiet_config
from provd.daemon import open_parts
from provd.web import gate
from provd.web.app import create_app

PROMISED = {
    "GET /",
    "GET /hosts/{}",
    "GET /ops/{}",
    "GET /events",
    "GET /ipxe/{}",
    "POST /api/boot/answer",
    "GET /api/hosts",
    "POST /api/hosts",
    "GET /api/hosts/{}",
    "DELETE /api/hosts/{}",
    "POST /api/hosts/{}/rebuild",
    "POST /api/hosts/{}/installed",
    "GET /api/hosts/{}/first-boot-script",
    "POST /api/hosts/{}/phone-home",
    "GET /api/operations",
    "GET /api/operations/{}",
    "POST /api/operations/{}/cancel",
}
"""The user's paths; others may be added, these stay."""


async def test_every_promised_path_is_there_and_every_path_has_its_class(tmp_path: Path) -> None:
    """No path of the user's is missing, and none was forgotten by the gate (it would be closed)."""
    async with open_parts(quiet_config(tmp_path), {}) as parts:
        app = create_app(parts)
        assert gate.unclassified(app) == []
        routes = {
            f"{method} {'/'.join('{}' if part.startswith('<') else part for part in rule.rule.split('/'))}"
            for rule in app.url_map.iter_rules()
            for method in rule.methods or ()
        }
        assert routes >= PROMISED


async def test_a_number_in_a_path_is_written_in_ascii(tmp_path: Path) -> None:
    """Other scripts' digits, a sign or too many of them are no host's number."""
    async with open_parts(quiet_config(tmp_path), {}) as parts:
        urls = create_app(parts).url_map.bind("localhost")
        assert urls.match("/api/hosts/1")[1] == {"host_id": 1}
        for number in ("\N{ARABIC-INDIC DIGIT ONE}", "-1", "0", "1" + "0" * 30, "1.0"):
            with pytest.raises(NotFound):
                urls.match(f"/api/hosts/{number}")


def test_the_web_room_runs_on_trio_alone() -> None:
    """The pair of Quart and quart-trio that is installed imports; the mixed pair does not."""
    import quart_trio

    assert quart_trio.QuartTrio is not None
    with pytest.raises(RuntimeError):
        trio.lowlevel.current_task()
