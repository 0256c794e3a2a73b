"""Processes that belong to a rack: each with a log of its own, ended by its id, the last one first."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, STDOUT

import trio

GRACE_SECONDS = 5.0


@asynccontextmanager
async def started(
    command: Sequence[str],
    log: Path,
    *,
    environ: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[trio.Process]:
    """Run `command` until the block ends; what it says is appended to `log`."""
    process = await start(command, log, environ=environ, pass_fds=pass_fds)
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):  # bounded by `end`
            await end(process)


async def start(
    command: Sequence[str],
    log: Path,
    *,
    environ: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> trio.Process:
    with log.open("ab") as file:
        return await trio.lowlevel.open_process(
            command,
            stdin=DEVNULL,
            stdout=file,
            stderr=STDOUT,
            env={**os.environ, **(environ or {})},
            pass_fds=pass_fds,
            # Ctrl-C is for who started the rack, and who ends the rest in order.
            start_new_session=True,
        )


async def end(process: trio.Process) -> None:
    """Ask, and after a while insist."""
    if process.poll() is not None:
        return
    process.terminate()
    with trio.move_on_after(GRACE_SECONDS):
        await process.wait()
        return
    process.kill()
    await process.wait()
