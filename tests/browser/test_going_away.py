"""provd goes away and comes back, or the browser does: the page says so, and misses nothing."""

import re

import pytest
from playwright.sync_api import Page, expect

from browser.homelab import Homelab
from browser.pages import lines, never_loaded_again, numbers, open_page, step, tile, word
from browser.witness import Witness
from provd.domain.lifecycle import State

GONE = (
    "ERR_CONNECTION_(REFUSED|RESET)|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE"
    "|ERR_INTERNET_DISCONNECTED|provd does not answer"
)
"""What Chromium and our own scripts say on the console when provd cannot be reached."""


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_restart_is_announced_and_caught_up_with(
    lab: Homelab, page: Page, witness: Witness, end: str
) -> None:
    """What happens between the two daemons is on the pages afterwards: no line is lost, none is doubled."""
    witness.tolerate(GONE)
    machine = lab.machine()
    host = lab.register(machine)
    operation = lab.rebuild(host)
    log = page.context.new_page()
    open_page(page, "/")
    open_page(log, f"/ops/{operation['id']}")
    lab.power_on(machine)
    lab.lead(machine, host, State.INSTALLING)
    expect(step(log, "installing")).to_have_attribute("data-place", "here")

    (lab.stop if end == "stopped" else lab.kill)()
    for tab in (page, log):
        expect(tab.locator("#live")).to_have_text(re.compile("reconnecting|stale"))
    lab.start()
    # Ahead of the browsers, who wait a while before they try again.
    lab.lead(machine, host, State.READY)
    for tab in (page, log):
        expect(tab.locator("#live")).to_have_text("live")
    expect(word(tile(page, host), "ready")).to_be_visible()
    expect(word(log.locator("#outcome"), "done")).to_be_visible()
    told = lab.call("GET", f"/api/activity?operation_id={operation['id']}&limit=1000")["activity"]
    expect(lines(log)).to_have_count(len(told))
    assert numbers(log) == [line["id"] for line in reversed(told)]


def test_a_browser_without_network_catches_up(lab: Homelab, page: Page, witness: Witness) -> None:
    """Without being loaded again: a laptop that was closed, or Wi-Fi that went away."""
    witness.announce(GONE)
    machine = lab.machine()
    host = lab.register(machine)
    open_page(page, "/")
    page.get_by_role("button", name="Activity").click()
    drawn = page.locator("#drawer-lines > [data-line]")
    expect(drawn).to_have_count(1)
    with never_loaded_again(page):
        page.context.set_offline(True)
        page.evaluate("dispatchEvent(new Event('offline'))")
        operation = lab.rebuild(host)
        lab.power_on(machine)
        lab.until_over(operation)
        page.context.set_offline(False)
        expect(word(tile(page, host), "ready")).to_be_visible()
        expect(page.locator("#live")).to_have_text("live")
    told = [str(line["id"]) for line in lab.call("GET", "/api/activity?limit=50")["activity"]]
    expect(drawn).to_have_count(len(told))
    assert drawn.evaluate_all("them => them.map((it) => it.dataset.line)") == told
