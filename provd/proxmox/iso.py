"""What a Proxmox VE ISO is, and how one is made ready to be installed from over the network.

Ready means one more file on it, /auto-installer-mode.toml, which tells the installer where to ask for
its answer. Here only its place is made: `MODE_FILE_SIZE` bytes at a known offset, over which the real
content is laid whenever the image is served. So a changed address needs no second copy of the ISO.
Where files lie on disk is not known here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from attrs import frozen

from provd.domain.documents import one_line
from provd.domain.errors import BadImage
from provd.proxmox.iso9660 import Entry, Patch, Volume
from provd.proxmox.mode_file import MODE_FILE_SIZE

KERNEL, INITRD = "/boot/linux26", "/boot/initrd.img"
INFO = "/.cd-info"
UNATTENDED_MARK = "/auto-installer-capable"
"""There since PVE 8.2, for those who prepare an ISO; the installer itself does not look at it."""
MARKS = ("/.pve-cd-id.txt", "/proxmox", KERNEL, INITRD)

MODE_FILE, MODE_FILE_IDENTIFIER = "auto-installer-mode.toml", b"AUTO_INSTALLER_MODE.TOML;1"
PLACEHOLDER = b"# provd lays its own content over this when it serves the image.\n".ljust(
    MODE_FILE_SIZE, b"\n"
)
"""No mode in it: an installer that ever saw this would stop and not guess."""

LARGEST_INFO = 4096
LARGEST_BOOT_FILE = 1 << 30
"""Kernel and initrd go into the memory of a machine."""

PRODUCTS = {"pve": "Proxmox VE", "pbs": "Proxmox Backup Server", "pmg": "Proxmox Mail Gateway"}
INFO_LINE = re.compile(r"""([A-Z]+)=['"]?([^'"]*)['"]?\s*""")
WORD = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,39}")
RELEASE = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}[0-9A-Za-z.+~-]{0,20}")


@frozen(kw_only=True)
class ProxmoxIso:
    """What an ISO says of itself, and how it is to be changed."""

    name: str
    """As Proxmox names the file: "proxmox-ve_9.2-1"."""
    product: str
    """"pve"."""
    release: str
    """"9.2-1"."""
    size: int
    """Bytes of the file as it is."""
    kernel: Entry
    initrd: Entry
    patches: Sequence[Patch]
    """What makes it ready. All are in the image or directly behind its end."""
    mode_offset: int
    prepared_size: int


def inspect(file: BinaryIO) -> ProxmoxIso:
    """Raises `BadImage` for whatever provd cannot install from. Reads a few kilobytes, writes nothing."""
    volume = Volume(file)
    info = _read_info(volume)
    product, release = info.get("PRODUCT", ""), f"{info.get('RELEASE', '')}-{info.get('ISORELEASE', '')}"
    if product != "pve":
        called = PRODUCTS.get(product) or one_line(
            info.get("PRODUCTLONG") or product or "nothing it says", 60
        )
        raise BadImage(f"the image is {called}; provd installs Proxmox VE")
    if not RELEASE.fullmatch(release):
        raise BadImage(f"the image says it is Proxmox VE {one_line(release, 60)}, which is no release")
    if volume.find(UNATTENDED_MARK) is None:
        raise BadImage(f"Proxmox VE {release} cannot install unattended; 8.2 is the first that can")
    for mark in MARKS:
        if volume.find(mark) is None:
            raise BadImage(f"the image has no {mark}: it is not a Proxmox VE installer as Proxmox makes it")
    patches, mode_offset = volume.plan_file(MODE_FILE, MODE_FILE_IDENTIFIER, PLACEHOLDER)
    iso_name = info.get("ISONAME", "")
    return ProxmoxIso(
        name=f"{iso_name if WORD.fullmatch(iso_name) else 'proxmox-ve'}_{release}",
        product=product,
        release=release,
        size=volume.file_size,
        kernel=_boot_file(volume, KERNEL),
        initrd=_boot_file(volume, INITRD),
        patches=patches,
        mode_offset=mode_offset,
        prepared_size=max(patch.offset + len(patch.data) for patch in patches),
    )


def mode_file_offset(file: BinaryIO) -> int:
    """Where the placeholder lies in a prepared image, looked up as an installer would. `BadImage`."""
    volume = Volume(file)
    entry = volume.find(MODE_FILE)
    if entry is None or volume.read(entry, MODE_FILE_SIZE) != PLACEHOLDER:
        raise BadImage(f"the prepared image has no /{MODE_FILE} of provd's")
    return entry.offset


def patched(start: int, piece: bytes, patches: Sequence[Patch]) -> bytes:
    """`piece`, which begins at `start` of an image, as it is with `patches` written over it."""
    changed: bytearray | None = None
    for patch in patches:
        first = max(patch.offset, start)
        last = min(patch.offset + len(patch.data), start + len(piece))
        if first < last:
            changed = changed or bytearray(piece)
            changed[first - start : last - start] = patch.data[first - patch.offset : last - patch.offset]
    return piece if changed is None else bytes(changed)


def _boot_file(volume: Volume, path: str) -> Entry:
    entry = volume.find(path)
    if entry is None or entry.is_directory or entry.in_pieces or not 0 < entry.size <= LARGEST_BOOT_FILE:
        raise BadImage(f"{path} in the image is not what a machine could boot")
    if entry.offset + entry.size > volume.size:
        raise BadImage(f"{path} in the image is cut off; fetch the image again")
    return entry


def _read_info(volume: Volume) -> Mapping[str, str]:
    entry = volume.find(INFO)
    if entry is None or entry.is_directory:
        raise BadImage("this is an ISO image, but not one of Proxmox'")
    text = volume.read(entry, LARGEST_INFO).decode(errors="replace")
    lines = (INFO_LINE.fullmatch(line) for line in text.splitlines())
    return {line[1]: line[2] for line in lines if line}
