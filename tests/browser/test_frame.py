"""What all pages have in a browser: one stream, a drawer, a theme, keys that can be switched off."""

import re
from contextlib import ExitStack

import httpx
from playwright.sync_api import Page, expect

from browser.homelab import Homelab
from browser.pages import never_loaded_again, open_page
from endtoend.world import TOKEN
from provd.web.stream import MOST_STREAMS

PAPER = "getComputedStyle(document.body).backgroundColor"


def free_streams(lab: Homelab) -> int:
    """How many more streams provd gives away before it says that there are too many."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=lab.url, headers=headers, trust_env=False) as client, ExitStack() as open_ones:
        for free in range(MOST_STREAMS + 1):
            if open_ones.enter_context(client.stream("GET", "/events")).status_code == 503:
                return free
    raise AssertionError("nobody is refused")


def test_many_tabs_have_one_stream(lab: Homelab, page: Page) -> None:
    """Each of eight tabs hears what happens; the browser takes one stream of those that provd has to give."""
    tabs = [page, *(page.context.new_page() for _ in range(7))]
    for tab in tabs:
        open_page(tab, "/")
    lab.register(lab.machine())
    for tab in tabs:
        expect(tab.locator("#hosts [data-host='1']")).to_be_visible()
    assert free_streams(lab) == MOST_STREAMS - 1


def test_a_theme_is_kept(lab: Homelab, page: Page) -> None:
    """Over the system's, from the next page's first moment on, and taken back again."""
    open_page(page, "/")
    light = page.evaluate(PAPER)
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate(PAPER)
    assert dark != light
    page.goto("/doctor")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(PAPER) == dark
    page.get_by_label("Theme").select_option("System")
    assert page.evaluate(PAPER) == light


def test_the_drawer_is_on_every_page(lab: Homelab, page: Page) -> None:
    """It says the newest line; opened, it holds what happened, and is open on the next page too."""
    lab.register(lab.machine())
    open_page(page, "/cluster")
    drawer = page.get_by_role("region", name="Activity of all hosts")
    expect(drawer).to_contain_text("nuc1 registered")
    page.keyboard.press("a")
    with never_loaded_again(page):
        lab.register(lab.machine(2))
        expect(drawer.get_by_role("listitem").first).to_contain_text("nuc2 registered")
    page.goto("/doctor")
    expect(drawer.get_by_role("listitem").first).to_contain_text("nuc2 registered")


def test_keys_can_be_switched_off(lab: Homelab, page: Page) -> None:
    """For whoever speaks to the computer (WCAG 2.1.4); it is remembered."""
    open_page(page, "/")
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_role("checkbox").check()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_hidden()
    open_page(page, "/doctor")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name=re.compile("^Help")).click()
    page.get_by_role("dialog").get_by_role("checkbox").uncheck()
