"""The log of an operation in a browser: it never moves a reader who is busy, however long it is."""

import json
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browser.homelab import Homelab
from browser.pages import lines, numbers, open_page, step
from endtoend.world import PATIENCE, Json
from provd.config import load_config
from provd.daemon import database_path
from provd.domain.activity import Level, News
from provd.domain.hosts import HostId, OperationId
from provd.store import activity
from provd.store.database import Db, now, open_store, transaction

MANY = 10_000
LONGEST_TASK = 400
"""Milliseconds for which the page may not answer, on a machine with two cores and several browsers."""

GAP = """() => {
  const log = document.querySelector("#log");
  return Math.round(log.scrollHeight - log.scrollTop - log.clientHeight);
}"""
TOP = "() => document.querySelector('#log').scrollTop"
SELECT = """() => {
  const rows = document.querySelectorAll("#log li p");
  getSelection().selectAllChildren(rows[rows.length - 3]);
  return getSelection().toString();
}"""
ALL_SELECTED = """() => {
  getSelection().selectAllChildren(document.querySelector("#blocks"));
  const lines = getSelection().toString().split("a line of many").length - 1;
  getSelection().removeAllRanges();
  return lines;
}"""
WATCH_TASKS = """
  window.tasks = [];
  new PerformanceObserver((seen) => tasks.push(...seen.getEntries().map((it) => it.duration)))
    .observe({ type: "longtask" });
"""


def begin(lab: Homelab) -> Json:
    """The operation of one host; there is another, of which lines are told elsewhere."""
    operation = lab.rebuild(lab.register(lab.machine()))
    lab.register(lab.machine(2))
    return operation


def write(lab: Homelab, operation: Json, count: int, level: Level = Level.INFO) -> None:
    """As `count` lines of its history, and have whoever listens told that there are some."""
    news = News(
        event="x",
        message="a line of many",
        level=level,
        host_id=HostId(operation["host_id"]),
        operation_id=OperationId(operation["id"]),
    )

    def append(db: Db) -> None:
        with transaction(db):
            for _ in range(count):
                activity.append(db, news, now())

    with open_store(database_path(load_config(Path(lab.world.lab.configuration), {}))) as store:
        store.read(append)
    lab.call("PATCH", "/api/hosts/2", {"options": {}})


def ids(lab: Homelab, operation: Json) -> list[int]:
    """Of all its lines, as the API tells them."""
    found: list[int] = []
    while page := lab.call(
        "GET", f"/api/activity?operation_id={operation['id']}&limit=1000&after={found[-1] if found else 0}"
    )["activity"]:
        found += [line["id"] for line in page]
    return found


def test_it_follows_whoever_is_at_its_end(lab: Homelab, page: Page) -> None:
    """Those who read above are told how many lines there are below, and go there when they want to."""
    operation = begin(lab)
    open_page(page, f"/ops/{operation['id']}")
    pill = page.locator("#pill")
    write(lab, operation, 60)
    expect(lines(page)).to_have_count(len(ids(lab, operation)))
    assert page.evaluate(GAP) == 0
    expect(pill).to_be_hidden()

    page.locator("#log").hover()
    page.mouse.wheel(0, -300)
    scrolled = time.monotonic() + PATIENCE
    while page.evaluate(GAP) < 100:
        assert time.monotonic() < scrolled, "the wheel does nothing"
    at = page.evaluate(TOP)
    write(lab, operation, 5)
    expect(pill).to_have_text("5 new lines")
    assert page.evaluate(TOP) == at
    pill.click()
    assert page.evaluate(GAP) == 0
    expect(pill).to_be_hidden()
    write(lab, operation, 5)
    expect(lines(page)).to_have_count(len(ids(lab, operation)))
    assert page.evaluate(GAP) == 0, "it follows again"


def test_a_selection_is_left_alone(lab: Homelab, page: Page) -> None:
    """So is a button that is held down; once let go, it follows as it did."""
    operation = begin(lab)
    write(lab, operation, 80)
    open_page(page, f"/ops/{operation['id']}")
    expect(lines(page)).to_have_count(len(ids(lab, operation)))
    pill = page.locator("#pill")
    at = page.evaluate(TOP)
    chosen = page.evaluate(SELECT)
    write(lab, operation, 7)
    expect(pill).to_have_text("7 new lines")
    assert page.evaluate("getSelection().toString()") == chosen
    assert page.evaluate(TOP) == at
    page.evaluate("getSelection().removeAllRanges()")
    expect(pill).to_be_hidden()
    assert page.evaluate(GAP) == 0

    box = page.locator("#log").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 40, box["y"] + 40)
    page.mouse.down()
    at = page.evaluate(TOP)
    write(lab, operation, 3)
    expect(pill).to_have_text("3 new lines")
    assert page.evaluate(TOP) == at
    page.mouse.up()
    expect(pill).to_be_hidden()
    assert page.evaluate(GAP) == 0


def test_a_line_has_an_address(lab: Homelab, page: Page) -> None:
    """However far back it is: it is loaded, marked and in sight, and the log does not follow."""
    operation = begin(lab)
    write(lab, operation, 2_000)
    told = ids(lab, operation)
    line, other = told[10], told[13]
    open_page(page, f"/ops/{operation['id']}#L{line}")
    row = page.locator(f"#L{line}")
    expect(row).to_have_attribute("data-marked", "")
    expect(row).to_be_in_viewport()
    assert numbers(page) == told
    at = page.evaluate(TOP)
    write(lab, operation, 4)
    expect(page.locator("#pill")).to_have_text("4 new lines")
    assert page.evaluate(TOP) == at
    page.locator(f"#L{other} a").click(modifiers=["Shift"])
    page.locator(f"#L{line} a").click()
    page.locator(f"#L{other} a").click(modifiers=["Shift"])
    assert page.evaluate("location.hash") == f"#L{line}-L{other}"
    expect(page.locator("#log [data-marked]")).to_have_count(4)
    step(page, "pxe_ready").locator("a").click()
    assert page.evaluate("location.hash") == f"#L{told[0]}"
    expect(page.locator(f"#L{told[0]}")).to_be_in_viewport()


def test_the_level_stands_in_the_address(lab: Homelab, page: Page) -> None:
    """What is filtered is hidden and not counted as new; the address shows it again."""
    operation = begin(lab)
    write(lab, operation, 20)
    write(lab, operation, 2, Level.ERROR)
    open_page(page, f"/ops/{operation['id']}")
    page.get_by_role("navigation", name="Which lines").get_by_role("link", name="Errors", exact=True).click()
    seen = page.locator("#log li:visible")
    expect(seen).to_have_count(2)
    assert page.url.endswith("?level=error")
    page.reload()
    expect(seen).to_have_count(2)
    write(lab, operation, 1, Level.ERROR)
    expect(seen).to_have_count(3)
    expect(page.locator("#announced")).to_have_text("error: a line of many")


@pytest.mark.parametrize("path", ["loaded", "heard"])
def test_a_long_log_stays_smooth(lab: Homelab, page: Page, path: str) -> None:
    """Ten thousand lines, read back or as they come: each once, in order, real text, and no long silence."""
    operation = begin(lab)
    page.add_init_script(WATCH_TASKS)
    if path == "loaded":
        write(lab, operation, MANY)
    open_page(page, f"/ops/{operation['id']}")
    if path == "loaded":
        page.evaluate("tasks.length = 0")
        page.get_by_role("button", name="Load all").click()
    else:
        write(lab, operation, MANY)
    told = ids(lab, operation)
    expect(lines(page)).to_have_count(len(told))
    expect(page.locator("#loaded")).to_have_text(f"{len(told):,} lines")
    assert numbers(page) == told
    assert page.evaluate(GAP) == 0
    assert page.evaluate("Math.max(0, ...tasks)") < LONGEST_TASK
    assert page.evaluate(ALL_SELECTED) == MANY


def test_a_log_is_copied_and_downloaded(lab: Homelab, page: Page) -> None:
    """The whole of it, also where a page has no clipboard, as over plain http."""
    operation = begin(lab)
    write(lab, operation, 300)
    told = ids(lab, operation)
    open_page(page, f"/ops/{operation['id']}")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.evaluate("addEventListener('copy', () => (window.copied = getSelection().toString()))")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#told")).to_have_text(f"Copied {len(told)} lines.")
    assert len(page.evaluate("window.copied").splitlines()) == len(told)
    with page.expect_download() as download:
        page.get_by_role("link", name="NDJSON").click()
    assert download.value.suggested_filename == f"nuc1-rebuild-{operation['id']}.ndjson"
    rows = [json.loads(row) for row in Path(download.value.path()).read_text().splitlines()]
    assert [row["id"] for row in rows] == told
