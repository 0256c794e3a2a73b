"""The three streams of `pvecm add`; what goes to the first is also the log of its task."""

import os
import sys
import termios
import time
import tty
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from provd.simulator.cluster.tasks import Upid, process_start

STARTED = "PROVD_TASK_START"  # set by an API server that has told the task's name already


class Died(Exception):
    """The last words of a worker: one line on stderr, while the exit status stays 0."""


class Console:
    """`say` is unbuffered, and notices when nobody listens any more."""

    def __init__(self) -> None:
        self.interactive = os.isatty(0)
        self._input: BinaryIO = sys.stdin.buffer
        self._log: BinaryIO | None = None

    def open_log(self, root: Path, node: str, kind: str) -> None:
        started = int(os.environ.get(STARTED) or time.time())
        pid = os.getpid()
        upid = Upid(node=node, pid=pid, pstart=process_start(pid), starttime=started, type=kind)
        file = upid.file(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._log = file.open("ab", buffering=0)

    def say(self, text: str) -> None:
        """Raise `Died` if the reader has gone."""
        data = text.encode()
        if self._log:
            self._log.write(data)
        try:
            while data:
                data = data[os.write(1, data) :]
        except (BrokenPipeError, ConnectionResetError) as exc:
            # The blank is the original's: its message ends in a newline, which becomes one.
            raise Died("broken pipe ") from exc

    def end(self, died: Died | None) -> None:
        """Close the log, and say what went wrong where someone may still listen."""
        words = str(died).replace("\n", " ") if died else ""
        if self._log:
            self._log.write(f"TASK ERROR: {words.rstrip()}\n".encode() if died else b"TASK OK\n")
            self._log.close()
        if died:
            with suppress(BrokenPipeError, ConnectionResetError):
                os.write(2, f"{words}\n".encode())

    def read_line(self) -> str | None:
        """One line without its end, or None when there will never be one."""
        line = self._input.readline()
        return line.decode(errors="replace").rstrip("\r\n") if line else None

    def read_password(self, prompt: str) -> str:
        if not self.interactive:
            line = self.read_line()
            if line is None:
                raise Died("EOF while reading password")
            return line
        return self._read_hidden(prompt)

    def _read_hidden(self, prompt: str) -> str:
        """A star per byte; TAB, or backspace at the start, turns the stars off (PVE::PTY of PVE 9)."""
        before = termios.tcgetattr(0)
        typed = bytearray()
        stars = True
        tty.setraw(0, termios.TCSADRAIN)
        try:
            os.write(1, prompt.encode())  # only now: whoever waits for it is not echoed in clear
            while True:
                byte = os.read(0, 1)
                if byte in (b"\r", b"\n", b"\x04", b""):
                    os.write(1, b"\r\n")
                    return typed.decode(errors="replace")
                if byte == b"\x03":
                    raise Died("password input aborted")
                if byte == b"\t" or (byte in b"\x7f\b" and not typed):
                    stars = False
                elif byte in b"\x7f\b":
                    del typed[-1]
                    echo = b"\b \b"
                    os.write(1, echo if stars else b"")
                else:
                    typed += byte
                    os.write(1, b"*" if stars else b"")
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
