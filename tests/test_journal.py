"""Log records: one line each in every form, with their subject; the journal's side is a real socket."""

import io
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from provd.journal import (
    FOREIGN_LEVELS,
    ContextFilter,
    JournalHandler,
    LineFormatter,
    TerminalFormatter,
    choose_handler,
    encode,
    log_context,
    set_up,
)


def logger_to(handler: logging.Handler) -> logging.Logger:
    """A logger outside the tree, so that nothing of a test stays behind."""
    handler.addFilter(ContextFilter())
    logger = logging.Logger("provd.test")
    logger.addHandler(handler)
    return logger


@pytest.fixture
def lines() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(lines: io.StringIO) -> logging.Logger:
    handler = logging.StreamHandler(lines)
    handler.setFormatter(LineFormatter())
    return logger_to(handler)


class Journal:
    """journald's socket, and its reading of the native protocol."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(5)

    def receive(self) -> dict[str, str]:
        data, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 4)
        if fds:
            assert data == b"", "journald takes a payload or a descriptor, not both"
            with open(fds[0], "rb") as file:
                file.seek(0)
                data = file.read()
                with pytest.raises(PermissionError):  # sealed: nobody can change it any more
                    os.truncate(file.fileno(), 0)
        fields = {}
        while data:
            head, _, data = data.partition(b"\n")
            name, equals, value = head.partition(b"=")
            if not equals:
                size = int.from_bytes(data[:8], "little")
                value, data = data[8 : 8 + size], data[9 + size :]
            fields[name.decode()] = value.decode()
        return fields


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal")
    with journal.socket:
        yield journal


@pytest.fixture
def journal_log(journal: Journal) -> Iterator[logging.Logger]:
    handler = JournalHandler(journal.path)
    yield logger_to(handler)
    handler.close()


def test_a_line_names_level_and_subject(log: logging.Logger, lines: io.StringIO) -> None:
    """Whatever is known of host and operation stands in front of the message, and only inside its context."""
    log.info("%s of %s", "one", "two")
    with log_context(host="node1"):
        log.warning("warned")
        with log_context(operation=17):
            log.error("failed", extra={"event": "operation.failed"})
        log.info("after")
    log.info("other", extra={"host": "node2"})
    assert lines.getvalue().splitlines() == [
        "info one of two",
        "warning node1: warned",
        "error node1 op 17: failed",
        "info node1: after",
        "info node2: other",
    ]


CONTROLS = set(map(chr, [*range(32), *range(127, 160), 0x202E]))


@given(st.text() | st.text(st.sampled_from("ab\n\r\x1b\x9b\u2028\u202e")))
def test_no_text_makes_a_second_line(text: str) -> None:
    """Whatever a machine got into a message, a name or an exception, no line of it can pass for a record."""
    for formatter in (LineFormatter(), TerminalFormatter(coloured=False)):
        out = io.StringIO()
        handler = logging.StreamHandler(out)
        handler.setFormatter(formatter)
        log = logger_to(handler)
        with log_context(host=text):
            log.info("%s", text)
        shown = out.getvalue()
        assert len(shown.splitlines()) == 1
        assert not set(shown[:-1]) & CONTROLS
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("bug")
        traceback = out.getvalue()[len(shown) :].splitlines()
        assert len(traceback) > 1
        assert all(line.startswith("    | ") and not set(line) & CONTROLS for line in traceback[1:])


def test_a_long_message_is_cut(log: logging.Logger, lines: io.StringIO) -> None:
    """A megabyte from a stranger does not become a megabyte of log."""
    log.info("%s", "x" * 1_000_000)
    assert 8000 < len(lines.getvalue()) < 9000


async def test_the_context_is_inherited(log: logging.Logger, lines: io.StringIO) -> None:
    """Child tasks and worker threads speak of the same host; a sibling does not."""

    async def child() -> None:
        log.info("task")
        await trio.to_thread.run_sync(log.info, "thread")

    async with trio.open_nursery() as nursery:
        with log_context(host="node1", operation=3):
            nursery.start_soon(child)
    await child()
    assert lines.getvalue().splitlines() == [
        *("info node1 op 3: task", "info node1 op 3: thread"),
        *("info task", "info thread"),
    ]


def test_the_terminal_form(lines: io.StringIO) -> None:
    """Columns of time, level, subject and message; colours only where wanted."""
    for coloured in (False, True):
        handler = logging.StreamHandler(lines)
        handler.setFormatter(TerminalFormatter(coloured))
        logger_to(handler).warning("look", extra={"host": "node1"})
    plain, colourful = lines.getvalue().splitlines()
    assert plain[8:] == " warning  node1            look"
    assert "\x1b[33mwarning \x1b[0m" in colourful


def test_the_journal_gets_fields(journal: Journal, journal_log: logging.Logger) -> None:
    """A record arrives as one entry with the fields that `journalctl` can filter by."""
    with log_context(host="node1", operation=17):
        journal_log.warning("odd: %s", "a\nb", extra={"event": "host.odd"})
    journal_log.info("plain")
    assert journal.receive() == {
        "MESSAGE": "node1 op 17: odd: a\\nb",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "provd",
        "LOGGER": "provd.test",
        "PROVD_HOST": "node1",
        "PROVD_OPERATION": "17",
        "PROVD_EVENT": "host.odd",
    }
    assert set(journal.receive()) == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "LOGGER"}


def test_a_traceback_is_one_entry(journal: Journal, journal_log: logging.Logger) -> None:
    """The journal keeps a bug's traceback together with its message."""
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        journal_log.exception("bug")
    head, *rest = journal.receive()["MESSAGE"].split("\n")
    assert head == "bug"
    assert rest[0] == "    | Traceback (most recent call last):"
    assert all(line.startswith("    | ") for line in rest)


def test_what_is_too_big_for_a_datagram_goes_as_a_file(journal: Journal, journal_log: logging.Logger) -> None:
    """A traceback of a megabyte arrives whole, in a sealed memfd."""
    try:
        raise ValueError("\n".join(["x" * 4000] * 250))
    except ValueError:
        journal_log.exception("big")
    assert len(journal.receive()["MESSAGE"]) > 1_000_000


def test_a_journal_that_is_gone_stops_nobody(journal: Journal, journal_log: logging.Logger) -> None:
    """Logging goes on without a journal; the first entry after its return tells how many were lost."""
    journal.socket.close()
    journal_log.info("lost")
    journal_log.info("lost too")
    journal.path.unlink()
    journal_log.info("and this")
    again = Journal(journal.path)
    with again.socket:
        journal_log.info("back")
        journal_log.info("well")
        assert again.receive()["PROVD_LOST"] == "3"
        assert "PROVD_LOST" not in again.receive()


def test_a_journal_that_does_not_read_is_not_waited_for_long(
    journal: Journal, journal_log: logging.Logger
) -> None:
    """When the queue of a stuck journald is full, a record is dropped instead of holding the loop."""
    handler = journal_log.handlers[0]
    assert isinstance(handler, JournalHandler)
    for number in range(10_000):
        journal_log.info("%d", number)
        if handler.lost:
            break
    assert handler.lost == 1


@given(st.dictionaries(st.from_regex("[A-Z]{1,8}", fullmatch=True), st.text(min_size=1)))
def test_any_text_survives_the_journals_encoding(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, str]
) -> None:
    """What is encoded is decoded to the same, line breaks and equals signs included."""
    path = tmp_path_factory.getbasetemp() / "encoding"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    with journal.socket, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(encode(fields), str(path))
        assert journal.receive() == {
            name: value.encode(errors="replace").decode() for name, value in fields.items()
        }


def test_the_form_fits_the_stream(tmp_path: Path, journal: Journal) -> None:
    """The journal only when the stream ends there; a terminal gets columns; all else plain lines."""
    with (tmp_path / "out").open("w") as out:
        status = os.fstat(out.fileno())
        ours = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert isinstance(choose_handler(out, ours, journal.path), JournalHandler)
        for environ, socket_path in (({"JOURNAL_STREAM": "1:2"}, journal.path), (ours, tmp_path / "none")):
            handler = choose_handler(out, environ, socket_path)
            assert type(handler.formatter) is LineFormatter
    master, slave = os.openpty()
    with open(master, "rb", buffering=0), open(slave, "w") as terminal:
        for environ, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
            formatter = choose_handler(terminal, environ, journal.path).formatter
            assert isinstance(formatter, TerminalFormatter)
            assert formatter.coloured is coloured


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Logging is global: what `set_up` changes is put back."""
    loggers = [logging.getLogger(), *map(logging.getLogger, FOREIGN_LEVELS)]
    before = [(one, one.level, one.handlers[:], one.propagate) for one in loggers]
    yield
    for one, level, handlers, propagate in before:
        one.setLevel(level)
        one.handlers[:] = handlers
        one.propagate = propagate


@pytest.mark.usefixtures("logging_restored")
def test_libraries_are_kept_in_bounds(lines: io.StringIO) -> None:
    """Only what an operator wants from libraries gets through; no request line of anybody ever does."""
    logging.getLogger("scapy").addHandler(logging.StreamHandler(lines))
    set_up(lines, {})
    for name, level, shown in [
        ("hypercorn.access", logging.CRITICAL, False),
        ("hypercorn.error", logging.INFO, False),
        ("hypercorn.error", logging.WARNING, True),
        ("httpx", logging.INFO, False),
        ("paramiko.transport", logging.ERROR, False),
        ("scapy.runtime", logging.WARNING, False),
        ("scapy.runtime", logging.ERROR, True),
        ("watchfiles.main", logging.INFO, False),
        ("provd.web", logging.INFO, True),
        ("provd.web", logging.DEBUG, False),
    ]:
        lines.seek(0)
        lines.truncate()
        logging.getLogger(name).log(level, "GET /?token=geheim")
        assert len(lines.getvalue().splitlines()) == shown, name
