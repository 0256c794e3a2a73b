"""The `provd` command as an operator runs it: a process of its own, beside the daemon or without one."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import trio
from attrs import frozen

from endtoend.world import PATIENCE


@frozen
class Ended:
    status: int
    out: str
    err: str


async def provd(
    *arguments: str,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    user: int | None = None,
) -> Ended:
    """Run it until it ends. `user`: a uid, for the superuser to become."""
    command = [sys.executable, "-W", "error", "-m", "provd", *arguments]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command if config is None else [*command, "--config", str(config)],
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, **(environ or {})},
            user=user,
        )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
