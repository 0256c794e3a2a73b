"""Where things are on the pages, as far as a test cannot name them by role and name."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Locator, Page, expect

from endtoend.world import Json


def tile(page: Page, host: Json) -> Locator:
    """Of a host on the grid."""
    return page.locator(f"#hosts [data-host='{host['id']}']")


def word(within: Locator, state: str) -> Locator:
    """The badge with a state's icon and word."""
    return within.locator(f"[data-word='{state}']")


def step(page: Page, state: str) -> Locator:
    """Of the operation on its page."""
    return page.locator(f"#steps [data-step='{state}']")


def lines(page: Page) -> Locator:
    """Of the log."""
    return page.locator("main [data-line], main li[id^='L']")


def numbers(page: Page) -> list[int]:
    """The ids of the lines in the log, as they stand there."""
    found: list[int] = lines(page).evaluate_all(
        "them => them.map((it) => Number(it.dataset.line ?? it.id.slice(1)))"
    )
    return found


def open_page(page: Page, path: str) -> None:
    """Returns when it has its event stream."""
    page.goto(path)
    expect(page.locator("#live")).to_have_text("live")


@contextmanager
def never_loaded_again(*pages: Page) -> Iterator[None]:
    """What changes on the pages within the block must have come to them by the event stream."""
    for page in pages:
        page.evaluate("window.isTheSame = true")
    yield
    for page in pages:
        assert page.evaluate("window.isTheSame"), f"{page.url} was loaded again"
