"""Debian's Chromium, driven by Playwright: a browser for each worker, a context for each visit."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from browser.chromium import find, launch, sign_in
from browser.homelab import Homelab, open_homelab
from browser.look import SCREENS, Album
from browser.witness import Witness
from endtoend.world import PATIENCE

Visit = Callable[..., Page]

expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if find() is None:
        pytest.skip("missing: chromium")
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    return Album.open(tmp_path_factory)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Homelab]:
    """A lab whose daemon runs."""
    with open_homelab(tmp_path / "lab") as lab:
        lab.start()
        yield lab


@pytest.fixture
def witness(chromium: Browser) -> Iterator[Witness]:
    """Watches every visit of the test."""
    witness = Witness()
    devtools = chromium.new_browser_cdp_session()
    witness.watch_shared_workers(devtools)
    yield witness
    devtools.detach()
    witness.testify()


@pytest.fixture
def visit(chromium: Browser, witness: Witness, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Open a browser of its own in front of a lab, with a blank page."""
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab")  # so that visits end before the lab does
    with ExitStack() as stack:

        def visit(
            lab: Homelab,
            *,
            width: int = 1280,
            theme: str = "light",
            motion: str = "no-preference",
            signed_in: bool = True,
        ) -> Page:
            more: dict[str, Any] = {"color_scheme": theme, "reduced_motion": motion}
            if signed_in:
                more["storage_state"] = lab.cookies = lab.cookies or sign_in(chromium, lab)
            context = chromium.new_context(
                base_url=lab.url, viewport={"width": width, "height": SCREENS[width]}, **more
            )
            stack.callback(context.close)
            context.set_default_timeout(PATIENCE * 1000)
            witness.watch(context)
            return context.new_page()

        yield visit


@pytest.fixture
def page(visit: Visit, lab: Homelab) -> Page:
    """A blank page of a browser that is signed in to `lab`."""
    return visit(lab)
