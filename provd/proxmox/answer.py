"""The answer file: the document that makes the installer wipe a disk, built for one machine.

Pure: a plan and what the machine said of itself go in, TOML comes out, or `CannotInstall` before
anything was touched. Every selection is made exact, because the installer takes the first thing that
matches: one property per filter, whole device paths, an address with its mask. Source: answer schema
of the Proxmox installer 8.4 to 9.2.
"""

import tomli_w

from provd.domain.documents import one_line
from provd.domain.errors import CannotInstall, Invalid
from provd.domain.hardware import Link
from provd.domain.hosts import Mac
from provd.domain.installation import RAIDS, InstallPlan, check_plan, disk_property
from provd.proxmox.reports import SystemInfo

OLDEST_RELEASE = (8, 4)
"""The first whose installer reads kebab-case keys, which are the only ones later releases will keep."""

PINNING_RELEASE = (9, 1)

Table = dict[str, object]


def build_answer(
    plan: InstallPlan, machine: SystemInfo, *, boot_mac: Mac, webhook_url: str, first_boot_url: str
) -> str:
    """The TOML text. Raises `CannotInstall` when the plan does not fit this machine or its installer.

    `boot_mac` is the MAC the host is registered with. The text holds the root password's hash.
    """
    if machine.product != "pve":
        raise CannotInstall(f"the machine booted the installer of {one_line(machine.product)!r}, not of pve")
    if machine.release < OLDEST_RELEASE:
        raise CannotInstall(
            f"the installer is of release {_dotted(machine.release)}; "
            f"provd needs Proxmox VE {_dotted(OLDEST_RELEASE)} or later: publish a newer ISO"
        )
    try:
        check_plan(plan)
    except Invalid as exc:
        raise CannotInstall(str(exc)) from exc
    sections: Table = {
        "global": _global(plan),
        "network": _network(plan, machine, boot_mac),
        "disk-setup": _disk_setup(plan),
        "post-installation-webhook": {"url": webhook_url},
        "first-boot": {"source": "from-url", "ordering": "fully-up", "url": first_boot_url},
    }
    return tomli_w.dumps(sections)


def management_mac(plan: InstallPlan, machine: SystemInfo, boot_mac: Mac) -> Mac:
    """The NIC that the host shall be managed through. Raises `CannotInstall` when the machine lacks it.

    With DHCP an answer cannot choose it: the installer takes the NIC with the default route. Compare
    with what the webhook reports.
    """
    return _management_link(plan, machine, boot_mac).mac


def _management_link(plan: InstallPlan, machine: SystemInfo, boot_mac: Mac) -> Link:
    wanted = plan.management_nic or str(boot_mac)
    for link in machine.links:
        if link.name == plan.management_nic or (plan.management_nic is None and link.mac == boot_mac):
            return link
    present = ", ".join(one_line(f"{link.name} ({link.mac})", 60) for link in machine.links[:16])
    raise CannotInstall(
        f"the machine has no network link {wanted}, which it shall be managed through; "
        f"it has {present or 'none at all'}"
    )


def _global(plan: InstallPlan) -> Table:
    table: Table = {
        "fqdn": plan.fqdn,
        "country": plan.country,
        "keyboard": plan.keyboard,
        "timezone": plan.timezone,
        "mailto": plan.mailto,
        "root-password-hashed": plan.root_password_hash.reveal(),
        # An installer that stops would otherwise wait at a root shell on the console.
        "reboot-on-error": True,
    }
    if plan.root_ssh_keys:
        table["root-ssh-keys"] = list(plan.root_ssh_keys)
    return table


def _network(plan: InstallPlan, machine: SystemInfo, boot_mac: Mac) -> Table:
    link = _management_link(plan, machine, boot_mac)
    if plan.address is not None:
        return {
            "source": "from-answer",
            "cidr": plan.address.cidr.with_prefixlen,
            "gateway": str(plan.address.gateway),
            "dns": str(plan.address.dns),
            # A property of the hardware: NIC names differ between kernels, addresses do not.
            "filter": {"ID_NET_NAME_MAC": f"enx{str(link.mac).replace(':', '')}"},
        }
    table: Table = {"source": "from-dhcp"}
    if plan.management_nic is not None and machine.release >= PINNING_RELEASE:
        # Never `enabled = false`: up to 9.2 the installer pins as soon as the table is there.
        table["interface-name-pinning"] = {
            "enabled": True,
            "mapping": {str(link.mac): plan.management_nic},
        }
    return table


def _disk_setup(plan: InstallPlan) -> Table:
    """A whole path in `disk-list` is exact, and a missing one stops ext4 and xfs before anything is wiped."""
    named = disk_property(plan.disks[0])
    table: Table = {"filesystem": plan.filesystem}
    if named is not None:
        table["filter"] = dict([named])
    else:
        table["disk-list"] = list(plan.disks)
    if RAIDS[plan.filesystem]:
        table[plan.filesystem] = {"raid": plan.raid}
    return table


def _dotted(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))
