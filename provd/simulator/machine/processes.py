"""Ends a process with everything that descends from it, as pulling a plug does.

By parentage and pid only: a process that we did not start is never touched.
"""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import trio


def kill_tree(pid: int) -> None:
    """SIGKILL `pid` and its descendants. Each is stopped first, so that none can fork away meanwhile."""
    doomed: list[int] = []
    fresh = {pid}
    while fresh:
        for one in fresh:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
        doomed.extend(fresh)
        parents = _parents()
        fresh = {child for child, parent in parents.items() if parent in doomed} - set(doomed)
    for one in doomed:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


async def kill_process_tree(process: trio.Process) -> None:
    """The `deliver_cancel` of `trio.run_process`."""
    kill_tree(process.pid)


def _parents() -> dict[int, int]:
    """Every process and its parent."""
    if Path("/proc/self/stat").exists():
        table = {}
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it ended while we looked
                words = file.read_text(errors="replace").rpartition(")")[2].split()
                table[int(file.parent.name)] = int(words[1])
        return table
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    return {int(pid): int(parent) for pid, parent in (line.split() for line in listing.stdout.splitlines())}
