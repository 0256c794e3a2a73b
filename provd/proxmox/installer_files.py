"""What a machine reads to become an installer: kernel, initrd, ISO, and the last two as one initrd.

A prepared ISO has room for `auto-installer-mode.toml`, which names the URL to ask for an answer. The
room is filled here, while the ISO is served: a changed URL costs nothing. Who may read these files is
not known here, nor how they get onto the wire.

The installer's own initrd looks for `/proxmox.iso` inside itself before it looks at any disk (PVE 8.2
to 9.2). iPXE can put it there, as a second initrd, in EFI builds since May 2021. `installer.img` has it
inside already, and works with every loader that can load one initrd.
"""

import os
import stat
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from attrs import frozen

from provd.domain.errors import BadImage
from provd.domain.virtual_file import Extent, Part, VirtualFile
from provd.proxmox.mode_file import MODE_FILE_SIZE

KERNEL, INITRD, ISO = "vmlinuz", "initrd.img", "proxmox.iso"
MERGED = "installer.img"

LARGEST_MEMBER = 0xFFFF_FFFF
"""The length of a newc member has eight hexadecimal digits (cpio(5))."""
REGULAR_0644 = 0o100644


def installer_files(directory: Path, mode_offset: int, mode_file: bytes) -> Mapping[str, VirtualFile]:
    """The four files by name, from the three in `directory`; looks at them and reads nothing.

    `mode_file` lies over the ISO's bytes from `mode_offset` on. Raises `BadImage`.
    """
    kernel, initrd, iso = (find(directory / name) for name in (KERNEL, INITRD, ISO))
    if len(mode_file) != MODE_FILE_SIZE:
        raise BadImage(f"a mode file has {MODE_FILE_SIZE} bytes, not {len(mode_file)}")
    if not 0 <= mode_offset <= iso.size - MODE_FILE_SIZE:
        raise BadImage(f"{iso.path} ends before the place of its mode file: import the image again")
    if iso.size > LARGEST_MEMBER:
        raise BadImage(f"{iso.path} has {iso.size} bytes, and an initrd cannot hold a file of 4 GiB or more")

    behind = mode_offset + MODE_FILE_SIZE
    disc: tuple[Part, ...] = (
        Extent(iso.path, 0, mode_offset),
        mode_file,
        Extent(iso.path, behind, iso.size - behind),
    )
    # The kernel ignores an archive that does not start at a multiple of four (init/initramfs.c).
    head = to_four(initrd.size) + member(ISO.encode(), REGULAR_0644, iso.size)
    tail = to_four(iso.size) + member(b"TRAILER!!!", 0, 0)
    return {
        KERNEL: VirtualFile((kernel.whole,), etag(KERNEL, kernel)),
        INITRD: VirtualFile((initrd.whole,), etag(INITRD, initrd)),
        ISO: VirtualFile(disc, etag(ISO, iso, mode_file)),
        MERGED: VirtualFile((initrd.whole, head, *disc, tail), etag(MERGED, initrd, iso, mode_file)),
    }


@frozen
class Found:
    """A file on disk, as it was when it was looked at."""

    path: Path
    size: int
    changed: int
    """Nanoseconds, of its content."""

    @property
    def whole(self) -> Extent:
        return Extent(self.path, 0, self.size)


def find(path: Path) -> Found:
    """Raises `BadImage` for what is no file, or an empty one."""
    try:
        seen = os.stat(path)
    except OSError as exc:
        raise BadImage(f"{path} cannot be read: {(exc.strerror or str(exc)).lower()}") from exc
    if not stat.S_ISREG(seen.st_mode) or not seen.st_size:
        raise BadImage(f"{path} is not a file with something in it: import the image again")
    return Found(path, seen.st_size, seen.st_mtime_ns)


def etag(name: str, *sources: Found | bytes) -> str:
    """A new one whenever a source may have changed. Nothing is read: an ISO has gigabytes."""
    digest = blake2b(name.encode(), digest_size=16)
    for source in sources:
        known = f" {source.size} {source.changed}".encode() if isinstance(source, Found) else source
        digest.update(known)
    return f'"{digest.hexdigest()}"'


def member(name: bytes, mode: int, size: int) -> bytes:
    """The header of a file in a "new ASCII" cpio archive (cpio(5)), padded to where its content starts."""
    # inode, mode, owner, group, links, time, size, device, device of a node, length of the name, checksum
    numbers = (0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers) + name + b"\0"
    return header + to_four(len(header))


def to_four(length: int) -> bytes:
    return bytes(-length % 4)
