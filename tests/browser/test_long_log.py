"""The log of an operation in a browser: it never moves a reader who is busy, however long it is."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browser.homelab import Homelab
from browser.pages import lines, numbers, open_page, step
from endtoend.world import Json
from provd.config import load_config
from provd.daemon import database_path
from provd.domain.activity import Level, News
from provd.domain.hosts import HostId, OperationId
from provd.store import activity
from provd.store.database import Db, now, open_store, transaction

MANY = 10_000

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


def test_whoever_lets_go_is_followed_again(lab: Homelab, page: Page) -> None:
    """A selection or a button that is held down puts it off; neither switches it off."""
    operation = begin(lab)
    write(lab, operation, 80)
    open_page(page, f"/ops/{operation['id']}")
    expect(lines(page)).to_have_count(len(ids(lab, operation)))
    pill = page.locator("#pill")
    page.evaluate(SELECT)
    write(lab, operation, 7)
    expect(pill).to_have_text("7 new lines")
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


def test_several_lines_have_an_address(lab: Homelab, page: Page) -> None:
    """With the Shift key, in either direction; a step's is that of its first line."""
    operation = begin(lab)
    write(lab, operation, 30)
    told = ids(lab, operation)
    line, other = told[5], told[8]
    open_page(page, f"/ops/{operation['id']}")
    page.locator(f"#L{other} a").click()
    page.locator(f"#L{line} a").click(modifiers=["Shift"])
    assert page.evaluate("location.hash") == f"#L{line}-L{other}"
    marked = page.locator("#log [data-marked]")
    expect(marked).to_have_count(4)
    page.reload()
    expect(marked).to_have_count(4)
    step(page, "pxe_ready").locator("a").click()
    assert page.evaluate("location.hash") == f"#L{told[0]}"
    expect(page.locator(f"#L{told[0]}")).to_be_in_viewport()


def test_only_what_matters_is_read_aloud(lab: Homelab, page: Page) -> None:
    """Of many lines that come at once, the warning among them."""
    operation = begin(lab)
    open_page(page, f"/ops/{operation['id']}")
    write(lab, operation, 50)
    write(lab, operation, 1, Level.WARNING)
    expect(page.locator("#announced")).to_have_text("warning: a line of many")
    expect(page.get_by_role("log")).to_have_attribute("aria-live", "off")


@pytest.mark.parametrize("path", ["loaded", "heard"])
def test_a_long_log_stays_smooth(lab: Homelab, page: Page, path: str) -> None:
    """Ten thousand lines, read back or as they come: each once, in order, and real text."""
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
    print(f"{path}: {page.evaluate('tasks.length')} long tasks, {page.evaluate('Math.max(0, ...tasks)')} ms")
    assert page.evaluate(ALL_SELECTED) == MANY


def test_a_log_is_copied_whole(lab: Homelab, page: Page) -> None:
    """Also the part that is not loaded yet, and where a page has no clipboard, as over plain http."""
    operation = begin(lab)
    write(lab, operation, 300)
    told = ids(lab, operation)
    open_page(page, f"/ops/{operation['id']}")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.evaluate("addEventListener('copy', () => (window.copied = getSelection().toString()))")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#told")).to_have_text(f"Copied {len(told)} lines.")
    assert len(page.evaluate("window.copied").splitlines()) == len(told)
