"""What provd tells the service manager: ready, reloading, stopping, still alive.

The protocol is one datagram of `NAME=value` lines to the socket named in $NOTIFY_SOCKET
(sd_notify(3)). Where there is no such socket nobody asked, and every call here does nothing.
"""

import os
import socket
from collections.abc import Mapping

import trio

FEEDS_PER_INTERVAL = 3
"""sd_watchdog_enabled(3) asks for two or more; a third one lets a single late feed pass."""


def notify(*assignments: str, environ: Mapping[str, str] | None = None, **fields: str | int) -> bool:
    """Tell the service manager `notify("READY=1")` or `notify(READY=1, STATUS="3 operations")`.

    Returns whether somebody was told. Never raises for a manager that is absent or gone: provd
    works as well without one. A line break in a value becomes a space, so that no text can smuggle
    in an assignment of its own.
    """
    address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # the abstract namespace, unix(7)
        address = "\0" + address[1:]
    lines = [*assignments, *(f"{name}={value}" for name, value in fields.items())]
    message = "\n".join(" ".join(line.splitlines()) for line in lines)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(message.encode(errors="replace"), address)
    except OSError:
        return False
    return True


def watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Seconds between two feeds, or None where no watchdog waits for this process.

    The manager gives its patience in $WATCHDOG_USEC and the process it means in $WATCHDOG_PID.
    """
    patience = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not (patience.isdecimal() and int(patience)) or meant != str(os.getpid()):
        return None
    return int(patience) / 1_000_000 / FEEDS_PER_INTERVAL


async def feed_watchdog(interval: float | None, *, environ: Mapping[str, str] | None = None) -> None:
    """Say "still alive" every `interval` seconds until cancelled; return at once for None.

    Runs as a task of the loop, not as a thread: a blocked loop must starve the watchdog.
    """
    if interval is None:
        return
    while True:
        notify("WATCHDOG=1", environ=environ)
        await trio.sleep(interval)
