"""What the installer writes to a disk: the directory that plays `/` of the installed system.

Builds files and nothing else; what runs there is `installed_system`'s business. Contents follow the
Proxmox installer 9.2 (`Proxmox/Install.pm` names the places).
"""

import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

import trio

from provd.simulator.machine.answer_rules import InstallOrder

HOST_KEY_KINDS = ("ecdsa", "ed25519", "rsa")
FIRST_BOOT = "var/lib/proxmox-first-boot"
FLAG = f"{FIRST_BOOT}/pending-first-boot-setup"
ORDERINGS: Mapping[str, str] = {
    "before-network": "network-pre",
    "network-online": "network-online",
    "fully-up": "multi-user",
}
"""The answer's word for the moment of the first boot, and what the script gets as its argument."""


def build_root(root: Path, order: InstallOrder, *, leaked: tuple[str, ...], first_boot: bytes | None) -> str:
    """Write a fresh system to `root`, which must not exist; returns the new machine id."""
    machine_id = secrets.token_hex(16)
    for directory in ("etc/ssh", "run", "tmp", "usr/local/bin", "usr/local/sbin", "var/log"):
        (root / directory).mkdir(parents=True)
    (root / "root/.ssh").mkdir(parents=True, mode=0o700)
    for name, text in _etc(order, machine_id, leaked).items():
        write_file(root / name, text)
    # As the installer leaves it: joined by newlines, none at the end.
    write_file(root / "root/.ssh/authorized_keys", "\n".join(order.root_ssh_keys), 0o600)
    if first_boot is not None:
        (root / FIRST_BOOT).mkdir(parents=True, mode=0o700)
        script = root / FIRST_BOOT / "proxmox-first-boot"
        script.write_bytes(first_boot)
        script.chmod(0o700)
        assert order.first_boot is not None
        write_file(root / FLAG, "")
        write_file(root / FIRST_BOOT / "ordering", ORDERINGS[order.first_boot.ordering])
    return machine_id


def _etc(order: InstallOrder, machine_id: str, leaked: tuple[str, ...]) -> dict[str, str]:
    words = " ".join(leaked)
    network = order.network
    nic = network.pins.get(network.nic.mac, network.nic.name)
    mapping = (
        "ZFS=rpool/ROOT/pve-1 boot=zfs" if order.filesystem == "zfs" else "/dev/mapper/pve-root ro quiet"
    )
    links = {
        f"usr/local/lib/systemd/network/50-pmx-{name}.link": (
            f"[Match]\nMACAddress={mac}\n\n[Link]\nName={name}\n"
        )
        for mac, name in network.pins.items()
    }
    return links | {
        "etc/hostname": f"{order.hostname}\n",
        "etc/hosts": (
            f"127.0.0.1 localhost.localdomain localhost\n{network.cidr.ip} {order.fqdn} {order.hostname}\n"
        ),
        "etc/machine-id": f"{machine_id}\n",
        "etc/timezone": f"{order.timezone}\n",
        "etc/resolv.conf": f"search {order.fqdn.partition('.')[2]}\nnameserver {network.dns}\n",
        "etc/network/interfaces": (
            f"auto lo\niface lo inet loopback\n\niface {nic} inet manual\n\n"
            "auto vmbr0\niface vmbr0 inet static\n"
            f"\taddress {network.cidr}\n\tgateway {network.gateway}\n\tbridge-ports {nic}\n"
            "\tbridge-stp off\n\tbridge-fd 0\n"
        ),
        "etc/default/grub": (
            "GRUB_DEFAULT=0\nGRUB_TIMEOUT=5\n"
            "GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`\n"
            'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n'
        ),
        "etc/default/grub.d/installer.cfg": f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {words}"\n'
        if words
        else "",
        "etc/kernel/cmdline": f"root={mapping} {words}".rstrip() + "\n",
        "etc/modules": "# /etc/modules: kernel modules to load at boot time.\n",
        "etc/apt/sources.list.d/pve-enterprise.sources": (
            "Types: deb\nURIs: https://enterprise.proxmox.com/debian/pve\nSuites: trixie\n"
            "Components: pve-enterprise\nSigned-By: /usr/share/keyrings/proxmox-archive-keyring.gpg\n"
        ),
    }


async def make_host_keys(directory: Path, comment: str) -> dict[str, str]:
    """SSH host keys as `ssh_host_*_key` in `directory`, which exists; returns kind to whole `.pub` line."""
    bits = {"rsa": ("-b", "2048")}  # the default of 3072 takes seconds on a small computer

    async def make(kind: str) -> None:
        key = directory / f"ssh_host_{kind}_key"
        command = [
            "ssh-keygen",
            "-q",
            "-t",
            kind,
            *bits.get(kind, ()),
            "-N",
            "",
            "-C",
            comment,
            "-f",
            str(key),
        ]
        await trio.run_process(command, stdin=subprocess.DEVNULL, capture_stdout=True)

    async with trio.open_nursery() as nursery:
        for kind in HOST_KEY_KINDS:
            nursery.start_soon(make, kind)
    return {kind: (directory / f"ssh_host_{kind}_key.pub").read_text().strip() for kind in HOST_KEY_KINDS}


def write_file(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline="")
    path.chmod(mode)
