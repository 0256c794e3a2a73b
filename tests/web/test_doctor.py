"""The doctor's page and API: one examination at a time, not too often, and every word escaped."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import g
from quart_trio import QuartTrio

from provd.config import Config, load_config
from provd.doctor import doctor as doctors
from provd.doctor.doctor import Doctor, Report, TooSoon
from provd.doctor.findings import ok, problem, skipped, warning
from provd.domain.errors import Conflict
from provd.server_types import ServerTypeBook
from provd.simulator.lab import free_port
from provd.store.database import Store, now, open_store
from provd.web import doctor as pages
from provd.web import problems
from provd.web.page import Pages

CONFIG = """
server: {{public_url: "http://127.0.0.1:1", listen: "127.0.0.1:{listen}", image_listen: "127.0.0.1:{images}"}}
pxe: {{enabled: false}}
proxmox: {{existing_node: 127.0.0.1, join_fingerprint: "{pin}", api_port: {api},
          installer_url: "http://127.0.0.1:{images}"}}
credentials: {{root_password_hash: "$6$salt${hash}"}}
"""
TYPES = "server_types: {c: {display_name: C, boot_disk: /dev/sda, hostname_prefix: pve}}\n"
EVIL = """<img src=x onerror="alert(1)">'"&"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    ports = {name: free_port() for name in ("listen", "images", "api")}
    text = CONFIG.format(pin=":".join(["AA"] * 32), hash="x" * 86, **ports)
    (tmp_path / "provisioning.yaml").write_text(text)
    (tmp_path / "server-types.yaml").write_text(TYPES)
    return load_config(tmp_path / "provisioning.yaml", {"STATE_DIRECTORY": str(tmp_path / "state")})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    with open_store(tmp_path / "provd.db") as store:
        yield store


@pytest.fixture
def doctor(config: Config) -> Doctor:
    return Doctor(config, {}, loader_url="http://127.0.0.1:1/loaders")


@pytest.fixture
def app(config: Config, store: Store, doctor: Doctor) -> QuartTrio:
    app = QuartTrio("test", static_folder=None)
    problems.install(app)

    @app.before_request
    async def before() -> None:
        """What the gate would say of a visitor."""
        g.actor, g.auth_off = "a test", True

    app.register_blueprint(pages.blueprint(doctor, Pages(ServerTypeBook(config.paths.server_types), store)))
    return app


async def ask(app: QuartTrio, method: str, path: str, **more: Any) -> Any:
    return await app.test_client().open(path, method=method, **more)


async def test_nothing_was_looked_at_before_somebody_asks(app: QuartTrio) -> None:
    """The API says so, and gives no healthy report by default."""
    answer = await ask(app, "GET", "/api/doctor")
    assert await answer.get_json() == {"at": None, "healthy": None, "findings": [], "busy": False}


async def test_a_request_looks_and_the_report_is_kept(app: QuartTrio) -> None:
    """What POST answers, GET gives again, with what to do first."""
    answer = await ask(app, "POST", "/api/doctor", json={})
    report = await answer.get_json()
    assert (answer.status_code, report["healthy"]) == (200, False)
    results = [finding["result"] for finding in report["findings"]]
    assert results == sorted(results, key=["problem", "warning", "skipped", "ok"].index)
    kept = await ask(app, "GET", "/api/doctor")
    assert await kept.get_json() == report


async def test_the_next_one_has_to_wait(app: QuartTrio) -> None:
    """429, with how long: each examination sends packets to everybody."""
    await ask(app, "POST", "/api/doctor", json={})
    answer = await ask(app, "POST", "/api/doctor", json={})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= doctors.PAUSE + 1
    assert "moment ago" in (await answer.get_json())["detail"]


async def test_two_at_a_time_are_refused(doctor: Doctor) -> None:
    """The second is told that one is under way; a cancelled one leaves nothing in the way."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(doctor.examine)
        for _ in range(2):  # after which the other has begun, and waits for its first thread
            await trio.lowlevel.checkpoint()
        assert doctor.busy
        with pytest.raises(Conflict, match="at work already"):
            await doctor.examine()
        nursery.cancel_scope.cancel()
    assert not doctor.busy
    assert doctor.last is None
    with pytest.raises(TooSoon):
        await doctor.examine()


async def test_the_page_shows_what_was_found_and_escapes_it(app: QuartTrio, doctor: Doctor) -> None:
    """A boot file's name comes from a stranger on the LAN."""
    doctor.last = Report(
        now(),
        [ok("disk", "fine"), problem("the wire", EVIL, EVIL), warning("x", "y", "z"), skipped("s", "t")],
    )
    html = await (await ask(app, "GET", "/doctor")).get_data(as_text=True)
    assert "<img src=x" not in html
    assert html.count("&lt;img src=x") == 2
    assert re.findall(r'data-result="(\w+)"', html) == ["problem", "warning", "skipped", "ok"]
    assert "No machine can be installed" in html
    assert "Check again" in html


async def test_the_page_shows_router_settings_with_our_addresses(app: QuartTrio, doctor: Doctor) -> None:
    """One for each router, on the page as in the API."""
    html = await (await ask(app, "GET", "/doctor")).get_data(as_text=True)
    routers = (await (await ask(app, "GET", "/api/doctor/routers")).get_json())["routers"]
    assert [router["key"] for router in routers][:2] == ["openwrt", "dnsmasq"]
    for router in routers:
        assert f"<summary>{router['router']}</summary>" in html
    assert "${mac:hexhyp}" in html


async def test_the_page_holds_nothing_inline(app: QuartTrio) -> None:
    """No script and no style of its own: the Content-Security-Policy would drop it."""
    html = await (await ask(app, "GET", "/doctor")).get_data(as_text=True)
    assert re.findall(r"<script[^>]*>", html) == [
        f'<script type="module" src="/static/{name}.js">' for name in ("page", "look-again")
    ]
    assert not re.search(r"<style|style=|\son\w+=", html)
