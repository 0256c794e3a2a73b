"""The page of one host: what it says of its state, what can be pressed and why not, what stands beside."""

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from provd.domain.activity import Level, News
from provd.domain.hardware import Disk, Hardware, Link
from provd.domain.hosts import Discovery, Host, HostId, HostOptions, Mac, OperationId, StaticAddress
from provd.domain.lifecycle import Fact, State
from provd.domain.operations import Kind, Operation, Outcome
from provd.orchestrator.fleet import Change
from provd.store import hardware, hosts
from provd.store.database import timestamp
from provd.web import assets
from provd.web.app import create_app
from provd.web.host import note_of
from provd.web.host_cards import erased
from provd.web.host_standing import Facts, blocked, outlook, plan_of
from provd.web.page import RECENT, duration, pace, roughly
from provd.web.parts import Parts
from web.looking import EVIL, TYPES, Page, active, end, get, host_in, html, note, register

SCRIPTS = assets.static_folder()


async def standing(parts: Parts, host: Host) -> dict[str, Any]:
    response = await get(parts, f"/api/hosts/{host.id}/standing")
    assert response.status_code == 200
    found: dict[str, Any] = await response.get_json()
    return found


def run_node(folder: Path, module: str, code: str) -> None:
    """`code` is run beside `module`, and prints that it came to its end."""
    (folder / module).write_text((SCRIPTS / module).read_text())
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "run.mjs").write_text(code)
    done = subprocess.run(["node", "run.mjs"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.stdout == "checked\n", done.stderr


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")

# --- what is happening now --------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
async def test_the_page_says_what_the_api_says(parts: Parts, state: State) -> None:
    """Every sentence of a host's standing is on its page, in every state; so the two cannot part."""
    host = await host_in(parts, state)
    said, page = await standing(parts, host), Page(await html(parts, f"/hosts/{host.id}"))
    outlook = said["outlook"]
    for words in (
        outlook["said"],
        outlook["next"],
        said["note"],
        *said["blocked"].values(),
        said["inventory"],
    ):
        assert words in page.text
    if outlook["operation"] is not None:
        assert f"/ops/{outlook['operation']['id']}" in page.all("href")
    for pair in said["installation"]:
        assert " ".join(pair) in page.text
    assert ("hidden" in page.by_id("running")) == (said["host"]["operation_id"] is None)


def an_operation(number: int, kind: Kind, outcome: Outcome | None, detail: str = "") -> Operation:
    begun = datetime(2026, 3, 1, number, tzinfo=UTC)
    return Operation(
        id=OperationId(number),
        host_id=HostId(1),
        hostname="pve1",
        kind=kind,
        started_by="me",
        started_at=begun,
        outcome=outcome,
        detail=detail,
        finished_at=begun + timedelta(minutes=9, seconds=3) if outcome is not None else None,
    )


def a_host(state: State, retry_until: datetime | None = None) -> Host:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Host(
        id=HostId(1),
        mac=Mac("52:54:00:00:00:01"),
        hostname="pve1",
        server_type="compute",
        options=HostOptions(),
        state=state,
        state_since=at,
        registered_at=at,
        retry_until=retry_until,
    )


BUILT = an_operation(2, Kind.REBUILD, Outcome.DONE)


@pytest.mark.parametrize(
    ("facts", "said", "by", "why", "ahead"),
    [
        (Facts(host=a_host(State.REGISTERED)), "Never built", None, "", "Press Rebuild…"),
        (Facts(host=a_host(State.REGISTERED), misfit="no such disk"), "Never built", None, "", ""),
        (
            Facts(
                host=a_host(State.REGISTERED),
                past=(an_operation(1, Kind.REBUILD, Outcome.CANCELLED, "cancelled by me"),),
            ),
            "Never built",
            None,
            "rebuild 1, cancelled: cancelled by me",
            "Press Rebuild…",
        ),
        (Facts(host=a_host(State.READY), past=(BUILT,)), "Built by", 2, "", "Nothing has to be done"),
        (
            Facts(
                host=a_host(State.READY),
                past=(an_operation(3, Kind.DECOMMISSION, Outcome.FAILED, "no quorum"), BUILT),
            ),
            "Built by",
            2,
            "decommission 3, failed: no quorum",
            "Nothing has to be done",
        ),
        (Facts(host=a_host(State.READY)), "It is ready", None, "", "Nothing has to be done"),
        (
            Facts(
                host=a_host(State.FAILED), past=(an_operation(4, Kind.REBUILD, Outcome.FAILED, "no power"),)
            ),
            "It failed in",
            4,
            "no power",
            "then press Rebuild…",
        ),
        (
            Facts(
                host=a_host(State.FAILED, datetime(2026, 3, 2, tzinfo=UTC)),
                past=(an_operation(4, Kind.REJOIN, Outcome.CANCELLED, "cancelled by me"),),
            ),
            "Somebody cancelled",
            4,
            "cancelled by me",
            "Retry from join",
        ),
        (
            Facts(host=a_host(State.READY), past=(an_operation(5, Kind.DECOMMISSION, None), BUILT)),
            "In the hands of",
            5,
            "",
            "forgotten here",
        ),
        (
            Facts(
                host=a_host(State.INSTALLING),
                past=(an_operation(5, Kind.REBUILD, None),),
                lacks_password=True,
            ),
            "In the hands of",
            5,
            "",
            "on the page of rebuild 5",
        ),
    ],
)
def test_a_host_says_what_it_is_and_what_can_be_done_next(
    facts: Facts, said: str, by: int | None, why: str, ahead: str
) -> None:
    """Who built it or broke off is named, an attempt that changed nothing is not kept quiet."""
    found = outlook(facts)
    assert found.said.startswith(said)
    assert (found.operation.id if found.operation is not None else None) == by
    assert why in found.why
    assert bool(why) == bool(found.why)
    assert ahead in found.next
    assert bool(ahead) == bool(found.next)


def test_what_it_was_built_in_is_told() -> None:
    """The time that the build took, not that of the last operation."""
    found = outlook(Facts(host=a_host(State.READY), past=(BUILT,)))
    assert (found.how, found.at) == (" in 9 min 3 s", BUILT.finished_at)


async def test_a_late_host_says_why(parts: Parts) -> None:
    """The most likely reasons stand on the page with the time of what they speak of, once and not twice."""
    host = await host_in(parts, State.PXE_READY)

    def age(change: Change) -> None:
        since = timestamp(change.at - timedelta(hours=1))
        change.db.execute("UPDATE hosts SET state_since = ?", (since,))

    assert (await standing(parts, host))["late"] == {"late": False, "reasons": []}
    assert "hidden" in Page(await html(parts, f"/hosts/{host.id}")).by_id("late")
    await parts.fleet.change(age)
    late = (await standing(parts, host))["late"]
    page = Page(await html(parts, f"/hosts/{host.id}"))
    assert late["late"] is True
    assert "hidden" not in page.by_id("late")
    for reason in late["reasons"]:
        assert page.text.count(reason["sentence"]) == 1
    assert late["reasons"][0]["at"] in page.all("datetime")


async def test_what_is_usual_is_drawn_as_a_bar(parts: Parts) -> None:
    """From history: how long this state takes, and how much of the whole way is over. Without one, no bar."""
    first = await host_in(parts, State.INSTALLING)
    assert "usually" not in Page(await html(parts, f"/hosts/{first.id}")).text
    await host_in(parts, State.READY, "pve2", 2)

    def spread(change: Change) -> None:
        """The other's rebuild was begun an hour ago, and entered a state every ten minutes."""
        rows = change.db.execute(
            "SELECT id FROM activity WHERE operation_id = 2 AND before IS NOT after ORDER BY id"
        ).fetchall()
        for number, row in enumerate(rows):
            at = timestamp(change.at - timedelta(minutes=60 - 10 * number))
            change.db.execute("UPDATE activity SET at = ? WHERE id = ?", (at, row["id"]))
        since = timestamp(change.at - timedelta(minutes=4))
        change.db.execute("UPDATE hosts SET state_since = ? WHERE id = ?", (since, first.id))

    await parts.fleet.change(spread)
    page = Page(await html(parts, f"/hosts/{first.id}"))
    assert "usually 10 min" in page.text
    [bar] = [one for tag, one in page.elements if tag == "progress" and one.get("data-part") == "pace"]
    assert "hidden" not in bar
    assert float(bar["max"]) == 60 * 60
    assert 24 * 60 <= float(bar["value"]) < 25 * 60


# --- what can be pressed ----------------------------------------------------------------------------


def test_an_action_that_cannot_be_taken_says_why() -> None:
    """Who has the host, what does not fit, and where nothing can be woken; nothing where nothing is wrong."""
    assert set(blocked(Facts(host=a_host(State.READY), past=(BUILT,))).values()) == {""}
    busy = blocked(Facts(host=a_host(State.INSTALLING), past=(an_operation(5, Kind.REBUILD, None),)))
    assert busy["busy"].startswith("rebuild 5 has this host")
    other = blocked(Facts(host=a_host(State.READY), misfit="no such disk", can_wake=False))
    assert "no such disk" in other["rebuild"]
    assert "pxe.enabled is false" in other["wake"]
    assert other["busy"] == ""


async def test_what_cannot_be_pressed_can_still_be_reached(parts: Parts) -> None:
    """A blocked button is no dead one: the keyboard comes to it, and its reason stands in sight beside it."""
    busy = await host_in(parts, State.INSTALLING)
    page = Page(await html(parts, f"/hosts/{busy.id}"))
    for name in ("open-rebuild", "open-remove", "wake"):
        button = page.by_id(name)
        assert button["aria-disabled"] == "true"
        assert "disabled" not in button
        reasons = button["aria-describedby"].split()
        assert [one for one in reasons if "hidden" not in page.by_id(one)]
    assert "hidden" not in page.by_id("running")
    orphan = await register(parts, "m1", 2, "mirror")
    assert "aria-disabled" not in Page(await html(parts, f"/hosts/{orphan.id}")).by_id("open-rebuild")
    parts.book.path.write_text(TYPES.replace("mirror:", "other:"))
    assert parts.book.reload()
    page = Page(await html(parts, f"/hosts/{orphan.id}"))
    assert "aria-disabled" in page.by_id("open-rebuild")
    assert "aria-disabled" not in page.by_id("open-remove")
    assert "has no type 'mirror' any more" in page.text


async def test_a_rebuild_says_what_it_wipes(parts: Parts) -> None:
    """The dialog names every disk, with what is known of it; the name is to be typed."""
    host = await register(parts, "m1", server_type="mirror")
    page = Page(await html(parts, f"/hosts/{host.id}"))
    assert "This wipes m1 . All data on these disks is lost: /dev/sda /dev/sdb" in page.text
    assert page.by_id("rebuild-name")["pattern"] == "m1"
    assert "aria-disabled" not in page.by_id("open-rebuild")
    disks = (
        Disk(device="/dev/sda", model="WDC", serial="WX1"),
        Disk(device="/dev/sdb", serial="WX2", wwn_id="0x5000c500a1b2c3d4"),
    )
    machine = Hardware(identity="x", product="box", installer=(9, 2), links=(), disks=disks)
    assert erased(plan_of(parts, host), machine) == ["/dev/sda (WDC, serial WX1)", "/dev/sdb (serial WX2)"]
    assert machine.describe_disk("/dev/nvme0n1") == "/dev/nvme0n1", "another machine's, or a new one"
    assert (
        machine.describe_disk("/dev/disk/by-id/wwn-0x5000c500a1b2c3d4")
        == "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4, last seen as /dev/sdb (serial WX2)"
    )


async def test_a_rebuild_cannot_be_pressed_before_somebody_looked(parts: Parts) -> None:
    """The dialog opens with the rehearsal running, said aloud; the button waits for what it says."""
    host = await register(parts, "pve1")
    page = Page(await html(parts, f"/hosts/{host.id}"))
    assert page.by_id("verdict")["role"] == "status"
    assert "Looking at the cluster…" in page.text
    button = page.by_id("rebuild-go")
    assert {"disabled", "data-blocked"} <= button.keys()
    assert button["aria-describedby"] == page.by_id("rebuild-dialog")["aria-describedby"] == "verdict"
    assert "hidden" in page.by_id("drain-choice")


VERDICT_LOGIC = """
import assert from "node:assert";
import { permission, sorted, why, wish } from "./verdict.js";

for (const [verdict, overridable, pressable, meaning] of [
  ["", false, false, "rebuild all the same"],
  ["", true, false, "rebuild all the same"],
  ["yes", false, true, "go on"],
  ["yes, but", false, true, "go on"],
  ["no", true, true, "rebuild all the same"],
  ["no", false, false, "rebuild all the same"],
  ["maybe", true, false, "rebuild all the same"],
]) assert.deepEqual(permission(verdict, overridable), { pressable, meaning });

const name = "pve1";
assert.deepEqual(wish({ password: "", drain: null, verdict: "yes", name }), {});
assert.deepEqual(wish({ password: "x", verdict: "yes, but", name }), { cluster_password: "x" });
assert.deepEqual(wish({ drain: false }), { drain: false });
assert.deepEqual(wish({ drain: true, verdict: "no", name }), { drain: true, force: "pve1" });

const checks = ["fine", "but", "no", "unknown", "but", "fine"].map((result, at) => ({ result, at }));
assert.deepEqual(sorted(checks).open.map(({ at }) => at), [2, 3, 1, 4]);
assert.deepEqual(sorted(checks).fine.map(({ at }) => at), [0, 5]);
const check = (result, what, mend = "") => ({ result, what, mend });
const known = [check("fine", "All is well."), check("but", "Its disk is old.")];
assert.equal(why(known), "Its disk is old.");
const stopped = [...known, check("unknown", "Nobody answered."), check("no", "It is busy.", "Wait.")];
assert.equal(why(stopped), "It is busy. Wait. Nobody answered.");
assert.equal(why([known[0]]), "");
console.log("checked");
"""


@needs_node
def test_what_a_rehearsal_lets_press(tmp_path: Path) -> None:
    """Only a yes, or a no that may be overridden; force is sent for a no and never else."""
    run_node(tmp_path, "verdict.js", VERDICT_LOGIC)


DURATIONS = (0, 1, 59.4, 60, 89.4, 90, 91, 150, 3_599, 3_600, 5_369, 5_400, 86_400, 90_000)
PACES = ((-5, 60, 120), (0, 0, 120), (30, 60, 120), (120, 60, 120), (900, 60, 120), (900, 60, 0))


@needs_node
def test_scripts_speak_of_time_as_the_pages_do(tmp_path: Path) -> None:
    """What is drawn on the server and what ticks in the browser do not differ by a word."""
    usual = [{"before_seconds": before, "state_seconds": state} for _, before, state in PACES]
    expected = (
        [duration(seconds) for seconds in DURATIONS],
        [roughly(seconds) for seconds in DURATIONS],
        [pace(seconds, one) for (seconds, *_), one in zip(PACES, usual, strict=True)],
    )
    code = f"""
import assert from "node:assert";
import {{ duration, pace, roughly }} from "./durations.js";
const [durations, roughlies, paces] = {json.dumps(expected)};
assert.deepEqual({list(DURATIONS)}.map((seconds) => duration(1000 * seconds)), durations);
assert.deepEqual({list(DURATIONS)}.map(roughly), roughlies);
assert.deepEqual({[list(one) for one in PACES]}.map((one) => pace(...one)), paces);
console.log("checked");
"""
    run_node(tmp_path, "durations.js", code)


# --- what stands beside -----------------------------------------------------------------------------


async def test_what_a_machine_told_of_itself_is_shown(parts: Parts) -> None:
    """Its disks and NICs, as text; a machine that was never installed has no such table."""
    host = await register(parts, "pve1")
    path = f"/hosts/{host.id}"
    assert "hidden" in Page(await html(parts, path)).by_id("machine")
    machine = Hardware(identity="x", product=EVIL, installer=(9, 2), links=(Link("eno1", host.mac),))
    await parts.fleet.change(lambda change: hardware.keep(change.db, host.id, machine, change.at))
    page = Page(await html(parts, path))
    assert "Not known: a machine tells its disks when it has been installed" in page.text
    assert "hidden" not in page.by_id("machine")
    assert f"eno1 {host.mac}, registered here" in page.text
    assert "evil" not in [tag for tag, _ in page.elements]
    disk = Disk(device="/dev/sda", model="WDC", serial="WX1")
    await parts.fleet.change(lambda change: hardware.keep_disks(change.db, host.id, (disk,), change.at))
    assert "/dev/sda WDC, serial WX1" in Page(await html(parts, path)).text


async def test_how_a_host_boots_is_shown_and_changed(parts: Parts) -> None:
    """What the API says of a host's options it takes back, whole; the page shows what is chosen."""
    options = HostOptions(
        address=StaticAddress(
            cidr=ip_interface("192.0.2.21/24"), gateway=ip_address("192.0.2.1"), dns=ip_address("192.0.2.1")
        ),
        disks=("/dev/nvme0n1",),
        loader="ipxe.efi",
    )
    mac = Mac.parse("52:54:00:00:00:01")
    host = await parts.enrolment.register(mac, "compute", "pve1", options, "a test")
    client = create_app(parts).test_client()
    path = f"/api/hosts/{host.id}"
    said = (await (await client.get(path)).get_json())["options"]
    changed = await client.patch(path, json={"options": said | {"discovery": "boot-server", "loader": None}})
    assert changed.status_code == 200
    assert parts.fleet.host(host.id).options == evolve(options, discovery=Discovery.BOOT_SERVER, loader=None)
    page = Page(await html(parts, f"/hosts/{host.id}"))
    chosen = [attributes["value"] for _, attributes in page.elements if "selected" in attributes]
    assert chosen == ["boot-server", ""]
    refused = await client.patch(path, json={"options": {"loader": "../etc/passwd"}})
    assert (refused.status_code, (await refused.get_json())["field"]) == (422, "options.loader")


async def test_operations_are_a_table_at_any_width(parts: Parts) -> None:
    """Its roles are said: where the cells stand one below the other, a browser does not see a table."""
    host = await host_in(parts, State.FAILED)
    page = Page(await html(parts, f"/hosts/{host.id}"))
    table = [attributes.get("role") for tag, attributes in page.elements if tag in ("tr", "th", "td")]
    assert page.by_id("operations-table")["role"] == "table"
    assert None not in table
    assert table.count("rowheader") == 2, "of the one operation, and of the blank one"
    assert "rebuild 1 failed" in page.text


async def test_an_answer_is_loaded_when_somebody_wants_to_see_it(parts: Parts) -> None:
    """It is folded, and not on the page before that: neither its text nor a mask of a secret."""
    host = await register(parts, "pve1")
    source = await html(parts, f"/hosts/{host.id}")
    page = Page(source)
    assert "open" not in page.by_id("answer")
    assert "root-password-hashed" not in source
    told = await (await get(parts, f"/api/hosts/{host.id}/answer")).get_json()
    assert {"toml", "machine", "release", "wrong", "problem"} == told.keys()
    assert f'{told["machine"]}: "' in (SCRIPTS / "answer.js").read_text(), "it has words for it"


async def test_a_removed_host_is_told_to_whoever_looks(parts: Parts) -> None:
    """The stream names the removal and the host; who comes later gets a page, and a program a problem."""
    host = await host_in(parts, State.READY)
    page = Page(await html(parts, f"/hosts/{host.id}"))
    assert {"hidden", "role"} <= page.by_id("removed").keys()
    await parts.enrolment.remove(host.id, "a colleague")
    [line] = (await (await get(parts, "/api/activity?limit=1")).get_json())["activity"]
    assert (line["event"], line["host_id"]) == ("host.removed", host.id)
    assert '"host.removed"' in (SCRIPTS / "host.js").read_text()
    gone = await get(parts, f"/api/hosts/{host.id}/standing")
    assert (gone.status_code, gone.content_type) == (404, "application/problem+json")
    assert (await get(parts, f"/hosts/{host.id}")).content_type.startswith("text/html")


async def test_the_last_warning_stands_beside_the_state(parts: Parts) -> None:
    """A warning is shown until the host moves on; why it failed is shown however much is heard later."""
    host = await host_in(parts, State.INSTALLED)
    [operation] = active(parts)

    def shown() -> str:
        return parts.store.read(lambda db: note_of(db, hosts.get(db, host.id)))

    await note(parts, "look here", host, Level.WARNING)
    await note(parts, "by the way", host)
    assert shown() == "look here"
    await parts.fleet.change(lambda change: change.fact(host.id, Fact.PHONED_HOME, "home"))
    assert shown() == ""

    def fail(change: Change) -> None:
        end(change, operation, Outcome.FAILED, "no power")
        for _ in range(RECENT + 1):
            change.note(News(event="x", message="noise", host_id=host.id))

    await parts.fleet.change(fail)
    assert shown() == "rebuild failed: no power"
