"""GRUB for a disk that UEFI and BIOS boot alike, made from Debian's packages without installing them.

Both look for their configuration on the second partition of the disk that they were started from.
"""

import subprocess
from pathlib import Path

from provd.simulator.vm.packages import CannotFetch, unpacked

PREFIX = "(,msdos2)/system/boot/grub"
_MODULES = ("part_msdos", "ext2", "normal", "linux", "configfile", "echo", "boot", "reboot", "halt")
IMAGES = {
    "BOOTX64.EFI": ("x86_64-efi", "grub-efi-amd64-bin", ()),
    "core.img": ("i386-pc", "grub-pc-bin", ("biosdisk",)),
}
"""File to GRUB's platform, Debian's package, and the modules that this platform needs besides."""


def build_images(target: Path, cache: Path) -> None:
    """Write `IMAGES` and `boot.img`, the boot sector, to the directory `target`. Raises `CannotFetch`."""
    program = unpacked("grub-common", cache) / "usr/bin/grub-mkimage"
    for name, (platform, package, more) in IMAGES.items():
        modules = unpacked(package, cache) / "usr/lib/grub" / platform
        options = ["-O", platform, "-d", str(modules), "-p", PREFIX, "-o", str(target / name)]
        command = [str(program), *options, *_MODULES, *more]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise CannotFetch(f"grub-mkimage for {platform}: {done.stderr.strip()}")
    boot_sector = unpacked("grub-pc-bin", cache) / "usr/lib/grub/i386-pc/boot.img"
    (target / "boot.img").write_bytes(boot_sector.read_bytes())
