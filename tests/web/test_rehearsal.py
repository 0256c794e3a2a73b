"""The rehearsal through the API: three simulated members over HTTPS, a real database, and nothing wiped."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define

from provd.config import load_config
from provd.daemon import open_parts
from provd.domain.activity import Activity
from provd.domain.cluster import Survey
from provd.domain.hosts import Host, HostOptions, Mac, Membership
from provd.domain.lifecycle import State
from provd.domain.secrets import Secret
from provd.orchestrator.rehearsal.rehearsals import LAST_SECONDS, Rehearsals
from provd.orchestrator.rehearsal.situation import Credentials
from provd.simulator.cluster import Cluster
from provd.simulator.cluster.api import serve_api
from provd.simulator.cluster.state import Guest
from provd.store import activity, departures, operations
from provd.web.app import create_app
from provd.web.parts import Parts

NET = "127.78.9"
PASSWORD = "root's own password"
CONFIG = """
server: {{public_url: "http://127.0.0.1:8080", auth: off}}
pxe: {{enabled: false}}
proxmox:
  existing_node: {net}.1
  join_fingerprint: "{pin}"
  api_port: {port}
  installer_url: http://127.0.0.1/pve
credentials: {{root_password_hash: "$6$salt${hash}"{password}}}
"""
TYPES = """
server_types:
  compute: {display_name: Small, boot_disk: /dev/nvme0n1, hostname_prefix: pve}
"""


@define
class World:
    parts: Parts
    cluster: Cluster

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        response = await create_app(self.parts).test_client().post(path, json=body)
        return response.status_code, await response.get_json()

    async def look(self, host: Host, **body: Any) -> dict[str, Any]:
        status, view = await self.post(f"/api/hosts/{host.id}/rebuild?dry_run=true", body)
        assert status == 200, view
        return view

    async def rebuild(self, host: Host, **body: Any) -> tuple[int, dict[str, Any]]:
        return await self.post(f"/api/hosts/{host.id}/rebuild", body)

    def untouched(self, host: Host) -> bool:
        started = self.parts.store.read(operations.active)
        return not started and self.parts.fleet.host(host.id).state is State.REGISTERED

    def told(self, event: str) -> list[Activity]:
        return [
            line for line in self.parts.store.read(lambda db: activity.latest(db, 50)) if line.event == event
        ]

    async def register(self, name: str, options: HostOptions | None = None) -> Host:
        mac = Mac.parse("52:54:00:00:00:03")
        return await self.parts.enrolment.register(mac, "compute", name, options or HostOptions(), "a test")


@asynccontextmanager
async def world(directory: Path, members: int = 3, *, standing: bool = True) -> AsyncIterator[World]:
    cluster = Cluster.create(directory / "cluster", ip=f"{NET}.1", root_password=PASSWORD)
    for number in range(2, members + 1):
        cluster.add_member(f"pve{number}", f"{NET}.{number}")
    with cluster.edit() as state:
        state.timings.auth_delay = 0
    (directory / "password").write_text(PASSWORD)
    (directory / "password").chmod(0o600)
    (directory / "server-types.yaml").write_text(TYPES)
    async with trio.open_nursery() as nursery:
        for number in range(1, members + 1):
            await nursery.start(serve_api, cluster, f"pve{number}")
        text = CONFIG.format(
            net=NET,
            pin=cluster.fingerprint("pve1"),
            port=cluster.read().api_port,
            hash="x" * 86,
            password=", cluster_password_file: password" if standing else "",
        )
        (directory / "provisioning.yaml").write_text(text)
        config = load_config(directory / "provisioning.yaml", {"STATE_DIRECTORY": str(directory / "state")})
        async with open_parts(config, {}) as parts:
            with trio.fail_after(60):
                yield World(parts, cluster)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as lab:
        yield lab


def of(view: dict[str, Any], name: str) -> dict[str, Any]:
    [check] = [check for check in view["checks"] if check["name"] == name]
    return dict(check)


async def test_a_rehearsal_starts_nothing(lab: World) -> None:
    """It says yes or yes-but with every check's evidence, and the host stays as it was."""
    host = await lab.register("pve9")
    view = await lab.look(host)
    assert view["verdict"] == "yes, but"
    assert view["sentence"].startswith("Yes, but")
    assert view["erases"] == ["/dev/nvme0n1"]
    assert {"name", "result", "what", "evidence", "mend", "overridable"} == view["checks"][0].keys()
    assert of(view, "cluster")["result"] == "fine"
    assert "3 of 4 votes" in of(view, "joining")["evidence"]
    assert lab.untouched(host)


async def test_a_member_with_guests_is_not_rebuilt(lab: World) -> None:
    """409 with the blockers; force with another name is 422; with the right one it is done, and told."""
    with lab.cluster.edit() as state:
        state.guests.append(Guest(vmid=101, node="pve3"))
    host = await lab.register("pve3")
    view = await lab.look(host)
    assert (view["verdict"], view["overridable"]) == ("no", True)
    status, problem = await lab.rebuild(host)
    assert status == 409
    assert "guests" in problem["detail"]
    assert "force to 'pve3'" in problem["detail"]
    assert [check["name"] for check in problem["checks"]] == ["guests"]
    status, problem = await lab.rebuild(host, force="pve4")
    assert (status, problem["field"]) == (422, "force")
    assert lab.untouched(host)
    status, started = await lab.rebuild(host, force="pve3")
    assert status == 202
    [line] = lab.told("rebuild.overridden")
    assert line.operation_id == started["id"]
    assert line.level == "warning"
    assert "overrode guests of the rehearsal: 1 guest would be lost" in line.message
    departure = lab.parts.store.read(lambda db: departures.of(db, started["id"]))
    assert departure is not None
    assert (departure.node, departure.nodeid, departure.drain) == ("pve3", 3, False)


async def test_what_is_final_stays_so(tmp_path: Path) -> None:
    """The last member of a cluster is not rebuilt by any word."""
    async with world(tmp_path, members=1) as lab:
        host = await lab.register("pve1")
        view = await lab.look(host)
        assert (view["verdict"], view["overridable"]) == ("no", False)
        status, problem = await lab.rebuild(host, force="pve1")
        assert status == 409
        assert "is the whole cluster" in problem["detail"]
        assert "force" not in problem["detail"]
        assert lab.untouched(host)


async def test_who_cannot_be_asked_is_unknown(lab: World) -> None:
    """A wrong password: nothing is known, so it is a no that may be overridden; the right one mends it."""
    host = await lab.register("pve9")
    view = await lab.look(host, cluster_password="wrong")
    assert (view["verdict"], of(view, "cluster")["result"]) == ("no", "unknown")
    assert "refused root's password" in of(view, "cluster")["what"]
    status, problem = await lab.rebuild(host, cluster_password="wrong")
    assert status == 409
    assert "refused root's password" in problem["detail"]
    assert (await lab.look(host, cluster_password=PASSWORD))["verdict"] == "yes, but"
    assert lab.untouched(host)


async def test_without_a_password_a_rehearsal_says_so(tmp_path: Path) -> None:
    """A rehearsal runs and names what is missing; a rebuild is refused by the field."""
    async with world(tmp_path, standing=False) as lab:
        host = await lab.register("pve9")
        assert of(await lab.look(host), "credentials")["result"] == "no"
        assert of(await lab.look(host, cluster_password=PASSWORD), "credentials")["result"] == "fine"
        status, problem = await lab.rebuild(host)
        assert (status, problem["field"]) == (422, "cluster_password")
        assert lab.untouched(host)


async def test_a_host_that_stands_alone_asks_nobody(tmp_path: Path) -> None:
    """It needs neither cluster nor password."""
    async with world(tmp_path, standing=False) as lab:
        host = await lab.register("pve9", HostOptions(cluster=Membership.NONE))
        view = await lab.look(host)
        assert "stands alone" in of(view, "cluster")["what"]
        status, _ = await lab.rebuild(host)
        assert status == 202


async def test_who_is_busy_is_told_so(lab: World) -> None:
    """Also by a rehearsal, which changes nothing about it."""
    host = await lab.register("pve9")
    status, started = await lab.rebuild(host)
    assert status == 202
    view = await lab.look(host)
    assert f"rebuild {started['id']}" in of(view, "host")["what"]
    status, problem = await lab.rebuild(host, force="pve9")
    assert status == 409
    assert f"rebuild {started['id']}" in problem["detail"]


@pytest.mark.parametrize(
    ("query", "body", "field"),
    [
        ("?dry_run=yes", {}, "dry_run"),
        ("", {"drain": "yes"}, "drain"),
        ("", {"force": 7}, "force"),
        ("?dry_run=true", {"password": "x"}, "password"),
    ],
)
async def test_wrong_words_are_named(lab: World, query: str, body: dict[str, Any], field: str) -> None:
    """Before anybody is asked."""
    host = await lab.register("pve9")
    status, problem = await lab.post(f"/api/hosts/{host.id}/rebuild{query}", body)
    assert (status, problem["field"]) == (422, field)


async def test_a_member_that_hangs_takes_no_longer_than_it_may(lab: World) -> None:
    """What the cluster did not say in the caller's time is unknown; the rest of the rehearsal is there."""
    host, parts = await lab.register("pve9"), lab.parts

    async def hangs(password: Secret | None = None, *, avoid: Collection[str] = ()) -> Survey:
        await trio.sleep_forever()

    has = Credentials(password=True, token=False, ssh_key=False)
    rehearsals = Rehearsals(parts.config, parts.store, parts.book, hangs, has)
    with trio.fail_after(LAST_SECONDS + 0.1):
        rehearsal = await rehearsals.of(host.id)
    assert [check.name for check in rehearsal.blockers] == ["cluster"]
    assert "did not answer in time" in rehearsal.blockers[0].what
    assert len(rehearsal.checks) > 8
