"""The `provd` command as an operator runs it: a process of its own, beside the daemon or without one."""

import subprocess
import sys
from pathlib import Path

import trio
from attrs import frozen

from endtoend.world import PATIENCE


@frozen
class Ended:
    status: int
    out: str
    err: str


async def provd(*arguments: str, config: Path | None = None) -> Ended:
    """Run it until it ends."""
    command = [sys.executable, "-W", "error", "-m", "provd", *arguments]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command if config is None else [*command, "--config", str(config)],
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
