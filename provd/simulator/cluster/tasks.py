"""Worker tasks: their UPID, their log file, and what can be read off that file later."""

import os
import re
from pathlib import Path

from attrs import frozen

SHAPE = re.compile(
    r"UPID:(?P<node>[^:/]+):(?P<pid>[0-9A-F]{8}):(?P<pstart>[0-9A-F]{8,9}):(?P<starttime>[0-9A-F]{8})"
    r":(?P<type>[^:/\s]+):(?P<id>[^:/\s]*):(?P<user>[^:/\s]+):"
)


@frozen(kw_only=True)
class Upid:
    node: str
    pid: int
    pstart: int
    starttime: int
    type: str
    id: str = ""
    user: str = "root@pam"

    @classmethod
    def parse(cls, text: str) -> "Upid | None":
        found = SHAPE.fullmatch(text)
        if found is None:
            return None
        numbers = {key: int(found[key], 16) for key in ("pid", "pstart", "starttime")}
        return cls(node=found["node"], type=found["type"], id=found["id"], user=found["user"], **numbers)

    def __str__(self) -> str:
        return (
            f"UPID:{self.node}:{self.pid:08X}:{self.pstart:08X}:{self.starttime:08X}"
            f":{self.type}:{self.id}:{self.user}:"
        )

    def file(self, root: Path) -> Path:
        """In one of sixteen directories, by the last digit of the start time."""
        return root / "var/log/pve/tasks" / f"{self.starttime & 15:X}" / str(self)


def process_start(pid: int) -> int:
    """Clock ticks after boot, from /proc; 0 where there is no such thing."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        return 0


def exit_status(log: Path, upid: Upid) -> str | None:
    """`OK`, the error's text, or None while the task runs."""
    last = log.read_text(errors="replace").rstrip("\n").rpartition("\n")[2]
    if last == "TASK OK":
        return "OK"
    if last.startswith("TASK ERROR: "):
        return last.removeprefix("TASK ERROR: ")
    try:
        os.kill(upid.pid, 0)
    except ProcessLookupError:
        return "unexpected status"
    return None
