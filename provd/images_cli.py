"""`provd image …`: the image library from a shell, on its files and the database, beside a daemon or without.

A running daemon needs no telling: it looks into the database whenever it needs an image.
"""

import argparse
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TextIO, TypeVar

import trio

from provd.config import Config
from provd.domain.errors import Refused
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.images import ImageLibrary
from provd.orchestrator.progress import Progress
from provd.store.database import Store

T = TypeVar("T")

BY = "the command line"
GIB, MIB = 1 << 30, 1 << 20
REDRAW_SECONDS = 0.2
STEP_PERCENT = 10
"""Between two lines where no terminal shows them."""

Command = Callable[[Config, argparse.Namespace], None]
Action = Callable[[ImageLibrary, argparse.Namespace], None]


class Commands(Protocol):
    """What `ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...


def add_commands(
    commands: Commands,
    add: Callable[..., None],
    open_state: Callable[[Config], AbstractContextManager[Store]],
) -> None:
    """`add` gives a command the arguments that all of them have; `open_state` opens the database."""
    image = commands.add_parser("image", help="the Proxmox VE images that machines are installed from")
    actions = image.add_subparsers(required=True, metavar="ACTION")

    def command(action: Action) -> Command:
        def run(config: Config, options: argparse.Namespace) -> None:
            with open_state(config) as store:
                action(ImageLibrary(config, Fleet(store, Bell())), options)

        return run

    one = actions.add_parser("import", help="make an image of an ISO of Proxmox VE")
    one.add_argument("file", type=Path, metavar="FILE")
    one.add_argument("--sha256", metavar="HEX", help="refuse the file if this is not its SHA-256")
    one.add_argument("--name", help="default: as Proxmox calls it, like proxmox-ve_9.2-1")
    one.add_argument("--default", action="store_true", help="install it from now on")
    add(one, command(import_image))
    add(
        actions.add_parser("list", help="what there is, and what is not as it should be"),
        command(list_images),
    )
    add(actions.add_parser("verify", help="read an image again and compare"), command(verify_image), "name")
    add(actions.add_parser("remove", help="delete an image"), command(remove_image), "name")
    add(actions.add_parser("default", help="install this one from now on"), command(choose_image), "name")


def import_image(library: ImageLibrary, options: argparse.Namespace) -> None:
    image = watch(
        lambda progress: library.import_iso(
            options.file.absolute(),
            by=BY,
            sha256=options.sha256,
            name=options.name,
            make_default=options.default,
            progress=progress,
        ),
        "stopped; what was copied stays for a day: run the same command again and it goes on there",
    )
    print(f"{image.name} is imported" + (" and the default" if image.is_default else ""))
    if not options.sha256:
        print(f"SHA-256 {image.sha256}: compare it with the one that Proxmox publishes", file=sys.stderr)


def list_images(library: ImageLibrary, _: argparse.Namespace) -> None:
    for image in library.everything():
        mark = "default" if image.is_default else ""
        size, at = f"{image.size / GIB:.2f} GiB", f"{image.imported_at:%Y-%m-%d %H:%M}"
        print(f"{image.name:30} {image.release:10} {size:>9}  {at}  {mark}".rstrip())
    for problem in library.problems():
        print(problem, file=sys.stderr)


def verify_image(library: ImageLibrary, options: argparse.Namespace) -> None:
    watch(lambda progress: library.verify(options.name, BY, progress), "stopped; nothing was found out")
    print(f"{options.name} is as it was imported")


def remove_image(library: ImageLibrary, options: argparse.Namespace) -> None:
    trio.run(library.remove, options.name, BY)
    print(f"{options.name} is removed")


def choose_image(library: ImageLibrary, options: argparse.Namespace) -> None:
    trio.run(library.set_default, options.name, BY)
    print(f"{options.name} is installed from now on")


# --- what takes a while -------------------------------------------------------------------------------


def watch(work: Callable[[Progress], Awaitable[T]], stopped: str, out: TextIO = sys.stderr) -> T:
    """Run `work`, show how far it is, and end it in order on Ctrl-C; then raise `Refused(stopped)`."""
    return trio.run(_watch, work, stopped, out)


async def _watch(work: Callable[[Progress], Awaitable[T]], stopped: str, out: TextIO) -> T:
    progress = Progress()
    results: list[T] = []
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signal, nursery.cancel_scope)
            nursery.start_soon(_show_on_terminal if out.isatty() else _show_in_lines, progress, out)
            results.append(await work(progress))
            nursery.cancel_scope.cancel()
    finally:
        if out.isatty():
            print("\r\x1b[K", end="", file=out, flush=True)
    if not results:
        raise Refused(stopped)
    return results[0]


async def stop_on_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel(reason="Ctrl-C")


async def _show_on_terminal(progress: Progress, out: TextIO) -> None:
    while True:
        if progress.total:
            print(f"\r{describe(progress)}\x1b[K", end="", file=out, flush=True)
        await trio.sleep(REDRAW_SECONDS)


async def _show_in_lines(progress: Progress, out: TextIO) -> None:
    told = 0
    while True:
        if progress.total and (percent := 100 * progress.done // progress.total) >= told + STEP_PERCENT:
            told = percent - percent % STEP_PERCENT
            print(describe(progress), file=out, flush=True)
        await trio.sleep(REDRAW_SECONDS)


def describe(progress: Progress) -> str:
    """ "42 %  731 of 1740 MiB  512.3 MiB/s  2 s left" """
    words = [
        f"{100 * progress.done // max(1, progress.total):3} %",
        f"{progress.done // MIB} of {progress.total // MIB} MiB",
    ]
    if progress.rate:
        words.append(f"{progress.rate / MIB:.1f} MiB/s")
    if (left := progress.seconds_left) is not None:
        minutes, seconds = divmod(round(left), 60)
        words.append(f"{minutes} min {seconds} s left" if minutes else f"{seconds} s left")
    return "  ".join(words)
