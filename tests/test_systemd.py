"""The service manager's side, played by a real socket; and the unit file, judged by systemd itself."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from provd.systemd import feed_watchdog, notify, watchdog_interval

UNIT = Path(__file__).parent.parent / "systemd" / "provd.service"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket, and what $NOTIFY_SOCKET says of it."""
    name = f"{tmp_path}/notify" if request.param == "path" else f"@provd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0"))
        sock.settimeout(5)
        yield sock, name


def test_the_manager_is_told(manager: tuple[socket.socket, str]) -> None:
    """Assignments and fields go as lines of one datagram, through either kind of socket."""
    sock, address = manager
    assert notify("READY=1", environ={"NOTIFY_SOCKET": address}, STATUS="3 operations", MAINPID=7)
    assert sock.recv(4096) == b"READY=1\nSTATUS=3 operations\nMAINPID=7"


def test_a_value_cannot_smuggle_an_assignment(manager: tuple[socket.socket, str]) -> None:
    """A line break in a status stays inside the status."""
    sock, address = manager
    notify(environ={"NOTIFY_SOCKET": address}, STATUS="evil\nMAINPID=1")
    assert sock.recv(4096) == b"STATUS=evil MAINPID=1"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "/nowhere/at/all", "@provd-nobody-listens"])
def test_without_a_manager_nothing_happens(address: str | None) -> None:
    """No socket, one of a kind we do not speak, or one that is gone: no error, and nobody is told."""
    environ = {} if address is None else {"NOTIFY_SOCKET": address}
    assert notify("READY=1", environ=environ) is False


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_thrice_per_interval(environ: dict[str, str], interval: float | None) -> None:
    """The manager's patience is shared out, and only where it is meant for this process."""
    assert watchdog_interval(environ) == interval


async def test_the_watchdog_is_fed_until_cancelled(
    manager: tuple[socket.socket, str], autojump_clock: trio.testing.MockClock
) -> None:
    """One feed at once, then one per interval: 4 in 35 seconds of 10."""
    sock, address = manager
    with trio.move_on_after(35):
        await feed_watchdog(10, environ={"NOTIFY_SOCKET": address})
    sock.setblocking(False)
    assert [sock.recv(64) for _ in range(4)] == [b"WATCHDOG=1"] * 4
    with pytest.raises(BlockingIOError):
        sock.recv(64)


async def test_nobody_waits_for_a_watchdog_that_is_not_there() -> None:
    """Without an interval the task is over at once."""
    with trio.fail_after(1):
        await feed_watchdog(None)


@needs_systemd
def test_the_unit_is_understood(tmp_path: Path) -> None:
    """systemd finds nothing to complain about, once the programs it names exist."""
    copy = tmp_path / "provd.service"
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/provd", "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_systemd
def test_the_unit_is_closed(tmp_path: Path) -> None:
    """systemd's own judgement of the exposure stays at or below 2.0 of 10."""
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-300:] + result.stderr


@needs_systemd
def test_the_commented_lines_of_the_unit_are_understood(tmp_path: Path) -> None:
    """Whoever takes the # away gets directives that systemd knows."""
    text = re.sub(r"^#(?=[A-Z][A-Za-z]+=)", "", UNIT.read_text(), flags=re.MULTILINE)
    assert text.count("\nLoadCredential=") == 5
    copy = tmp_path / "provd.service"
    copy.write_text(text.replace("/usr/local/bin/provd", "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
