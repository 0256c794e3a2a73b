"""The automated installer in a lab machine: real hardware and disks, the simulator's conversation and rules.

Started by guest/installer.sh while the links still ask for their addresses. Its exit status says what the
machine does next (`places`); everything that happens is a line on the console.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import trio

from provd.simulator.machine.answer_rules import InstallOrder
from provd.simulator.machine.installer import Installer, leaked_arguments
from provd.simulator.machine.refusal import InstallerRefused
from provd.simulator.machine.reports import install_report
from provd.simulator.machine.root_directory import make_host_keys
from provd.simulator.vm import disk
from provd.simulator.vm.hardware import see
from provd.simulator.vm.lease import NO_LEASE, Obtained, read_leases
from provd.simulator.vm.new_system import write_system
from provd.simulator.vm.places import ISO, LEASES, POWER_OFF, REBOOT, SYSTEM

LEASE_SECONDS = 10
"""As long as the original's dhclient.conf lets it wait."""
ERROR_SECONDS = 30
"""Between an error and the reboot that the answer wants on errors."""


def say(line: str) -> None:
    """One line on the console, whatever somebody else put into it."""
    print("installer:", "".join(char if char.isprintable() else "?" for char in line), flush=True)


async def install() -> int:
    """The whole installation; returns the exit status. Raises `InstallerRefused` where the original stops."""
    obtained = await _address()
    hardware = see(obtained.lease, obtained.link) if obtained else see(NO_LEASE)
    url, token = _answer_source(obtained)
    installer = Installer(
        hardware=hardware,
        release=_release(),
        source_ip=hardware.lease.cidr.partition("/")[0],
        say=say,
    )
    say(f"asks {url} for an answer")
    order = await installer.fetch_order(url, token=token)
    say(f"has an answer: {order.fqdn} on {', '.join(disk.device for disk in order.disks)}")
    first_boot = None if order.first_boot is None else await installer.fetch_first_boot(order.first_boot)
    try:
        machine_id, keys = await _write(order, first_boot)
        if order.webhook is not None:
            report = install_report(order, hardware, installer.release, machine_id=machine_id, host_keys=keys)
            await installer.report(order.webhook, report | {"boot-info": {"mode": _boot_mode()}})
            say("is installed and has reported it")
    except InstallerRefused as refusal:
        if not order.reboot_on_error:
            raise
        say(f"{refusal}; {order.reboot_mode} in {ERROR_SECONDS} seconds")
        await trio.sleep(ERROR_SECONDS)
    return POWER_OFF if order.reboot_mode == "power-off" else REBOOT


async def _address() -> Obtained | None:
    """The lease that the installation goes by; None when nobody answered in time."""
    with trio.move_on_after(LEASE_SECONDS):
        while not read_leases(LEASES):  # noqa: ASYNC110 - udhcpc is another process
            await trio.sleep(0.1)
    leases = read_leases(LEASES)
    for one in leases:
        say(f"has {one.lease.cidr} on {one.link}")
    if not leases:
        say("got no address from DHCP")
    return leases[0] if leases else None


def _answer_source(obtained: Obtained | None) -> tuple[str, str | None]:
    """URL and token of the prepared ISO, or else a URL from DHCP. DNS is not asked, no certificate pinned."""
    prepared = ISO / "auto-installer-mode.toml"
    if not prepared.exists():
        raise InstallerRefused("no config for fetching the answer file: this ISO is not prepared")
    mode = tomllib.loads(prepared.read_text())
    if mode.get("mode") != "http":
        raise InstallerRefused(
            f"the lab's installer fetches answers over HTTP only, not {mode.get('mode')!r}"
        )
    http = mode.get("http", {})
    if "cert_fingerprint" in http:
        raise InstallerRefused("the lab's installer cannot pin a certificate: use plain HTTP")
    if "url" in http:
        return str(http["url"]), http.get("token")
    if obtained is not None and obtained.manifest_url:
        return obtained.manifest_url, None
    raise InstallerRefused("neither the ISO nor DHCP option 250 says where the answer is")


def _boot_mode() -> str:
    return "efi" if Path("/sys/firmware/efi").exists() else "bios"


def _command_line() -> str:
    return Path("/proc/cmdline").read_text()


def _release() -> str:
    said = dict(line.partition("=")[::2] for line in (ISO / ".cd-info").read_text().splitlines())
    return said["RELEASE"].strip("'")


async def _write(order: InstallOrder, first_boot: bytes | None) -> tuple[str, dict[str, str]]:
    """Wipe the disks and install on the first; returns machine id and public host keys."""
    first = order.disks[0]
    layout = disk.Layout.of(first.size)
    for one in order.disks:
        say(f"wipes {one.device}")
        disk.wipe(Path(one.device), one.size)
    disk_id = await disk.partition(Path(first.device), layout, ISO / "lab")
    with disk.mounted(disk.partitions(Path(first.device))[1], "ext4") as target:
        machine_id = write_system(
            target / SYSTEM,
            order,
            leaked=leaked_arguments(_command_line()),
            first_boot=first_boot,
            password_hash=_password_hash(order),
            kernel=ISO / "lab",
            disk_id=disk_id,
        )
        system = target / SYSTEM
        await disk.run("env", f"PROVD_ROOT={system}", "sh", system / "usr/local/bin/update-grub")
        keys = await make_host_keys(system / "etc/ssh", f"root@{order.hostname}")
    say(f"wrote the system to {first.device}")
    return machine_id, keys


def _password_hash(order: InstallOrder) -> str:
    if order.root_password is None:
        return order.root_password_hashed or ""
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"],
        input=order.root_password,
        capture_output=True,
        text=True,
        check=True,
    )
    return hashed.stdout.strip()


def main() -> int:
    try:
        return trio.run(install)
    except InstallerRefused as refusal:
        say(f"Installation aborted - {refusal}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
