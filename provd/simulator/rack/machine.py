"""One machine of the rack: QEMU with real firmware, a disk, and one NIC on the LAN.

Always emulated in software: a `/dev/kvm` that opens does not mean a KVM that works, and a guest that
hangs in its first instruction looks like a firmware that cannot boot from the network.
"""

import shutil
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import trio
from attrs import define, field

from provd.simulator.rack import processes
from provd.simulator.rack.lan import Lan
from provd.simulator.vm.qemu import qemu_arguments
from provd.simulator.vm.shown import show

DISK_MIB = 1024


class Firmware(StrEnum):
    UEFI = "uefi"
    """OVMF, PXE: proxy-DHCP and TFTP."""
    UEFI_HTTP = "uefi-http"
    """OVMF with PXE switched off: HTTP boot (UEFI 2.10 §24.7)."""
    BIOS = "bios"
    """SeaBIOS, and iPXE in the NIC's own ROM."""
    ARM64 = "arm64"
    """AAVMF, PXE. What the lab installs is for x86: such a machine comes as far as its boot script."""


FILES: Mapping[Firmware, tuple[Path, Path]] = {
    Firmware.UEFI: (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    Firmware.UEFI_HTTP: (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    Firmware.ARM64: (Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.fd")),
}
"""Code, and variables to begin with, where Debian puts them. SeaBIOS comes with QEMU."""


ARM64_MACHINE = [
    *("-machine", "virt", "-cpu", "cortex-a57", "-accel", "tcg,thread=multi", "-smp", "1", "-m", "512"),
    *("-device", "virtio-rng-pci"),
]


@define(eq=False, kw_only=True)
class VirtualMachine:
    name: str
    mac: str
    uuid: str
    firmware: Firmware
    directory: Path
    lan: Lan
    tap: str
    cluster_dir: Path
    """What the system inside joins."""
    process: trio.Process | None = field(default=None)

    @property
    def console(self) -> str:
        """What came over the serial port, in all lives of the machine, without control characters."""
        log = self.directory / "console.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        return "".join(c for c in text if c.isprintable() or c == "\n")

    @property
    def on(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def power_on(self) -> None:
        assert not self.on, f"{self.name} is on"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._make_parts()
        shown = show(self.directory / "shown")
        command = self.lan.inside(self.lan.lan, shown.beneath(self._command(shown.directory)))
        self.process = await processes.start(command, self.directory / "qemu.log")

    async def power_off(self) -> None:
        """Pull the plug: no warning, nothing is written any more."""
        if self.process is not None:
            self.process.kill()
            with trio.CancelScope(shield=True):  # killed: the kernel is quick
                await self.process.wait()

    def _make_parts(self) -> None:
        disk = self.directory / "disk.img"
        if not disk.exists():
            with disk.open("wb") as file:
                file.truncate(DISK_MIB << 20)
        variables = self.directory / "firmware-variables.fd"
        if self.firmware in FILES and not variables.exists():
            shutil.copy(FILES[self.firmware][1], variables)

    def _command(self, root: Path) -> list[str]:
        nic = f"virtio-net-pci,netdev=lan,mac={self.mac},bootindex=0"
        program, inside = "qemu-system-x86_64", self._inside(root)
        if self.firmware is Firmware.ARM64:
            program, inside = "qemu-system-aarch64", ARM64_MACHINE
        return [
            program,
            *("-name", self.name),
            *("-display", "none", "-monitor", "none"),
            *("-chardev", f"file,id=console,path={self.directory / 'console.log'},append=on"),
            *("-serial", "chardev:console"),
            *("-netdev", f"tap,id=lan,ifname={self.tap},script=no,downscript=no"),
            # Without a ROM of its own OVMF boots by its own network stack; the ROM is iPXE.
            *("-device", nic if self.firmware is Firmware.BIOS else f"{nic},romfile="),
            *("-drive", f"if=none,id=disk,format=raw,cache=unsafe,file={self.directory / 'disk.img'}"),
            *("-device", "virtio-blk-pci,drive=disk,serial=PROVD-DISK,bootindex=1"),
            *self._firmware_arguments(),
            *inside,
        ]

    def _inside(self, root: Path) -> list[str]:
        return qemu_arguments(uuid=self.uuid, serial=self.name, root=root, cluster=self.cluster_dir)

    def _firmware_arguments(self) -> list[str]:
        if self.firmware not in FILES:
            return []
        arguments = [
            *("-drive", f"if=pflash,format=raw,readonly=on,file={FILES[self.firmware][0]}"),
            *("-drive", f"if=pflash,format=raw,file={self.directory / 'firmware-variables.fd'}"),
            *("-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"),
        ]
        if self.firmware is Firmware.UEFI_HTTP:
            arguments += ["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"]
        return arguments
