"""Whether the kernel's clock is kept by NTP: adjtimex(2), read only."""

import ctypes
import errno
import os
import sys
from pathlib import Path

from provd.doctor.findings import Finding, ok, skipped, warning

TIMESYNCD = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd touches it when it has set the clock (systemd-timesyncd.service(8))."""

TIMEX_SIZE = 256
"""struct timex has 208 bytes where a long has eight."""
STATUS_AT = 40
"""Behind `modes`, padded, and four longs."""
STA_UNSYNC = 0x40


def look_at_clock() -> Finding:
    try:
        kept = TIMESYNCD.exists() or not status() & STA_UNSYNC
    except OSError as exc:
        return skipped("clock", f"whether NTP keeps this machine's clock cannot be seen: {exc.strerror}")
    if kept:
        return ok("clock", "this machine's clock is kept by NTP")
    return warning(
        "clock",
        "this machine's clock is not kept by NTP",
        "timedatectl set-ntp true, or apt install chrony. Certificates and join tickets need the right time.",
    )


def status() -> int:
    """The kernel's STA_ bits. Raises `OSError`, as where systemd's ProtectClock= forbids the call."""
    if sys.maxsize < 2**32:
        raise OSError(errno.ENOSYS, "struct timex is known for 64-bit machines only")
    libc = ctypes.CDLL(None, use_errno=True)
    timex = ctypes.create_string_buffer(TIMEX_SIZE)
    if libc.adjtimex(timex) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int.from_bytes(timex.raw[STATUS_AT : STATUS_AT + 4], sys.byteorder)
