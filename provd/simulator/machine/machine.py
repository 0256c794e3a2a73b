"""A bare-metal machine from power-on, as the network sees it.

`run_until_off` reads like the machine's life: firmware asks the network first, the network says
installer or disk, the installer wipes and reboots, the installed system runs until somebody reboots it
or pulls the plug. What each of them does stands in a file of its own.
"""

import json
import shutil
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory

import trio
from attrs import define, evolve, field

from provd.simulator.cluster.api import serve_api
from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.machine import Machine as PveRoot
from provd.simulator.cluster.machine import install_pve_tools
from provd.simulator.machine import sshd
from provd.simulator.machine.answer_rules import InstallOrder
from provd.simulator.machine.faults import Faults
from provd.simulator.machine.firmware import network_boot
from provd.simulator.machine.hardware import Disk, Hardware, Nic, hostile, nuc
from provd.simulator.machine.installed_system import InstalledSystem
from provd.simulator.machine.installer import Installer, find_iso, leaked_arguments
from provd.simulator.machine.ipxe import Boots
from provd.simulator.machine.kernel_view import write_kernel_view
from provd.simulator.machine.programs import install_programs
from provd.simulator.machine.refusal import InstallerRefused
from provd.simulator.machine.reports import install_report
from provd.simulator.machine.root_directory import build_root, make_host_keys


class Phase(StrEnum):
    """What somebody in front of the screen would see."""

    OFF = "off"
    FIRMWARE = "firmware"
    INSTALLER = "installer"
    INSTALLER_SHELL = "installer_shell"
    """Stopped with a message and a root shell; only a person, or the power switch, goes on from here."""
    BOOTING_DISK = "booting_disk"
    INSTALLED_SYSTEM = "installed_system"
    """sshd answers; Proxmox' own start-up and the first-boot script are under way."""
    IDLE = "idle"
    """The installed system with nothing left to do by itself."""


class _PowerLost(Exception):
    pass


async def _at_once() -> None:
    await trio.lowlevel.checkpoint()


@define(kw_only=True, eq=False)
class Machine:
    """One machine, which boots from the NIC `mac`.

    `directory` holds its disk (`root/`) and the count of wipes (`disks/`) between runs. `pace` is the
    length of a visible moment in seconds, 0 for none. `before_pveproxy` is awaited between the start of
    sshd and the moment when authorized_keys becomes a link into /etc/pve.
    """

    mac: str
    ip: str
    ssh_port: int
    directory: Path
    public_url: str
    cluster_dir: Path
    release: str = "9.2"
    disks: tuple[Disk, ...] | None = None
    nics: tuple[Nic, ...] | None = None
    hardware: Hardware | None = None
    faults: Faults = field(factory=Faults)
    pace: float = 0
    on_event: Callable[[str], None] | None = None
    before_pveproxy: Callable[[], Awaitable[None]] = _at_once

    phase: Phase = field(init=False, default=Phase.OFF)
    boots: int = field(init=False, default=0)
    """How often the firmware has started."""
    console: list[str] = field(init=False, factory=list)
    sshd_pid: int | None = field(init=False, default=None)
    shell_reason: str | None = field(init=False, default=None)
    _entered: dict[Phase, trio.Event] = field(init=False, factory=dict)
    _power: trio.CancelScope | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        if not ip_address(self.ip).is_loopback:
            raise ValueError("a simulated machine lives on a loopback address")
        self.mac = self.mac.lower().replace("-", ":")
        self.directory = self.directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        basis = self.hardware or nuc(self.mac, self.ip)
        self.hardware = evolve(basis, disks=self.disks or basis.disks, nics=self.nics or basis.nics)

    # --- looking at it ---------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """What plays `/` of the installed system."""
        return self.directory / "root"

    @property
    def has_system(self) -> bool:
        return self._bootable.exists()

    def wipes(self, disk: str | None = None) -> int:
        """How often the disk of that kernel name was wiped, or all of them together."""
        counters = (self.directory / "disks").glob(f"{disk or '*'}.wipes")
        return sum(int(counter.read_text()) for counter in counters)

    @property
    def _bootable(self) -> Path:
        """The boot loader, so to speak: there when a system is, with what its next boot needs to know."""
        return self.directory / "system.json"

    async def wait_phase(self, phase: Phase) -> None:
        """Until the machine is in `phase`, or has been since this call."""
        if self.phase is not phase:
            await self._entered.setdefault(phase, trio.Event()).wait()

    # --- the power switch ------------------------------------------------------------------------

    def power_off(self) -> None:
        """Pull the plug; `run_until_off` then ends, with everything that runs on the machine."""
        if self._power is not None:
            self._power.cancel(reason="power off")

    async def run_until_off(self) -> None:
        """Switch the machine on and live until it is off. Safe to cancel: it is the same as `power_off`."""
        if self._power is not None:
            raise RuntimeError("the machine is on already")
        if self.faults.never_powers_on:
            self._say("does not power on")
            return
        sshd.end_leftover(self.root)
        with trio.CancelScope() as self._power:
            try:
                while await self._boot():
                    self._say("reboots")
            except _PowerLost:
                self._say("loses power in the installer")
            finally:
                self._power = None
                self.sshd_pid = None
                self._enter(Phase.OFF, "is off")

    async def _boot(self) -> bool:
        """One round from the firmware on; True to reboot, False when the machine switched itself off."""
        self.boots += 1
        self._enter(Phase.FIRMWARE, "powers on and asks the network what to boot")
        await self._moment(1)
        boots = await network_boot(self.public_url, self.mac, self._hardware(), self.ip, self._say)
        if boots is not None:
            try:
                return await self._install(boots)
            except InstallerRefused as refusal:
                self.shell_reason = str(refusal)
                self._enter(Phase.INSTALLER_SHELL, f"Installation aborted - {refusal}")
                await trio.sleep_forever()
        if not self.has_system:
            self._say("no bootable device")
            return False
        return await self._run_installed()

    # --- installation ----------------------------------------------------------------------------

    async def _install(self, boots: Boots) -> bool:
        """The whole installation. Raises `InstallerRefused` where the real one opens a shell."""
        hardware, faults = self._hardware(), self.faults
        self._enter(Phase.INSTALLER, "boots the Proxmox installer")
        await self._moment(2)
        find_iso(boots)
        if not {"proxmox-start-auto-installer", "proxauto"} & set(boots.kernel.arguments.split()):
            raise InstallerRefused("the graphical installer waits for somebody to click")
        installer = Installer(hardware=hardware, release=self.release, source_ip=self.ip, say=self._say)
        order = await installer.fetch_order(
            f"{self.public_url}/api/boot/answer",
            lose_first_response=faults.answer_response_lost,
            others=faults.other_macs,
        )
        self._say(f"has an answer: {order.fqdn} on {', '.join(disk.device for disk in order.disks)}")
        first_boot = None if order.first_boot is None else await installer.fetch_first_boot(order.first_boot)
        await self._moment(1)
        self._wipe(order)
        if faults.dies_in_installer:
            raise _PowerLost
        await self._moment(4)
        machine_id, keys = await self._write_system(order, boots, first_boot)
        self.write_boot_loader(order)
        await self._report(installer, order, machine_id, keys)
        await self._moment(1)
        return order.reboot_mode == "reboot"

    def _wipe(self, order: InstallOrder) -> None:
        """What was on the disks is gone from here on, whatever comes next."""
        self._bootable.unlink(missing_ok=True)
        shutil.rmtree(self.root, ignore_errors=True)
        for disk in order.disks:
            counter = self.directory / "disks" / f"{disk.name}.wipes"
            counter.parent.mkdir(exist_ok=True)
            counter.write_text(str(self.wipes(disk.name) + 1))
            self._say(f"wipes {disk.device}")

    async def _write_system(
        self, order: InstallOrder, boots: Boots, first_boot: bytes | None
    ) -> tuple[str, dict[str, str]]:
        leaked = leaked_arguments(boots.kernel.arguments)
        machine_id = build_root(self.root, order, leaked=leaked, first_boot=first_boot)
        ip = self._address(order)
        install_pve_tools(
            self.root,
            cluster_dir=self.cluster_dir,
            hostname=order.hostname,
            ip=ip,
            root_password=order.root_password or "",
        )
        install_programs(self.root)
        # curl and wget speak from the machine's own address, as they would on hardware.
        (self.root / "root/.curlrc").write_text(f"interface = {ip}\n")
        (self.root / "root/.wgetrc").write_text(f"bind_address = {ip}\n")
        update_grub = str(self.root / "usr/local/bin/update-grub")
        await trio.run_process([update_grub], stdin=DEVNULL)
        return machine_id, await make_host_keys(self.root / "etc/ssh", f"root@{order.hostname}")

    def write_boot_loader(self, order: InstallOrder) -> None:
        """The last thing that makes a disk bootable."""
        boot = {
            "ip": self._address(order),
            "pins": dict(order.network.pins),
            "bridged": order.network.nic.mac,
        }
        self._bootable.write_text(json.dumps(boot))

    def _address(self, order: InstallOrder) -> str:
        """Where the new system will answer: a static address counts only if it stays on this computer."""
        wanted = order.network.cidr.ip
        return str(wanted) if wanted.is_loopback else self.ip

    async def _report(
        self, installer: Installer, order: InstallOrder, machine_id: str, keys: dict[str, str]
    ) -> None:
        """Post the webhook, where the answer has one. A failure matters only without reboot-on-error."""
        if order.webhook is None:
            return
        if self.faults.wrong_host_keys_in_webhook:
            with TemporaryDirectory() as elsewhere:
                keys = await make_host_keys(Path(elsewhere), "root@elsewhere")
        report = install_report(
            order, installer.hardware, self.release, machine_id=machine_id, host_keys=keys
        )
        try:
            if self.faults.webhook_lost:
                raise InstallerRefused("the post-installation webhook failed: connection timed out")
            for _ in range(2 if self.faults.duplicate_webhook else 1):
                await installer.report(order.webhook, report)
            self._say("is installed and has reported it")
        except InstallerRefused as refusal:
            if not order.reboot_on_error:
                raise
            self._say(f"{refusal}; reboots all the same")

    # --- the installed system --------------------------------------------------------------------

    async def _run_installed(self) -> bool:
        """Run it until it reboots (True) or switches itself off (False)."""
        self._enter(Phase.BOOTING_DISK, "boots its own disk")
        await self._moment(2)
        boot = json.loads(self._bootable.read_text())
        write_kernel_view(self.root, self._hardware(), pins=boot["pins"], bridged=boot["bridged"])
        system = InstalledSystem(
            root=self.root,
            ip=boot["ip"],
            ssh_port=self.ssh_port,
            say=self._say,
        )
        if not (cluster := Cluster.open(self.cluster_dir)).read().ssh_port:
            with cluster.edit() as state:
                state.ssh_port = self.ssh_port

        def ssh_answers(pid: int) -> None:
            self.sshd_pid = pid
            self._enter(Phase.INSTALLED_SYSTEM, f"is up, SSH answers on {system.ip} port {self.ssh_port}")

        return await system.live(partial(self._start_up, system), ssh_answers=ssh_answers) == "reboot"

    async def _start_up(self, system: InstalledSystem, nursery: trio.Nursery) -> None:
        await self._moment(1)

        async def start_pveproxy() -> None:
            serve = partial(
                serve_api, Cluster.open(self.cluster_dir), self._pve.read().hostname, root=self.root
            )
            address, port = await nursery.start(serve)
            self._say(f"serves the API on {address} port {port}")

        fail_once, self.faults.first_boot_script_fails_once = self.faults.first_boot_script_fails_once, False
        await system.start_up(
            before_pveproxy=self.before_pveproxy,
            start_pveproxy=start_pveproxy,
            fail_once=fail_once,
            run_twice=self.faults.duplicate_phone_home,
        )
        self._enter(Phase.IDLE, "has nothing left to do")

    @property
    def _pve(self) -> PveRoot:
        return PveRoot(self.root)

    # --- small things ----------------------------------------------------------------------------

    def _hardware(self) -> Hardware:
        assert self.hardware is not None
        return hostile(self.hardware) if self.faults.hostile_strings else self.hardware

    def _enter(self, phase: Phase, line: str) -> None:
        self.phase = phase
        self._say(line)
        if (event := self._entered.pop(phase, None)) is not None:
            event.set()

    def _say(self, line: str) -> None:
        """One line, whatever a vendor put into it."""
        clean = "".join(char if char.isprintable() else "?" for char in line)
        self.console.append(clean)
        if self.on_event is not None:
            self.on_event(f"{self.mac}  {clean}")

    async def _moment(self, weight: float) -> None:
        """Let a visible moment pass. Never what anything waits for."""
        if self.pace:
            await trio.sleep(self.pace * weight)
