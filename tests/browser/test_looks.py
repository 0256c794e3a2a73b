"""Every page in every width and theme: what axe-core finds, what scrolls sideways, and a picture of it."""

from collections.abc import Callable, Iterator, Mapping

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import Visit
from browser.homelab import Homelab, open_homelab
from browser.look import Album
from browser.witness import Witness
from provd.domain.lifecycle import State


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homelab]:
    """A lab with a host in every group, an unknown machine, and an operation of each outcome."""
    with open_homelab(tmp_path_factory.mktemp("lived-in") / "lab", members=2, trusted=True) as lab:
        lab.start()
        ready, failed, cancelled, working, waiting, registered = map(lab.machine, range(1, 7))
        failed.faults.wrong_host_keys_in_webhook = True
        for machine in (ready, failed):
            operation = lab.rebuild(lab.register(machine))
            lab.power_on(machine)
            lab.until_over(operation)
        operation = lab.rebuild(lab.register(cancelled))
        lab.call("POST", f"/api/operations/{operation['id']}/cancel")
        host = lab.register(working)
        lab.rebuild(host)
        lab.power_on(working)
        lab.lead(working, host, State.INSTALLING)
        lab.rebuild(lab.register(waiting))
        lab.register(registered)
        lab.boot("02:00:00:00:01:77")
        yield lab


def opened(button: str) -> Callable[[Page], None]:
    """A dialog."""

    def act(page: Page) -> None:
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("dialog")).to_be_visible()

    return act


def rehearsed(page: Page) -> None:
    opened("Rebuild…")(page)
    expect(page.get_by_role("button", name="Wipe and rebuild")).to_be_enabled()


def several(page: Page) -> None:
    page.get_by_role("checkbox", name="Select all shown").check()
    opened("Rebuild…")(page)
    expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text("left out")


PAGES: Mapping[str, tuple[str, Callable[[Page], object]]] = {
    "hosts": ("/", lambda page: None),
    "hosts, one group": ("/?show=failed", lambda page: None),
    "hosts, table": ("/?view=table", lambda page: None),
    "hosts, rebuild several": ("/", several),
    "hosts, register": ("/", opened("Register a host")),
    "host, ready": ("/hosts/1", lambda page: None),
    "host, failed": ("/hosts/2", lambda page: None),
    "host, installing": ("/hosts/4", lambda page: None),
    "host, registered": ("/hosts/6", lambda page: None),
    "host, rebuild": ("/hosts/1", rehearsed),
    "host, boot options": ("/hosts/1", opened("Boot options…")),
    "host, remove": ("/hosts/1", opened("Remove…")),
    "operation, done": ("/ops/1", lambda page: None),
    "operation, failed": ("/ops/2", lambda page: None),
    "operation, cancelled": ("/ops/3", lambda page: None),
    "operation, running": ("/ops/4", lambda page: None),
    "operation, cancel": ("/ops/4", opened("Cancel")),
    "cluster": ("/cluster", lambda page: None),
    "images": ("/images", lambda page: None),
    "doctor": ("/doctor", lambda page: None),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_page(lived_in: Homelab, visit: Visit, album: Album, name: str) -> None:
    path, act = PAGES[name]
    page = visit(lived_in, motion="reduce")
    page.goto(path)
    act(page)
    album.look(page, name)


def test_a_page_that_is_not_there(lived_in: Homelab, visit: Visit, album: Album, witness: Witness) -> None:
    witness.announce("status of 404")
    page = visit(lived_in, motion="reduce")
    page.goto("/hosts/999")
    album.look(page, "missing")


def test_the_door(lived_in: Homelab, visit: Visit, album: Album) -> None:
    page = visit(lived_in, motion="reduce", signed_in=False)
    page.goto("/")
    album.look(page, "signed out")
    page.goto(lived_in.sign_in_link())
    album.look(page, "sign in")


def test_the_first_run(lab: Homelab, visit: Visit, album: Album) -> None:
    """No host yet."""
    page = visit(lab, motion="reduce")
    page.goto("/")
    album.look(page, "first run")
