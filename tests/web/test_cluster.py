"""The cluster's page and API over a simulated cluster: what was seen, whose turn it is, all escaped."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define, evolve

from provd.cluster_watch import Look
from provd.config import load_config
from provd.daemon import open_parts
from provd.doctor.findings import problem
from provd.domain.hosts import HostOptions, Mac
from provd.domain.operations import Kind
from provd.simulator.cluster import Cluster
from provd.simulator.cluster.api import serve_api
from provd.simulator.cluster.state import Token
from provd.store import operations
from provd.store.database import now, timestamp
from provd.web import assets
from provd.web.app import create_app
from provd.web.parts import Parts

NET = "127.78.7"
TOKEN = "provd@pve!reads=6650a1b2-0000-4000-8000-000000000001"
EVIL = """<img src=x onerror="alert(1)">'"&"""

CONFIG = """
server: {{public_url: "http://127.0.0.1:8080", auth: off}}
pxe: {{enabled: false}}
proxmox: {proxmox}
credentials: {{root_password_hash: "$6$salt${hash}"}}
"""
TYPES = "server_types: {c: {display_name: C, boot_disk: /dev/sda, hostname_prefix: pve}}\n"


@define
class Lab:
    cluster: Cluster
    parts: Parts

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        return (
            await create_app(self.parts)
            .test_client()
            .open(
                path,
                method=method,
                headers={"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"},
                **more,
            )
        )

    async def document(self, method: str = "GET", **more: Any) -> Any:
        return await (await self.ask(method, "/api/cluster", **more)).get_json()

    async def page(self, path: str = "/cluster") -> str:
        return str(await (await self.ask("GET", path)).get_data(as_text=True))


@asynccontextmanager
async def open_parts_in(directory: Path, proxmox: dict[str, object]) -> AsyncIterator[Parts]:
    text = CONFIG.format(proxmox=json.dumps(proxmox), hash="x" * 86)
    (directory / "provisioning.yaml").write_text(text)
    (directory / "server-types.yaml").write_text(TYPES)
    (directory / "given").mkdir()
    (directory / "given" / "cluster-token").write_text(TOKEN)
    config = load_config(directory / "provisioning.yaml", {"STATE_DIRECTORY": str(directory / "state")})
    async with open_parts(config, {"CREDENTIALS_DIRECTORY": str(directory / "given")}) as parts:
        yield parts


@asynccontextmanager
async def open_lab(directory: Path) -> AsyncIterator[Lab]:
    """Two members, and all parts of provd with a token for them."""
    cluster = Cluster.create(directory / "cluster", ip=f"{NET}.1")
    cluster.add_member("pve2", f"{NET}.2")
    name, _, secret = TOKEN.partition("=")
    with cluster.edit() as state:
        state.tokens[name] = Token(secret=secret, privs={"/": ["Sys.Audit", "VM.Audit"]})
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for node in ("pve1", "pve2"):
                await nursery.start(serve_api, cluster, node)
            proxmox: dict[str, object] = {
                "existing_node": f"{NET}.1",
                "join_fingerprint": cluster.fingerprint("pve1"),
                "api_port": cluster.read().api_port,
            }
            async with open_parts_in(directory, proxmox) as parts:
                yield Lab(cluster, parts)
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_nothing_is_known_before_the_first_look(tmp_path: Path) -> None:
    """Nothing is healthy or quorate by default."""
    async with open_lab(tmp_path) as lab:
        before = await lab.document()
        assert {before[key] for key in ("asked_at", "healthy", "quorate", "votes", "lock")} == {None}
        assert before["members"] == before["findings"] == []
        assert "was not looked at" in await lab.page()


async def test_a_request_looks_and_it_is_kept(tmp_path: Path) -> None:
    """What POST answers, GET gives again, and the page shows."""
    async with open_lab(tmp_path) as lab:
        seen = await lab.document("POST", json={})
        assert (seen["name"], seen["quorate"], seen["votes"], seen["spare_votes"]) == ("lab", True, 2, 0)
        assert [member["name"] for member in seen["members"]] == ["pve1", "pve2"]
        assert {one["name"]: one["address"] for one in seen["remembered"]} == {
            "pve1": f"{NET}.1",
            "pve2": f"{NET}.2",
        }
        results = [finding["result"] for finding in seen["findings"]]
        assert results == sorted(results, key=["problem", "warning", "skipped", "ok"].index)
        assert await lab.document() == seen
        html = await lab.page()
    assert re.findall(r'data-member="(\w+)"', html) == ["pve1", "pve2"]
    assert "0 to spare" in html
    assert "Look again" in html
    script = (assets.static_folder() / "look-again.js").read_text()
    for wanted in re.findall(r'byId\("([^"]+)"\)', script):
        assert f'id="{wanted}"' in html
    assert TOKEN.partition("=")[2] not in html + json.dumps(seen)


async def test_whose_turn_it_is(tmp_path: Path) -> None:
    """The operation that changes the members is named, with a link."""
    async with open_lab(tmp_path) as lab:
        host = await lab.parts.enrolment.register(
            Mac.parse("52:54:00:00:00:01"), "c", "pve5", HostOptions(), "a test"
        )
        begun = now()

        def take(db: Any) -> int:
            operation = operations.open_(db, host, Kind.REBUILD, "a test", begun)
            db.execute(
                "INSERT INTO locks (name, operation_id, taken_at) VALUES ('cluster', ?, ?)",
                (operation.id, timestamp(begun)),
            )
            return int(operation.id)

        number = await lab.parts.store.write(take)
        lock = (await lab.document())["lock"]
        assert (lock["operation_id"], lock["hostname"]) == (number, "pve5")
        assert f'href="/ops/{number}"' in await lab.page()


async def test_a_look_under_way_is_not_disturbed(tmp_path: Path) -> None:
    """409, as for everything that goes on already."""
    async with open_lab(tmp_path) as lab:
        lab.parts.cluster_watch.busy = True
        answer = await lab.ask("POST", "/api/cluster", json={})
        assert answer.status_code == 409
        assert (await lab.document())["busy"] is True


async def test_what_is_wrong_stands_on_the_first_page_too(tmp_path: Path) -> None:
    """A problem, not a warning; escaped, as a member's words are a stranger's."""
    async with open_lab(tmp_path) as lab:
        await lab.document("POST", json={})
        assert 'href="/cluster">Cluster</a>: ' not in await lab.page("/")
        kept = lab.parts.cluster_watch.last
        assert kept is not None
        lab.parts.cluster_watch.last = evolve(kept, findings=[problem("cluster", EVIL, EVIL)])
        for path in ("/", "/cluster"):
            html = await lab.page(path)
            assert "<img src=x" not in html
            assert "&lt;img src=x" in html
        assert 'href="/cluster">Cluster</a>: ' in await lab.page("/")


async def test_an_error_is_shown_with_whom_provd_remembers(tmp_path: Path) -> None:
    """Without an answer there is no table, but the sentence and the members."""
    async with open_lab(tmp_path) as lab:
        await lab.document("POST", json={})
        with lab.cluster.edit() as state:
            state.faults.peer_down = ["pve1", "pve2"]
        seen = await lab.document("POST", json={})
        assert (seen["healthy"], seen["members"], seen["quorate"]) == (False, [], None)
        html = await lab.page()
    assert "Connection refused" in html
    assert "Members that provd remembers: pve1" in html


async def test_hosts_that_stand_alone(tmp_path: Path) -> None:
    """Without a cluster the page says so, and there is nothing to press."""
    async with open_parts_in(tmp_path, {}) as parts:
        lab = Lab(Cluster(tmp_path), parts)
        parts.cluster_watch.last = Look(at=now(), survey=None, failure="", findings=())
        html = await lab.page()
    assert "hosts stand alone" in html
    assert "<form id=" not in html
    assert "look-again.js" not in html
