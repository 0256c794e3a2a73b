"""The page of all hosts: who is shown, in which order, and how a reader says so in its address."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from werkzeug.datastructures import MultiDict

from provd.domain.activity import Level
from provd.domain.hosts import HostOptions, Mac
from provd.domain.lifecycle import Fact, State
from provd.domain.secrets import Secret
from provd.store import hosts
from provd.store.database import Db
from provd.web import assets
from provd.web.app import create_app
from provd.web.grid import SORTS, Choice, natural
from provd.web.host import note_of, notes_of
from provd.web.parts import Parts
from web.looking import Page, get, host_in, html, note, register

CASES: Mapping[str, Any] = json.loads(Path(__file__).with_name("grid_cases.json").read_text())
"""One table for the two that have to agree: `Choice` here, `static/filter.js` in the browser."""


@pytest.mark.parametrize(("choice", "names"), CASES["cases"])
def test_a_choice_shows_and_orders(choice: Mapping[str, str], names: Sequence[str]) -> None:
    """By state, text and type; in an order that has pve2 before pve10."""
    wanted = Choice.read(MultiDict(choice))
    shown = [host["hostname"] for host in wanted.ordered(CASES["hosts"]) if wanted.shows(host)]
    assert shown == names


FILTER_LOGIC = """
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { address, ordered, shows } from "./filter.js";

const { hosts, cases } = JSON.parse(readFileSync("cases.json"));
for (const [said, names] of cases) {
  const choice = { show: "", q: "", type: "", sort: "attention", view: "tiles", ...said };
  const shown = ordered(choice, hosts).filter((host) => shows(choice, host)).map(({ hostname }) => hostname);
  assert.deepEqual(shown, names, JSON.stringify(said));
}
const usual = { show: "", q: "", type: "", sort: "attention", view: "tiles" };
assert.equal(address(usual), "/?view=tiles");
assert.equal(address({ ...usual, q: "a&b", show: "failed" }), "/?show=failed&q=a%26b&view=tiles");
console.log("checked");
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_browser_chooses_alike(tmp_path: Path) -> None:
    """The same table, read by the script."""
    (tmp_path / "filter.js").write_text((assets.static_folder() / "filter.js").read_text())
    (tmp_path / "cases.json").write_text(json.dumps(CASES))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "run.mjs").write_text(FILTER_LOGIC)
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "checked\n", done.stderr


@pytest.mark.parametrize("name", ["pve2", "10", "a-1-b", "PVE", ""])
def test_a_name_can_be_compared_with_any(name: str) -> None:
    """Digits and letters never meet in one comparison."""
    assert sorted([name, "pve10", "7", "x"], key=natural)


def test_what_is_no_choice_is_left_aside() -> None:
    """An address that somebody made up shows the page as it usually is; the last view is remembered."""
    assert Choice.read(MultiDict({"show": "x", "sort": "y", "view": "z"}), "table") == Choice(view="table")
    assert Choice.read(MultiDict({"view": "tiles"}), "table").view == "tiles"
    assert Choice.read(MultiDict(), "<evil>").view == "tiles"
    assert set(SORTS) >= {Choice().sort}


async def test_the_server_draws_what_the_address_says(parts: Parts) -> None:
    """Tiles that are not chosen are hidden, counts are of all, and the controls show the choice."""
    parts.passwords.standing = Secret("known")
    states = {"pve10": State.READY, "pve2": State.READY, "busy": State.JOINING, "zz": State.FAILED}
    for number, (name, state) in enumerate(states.items(), start=1):
        await host_in(parts, state, name, number)
    page = Page(await html(parts, "/?show=ready&q=pve&sort=name&view=table"))
    assert page.tiles == ["busy", "pve2", "pve10", "zz"]
    drawn = [attributes for tag, attributes in page.elements if attributes.get("class") == "tile"]
    hidden = {one["data-hostname"] for one in drawn if "hidden" in one}
    assert hidden == {"busy", "zz"}
    assert "failed 1 waiting 0 working 1 registered 0 ready 2" in page.text
    assert page.by_id("search")["value"] == "pve"
    assert page.by_id("hosts")["data-view"] == "table"
    chosen = [attributes for _, attributes in page.elements if attributes.get("aria-current") == "true"]
    assert [one["data-group"] for one in chosen] == ["ready"]
    assert "hidden" not in Page(await html(parts, "/?q=nobody")).by_id("none-shown")


async def test_links_keep_what_is_chosen(parts: Parts) -> None:
    """Another group is looked at in the same words, order and layout, without a script too."""
    await register(parts, "pve1")
    page = Page(await html(parts, '/?q=a%26"b&sort=name&view=table&show=ready'))
    links = {
        one["data-group"]: one["href"] for tag, one in page.elements if tag == "a" and "data-group" in one
    }
    assert links["failed"] == "/?show=failed&q=a%26%22b&sort=name&view=table"
    assert links[""] == "/?q=a%26%22b&sort=name&view=table"
    assert Choice().address("") == "/?view=tiles"


async def test_types_are_offered_where_there_are_several(parts: Parts, tmp_path: Path) -> None:
    """One that nobody describes any more can be looked for as long as a host is of it, or somebody does."""
    await register(parts, "pve1", 1, "mirror")
    alone = "server_types:\n  compute: {display_name: Box, boot_disk: /dev/sda, hostname_prefix: pve}\n"
    (tmp_path / "server-types.yaml").write_text(alone)
    parts.book.reload()
    assert offered(await html(parts, "/")) == ["", "compute", "mirror"]
    assert offered(await html(parts, "/?type=gone")) == ["", "compute", "gone", "mirror"]
    await parts.enrolment.remove(parts.store.read(hosts.everyone)[0].id, "a test")
    page = await html(parts, "/")
    assert offered(page) == ["", "compute"]
    assert "hidden" in type_filter(page)


async def test_notes_of_all_are_those_of_each(parts: Parts) -> None:
    """Why it failed; the last warning since the state changed; nothing of what was before."""
    for number, state in enumerate(State, start=1):
        host = await host_in(parts, state, f"pve{number}", number)
        await note(parts, f"first of {host.hostname}", host, Level.WARNING)
        await note(parts, f"<b>last</b> of {host.hostname}", host, Level.ERROR)
        await note(parts, "nothing to mind", host)
    moved = await host_in(parts, State.INSTALLING, "moved", 50)
    await note(parts, "over by now", moved, Level.WARNING)
    await parts.fleet.change(lambda change: change.fact(moved.id, Fact.INSTALL_REPORTED, "done"))

    def both(db: Db) -> tuple[dict[int, str], dict[int, str]]:
        everyone = hosts.everyone(db)
        each = {host.id: note_of(db, host) for host in everyone}
        return {key: it for key, it in each.items() if it}, dict(notes_of(db, everyone))

    each, together = parts.store.read(both)
    assert each == together
    assert len(each) == len(State) - 2  # neither those that are registered only, nor those that are ready
    assert "rebuild failed: no luck" in each.values()
    assert moved.id not in each
    page = await html(parts, "/")
    assert "&lt;b&gt;last&lt;/b&gt; of pve" in page
    assert "<b>last" not in page
    assert parts.store.read(lambda db: notes_of(db, [])) == {}


def type_filter(source: str) -> dict[str, str]:
    [found] = [one for tag, one in Page(source).elements if tag == "select" and one.get("name") == "type"]
    return found


def offered(source: str) -> list[str]:
    [select] = re.findall(r'<select name="type".*?</select>', source, re.DOTALL)
    return ["" if value == "every type" else value for value in re.findall(r"<option[^>]*>([^<]*)", select)]


async def test_the_last_view_is_remembered(parts: Parts) -> None:
    """By a cookie, where the address says nothing."""
    await register(parts, "pve1")
    client = create_app(parts).test_client()
    client.set_cookie("localhost", "view", "table")
    page = Page(await (await client.get("/")).get_data(as_text=True))
    assert page.by_id("hosts")["data-view"] == "table"


async def test_a_newcomer_is_told_what_to_do(parts: Parts) -> None:
    """The way to the first host is shown while there is none: by form, curl and YAML; then the hosts are."""
    page = Page(await html(parts, "/"))
    assert "hidden" not in page.by_id("empty")
    assert "hidden" in page.by_id("hosts-section")
    assert "checked" in page.by_id("readiness-all")
    for words in ("curl http://127.0.0.1:8080/api/hosts", "boot_disk: /dev/nvme0n1", "with a form"):
        assert words in page.text
    await register(parts, "pve1")
    page = Page(await html(parts, "/"))
    assert "hidden" in page.by_id("empty")
    assert "hidden" not in page.by_id("hosts-section")
    assert "checked" not in page.by_id("readiness-all")


async def test_a_discovered_machine_is_registered_or_ignored(parts: Parts) -> None:
    """It stands in a section of its own with who made it and how it boots, until it is registered."""
    assert "hidden" in Page(await html(parts, "/")).by_id("sightings-section")
    mac = Mac.parse("bc:24:11:00:00:01")
    await parts.fleet.sighted(mac, "192.0.2.7", "asked who boots it", "UEFI x64")
    source = await html(parts, "/")
    assert "hidden" not in Page(source).by_id("sightings-section")
    for words in ("Proxmox Server Solutions GmbH", "UEFI x64", "asked who boots it", str(mac)):
        assert words in Page(source).text
    client = create_app(parts).test_client()
    path = f"/api/sightings/{mac}/ignore"
    assert (await client.post(path, json={})).status_code == 204
    [seen] = (await (await client.get("/api/sightings")).get_json())["sightings"]
    assert (seen["ignored"], seen["vendor"], seen["firmware"]) == (
        True,
        "Proxmox Server Solutions GmbH",
        "UEFI x64",
    )
    assert "hidden" not in Page(await html(parts, "/")).by_id("ignored-section")
    assert (await client.delete(path)).status_code == 204
    assert "hidden" in Page(await html(parts, "/")).by_id("ignored-section")
    unknown = await client.post("/api/sightings/52:54:00:00:00:99/ignore", json={})
    assert unknown.status_code == 404
    await parts.enrolment.register(mac, "compute", "pve1", HostOptions(), "a test")
    page = Page(await html(parts, "/"))
    assert "hidden" in page.by_id("sightings-section")
    assert (await client.post(path, json={})).status_code == 404


async def test_a_tile_says_how_it_went_and_what_it_waits_for(parts: Parts) -> None:
    """The strip in words for whoever does not see it; a call for a human in words too."""
    await host_in(parts, State.READY)
    await host_in(parts, State.FIRST_BOOT, "pve2", 2)
    page = Page(await html(parts, "/"))
    assert {"Last operations: done", "Last operations: running"} <= set(page.all("aria-label"))
    assert "It needs the cluster's password" in page.text
    assert "usually" in page.text
    assert (await get(parts, "/")).headers["Content-Type"].startswith("text/html")
