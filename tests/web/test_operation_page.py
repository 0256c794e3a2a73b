"""The page of one operation: its steps, why it ended, what a cancellation would undo, and its log."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import trio

from provd.domain.activity import LEFT, RELEASED, REMOVED, Activity, Level, News
from provd.domain.hosts import HostId, OperationId
from provd.domain.lifecycle import ROAD, Fact, State
from provd.domain.operations import Departure, Kind, Operation, Outcome, Stage
from provd.domain.secrets import Secret
from provd.orchestrator.boot import KEY_LIVES
from provd.orchestrator.entering import RETRY
from provd.orchestrator.fleet import Change
from provd.store import activity, departures, operations, retries
from provd.store.retries import Retry
from provd.web import assets
from provd.web import operation as operation_page
from provd.web.app import create_app
from provd.web.log_download import BATCH, LogFile, as_text, file_name
from provd.web.parts import Parts
from provd.web.server import listen, serve
from provd.web.steps import ROADS, STATIONS, Step, steps
from web.looking import EVIL, Page, active, end, get, host_in, html, note, register

# --- the page --------------------------------------------------------------------------------------


async def test_the_operation_of_a_removed_host_is_still_told(parts: Parts) -> None:
    """History outlives the host: its operation has a page, without a link to nowhere."""
    host = await host_in(parts, State.READY)
    await parts.enrolment.remove(host.id, "a test")
    page = Page(await html(parts, "/ops/1"))
    assert "pve1 (removed since)" in page.text
    assert f"/hosts/{host.id}" not in [
        attributes.get("href") for _, attributes in page.elements if "data-part" not in attributes
    ]


async def test_the_password_is_asked_for_while_it_is_missing(parts: Parts) -> None:
    """By an operation that runs, until a human or a credential file has given it."""
    await host_in(parts, State.FIRST_BOOT)
    assert "hidden" not in Page(await html(parts, "/ops/1")).by_id("password-form")
    parts.passwords.give(OperationId(1), Secret("hunter2"))
    assert "hidden" in Page(await html(parts, "/ops/1")).by_id("password-form")
    parts.passwords.forget(OperationId(1))
    [operation] = active(parts)
    await parts.fleet.change(lambda change: end(change, operation, Outcome.CANCELLED))
    assert "hidden" in Page(await html(parts, "/ops/1")).by_id("password-form")


async def test_only_the_end_of_a_long_log_is_drawn(parts: Parts) -> None:
    """The last lines in blocks, in their order, each with its name for links, and how many there are."""
    await host_in(parts, State.INSTALLING)
    await many_lines(parts, 350)
    page = Page(await html(parts, "/ops/1"))
    ids = [int(name[1:]) for name in page.all("id") if name.startswith("L")]
    assert len(ids) == operation_page.DRAWN
    assert ids == sorted(ids)
    blocks = [one for tag, one in page.elements if tag == "ol" and one.get("class") == "block"]
    assert len(blocks) == operation_page.DRAWN / operation_page.BLOCK
    assert "data-full" not in blocks[-1]
    count, first = parts.store.read(lambda db: activity.extent(db, OperationId(1)))
    assert f"{operation_page.DRAWN} of {count} lines" in page.text
    log = page.by_id("log")
    assert (log["data-first"], log["data-count"]) == (str(first), str(count))
    assert log["aria-live"] == "off", "ten thousand lines are not read aloud"
    assert "hidden" not in page.by_id("load-all")


@pytest.mark.parametrize(
    ("query", "shown"), [("", "info"), ("?level=error", "error"), ("?level=loud", "info")]
)
async def test_the_level_stands_in_the_address(parts: Parts, query: str, shown: str) -> None:
    """A link to a filtered log shows it filtered; a word that is none shows all."""
    await host_in(parts, State.INSTALLING)
    page = Page(await html(parts, f"/ops/1{query}"))
    assert page.by_id("log")["data-show"] == shown
    [current] = [one["data-show"] for _, one in page.elements if "aria-current" in one and "data-show" in one]
    assert current == shown


async def many_lines(parts: Parts, count: int, message: str = "line") -> None:
    """As one operation would write them in time, in one transaction."""
    [operation] = active(parts)

    def write(change: Change) -> None:
        for number in range(count):
            level = Level.WARNING if number % 100 == 99 else Level.INFO
            news = News(
                event="x",
                message=f"{message} {number}",
                level=level,
                host_id=operation.host_id,
                operation_id=operation.id,
            )
            activity.append(change.db, news, change.at)

    await parts.fleet.change(write)


# --- why it ended ----------------------------------------------------------------------------------


async def fail(parts: Parts, detail: str, outcome: Outcome = Outcome.FAILED, *, key: bool = False) -> None:
    [operation] = active(parts)

    def write(change: Change) -> None:
        kept = operations.key(change.db, operation.id)
        assert kept is not None
        if key:
            retry = Retry(operation_id=operation.id, key=kept, expires_at=change.at + KEY_LIVES)
            retries.put(change.db, HostId(operation.host_id or 0), retry)
        end(change, operation, outcome, detail)

    await parts.fleet.change(write)


async def standing(parts: Parts, operation_id: int = 1) -> dict[str, object]:
    response = await get(parts, f"/api/operations/{operation_id}/standing")
    assert response.status_code == 200
    found: dict[str, object] = json.loads(await response.get_data())
    return found


async def test_a_failure_is_told_with_what_proves_it(parts: Parts) -> None:
    """Cause and advice of a deadline, and the last warnings before the end as links to their lines."""
    host = await host_in(parts, State.PXE_BOOTED)
    for number in range(4):
        await note(parts, f"warning {number}", host, Level.WARNING)
    await note(parts, "by the way", host)
    await fail(
        parts,
        "waited 20 min for the installer to start and ask for its answer, in vain: look at its screen: less "
        "than 8 GiB of memory, an unreachable installer_url or a network that takes long to come up stop it "
        "here; no disk was touched",
    )
    failure = (await standing(parts))["failure"]
    assert isinstance(failure, dict)
    assert failure["cause"] == ("waited 20 min for the installer to start and ask for its answer, in vain")
    assert failure["advice"][0].startswith("look at its screen: less than 8 GiB")
    assert failure["advice"][-1].startswith("No disk was touched: pve1")
    assert [line["message"] for line in failure["evidence"]] == ["warning 2", "warning 3"]
    page = Page(await html(parts, "/ops/1"))
    assert "hidden" not in page.by_id("failure")
    assert failure["cause"] in page.text
    links = page.all("href")
    assert all(f"#L{line['id']}" in links for line in failure["evidence"])
    assert links.count(f"#L{failure['evidence'][0]['id']}") == 3, "above, in its step, and its own"
    assert "/hosts/1#rebuild" in links


async def test_without_a_warning_the_last_thing_seen_is_the_evidence(parts: Parts) -> None:
    """Neither the end itself nor the host's giving up proves anything."""
    host = await host_in(parts, State.INSTALLED)
    await note(parts, "the last word", host)
    await fail(parts, "no luck")
    failure = (await standing(parts))["failure"]
    assert isinstance(failure, dict)
    assert [line["message"] for line in failure["evidence"]] == ["the last word"]


async def test_what_ended_well_or_runs_has_no_failure(parts: Parts) -> None:
    """Nothing to explain, nothing to try again."""
    await host_in(parts, State.READY)
    await host_in(parts, State.INSTALLING, "pve2", 2)
    for number in (1, 2):
        told = await standing(parts, number)
        assert (told["failure"], told["retry"]) == (None, None)
        assert "hidden" in Page(await html(parts, f"/ops/{number}")).by_id("failure")


async def test_a_join_that_can_be_tried_again_says_so(parts: Parts) -> None:
    """While the host's key is kept, and until somebody has done something else to the host."""
    host = await host_in(parts, State.JOINING)
    await fail(parts, f"the cluster said no; on pve1 itself corosync.conf is left of it; {RETRY}", key=True)
    told = await standing(parts)
    assert told["retry"] == "rejoin"
    failure = told["failure"]
    assert isinstance(failure, dict)
    assert failure["cause"] == "the cluster said no; on pve1 itself corosync.conf is left of it"
    assert failure["advice"][0] == RETRY
    page = Page(await html(parts, "/ops/1"))
    assert "hidden" not in page.by_id("retry-form")
    assert "retry-password" in page.all("id")

    def begin_anew(change: Change) -> Operation:
        return operations.open_(change.db, host, Kind.REJOIN, "a test", change.at)

    again = await parts.fleet.change(begin_anew)
    told = await standing(parts)
    assert (told["retry"], told["newer"]) == (None, again.id)
    assert "hidden" in Page(await html(parts, "/ops/1")).by_id("retry-form")


async def test_a_host_that_provd_has_no_key_to_any_more_is_rebuilt(parts: Parts) -> None:
    """A join whose retry has expired is not offered for another try."""
    await host_in(parts, State.JOINING)
    await fail(parts, "no luck", key=True)

    def expire(change: Change) -> None:
        change.db.execute("UPDATE retries SET expires_at = '2020-01-01T00:00:00.000Z'")

    await parts.fleet.change(expire)
    assert (await standing(parts))["retry"] == "rebuild"


async def test_a_bug_leads_to_its_traceback(parts: Parts) -> None:
    """The journal has it, under the operation's number."""
    await host_in(parts, State.INSTALLING)
    await fail(parts, "a bug in provd (KeyError); the journal has the traceback")
    failure = (await standing(parts))["failure"]
    assert isinstance(failure, dict)
    assert failure["advice"][0] == "read the traceback: journalctl -u provd PROVD_OPERATION=1"
    assert "half written" in failure["advice"][1]


# --- what a cancellation would undo ----------------------------------------------------------------


async def test_the_dialog_says_what_is_undone_now(parts: Parts) -> None:
    """It changes with the host's state, on the page and through the API; over is over."""
    host = await host_in(parts, State.PXE_READY)
    assert "No disk was touched." in Page(await html(parts, "/ops/1")).text
    for fact in (Fact.SCRIPT_FETCHED, Fact.ANSWER_SENT):
        await parts.fleet.change(lambda change, fact=fact: change.fact(host.id, fact, "x"))  # type: ignore[misc]
    undo = (await standing(parts))["undo"]
    assert isinstance(undo, list)
    assert any("may be half written" in sentence for sentence in undo)
    shown = Page(await html(parts, "/ops/1")).text
    assert all(sentence in shown for sentence in undo)
    await fail(parts, "cancelled by a test", Outcome.CANCELLED)
    assert (await standing(parts))["undo"] == []


async def test_a_member_that_waits_for_its_turn_loses_nothing(parts: Parts) -> None:
    """Its departure is told from the database."""
    host = await register(parts, "pve1")

    def begin(change: Change) -> None:
        operation = operations.open_(change.db, host, Kind.REBUILD, "a test", change.at)
        departures.put(change.db, operation.id, a_departure(Stage.ASKED, drain=True))

    await parts.fleet.change(begin)
    told = await standing(parts)
    assert told["undo"] == [
        "Nothing has happened to pve1 yet: it stays registered and works as it did.",
        "pve1 stays a member of the cluster, which is as it was.",
        "pve1 is taken out of HA maintenance again: HA may move services back to it.",
    ]
    assert isinstance(told["steps"], list)
    assert [(step["step"], step["place"]) for step in told["steps"]][:2] == [
        ("turn", "here"),
        ("pxe_ready", "ahead"),
    ]


# --- its log as a file, and by cursor --------------------------------------------------------------


async def test_a_log_is_downloaded_whole(parts: Parts) -> None:
    """Ten thousand lines, in order and each once, as text and as NDJSON; nothing of other operations."""
    other = await host_in(parts, State.INSTALLING, "pve2", 2)
    await note(parts, "somebody else's", other)
    await fail(parts, "over")
    await host_in(parts, State.INSTALLING)
    await many_lines(parts, 10_000)
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve, create_app(parts), [listen("127.0.0.1:0")])
        base = f"http://{address[0]}:{address[1]}/api/operations/2"
        async with httpx.AsyncClient(trust_env=False) as client:
            text, ndjson = [await client.get(f"{base}/log.{form}") for form in ("txt", "ndjson")]
            assert (await client.head(f"{base}/log.txt")).content == b""
        nursery.cancel_scope.cancel()
    assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert text.headers["Content-Disposition"] == 'attachment; filename="pve1-rebuild-2.txt"'
    assert ndjson.headers["Content-Disposition"] == 'attachment; filename="pve1-rebuild-2.ndjson"'
    lines = text.text.splitlines()
    rows = [json.loads(line) for line in ndjson.text.splitlines()]
    count, _ = parts.store.read(lambda db: activity.extent(db, OperationId(2)))
    assert len(rows) == len(lines) == count > 10_000
    assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})
    assert {row["operation_id"] for row in rows} == {2}
    assert lines[-1].endswith("  warning  line 9999")
    assert all(row["message"] in line for row, line in zip(rows, lines, strict=True))


async def test_a_download_holds_a_batch_at_a_time() -> None:
    """However long the log: what was read is handed on before more is read."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    asked: list[int] = []

    def rows_after(last: int) -> Sequence[Activity]:
        asked.append(last)
        end = min(last + BATCH, 10_000)
        return [Activity(id=number, at=at, event="x", message="x") for number in range(last + 1, end + 1)]

    sizes = []
    async with LogFile(rows_after, as_text) as body:
        async for chunk in body:
            sizes.append(chunk.count(b"\n"))
            assert len(asked) == len(sizes)
    assert sizes == [BATCH] * (10_000 // BATCH)
    assert asked == list(range(0, 10_001, BATCH))


async def test_a_download_ends_where_the_log_ended_when_it_was_asked_for(parts: Parts) -> None:
    """Lines that come meanwhile do not keep it going."""
    await host_in(parts, State.INSTALLING)
    await many_lines(parts, 2)
    newest = parts.store.read(activity.bounds)[1]
    await many_lines(parts, 3)
    found = parts.store.read(lambda db: activity.after(db, 0, 99, operation_id=OperationId(1), until=newest))
    assert found[-1].id == newest


async def test_what_machines_say_stays_on_its_line(parts: Parts) -> None:
    """Neither a line break nor an escape sequence of a message reaches a terminal or breaks a line."""
    await host_in(parts, State.INSTALLING)
    await many_lines(parts, 1, "\x1b[31mred\nnext\u2028 ")
    text = await (await get(parts, "/api/operations/1/log.txt")).get_data(as_text=True)
    count, _ = parts.store.read(lambda db: activity.extent(db, OperationId(1)))
    assert "\x1b" not in text
    assert len(text.splitlines()) == count
    rows = (await (await get(parts, "/api/operations/1/log.ndjson")).get_data(as_text=True)).splitlines()
    assert json.loads(rows[-1])["message"].startswith("\x1b[31mred\nnext\u2028")


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("pve1", "pve1-rebuild-1.txt"),
        ('"; x=../../etc/passwd', "x-..-..-etc-passwd-rebuild-1.txt"),
        ("..", "host-rebuild-1.txt"),
        ("é\r\n", "host-rebuild-1.txt"),
    ],
)
def test_a_file_has_a_plain_name(hostname: str, name: str) -> None:
    """Whatever a host was called, the header cannot be left and no path is named."""
    assert file_name(an_operation(hostname=hostname), "txt") == name


async def test_there_is_no_log_of_what_never_was(parts: Parts) -> None:
    """404, and so for a form that does not exist."""
    await host_in(parts, State.INSTALLING)
    assert (await get(parts, "/api/operations/1/log.txt")).status_code == 200
    for path in ("operations/7/log.txt", "operations/7/standing", "operations/1/log.pdf"):
        assert (await get(parts, f"/api/{path}")).status_code == 404


async def test_history_is_paged_by_cursor(parts: Parts) -> None:
    """Back from a line newest first, on from a line oldest first; all lines are found, each once."""
    await host_in(parts, State.INSTALLING)
    other = await host_in(parts, State.INSTALLING, "pve2", 2)
    for _ in range(3):
        await note(parts, "somebody else's", other)
    one = next(operation for operation in active(parts) if operation.hostname == "pve1")
    ours = [line.id for line in parts.store.read(lambda db: activity.after(db, 0, 99, operation_id=one.id))]

    async def page(query: str) -> list[int]:
        response = await get(parts, f"/api/activity?operation_id={one.id}&limit=2&{query}")
        return [line["id"] for line in json.loads(await response.get_data())["activity"]]

    back: list[int] = []
    while found := await page(f"before={back[-1] if back else 10**9}"):
        back += found
    assert back == ours[::-1]
    on: list[int] = []
    while found := await page(f"after={on[-1] if on else 0}"):
        on += found
    assert on == ours
    for wrong in ("before=2&after=1", "before=x", "after=-1"):
        response = await get(parts, f"/api/activity?{wrong}")
        assert response.status_code == 422


# --- small decisions -------------------------------------------------------------------------------

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def an_operation(
    outcome: Outcome | None = None, kind: Kind = Kind.REBUILD, hostname: str = "pve1"
) -> Operation:
    return Operation(
        id=OperationId(1),
        host_id=HostId(1),
        hostname=hostname,
        kind=kind,
        started_by="a test",
        started_at=START,
        outcome=outcome,
        finished_at=START + timedelta(minutes=9) if outcome else None,
    )


def a_departure(stage: Stage, *, drain: bool = False, keep_entry: bool = False) -> Departure:
    return Departure(node="pve1", nodeid=1, votes=1, drain=drain, keep_entry=keep_entry, stage=stage)


def entering(*states: State) -> list[Activity]:
    """A line each minute, of a host that goes from state to state, and one that changes nothing."""
    lines, before = [], State.REGISTERED
    for minute, after in enumerate(states):
        at = START + timedelta(minutes=minute)
        lines.append(Activity(id=minute + 1, at=at, event="x", message="x", before=before, after=after))
        before = after
    return [*lines, Activity(id=99, at=START, event="x", message="x", before=before, after=before)]


def places(found: Sequence[Step]) -> str:
    return " ".join(step.place for step in found)


@pytest.mark.parametrize(
    ("outcome", "state", "entered", "expected"),
    [
        (None, State.PXE_READY, ROAD[:1], "here ahead ahead ahead ahead ahead ahead"),
        (None, State.INSTALLING, ROAD[:3], "done done here ahead ahead ahead ahead"),
        (None, State.JOINING, (), "done done done done done here ahead"),
        (None, State.READY, (), "ahead ahead ahead ahead ahead ahead ahead"),
        (Outcome.DONE, State.READY, ROAD, "done done done done done done done"),
        (Outcome.DONE, State.PXE_READY, ROAD, "done done done done done done done"),
        (Outcome.FAILED, State.FAILED, ROAD[:2], "done stopped ahead ahead ahead ahead ahead"),
        (Outcome.CANCELLED, None, (), "stopped ahead ahead ahead ahead ahead ahead"),
    ],
)
def test_steps_tell_how_far_it_came(
    outcome: Outcome | None, state: State | None, entered: tuple[State, ...], expected: str
) -> None:
    """Done, here and ahead follow the outcome, then the host, then the log."""
    found = steps(an_operation(outcome), state, None, entering(*entered))
    assert places(found) == expected
    assert [step.station for step in found] == [STATIONS[one] for one in ROAD]


def test_steps_know_their_times_and_lines() -> None:
    """A stage lasts until the next that was entered, even when one between was skipped, or until the end."""
    road = (State.PXE_READY, State.PXE_BOOTED, State.INSTALLING, State.FIRST_BOOT)
    told = entering(*road)
    found = {step.station.key: step for step in steps(an_operation(Outcome.FAILED), None, None, told)}
    assert found["installing"].since == START + timedelta(minutes=2)
    assert found["installing"].until == START + timedelta(minutes=3)
    assert found["installing"].line == 3
    assert (found["installed"].place, found["installed"].since) == ("done", None)
    assert found["first_boot"].until == START + timedelta(minutes=9)
    running = steps(an_operation(), State.FIRST_BOOT, None, told)[4]
    assert (running.place, running.until) == ("here", None)


@pytest.mark.parametrize(
    ("outcome", "state", "entered", "expected"),
    [
        (None, State.READY, 0, "here ahead ahead"),
        (None, State.PXE_READY, 1, "done here ahead"),
        (Outcome.CANCELLED, State.READY, 0, "stopped ahead ahead"),
        (Outcome.FAILED, State.FAILED, 1, "done stopped ahead"),
    ],
)
def test_a_member_waits_before_it_sets_out(
    outcome: Outcome | None, state: State, entered: int, expected: str
) -> None:
    """Its first step lasts from the beginning until it is armed."""
    departure = a_departure(Stage.ASKED)
    found = steps(an_operation(outcome), state, departure, entering(*ROAD[:entered]))
    assert places(found[:3]) == expected
    assert (found[0].station.key, found[0].since) == ("turn", START)
    assert len(found) == len(ROAD) + 1


@pytest.mark.parametrize(
    ("stage", "outcome", "expected"),
    [
        (None, None, "here ahead"),
        (Stage.ASKED, None, "here ahead ahead ahead"),
        (Stage.RELEASED, None, "done here ahead ahead"),
        (Stage.LEFT, None, "done done here ahead"),
        (Stage.RELEASED, Outcome.FAILED, "done stopped ahead ahead"),
        (Stage.LEFT, Outcome.DONE, "done done done done"),
    ],
)
def test_a_host_that_leaves_for_good_has_steps(
    stage: Stage | None, outcome: Outcome | None, expected: str
) -> None:
    """As far as its departure has come, with the times of the lines that tell it."""
    told = [
        Activity(id=number, at=START + timedelta(minutes=number), event=event, message="x")
        for number, event in enumerate((RELEASED, LEFT, REMOVED), start=1)
    ]
    departure = a_departure(stage) if stage is not None else None
    found = steps(an_operation(outcome, Kind.DECOMMISSION), State.READY, departure, told)
    assert places(found) == expected
    for step in found:
        assert (step.since is not None) == (step.place != "ahead")


def test_a_rejoin_begins_at_its_end() -> None:
    """Nothing is installed again."""
    assert ROADS[Kind.REJOIN] == (State.FIRST_BOOT, State.JOINING, State.READY)
    found = steps(
        an_operation(kind=Kind.REJOIN), State.JOINING, None, entering(State.FIRST_BOOT, State.JOINING)
    )
    assert places(found) == "done here ahead"


async def test_the_stages_of_a_departure_are_told(parts: Parts) -> None:
    """What the timeline of a decommission is drawn from is found again, beside lines that are not."""
    host = await register(parts, "pve1")

    def write(change: Change) -> Operation:
        operation = operations.open_(change.db, host, Kind.DECOMMISSION, "a test", change.at)
        for event in (RELEASED, "x", LEFT, REMOVED):
            change.note(News(event=event, message=EVIL, host_id=host.id, operation_id=operation.id))
        return operation

    operation = await parts.fleet.change(write)
    found = parts.store.read(lambda db: activity.turning_points(db, operation.id))
    assert [line.event for line in found] == [RELEASED, LEFT, REMOVED]


# --- the scripts' decisions ------------------------------------------------------------------------

LOGIC = """
import assert from "node:assert";
import { SLACK, afterScroll, atEnd, onArrival, pillWords } from "./follow.js";
import {
  announcement, chunks, clockTime, elapsedTime, fresh, nameMark, parseMark, shows,
} from "./lines.js";

// --- follow ---
const at = (top, height = 1000, view = 400) => ({ top, height, view });
assert(atEnd(at(600)) && atEnd(at(600 - SLACK)) && !atEnd(at(600 - SLACK - 1)));
assert(atEnd({ top: 0, height: 300, view: 400 }), "what fits is at its end");
for (const [following, before, now, then, why] of [
  [true, at(600), at(500), false, "the reader goes up"],
  [false, at(500), at(600), true, "the reader comes to the end"],
  [false, at(500), at(550), false, "down, but not to the end"],
  [true, at(600), at(600, 1200), true, "lines have come"],
  [true, at(600), at(600, 1000, 300), true, "the window became smaller"],
  [false, at(500), at(500, 900), false, "what is below shrinks until the end is in sight"],
  [true, at(600), at(500, 900), true, "what is above shrinks"],
  [false, at(500), at(700, 1200), false, "what is above grows, the browser keeps the place"],
  [true, at(600), at(560, 1200), false, "the reader goes up while lines come"],
  [true, at(600), at(598), true, "not worth a word"],
]) assert.equal(afterScroll(following, before, now), then, why);
assert.deepEqual(onArrival({ following: true, held: false }, 3, 2), { scroll: true, missed: 0 });
assert.deepEqual(onArrival({ following: true, held: true }, 3, 2), { scroll: false, missed: 5 });
assert.deepEqual(onArrival({ following: false, held: false }, 0, 2), { scroll: false, missed: 2 });
assert.deepEqual(onArrival({ following: false, held: false }, 4, 0), { scroll: false, missed: 4 });
assert.equal(pillWords(1), "1 new line");
assert.equal(pillWords(12), "12 new lines");

// --- lines ---
const ids = (lines) => lines.map(({ id }) => id);
assert.deepEqual(ids(fresh([{ id: 9 }, { id: 7 }, { id: 8 }, { id: 8 }, { id: 3 }], 7)), [8, 9]);
assert.deepEqual([...chunks([1, 2, 3], 2)], [[1, 2], [3]]);
assert.deepEqual([...chunks([], 2)], []);
assert(shows("info", "info") && shows("warning", "error") && !shows("error", "warning"));
assert.deepEqual(parseMark("#L7"), { first: 7, last: 7 });
assert.deepEqual(parseMark("#L9-L7"), { first: 7, last: 9 });
for (const hash of ["", "#", "#L", "#L0", "#L7x", "#L1-2", "#rebuild", "#L" + "9".repeat(16)]) {
  assert.equal(parseMark(hash), null, hash);
}
for (const hash of ["#L7", "#L7-L12"]) assert.equal(nameMark(parseMark(hash)), hash);
assert.equal(elapsedTime(-5), "+0:00:00");
assert.equal(elapsedTime(3_661_999), "+1:01:01");
assert.equal(clockTime(new Date(2026, 2, 1, 4, 5, 6)), "04:05:06");
const info = { level: "info", message: "hm", before: null, after: null };
assert.equal(announcement([info, info]), "", "what only adds to the log is not read aloud");
const moved = { ...info, message: "booted", before: "pxe_ready", after: "pxe_booted" };
assert.equal(announcement([info, moved]), "booted");
const warned = { ...info, level: "warning", message: "look" };
assert.equal(announcement([warned, moved, info]), "warning: look (and 1 more)");
console.log("checked");
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_how_a_log_follows_and_names_its_lines(tmp_path: Path) -> None:
    """Only the reader switches following on and off; lines that are told twice count once."""
    for name in ("follow.js", "lines.js"):
        (tmp_path / name).write_text((assets.static_folder() / name).read_text())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "run.mjs").write_text(LOGIC)
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "checked\n", done.stderr
    assert f"BLOCK = {operation_page.BLOCK};" in (tmp_path / "lines.js").read_text()
