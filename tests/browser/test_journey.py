"""What an operator does with a mouse and a keyboard, from a new machine to a member of the cluster."""

from playwright.sync_api import Page, expect

from browser.conftest import Visit
from browser.homelab import Homelab
from browser.pages import never_loaded_again, open_page, step, tile, word
from browser.witness import Witness
from endtoend.world import Json
from provd.domain.lifecycle import ROAD, State
from provd.simulator.machine.machine import Machine


def register(page: Page, machine: Machine) -> None:
    """By the form of the first page."""
    page.get_by_role("button", name="Register a host").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("MAC address").fill(machine.mac)
    dialog.get_by_label("Server type").select_option("nuc")
    dialog.get_by_role("button", name="Register").click()
    expect(dialog).to_be_hidden()


def ask_for_rebuild(page: Page, hostname: str) -> None:
    """On the host's page, as far as the button that must not be pressed too lightly."""
    page.get_by_role("button", name="Rebuild…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("/dev/nvme0n1").first).to_be_visible()
    dialog.locator("[name=hostname]").fill(hostname)


def rebuild(page: Page, hostname: str) -> Json:
    """Ends on the page of the operation that it returns."""
    ask_for_rebuild(page, hostname)
    page.get_by_role("dialog").get_by_role("button", name="Wipe and rebuild").click()
    page.wait_for_url("**/ops/*")
    return {"id": int(page.url.rsplit("/", 1)[1])}


def test_a_machine_becomes_a_member(lab: Homelab, page: Page, visit: Visit) -> None:
    """Registered and rebuilt by hand; every state arrives on three pages that are never loaded again."""
    machine = lab.machine()
    open_page(page, "/")
    register(page, machine)
    host = {"id": 1}
    expect(word(tile(page, host), "registered")).to_be_visible()

    host_page, operation_page = page.context.new_page(), page.context.new_page()
    open_page(host_page, "/hosts/1")
    open_page(operation_page, "/hosts/1")
    operation = rebuild(operation_page, "nuc1")

    with never_loaded_again(page, host_page, operation_page):
        for state in ROAD[:-1]:
            if state is State.PXE_BOOTED:
                lab.power_on(machine)
            lab.lead(machine, host, state)
            expect(word(tile(page, host), state)).to_be_visible()
            expect(word(host_page.locator("#status"), state)).to_be_visible()
            expect(step(operation_page, state)).to_have_attribute("data-place", "here")
        lab.lead(machine, host, State.READY)
        expect(word(tile(page, host), "ready")).to_be_visible()
        expect(word(host_page.locator("#status"), "ready")).to_be_visible()
        expect(word(operation_page.locator("#outcome"), "done")).to_be_visible()
        expect(step(operation_page, "ready")).to_have_attribute("data-place", "done")
        expect(operation_page.get_by_role("log")).to_contain_text("nuc1 is a member of the cluster")
        expect(host_page.locator(f"[data-operation='{operation['id']}']")).to_contain_text("done")
    assert machine.wipes() == 1


def test_nothing_is_wiped_before_the_name_is_typed(lab: Homelab, page: Page) -> None:
    """Another name, or none, sends nothing; Escape closes the question."""
    lab.register(lab.machine())
    open_page(page, "/hosts/1")
    go = page.get_by_role("dialog").get_by_role("button", name="Wipe and rebuild")
    for name in ("", "nuc2", "NUC1"):
        ask_for_rebuild(page, name)
        expect(go).to_be_enabled()  # the rehearsal has spoken
        go.click()
        assert page.locator("[name=hostname]").evaluate_all(
            "them => them.some((it) => it.matches(':invalid'))"
        )
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
    assert lab.call("GET", "/api/operations")["operations"] == []


def test_an_operation_is_cancelled(lab: Homelab, page: Page) -> None:
    """From its page, which then says so; the host can be rebuilt at once."""
    host = lab.register(lab.machine())
    operation = lab.rebuild(host)
    open_page(page, f"/ops/{operation['id']}")
    with never_loaded_again(page):
        page.get_by_role("button", name="Cancel").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Cancel the rebuild").click()
        expect(dialog).to_be_hidden()
        expect(word(page.locator("#outcome"), "cancelled")).to_be_visible()
        expect(page.get_by_text("cancelled by browser session").first).to_be_visible()
    page.get_by_role("main").get_by_role("link", name="nuc1").first.click()
    expect(word(page.locator("#status"), "failed")).to_be_visible()
    expect(page.get_by_role("button", name="Rebuild…")).to_be_enabled()


def test_a_failed_join_is_tried_again(lab: Homelab, page: Page) -> None:
    """The page of the host says what failed, and its button brings the host into the cluster, unwiped."""
    lab.set_faults(drop_after_step=5)
    machine = lab.machine()
    host = lab.register(machine)
    operation = lab.rebuild(host)
    open_page(page, "/hosts/1")
    with never_loaded_again(page):
        lab.power_on(machine)
        assert lab.until_over(operation)["outcome"] == "failed"
        expect(word(page.locator("#status"), "failed")).to_be_visible()
        retry = page.get_by_role("button", name="Retry from join")
        expect(retry).to_be_visible()
    lab.set_faults(drop_after_step=None)
    retry.click()
    page.wait_for_url("**/ops/2")
    expect(word(page.locator("#outcome"), "done")).to_be_visible()
    assert lab.until(host, "ready")
    assert machine.wipes() == 1


def test_a_link_signs_in_once(lab: Homelab, visit: Visit, witness: Witness) -> None:
    """Without it there is no page; with it there is, until the way out is taken."""
    witness.announce("status of 401")
    link = lab.sign_in_link()
    page = visit(lab, signed_in=False)
    page.goto("/")
    expect(page.get_by_text("sign in with a link")).to_be_visible()
    page.goto(link)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Hosts", exact=True)).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("sign in with a link")).to_be_visible()
    page.goto(link)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("does not work")
