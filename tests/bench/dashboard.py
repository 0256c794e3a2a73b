"""How heavy the dashboard is: `python tests/bench/dashboard.py`, with Debian's chromium installed.

A real daemon with 100 hosts, a history of 200 rebuilds, 20 rebuilds that run, and one of them with 10,000
lines; a real browser in front of it. It prints

- how long the daemon takes for the first page, over one connection that stays open,
- what a browser without a cache transfers until the page is live,
- the long tasks (W3C Long Tasks: more than 50 ms in which the page answers to nothing) of the first page
  while events arrive, and of the operation's while it loads, is scrolled through and gets more lines.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import trio
from attrs import frozen
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from browser.chromium import launch, sign_in
from browser.homelab import Homelab, open_homelab
from endtoend.world import TOKEN, Json
from provd.config import load_config
from provd.daemon import database_path
from provd.domain.activity import News
from provd.domain.hosts import Host, HostId, HostOptions, Mac, OperationId
from provd.domain.lifecycle import ROAD
from provd.domain.operations import Kind, Outcome
from provd.orchestrator.fleet import Change
from provd.store import activity, hosts, operations
from provd.store.database import Db, Store, now, open_store
from web.looking import FACTS

REBUILDS_EACH = 2
STAGE_SECONDS = (60, 20, 300, 40, 90, 30)
"""How long a host stays in each stage before the last, more or less."""
WHEEL = 600
"""Pixels that one turn scrolls."""
TURNS = 200

LONG_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((it) => it.duration)))
    .observe({ type: "longtask", buffered: true });
"""


# --- a database with a past ----------------------------------------------------------------------


@contextmanager
def database(lab: Homelab) -> Iterator[Store]:
    """While the daemon is away."""
    with open_store(database_path(load_config(lab.world.lab.configuration, {}))) as store:
        yield store


def mac(number: int) -> str:
    return f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"


def fill(db: Db, count: int) -> None:
    dice = random.Random(1)
    for number in range(1, count + 1):
        at = now() - timedelta(days=60, minutes=number)
        kind = "nuc" if number % 3 else "gpu-node"
        host = hosts.register(db, f"{kind[:3]}{number}", Mac.parse(mac(number)), kind, HostOptions(), at)
        for _ in range(REBUILDS_EACH):
            at = rebuild(db, host, at + timedelta(days=dice.randrange(1, 25)), dice)


def rebuild(db: Db, host: Host, at: datetime, dice: random.Random) -> datetime:
    """One that went well; returns when it was over."""
    operation = operations.open_(db, host, Kind.REBUILD, "token environment", at)
    for stage, usual in zip(ROAD, (*STAGE_SECONDS, 0), strict=True):
        Change(db, at).fact(host.id, FACTS[stage], f"{host.hostname} is {stage} now")
        at += timedelta(seconds=usual * dice.uniform(0.7, 1.5))
    operations.close(db, operation.id, Outcome.DONE, "", at)
    return at


def chatter(db: Db, operation: Json, count: int) -> None:
    """`count` lines in the log of an operation."""
    at = now() - timedelta(seconds=count)
    for number in range(count):
        news = News(
            event="rebuild.note",
            message=f"line {number} of a log longer than anybody reads, about /dev/disk/by-id/{number:x}",
            host_id=HostId(operation["host_id"]),
            operation_id=OperationId(operation["id"]),
        )
        activity.append(db, news, at + timedelta(seconds=number))


def furnish(lab: Homelab, *, count: int, running: int, lines: int) -> list[Json]:
    """Returns the operations that run; the first has the long log. The daemon runs afterwards."""
    with database(lab) as store:
        trio.run(store.write, lambda db: fill(db, count))
    lab.start()
    begun = [lab.rebuild({"id": number}) for number in range(1, running + 1)]
    for number in range(1, running, 2):
        lab.boot(mac(number))
    lab.stop()
    with database(lab) as store:
        trio.run(store.write, lambda db: chatter(db, begun[0], lines))
    lab.start()
    return begun


# --- what is measured ----------------------------------------------------------------------------


def first_paint(lab: Homelab, repeats: int) -> tuple[float, float, int]:
    """Median and longest in milliseconds, and the bytes of the page as they travel."""
    took: list[float] = []
    headers = {"authorization": f"Bearer {TOKEN}", "accept-encoding": "gzip"}
    with httpx.Client(base_url=lab.url, headers=headers, trust_env=False) as client:
        for _ in range(repeats):
            begin = time.perf_counter()
            with client.stream("GET", "/") as response:
                size = sum(map(len, response.iter_raw()))
            took.append((time.perf_counter() - begin) * 1000)
            assert response.status_code == 200
    return statistics.median(took), max(took), size


@frozen(kw_only=True)
class Load:
    requests: int
    transferred: int
    """Bytes, with the headers."""
    seconds: float
    """Until the page had its event stream."""


def cold_load(context: BrowserContext, page: Page, url: str) -> Load:
    devtools = context.new_cdp_session(page)
    devtools.send("Network.enable")
    devtools.send("Network.clearBrowserCache")
    sizes: list[int] = []
    devtools.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    begin = time.perf_counter()
    page.goto(url)
    page.locator("#live", has_text="live").wait_for()
    took = time.perf_counter() - begin
    page.wait_for_timeout(1000)  # what comes late is counted too
    return Load(requests=len(sizes), transferred=sum(sizes), seconds=took)


def long_tasks(page: Page) -> Sequence[float]:
    """Milliseconds of each since the last call."""
    found: list[float] = page.evaluate("window.longTasks.splice(0)")
    return found


def told(tasks: Sequence[float]) -> str:
    return f"{len(tasks)} long tasks" + (f", the longest {max(tasks):.0f} ms" if tasks else "")


def cause_events(lab: Homelab, count: int, running: int, page: Page) -> float:
    """Machines that boot again: a line of history each. Returns how many there were a second."""
    begin = time.perf_counter()
    for number in range(count):
        lab.boot(mac(number % running + 1))
        page.wait_for_timeout(1)  # lets Playwright listen
    took = time.perf_counter() - begin
    page.wait_for_timeout(1000)
    return count / took


def scroll(page: Page) -> float:
    """Through the log and back, with the wheel. Returns the frames per second that the page showed."""
    log = page.get_by_role("log")
    log.hover()
    page.evaluate("""() => {
        window.frames_ = 0;
        const count = () => { window.frames_ += 1; window.counting = requestAnimationFrame(count); };
        count();
    }""")
    begin = time.perf_counter()
    for turn in range(TURNS):
        page.mouse.wheel(0, -WHEEL if turn < TURNS // 2 else WHEEL)
        page.wait_for_timeout(16)
    took = time.perf_counter() - begin
    frames: int = page.evaluate("cancelAnimationFrame(window.counting), window.frames_")
    return frames / took


def measure(
    browser: Browser,
    lab: Homelab,
    options: argparse.Namespace,
    begun: Sequence[Json],
    say: Callable[[str], None],
) -> None:
    median, longest, size = first_paint(lab, options.repeats)
    say(f"first page, server time: median {median:.1f} ms, longest {longest:.1f} ms, {size:,} bytes")
    context = browser.new_context(base_url=lab.url, storage_state=sign_in(browser, lab))
    context.add_init_script(LONG_TASKS)
    for name, path in (("first page", "/"), ("host", "/hosts/1"), ("operation", f"/ops/{begun[0]['id']}")):
        page = context.new_page()
        load = cold_load(context, page, path)
        say(
            f"{name}, cold load: {load.requests} requests, {load.transferred:,} bytes, live after "
            f"{load.seconds:.2f} s, {told(long_tasks(page))}"
        )
        page.close()

    page = context.new_page()
    page.goto("/")
    page.locator("#live", has_text="live").wait_for()
    long_tasks(page)
    rate = cause_events(lab, options.events, options.running, page)
    say(f"first page, {options.events} events, {rate:.0f} a second: {told(long_tasks(page))}")
    page.goto(f"/ops/{begun[0]['id']}")
    page.locator("#live", has_text="live").wait_for()
    page.wait_for_timeout(1000)
    say(f"log, opened: {told(long_tasks(page))}")
    rate = scroll(page)
    say(f"log, scrolled: {rate:.0f} frames a second, {told(long_tasks(page))}")
    rate = cause_events(lab, options.events, 1, page)
    say(f"log, {options.events} more lines, {rate:.0f} a second: {told(long_tasks(page))}")
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--running", type=int, default=20, help="rebuilds; default 20")
    parser.add_argument("--lines", type=int, default=10_000, help="in the log of one; default 10,000")
    parser.add_argument("--repeats", type=int, default=50, help="of the first page; default 50")
    parser.add_argument("--events", type=int, default=200)
    options = parser.parse_args()
    say = partial(print, file=sys.stdout, flush=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        redirect_stdout(sys.stderr),  # where the lab tells its story
        open_homelab(Path(directory) / "lab") as lab,
    ):
        begun = furnish(lab, count=options.hosts, running=options.running, lines=options.lines)
        with sync_playwright() as playwright:
            browser = launch(playwright)
            measure(browser, lab, options, begun, say)
            browser.close()


if __name__ == "__main__":
    main()
