"""How much memory a machine needs to be installed over the network, by release.

Kernel, initrd and ISO are all in memory when Linux starts, the ISO twice: as it was loaded and as a
file, and files there may take up half of the memory (tmpfs). Too little shows as "no device with valid
ISO found" or "No space left on device", long after the machine left our sight.
"""

from provd.proxmox.mode_file import version_of

NEEDED_MIB = (((9, 0), 8 * 1024), ((8, 2), 6 * 1024))
"""Newest first. Measured: 8.4-1 starts with 5.5 GiB and not with 4, 9.2-1 with 6 and not with 5.5; a
9.x ran out of space with 7 in the middle of its installation."""
KEPT_BACK = 0.1
"""Of the memory that is built in: firmware and graphics take their share before anybody counts."""


def memory_needed(release: str) -> int:
    """MiB that a machine should have built in to install `release` ("9.2-1"). Raises `Invalid`."""
    version = version_of(release)
    return next((mib for since, mib in NEEDED_MIB if version >= since), NEEDED_MIB[-1][1])


def fits(release: str, memory_mib: int | None) -> bool:
    """Whether a machine that counts so much memory can install `release`; None, not known: it may."""
    return memory_mib is None or memory_mib >= memory_needed(release) * (1 - KEPT_BACK)
