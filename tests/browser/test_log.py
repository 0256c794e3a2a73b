"""The log of an operation in a browser: what a reader does with it while it grows."""

import json
import re

import trio
from playwright.sync_api import Page, expect

from browser.homelab import Homelab
from browser.pages import lines, never_loaded_again, numbers, open_page
from endtoend.world import Json
from provd.config import load_config
from provd.daemon import database_path
from provd.domain.activity import Level, News
from provd.domain.hosts import HostId, OperationId
from provd.store import activity
from provd.store.database import Db, now, open_store

MANY = 1_200

AT_THE_END = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 8"


def running(lab: Homelab) -> Json:
    """An operation whose log has many lines, each tenth a warning, each hundredth an error."""
    host = lab.register(lab.machine())
    operation = lab.rebuild(host)
    lab.stop()

    def chatter(db: Db) -> None:
        for number in range(MANY):
            level = Level.ERROR if number % 100 == 0 else Level.WARNING if number % 10 == 0 else Level.INFO
            told = News(
                event="x",
                message=f"line number {number}",
                level=level,
                host_id=HostId(host["id"]),
                operation_id=OperationId(operation["id"]),
            )
            activity.append(db, told, now())

    with open_store(database_path(load_config(lab.world.lab.configuration, {}))) as store:
        trio.run(store.write, chatter)
    lab.start()
    return operation


def boot(lab: Homelab) -> None:
    """Makes a line."""
    lab.boot(lab.world.machines[0].mac)


def test_it_follows_only_who_is_at_the_end(lab: Homelab, page: Page) -> None:
    """Somebody who reads further up is told how many there are and left alone; the pill leads back."""
    operation = running(lab)
    open_page(page, f"/ops/{operation['id']}")
    log = page.get_by_role("log")
    pill = page.locator("#pill")
    with never_loaded_again(page):
        assert log.evaluate(AT_THE_END)
        boot(lab)
        expect(lines(page).last).to_contain_text("fetched its boot script")
        assert log.evaluate(AT_THE_END)
        log.evaluate("log => { log.scrollTop -= 400 }")
        before = log.evaluate("log => log.scrollTop")
        lab.call("POST", f"/api/operations/{operation['id']}/cancel")
        expect(pill).to_have_text(re.compile(r"^[1-9][0-9]* new lines?"))
        assert log.evaluate("log => log.scrollTop") == before
        pill.click()
        expect(pill).to_be_hidden()
        assert log.evaluate(AT_THE_END)


def test_a_selection_is_never_taken_away(lab: Homelab, page: Page) -> None:
    """While text in it is marked, the log does not move, at its end neither."""
    operation = running(lab)
    open_page(page, f"/ops/{operation['id']}")
    log = page.get_by_role("log")
    lines(page).last.evaluate("line => getSelection().selectAllChildren(line)")
    marked = page.evaluate("getSelection().toString()")
    before = log.evaluate("log => log.scrollTop")
    boot(lab)
    expect(page.locator("#pill")).to_be_visible()
    assert page.evaluate("getSelection().toString()") == marked != ""
    assert log.evaluate("log => log.scrollTop") == before


def test_a_link_leads_to_its_line(lab: Homelab, page: Page) -> None:
    """However far back it lies: it is loaded, shown and marked, and stays in sight."""
    operation = running(lab)
    told = lab.call("GET", f"/api/activity?operation_id={operation['id']}&limit=1000")["activity"]
    [wanted] = [line["id"] for line in told if line["message"] == "line number 250"]
    open_page(page, f"/ops/{operation['id']}#L{wanted}")
    line = page.locator(f"#L{wanted}")
    expect(line).to_be_in_viewport()
    expect(line).to_have_attribute("data-marked", re.compile(".*"))
    boot(lab)
    expect(page.locator("#pill")).to_be_visible()
    expect(line).to_be_in_viewport()


def test_all_of_it_can_be_had(lab: Homelab, page: Page) -> None:
    """Every line once, in order; by level; and as files."""
    operation = running(lab)
    open_page(page, f"/ops/{operation['id']}")
    assert lines(page).count() < MANY
    page.get_by_role("button", name="Load all").click()
    expect(page.get_by_role("button", name="Load all")).to_be_hidden()
    found = numbers(page)
    assert found == sorted(set(found))
    assert len(found) >= MANY
    page.get_by_role("link", name="Errors", exact=True).click()
    expect(page).to_have_url(re.compile("level=error"))
    expect(lines(page).filter(visible=True)).to_have_count(MANY // 100)
    with page.expect_download() as download:
        page.get_by_role("link", name="NDJSON").click()
    rows = download.value.path().read_text().splitlines()
    assert [json.loads(row)["id"] for row in rows] == found
    with page.expect_download() as download:
        page.get_by_role("link", name="Text", exact=True).click()
    assert len(download.value.path().read_text().splitlines()) == len(found)
