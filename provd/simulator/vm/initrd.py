"""The two initial RAM disks of a lab machine: the installer's, and that of the system on its disk.

Both are busybox, some modules, and the scripts in `guest/`; they differ in what /stage does.
"""

import gzip
from importlib.resources import files
from pathlib import Path

from provd.simulator.vm import cpio
from provd.simulator.vm.kernel import Kernel

GUEST = files("provd.simulator.vm").joinpath("guest")

_SHARED = (
    *("virtio_pci", "virtio_rng", "qemu_fw_cfg", "9p", "9pnet_virtio", "overlay"),
    *("virtio_net", "e1000", "e1000e"),
    *("virtio_blk", "nvme", "virtio_scsi", "ahci", "ata_piix", "sd_mod", "crc32c_generic", "ext4"),
)
STAGES = {
    "installer": (*_SHARED, "loop", "isofs", "vfat", "nls_cp437", "nls_ascii"),
    "installed": (*_SHARED, "bridge"),
}
"""Which modules each of the two loads."""


def build_initrd(stage: str, kernel: Kernel, busybox: Path) -> bytes:
    """A gzipped archive. `stage` is one of `STAGES`; `busybox` must be linked statically."""
    entries = [
        *map(cpio.directory, ("bin", "dev", "modules", "proc", "sys")),
        cpio.file("bin/busybox", busybox.read_bytes(), 0o755),
        cpio.file("init", _script("init"), 0o755),
        cpio.file("lease", _script("lease"), 0o755),
        cpio.file("stage", _script(stage)),
    ]
    modules = kernel.load_order(STAGES[stage])
    entries += [
        cpio.file(f"modules/{number:02}-{name}.ko", content)
        for number, (name, content) in enumerate(modules.items())
    ]
    return gzip.compress(cpio.archive(entries), 6, mtime=0)


def _script(name: str) -> bytes:
    return GUEST.joinpath(f"{name}.sh").read_bytes()
