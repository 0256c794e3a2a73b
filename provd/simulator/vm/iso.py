"""Builds the lab's installer ISO: as Proxmox VE's own looks from outside, 20 MB instead of 1.8 GB.

Runs on the host, needs no root, and knows nothing of how the machine is started. Everything outside of this
checkout comes from Debian's packages, through a cache.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from provd.simulator.vm.grub import build_images
from provd.simulator.vm.initrd import GUEST, build_initrd
from provd.simulator.vm.kernel import Kernel
from provd.simulator.vm.packages import CannotFetch, kernel_package, unpacked

RELEASE = "9.2"
_MARKERS = {
    ".cd-info": (
        f"PRODUCT='pve'\nPRODUCTLONG='Proxmox VE'\nRELEASE='{RELEASE}'\nISORELEASE='1'\n"
        "ISONAME='proxmox-ve'\n"
    ),
    ".pve-cd-id.txt": "6d3f4b6e-0c5b-4f7a-9a51-7072642d6c6162\n",
    "auto-installer-capable": "",
}


def build_iso(target: Path, cache: Path) -> None:
    """Write the ISO to `target`, as it would be downloaded: prepared for no answer server yet.

    `cache` keeps packages and finished ISOs; what is in it is not made again. Raises `CannotFetch`.
    """
    kernel = Kernel.of_package(unpacked(_kernel_package(cache), cache))
    finished = cache / "iso" / f"{_digest(kernel)}.iso"
    if not finished.exists():
        finished.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache) as scratch:
            tree = Path(scratch) / "tree"
            _build_tree(tree, kernel, cache)
            draft = Path(scratch) / "iso"
            _run_xorriso(tree, draft)
            draft.replace(finished)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(finished, draft)
    draft.replace(target)


def _build_tree(tree: Path, kernel: Kernel, cache: Path) -> None:
    """`boot/` is what machines load over the network; `lab/` stands for what the original has in squashfs."""
    boot, lab = tree / "boot", tree / "lab"
    for directory in (boot, lab):
        directory.mkdir(parents=True)
    busybox = next(unpacked("busybox-static", cache).glob("**/bin/busybox"))
    shutil.copyfile(kernel.image, boot / "linux26")
    (boot / "initrd.img").write_bytes(build_initrd("installer", kernel, busybox))
    (lab / "vmlinuz").hardlink_to(boot / "linux26")
    (lab / "initrd.img").write_bytes(build_initrd("installed", kernel, busybox))
    build_images(lab, cache)
    # Where the original has its packages.
    (tree / "proxmox" / "packages").mkdir(parents=True)
    for name, text in _MARKERS.items():
        (tree / name).write_text(text)


def _run_xorriso(tree: Path, target: Path) -> None:
    options = ["-quiet", "-R", "--hardlinks", "-V", "PVE", "-o", str(target)]
    command = ["xorriso", "-as", "mkisofs", *options, str(tree)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as exc:
        raise CannotFetch("xorriso is not installed: apt install xorriso") from exc
    if done.returncode != 0:
        raise CannotFetch(f"xorriso: {done.stderr.strip()}")


def _kernel_package(cache: Path) -> str:
    """The one in the cache, or today's."""
    cached = sorted(path.name for path in (cache / "packages").glob("linux-image-*"))
    return cached[-1] if cached else kernel_package()


def _digest(kernel: Kernel) -> str:
    """Changes with everything that the ISO is made of."""
    digest = hashlib.sha256(str(kernel.modules.name).encode())
    sources = [*Path(__file__).parent.glob("*.py"), *Path(str(GUEST)).glob("*.sh")]
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
