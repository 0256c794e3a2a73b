"""How a page is looked at: by axe-core, for what a narrow screen does to it, and for the album."""

import os
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SCREENS = {360: 740, 768: 1024, 1280: 800}
"""Widths, and the heights that screens of such a width have."""
THEMES = ("light", "dark")

ALL_RULES: Mapping[str, object] = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    # WCAG 2.2, 2.5.8: off in axe-core unless it is asked for.
    "rules": {"target-size": {"enabled": True}},
}
COLOURS: Mapping[str, object] = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}
"""All that a theme can break."""

MOVING = "document.getAnimations().filter((it) => it.playState === 'running').length"
STICKING_OUT = """() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth <= clientWidth) return [];
    const keepsIn = (it) => it !== document.body && getComputedStyle(it).overflowX !== "visible";
    const out = [...document.body.querySelectorAll("*")].filter((it) => {
        if (it.getBoundingClientRect().right <= clientWidth + 1) return false;
        for (let parent = it.parentElement; parent; parent = parent.parentElement) {
            if (keepsIn(parent)) return false;
        }
        return true;
    });
    return [`${scrollWidth} px wide`, ...out.map((it) => `sticks out: ${it.outerHTML.slice(0, 120)}`)];
}"""


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
        """Look at `page` on every screen and in both themes; fails with all that is wrong on any of them.

        `page` must have been opened by somebody who wants reduced motion.
        """
        wrong: list[str] = []
        for (width, height), theme in product(SCREENS.items(), THEMES):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            picture = self.directory / f"{re.sub(r'[^a-z0-9]+', '-', name)}-{width}-{theme}.png"
            page.screenshot(path=picture, full_page=True)
            found = violations(page, ALL_RULES if theme == THEMES[0] else COLOURS)
            found += page.evaluate(STICKING_OUT)
            found += ["something moves"] * (page.evaluate(MOVING) > 0)
            if found:
                wrong += [f"{width} px, {theme} ({picture}):", *(f"  - {it}" for it in found)]
        assert not wrong, "\n".join([f"{name}:", *wrong])


def violations(page: Page, options: Mapping[str, object]) -> list[str]:
    """What axe-core finds, a line for each element."""
    response: dict[str, Any] = Axe().run(page, options=dict(options)).response
    return [
        f"{rule['id']}: {node['html'][:160]}: {' '.join(node['failureSummary'].split())[:300]}"
        for rule in response["violations"]
        for node in rule["nodes"]
    ]
