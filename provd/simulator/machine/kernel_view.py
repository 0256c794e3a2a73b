"""ROOT/sys and ROOT/proc: what the kernel of an installed machine shows of the hardware and of its start.

ROOT/run is emptied beside them, a tmpfs in the original.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from provd.simulator.machine.hardware import Hardware
from provd.simulator.machine.root_directory import write_file

_LINK_NAME = re.compile(r"[^\s/:]{1,15}")


def write_kernel_view(root: Path, hardware: Hardware, *, pins: Mapping[str, str], bridged: str) -> None:
    """Make them anew, as each boot does. `bridged` is the MAC of the NIC that is a port of vmbr0."""
    for directory in ("sys", "proc", "run"):
        shutil.rmtree(root / directory, ignore_errors=True)
        (root / directory).mkdir()
    groups = (("product", hardware.system), ("board", hardware.baseboard), ("chassis", hardware.chassis))
    for prefix, group in groups:
        for key, value in group.items():
            write_file(root / f"sys/class/dmi/id/{prefix}_{key}", f"{value}\n")
    network = root / "sys/class/net"
    for nic in hardware.nics:
        name = pins.get(nic.mac, nic.name)
        if _LINK_NAME.fullmatch(name):
            write_file(network / name / "address", f"{nic.mac}\n")
            (network / name / "device").mkdir()
            if nic.mac == bridged:
                write_file(network / "vmbr0/address", f"{nic.mac}\n")
                (network / "vmbr0/brif" / name).mkdir(parents=True)
    for disk in hardware.disks:
        write_file(root / f"sys/class/block/{disk.name}/size", f"{disk.size // 512}\n")
    write_file(root / "proc/cmdline", f"BOOT_IMAGE=/boot/vmlinuz {_boot_loader_words(root)}\n")
    vendor = "GenuineIntel" if "Intel" in hardware.cpu_model else "AuthenticAMD"
    processors = (
        f"processor\t: {number}\nvendor_id\t: {vendor}\nmodel name\t: {hardware.cpu_model}\n\n"
        for number in range(hardware.threads)
    )
    write_file(root / "proc/cpuinfo", "".join(processors))


def _boot_loader_words(root: Path) -> str:
    """What `update-grub` left for GRUB; with ZFS systemd-boot reads /etc/kernel/cmdline instead."""
    own = (root / "etc/kernel/cmdline").read_text().strip()
    grub = root / "boot/grub/cmdline"
    return own if own.startswith("root=ZFS=") or not grub.exists() else grub.read_text().strip()
