"""How a page is looked at: by axe-core, for what a narrow screen does to it, and for the album."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import frozen
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

OPTIONS: Mapping[str, object] = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    # WCAG 2.2, 2.5.8: off in axe-core unless it is asked for.
    "rules": {"target-size": {"enabled": True}},
}


@frozen
class Album:
    """Where pictures are kept: $PROVD_SCREENSHOTS, else pytest's own temporary directory."""

    directory: Path

    @classmethod
    def open(cls, temporary: pytest.TempPathFactory) -> "Album":
        named = os.environ.get("PROVD_SCREENSHOTS")
        directory = Path(named) if named else temporary.getbasetemp() / "screenshots"
        directory.mkdir(parents=True, exist_ok=True)
        return cls(directory)

    def look(self, page: Page, name: str) -> None:
        """Keep a picture of `page`, and fail where it breaks a rule that a program can check."""
        assert page.viewport_size is not None
        width = page.viewport_size["width"]
        theme = "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
        picture = self.directory / f"{re.sub(r'[^a-z0-9]+', '-', name)}-{width}-{theme}.png"
        page.screenshot(path=picture, full_page=True)
        print(f"{name}, {width} px, {theme}: {picture}")  # pytest shows it when the test fails
        report = Axe().run(page, options=dict(OPTIONS))
        assert not report.response["violations"], report.generate_report()
        assert sideways(page) == [], f"{name} is wider than {width} px"


def sideways(page: Page) -> list[str]:
    """What makes the page scroll sideways: empty where it does not, else the elements that stick out."""
    found: list[str] = page.evaluate("""() => {
        const { scrollWidth, clientWidth } = document.documentElement;
        if (scrollWidth <= clientWidth) return [];
        const out = [...document.body.querySelectorAll("*")].filter(
            (it) => it.getBoundingClientRect().right > clientWidth + 1);
        return [`${scrollWidth} px`, ...out.map((it) => it.outerHTML.slice(0, 100))];
    }""")
    return found
