"""Log lines: for journald with fields, for a terminal with colours, for anything else plain.

One record is one line in every form, whatever a machine on the network managed to get into a
message: control characters are made visible before they are written. Only a traceback, which means
a bug, takes more lines, and those are indented so that none of them can pass for a record.

Who is spoken of (`log_context`) travels in a context variable: child tasks and worker threads
inherit it. This file knows no hosts and no operations beyond their name and number.
"""

import fcntl
import logging
import os
import socket
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from errno import EMSGSIZE, ENOBUFS
from logging.handlers import DatagramHandler
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from attrs import frozen

from provd.domain.documents import one_line

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer  # collections.abc.Buffer is younger than 3.11

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
JOURNAL_PATIENCE = 0.5
"""Seconds a record may wait for a busy journald. Then it is lost: the loop is worth more."""
LONGEST_MESSAGE = 8192
"""Characters. Longer than anything provd says itself; a bound for what it quotes."""

FOREIGN_LEVELS: Mapping[str, int] = {
    # Access logs hold query strings, and those may hold tokens: not at any level.
    "hypercorn.access": logging.CRITICAL + 1,
    "hypercorn": logging.WARNING,
    "quart": logging.WARNING,
    # httpx writes the whole URL of every request at INFO.
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    # Its transport logs a traceback for every refused login; provd raises SshFailed for those.
    "paramiko": logging.CRITICAL,
    "scapy": logging.ERROR,
    "tftpy": logging.WARNING,
    "watchfiles": logging.WARNING,
    "asyncio": logging.WARNING,
}

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""syslog(3) priorities of the levels."""

COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}
"""SGR parameters (ECMA-48 §8.3.117); INFO stays as it is."""


@frozen(kw_only=True)
class Context:
    host: str = ""
    operation: int | None = None


NOBODY = Context()
CONTEXT: ContextVar[Context] = ContextVar("provd.journal", default=NOBODY)


@contextmanager
def log_context(*, host: str | None = None, operation: int | None = None) -> Iterator[None]:
    """Name the host and the operation on every line logged inside, in child tasks and threads too.

    What is not given stays as it is outside.
    """
    outer = CONTEXT.get()
    inner = Context(
        host=outer.host if host is None else host,
        operation=outer.operation if operation is None else operation,
    )
    token = CONTEXT.set(inner)
    try:
        yield
    finally:
        CONTEXT.reset(token)


class ContextFilter(logging.Filter):
    """Gives every record `host`, `operation` and `event`; what the call gave as `extra` wins."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = CONTEXT.get()
        defaults = {"host": context.host, "operation": context.operation, "event": ""}
        record.__dict__.update({name: value for name, value in defaults.items() if not hasattr(record, name)})
        return True


def set_up(stream: TextIO, environ: Mapping[str, str]) -> None:
    """Send everything that is logged to `stream`, or to the journal where `stream` ends there anyway.

    Call it when the libraries are imported: scapy installs a handler of its own on import, and
    that is taken out here.
    """
    handler = choose_handler(stream, environ)
    handler.addFilter(ContextFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name, level in FOREIGN_LEVELS.items():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(level)


def choose_handler(
    stream: TextIO, environ: Mapping[str, str], journal: Path = JOURNAL_SOCKET
) -> logging.Handler:
    """The journal's own protocol if `stream` ends there (systemd.exec(5), $JOURNAL_STREAM), else lines."""
    lines = logging.StreamHandler(stream)
    lines.setFormatter(TerminalFormatter("NO_COLOR" not in environ) if stream.isatty() else LineFormatter())
    with suppress(OSError):  # a stream without a descriptor, or no journal to be reached
        status = os.fstat(stream.fileno())
        if environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
            return JournalHandler(journal)
    return lines


def subject(record: logging.LogRecord) -> str:
    """Who a record is about: `node1 op 17`, `node1`, `op 17` or nothing."""
    host, operation = getattr(record, "host", ""), getattr(record, "operation", None)
    return one_line(" ".join([*([str(host)] if host else []), *([f"op {operation}"] if operation else [])]))


class LineFormatter(logging.Formatter):
    """`warning node1 op 17: the message`. No time: whatever keeps plain lines stamps them."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()} {self.body(record)}"

    def body(self, record: logging.LogRecord) -> str:
        about = subject(record)
        message = one_line(record.getMessage(), LONGEST_MESSAGE)
        return "\n".join([f"{about}: {message}" if about else message, *self.traceback(record)])

    def traceback(self, record: logging.LogRecord) -> list[str]:
        """Indented; empty unless the record carries an exception."""
        if not record.exc_info:
            return []
        return [
            "    | " + one_line(line, LONGEST_MESSAGE)
            for line in self.formatException(record.exc_info).splitlines()
        ]


class TerminalFormatter(LineFormatter):
    """Time, level, who, message, in columns, coloured by level."""

    def __init__(self, coloured: bool) -> None:
        super().__init__()
        self.coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = self.paint(f"{record.levelname.lower():8}", COLOURS.get(record.levelno, ""))
        about = self.paint(f"{subject(record):16}", "36")
        line = f"{self.paint(clock, '2')} {level} {about} {one_line(record.getMessage(), LONGEST_MESSAGE)}"
        return "\n".join([line, *self.traceback(record)])

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured and colour else text


class JournalHandler(DatagramHandler):
    """Speaks journald's native protocol (systemd's docs/JOURNAL_NATIVE_PROTOCOL.md).

    `journalctl PROVD_HOST=node1` and `-p warning` then filter by field. Plain `journalctl -f`
    shows MESSAGE only, so host and operation stand in the text as well. Raises `OSError` when
    made where there is no journal. A record that the journal does not take is counted, and the
    next one tells how many were lost.
    """

    def __init__(self, address: Path = JOURNAL_SOCKET) -> None:
        os.stat(address)
        super().__init__(str(address), None)
        self.lost = 0

    def makePickle(self, record: logging.LogRecord) -> bytes:  # noqa: N802
        """The datagram; the name is the base class's."""
        return encode({**journal_fields(record), **({"PROVD_LOST": self.lost} if self.lost else {})})

    def send(self, datagram: "Buffer") -> None:
        """To the address anew each time: a restarted journald has a new socket there."""
        if self.sock is None:
            self.sock = self.makeSocket()
        # Waiting once is enough: while records get lost, none is waited for.
        self.sock.settimeout(0 if self.lost else JOURNAL_PATIENCE)
        try:
            try:
                self.sock.sendto(datagram, self.host)
            except OSError as exc:
                if exc.errno not in (EMSGSIZE, ENOBUFS):
                    raise
                send_as_file(self.sock, datagram, self.host)
            self.lost = 0
        except OSError:
            self.lost += 1


def send_as_file(sock: socket.socket, datagram: "Buffer", address: str) -> None:
    """What is too big for a datagram goes as the descriptor of a sealed memfd."""
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    with open(os.memfd_create("provd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as file:
        file.write(datagram)
        file.flush()
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
        # No payload beside the descriptor: journald takes the one or the other.
        sock.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [file.fileno()]))], 0, address)


def journal_fields(record: logging.LogRecord) -> dict[str, object]:
    """A record as journal fields; those without a value are left out."""
    fields = {
        "MESSAGE": LineFormatter().body(record),
        "PRIORITY": PRIORITIES.get(record.levelno, 5),
        "SYSLOG_IDENTIFIER": "provd",
        "LOGGER": record.name,
        "PROVD_HOST": getattr(record, "host", None),
        "PROVD_OPERATION": getattr(record, "operation", None),
        "PROVD_EVENT": getattr(record, "event", None),
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


def encode(fields: Mapping[str, object]) -> bytes:
    """`NAME=value` lines; a value of more than one line goes with its length in front."""
    parts = []
    for name, value in fields.items():
        data = str(value).encode(errors="replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
