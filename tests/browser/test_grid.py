"""The first page in a browser: finding hosts, rebuilding several, minding strangers, without a mouse too."""

import re

from playwright.sync_api import Page, expect

from browser.conftest import Visit
from browser.homelab import Homelab
from browser.pages import never_loaded_again, open_page, tile, word

STRANGER = "02:00:00:00:01:77"


def shown(page: Page) -> list[str]:
    """The hosts that can be seen, in their order."""
    return page.locator("#hosts > :not([hidden]) [data-part='hostname']").all_text_contents()


def test_filters_live_in_the_address(lab: Homelab, page: Page, visit: Visit) -> None:
    """What is chosen is in the URL at once; the URL alone shows the same to somebody else."""
    for number in range(1, 4):
        lab.register(lab.machine(number))
    operation = lab.rebuild({"id": 2})
    lab.call("POST", f"/api/operations/{operation['id']}/cancel")
    open_page(page, "/")
    assert shown(page) == ["nuc2", "nuc1", "nuc3"]
    with never_loaded_again(page):
        page.get_by_role("searchbox").fill("nuc3")
        expect(page).to_have_url(re.compile(r"q=nuc3"))
        assert shown(page) == ["nuc3"]
        page.get_by_role("searchbox").fill("")
        page.get_by_role("link", name=re.compile("^failed")).click()
        expect(page).to_have_url(re.compile(r"show=failed"))
        assert shown(page) == ["nuc2"]
        expect(page).to_have_title("(1) Hosts · provd")
        page.get_by_role("combobox", name="Layout").select_option("table")
        expect(page).to_have_url(re.compile(r"view=table"))
    other = visit(lab)
    open_page(other, page.url.removeprefix(lab.url))
    assert shown(other) == ["nuc2"]
    expect(other.locator("#hosts")).to_have_attribute("data-view", "table")
    page.get_by_role("link", name=re.compile("^registered")).click()
    page.get_by_role("combobox", name="Order").select_option("name")
    assert shown(page) == ["nuc1", "nuc3"]


def test_several_are_rebuilt_at_once(lab: Homelab, page: Page) -> None:
    """Each is named with what it loses; one that cannot go is left out with its reason; words are typed."""
    for number in range(1, 4):
        lab.register(lab.machine(number))
    lab.rebuild({"id": 3})
    open_page(page, "/")
    with never_loaded_again(page):
        page.get_by_role("checkbox", name="Select all shown").check()
        page.get_by_role("region", name="Selection").get_by_role("button", name="Rebuild…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("status")).to_have_text("2 hosts will be rebuilt, 1 left out.")
        expect(dialog.get_by_role("listitem").filter(has_text="nuc3")).to_contain_text(
            "Left out: nuc3 is busy"
        )
        expect(dialog.get_by_role("listitem").filter(has_text="nuc1")).to_contain_text("/dev/nvme0n1")
        go = dialog.get_by_role("button", name="Wipe and rebuild them")
        dialog.get_by_label("to go on").fill("rebuild 3")
        go.click()
        expect(dialog.get_by_role("alert")).to_contain_text("rebuild 2")
        assert len(lab.call("GET", "/api/operations")["operations"]) == 1
        dialog.get_by_label("to go on").fill("rebuild 2")
        go.click()
        expect(dialog.get_by_role("link", name=re.compile("operation"))).to_have_count(2)
        dialog.get_by_role("button", name="Close").click()
        for host in ({"id": 1}, {"id": 2}):
            expect(word(tile(page, host), "pxe_ready")).to_be_visible()
        expect(page.get_by_role("region", name="Selection")).to_be_visible()  # the one that was left out


def test_a_stranger_is_ignored_or_registered(lab: Homelab, page: Page) -> None:
    """It appears while somebody looks; ignoring it can be undone; its MAC is in the form already."""
    open_page(page, "/")
    with never_loaded_again(page):
        lab.boot(STRANGER)
        section = page.get_by_role("region", name="Discovered machines")
        expect(section).to_contain_text(STRANGER)
        section.get_by_role("button", name="Ignore").click()
        expect(section.get_by_text("1 ignored")).to_be_visible()
        expect(section.locator("summary")).to_be_focused()
        section.get_by_text("1 ignored").click()
        section.get_by_role("button", name="Show again").click()
        section.get_by_role("button", name="Register…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_label("MAC address")).to_have_value(STRANGER)
        dialog.get_by_role("button", name="Register").click()
        expect(tile(page, {"id": 1})).to_contain_text(STRANGER)
        expect(section).to_be_hidden()


def test_the_first_host_is_led_to(lab: Homelab, page: Page) -> None:
    """What is ready ticks by itself; the way to the first host goes away when there is one."""
    open_page(page, "/")
    readiness = page.locator("#readiness")
    expect(readiness.get_by_role("listitem").filter(has_text="Machines")).to_contain_text("to do")
    with never_loaded_again(page):
        lab.boot(STRANGER)
        expect(readiness).to_contain_text("1 heard, none registered")
        page.get_by_role("button", name="with a form").click()
        expect(page.get_by_role("dialog", name="Register a host")).to_be_visible()
        page.keyboard.press("Escape")
        lab.register(lab.machine())
        expect(page.get_by_role("heading", name="No host yet")).to_be_hidden()
        expect(readiness.get_by_role("listitem").filter(has_text="Machines")).to_contain_text("ready")


def test_everything_by_keyboard(lab: Homelab, page: Page) -> None:
    """From any page to a host's rebuild, typed and confirmed, without touching a mouse."""
    lab.register(lab.machine())
    open_page(page, "/cluster")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("search")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.wait_for_url("**/#search")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("nuc1")
    tile(page, {"id": 1}).get_by_role("link", name="nuc1").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/hosts/1")
    expect(page.locator("#live")).to_have_text("live")
    page.get_by_role("button", name="Rebuild…").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Wipe and rebuild")).to_be_enabled()
    dialog.locator("[name=hostname]").focus()
    page.keyboard.type("nuc1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ops/1")
    page.keyboard.press("g")
    page.keyboard.press("h")
    page.wait_for_url(lambda url: url.rstrip("/") == lab.url)
    expect(word(tile(page, {"id": 1}), "pxe_ready")).to_be_visible()
