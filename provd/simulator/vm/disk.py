"""Makes a disk that UEFI and BIOS boot: an MBR, a small FAT for UEFI, and ext4 for all the rest.

Knows nothing of what is installed. Uses mkfs.ext4 of the host and mkdosfs of busybox.
"""

import struct
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from attrs import frozen

from provd.simulator.machine.refusal import InstallerRefused
from provd.simulator.vm.places import BUSYBOX, TARGET

_SECTOR = 512
_FIRST = 2048
"""Where the first partition begins, in sectors: GRUB's core lies in between."""
_ESP = 40 << 11
"""40 MiB: the least that FAT32 takes with a sector for a cluster is 33."""
# What GRUB 2.06 can read, whatever the host's mke2fs.conf says.
_FEATURES = "none,has_journal,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file"


@frozen(kw_only=True)
class Layout:
    """Partitions as (type, first sector, sectors)."""

    partitions: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, size: int) -> "Layout":
        """For a disk of `size` bytes. Raises `InstallerRefused` for one that is too small."""
        end = min(size // _SECTOR, (1 << 32) - 1)
        root = _FIRST + _ESP
        if end - root < 256 << 11:
            raise InstallerRefused("the disk is too small: 300 MiB at least")
        return cls(partitions=((0xEF, _FIRST, _ESP), (0x83, root, end - root)))

    def boot_record(self, boot_sector: bytes) -> bytes:
        """The first sector: GRUB's code with our partition table."""
        table = b"".join(
            struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", first, count)
            for kind, first, count in self.partitions
        )
        return boot_sector[:440].ljust(446, b"\0") + table.ljust(64, b"\0") + b"\x55\xaa"


def wipe(device: Path, size: int) -> None:
    """Destroy what a boot or a partition table could be read from, at both ends of the disk."""
    with device.open("r+b", buffering=0) as disk:
        for offset in (0, max(size - (1 << 20), 0)):
            disk.seek(offset)
            disk.write(bytes(1 << 20))


async def partition(device: Path, layout: Layout, grub: Path) -> str:
    """Partition and format the disk, put GRUB on it; returns the UUID of the root file system.

    `grub` is a directory with what `grub.build_images` writes.
    """
    with device.open("r+b", buffering=0) as disk:
        disk.write(layout.boot_record((grub / "boot.img").read_bytes()))
        disk.write((grub / "core.img").read_bytes())
    await run(BUSYBOX, "blockdev", "--rereadpt", device)
    esp, root = partitions(device)
    identity = str(uuid.uuid4())
    await run(BUSYBOX, "mkdosfs", "-n", "EFI", esp)
    await run(
        *("mkfs.ext4", "-q", "-F", "-O", _FEATURES, "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
        *("-L", "pve-root", "-U", identity, root),
    )
    with mounted(esp, "vfat") as files:
        loader = files / "EFI/BOOT/BOOTX64.EFI"
        loader.parent.mkdir(parents=True)
        loader.write_bytes((grub / "BOOTX64.EFI").read_bytes())
    return identity


def partitions(device: Path) -> tuple[Path, Path]:
    """The nodes of the two: /dev/vda1, but /dev/nvme0n1p1."""
    infix = "p" if device.name[-1].isdigit() else ""
    return Path(f"{device}{infix}1"), Path(f"{device}{infix}2")


@contextmanager
def mounted(node: Path, kind: str) -> Iterator[Path]:
    """The file system at `TARGET`, written out when the block ends."""
    TARGET.mkdir(exist_ok=True)
    subprocess.run([BUSYBOX, "mount", "-t", kind, node, TARGET], check=True)
    try:
        yield TARGET
    finally:
        subprocess.run([BUSYBOX, "umount", TARGET], check=True)


async def run(*command: str | Path) -> None:
    """Raise `InstallerRefused` with what the program said."""
    done = await trio.run_process(
        [str(word) for word in command], check=False, capture_stdout=True, capture_stderr=True
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise InstallerRefused(f"{' '.join(map(str, command))}: {said}")
