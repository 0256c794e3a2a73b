"""The two documents that an installer sends: what machine asks for an answer, and what was installed.

Field for field as the Proxmox installer's releases send them, with all their quirks: `$schema` since
8.3, MACs in upper case in one and lower case in the other, `false` left out, `size` being what was
configured and not what the disk has.
"""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from provd.simulator.machine.answer_keys import INSTALLERS
from provd.simulator.machine.answer_rules import InstallOrder
from provd.simulator.machine.hardware import Hardware


@frozen(kw_only=True)
class Product:
    """What one release calls itself, and the webhook's schema version (None: it has no webhook)."""

    version: str
    debian: str
    kernel: str
    webhook_schema: str | None


PRODUCTS: Mapping[str, Product] = {
    "8.2": Product(version="8.2.2", debian="12.5", kernel="6.8.4-2-pve", webhook_schema=None),
    "8.3": Product(version="8.3.0", debian="12.8", kernel="6.8.12-4-pve", webhook_schema="1.0"),
    "8.4": Product(version="8.4.1", debian="12.10", kernel="6.8.12-9-pve", webhook_schema="1.1"),
    "9.0": Product(version="9.0.3", debian="13.0", kernel="6.14.8-2-pve", webhook_schema="1.1"),
    "9.1": Product(version="9.1.1", debian="13.2", kernel="6.17.2-1-pve", webhook_schema="1.2"),
    "9.2": Product(version="9.2.1", debian="13.4", kernel="7.0.2-5-pve", webhook_schema="1.2"),
}


def dmi(hardware: Hardware) -> dict[str, dict[str, str]]:
    return {
        "system": dict(hardware.system),
        "baseboard": dict(hardware.baseboard),
        "chassis": dict(hardware.chassis),
    }


def system_information(hardware: Hardware, release: str) -> dict[str, Any]:
    """What is posted to the answer URL. No disks, no CPU, no address are in it."""
    installer = INSTALLERS[release]
    upper = installer >= (9, 2, 0)
    document: dict[str, Any] = {
        "product": {"fullname": "Proxmox VE", "product": "pve", "enable_btrfs": True},
        "iso": {"release": release, "isorelease": "1"},
        "dmi": dmi(hardware),
        "network_interfaces": [
            {"link": nic.name, "mac": nic.mac.upper() if upper else nic.mac} for nic in hardware.nics
        ],
    }
    return document if installer < (8, 2, 8) else {"$schema": {"version": "1.0"}} | document


def install_report(
    order: InstallOrder, hardware: Hardware, release: str, *, machine_id: str, host_keys: Mapping[str, str]
) -> dict[str, Any]:
    """What is posted to the webhook. `host_keys`: `ecdsa`, `ed25519`, `rsa` to whole `.pub` lines."""
    product = PRODUCTS[release]
    installer = INSTALLERS[release]
    document: dict[str, Any] = {
        "$schema": {"version": product.webhook_schema},
        "debian-version": product.debian,
        "product": {"fullname": "Proxmox VE", "short": "pve", "version": product.version},
        "iso": {"release": release, "isorelease": "1"},
        "kernel-version": {
            "sysname": "Linux",
            "release": product.kernel,
            "version": f"#1 SMP PREEMPT_DYNAMIC PMX {product.kernel}",
            "machine": "x86_64",
        },
        "boot-info": {"mode": "efi"},
        "cpu-info": {
            "cores": hardware.cores,
            "cpus": hardware.threads,
            "flags": "fpu vme de pse tsc msr pae vmx",
            "hvm": True,
            "model": hardware.cpu_model,
            "sockets": 1,
        },
        "dmi": dmi(hardware),
        "filesystem": order.filesystem_name,
        "fqdn": order.fqdn,
        "machine-id": machine_id,
        "disks": [_disk(order, disk.device, disk.udev) for disk in hardware.disks],
        "network-interfaces": _interfaces(order, hardware),
        "ssh-public-host-keys": dict(host_keys),
    }
    if installer >= (8, 4, 3):
        document["reboot-mode"] = order.reboot_mode
    if installer >= (9, 2, 0) and order.webhook is not None and order.webhook.auth_token is not None:
        document["token"] = order.webhook.auth_token
    return document


def _disk(order: InstallOrder, device: str, udev: dict[str, str]) -> dict[str, Any]:
    configured = int(order.hdsize * (1 << 30)) if order.hdsize is not None else order.disks[0].size
    boots = {"is-bootdisk": True} if device in {disk.device for disk in order.disks} else {}
    return {"size": configured, **boots, "udev-properties": udev}


def _interfaces(order: InstallOrder, hardware: Hardware) -> list[dict[str, Any]]:
    """The management NIC has the address; with a static address *and* pinned names none is marked."""
    pins = order.network.pins
    entries: list[dict[str, Any]] = []
    for nic in hardware.nics:
        entry: dict[str, Any] = {"name": pins.get(nic.mac, nic.name), "mac": nic.mac}
        if nic == order.network.nic and not (pins and order.network.static):
            entry |= {"address": str(order.network.cidr), "is-management": True}
        if nic.mac in pins:
            entry["is-pinned"] = True
        entries.append(entry | {"udev-properties": nic.udev})
    return entries
