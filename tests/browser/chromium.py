"""Debian's Chromium. Playwright would bring a browser of its own, which nobody needs."""

import os
import shutil
from typing import Any

from playwright.sync_api import Browser, Playwright

from browser.homelab import Homelab


def find() -> str | None:
    return shutil.which("chromium")


def launch(playwright: Playwright) -> Browser:
    # Its sandbox refuses root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=find(), args=arguments)


def sign_in(browser: Browser, lab: Homelab) -> Any:
    """With a link, as a person does; returns the cookies, Playwright's `storage_state`."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(lab.sign_in_link())
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{lab.url}/")
    cookies = context.storage_state()
    context.close()
    return cookies
