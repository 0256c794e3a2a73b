"""Judges an answer as the Proxmox installer does, against the machine that asked for it.

`check_answer` is the strict reader that an answer has to survive before a disk is touched: every
refusal here was one of the real installer (8.2.6 to 9.2.7), and what the real one lets pass
(a hash of garbage, a gateway of the other family, a CIDR without mask) passes here as well.
"""

import tomllib
from collections.abc import Mapping
from ipaddress import ip_interface

from attrs import frozen

from provd.domain.hosts import IPAddress, IPInterface
from provd.simulator.machine.answer_keys import (
    DISK_SETUP,
    FIRST_BOOT,
    FQDN_TABLE,
    GLOBAL,
    INSTALLERS,
    NETWORK,
    PINNING,
    SECTIONS,
    WEBHOOK,
    Table,
    Version,
    address,
    check_fqdn,
    text,
)
from provd.simulator.machine.disk_rules import check_disk_setup, select_disks
from provd.simulator.machine.hardware import Disk, Hardware, Nic
from provd.simulator.machine.refusal import InstallerRefused
from provd.simulator.machine.udev_filters import first_match


@frozen(kw_only=True)
class NetworkOrder:
    """What the new system's vmbr0 gets. `pins`: MAC to the name the NIC will have."""

    nic: Nic
    cidr: IPInterface
    gateway: IPAddress
    dns: IPAddress
    pins: Mapping[str, str]
    static: bool


@frozen(kw_only=True)
class WebhookOrder:
    url: str
    cert_fingerprint: str | None = None
    auth_token: str | None = None


@frozen(kw_only=True)
class FirstBootOrder:
    """`url` is None for a script that the ISO would have to carry."""

    url: str | None
    ordering: str
    cert_fingerprint: str | None = None


@frozen(kw_only=True)
class InstallOrder:
    """An answer that the installer accepts: what it will do to which disks. `hdsize` is in GiB."""

    fqdn: str
    country: str
    keyboard: str
    timezone: str
    mailto: str
    root_password: str | None
    root_password_hashed: str | None
    root_ssh_keys: tuple[str, ...]
    reboot_on_error: bool
    reboot_mode: str
    subscription_key: str | None
    network: NetworkOrder
    filesystem: str
    raid: str | None
    hdsize: float | None
    disks: tuple[Disk, ...]
    webhook: WebhookOrder | None
    first_boot: FirstBootOrder | None

    @property
    def hostname(self) -> str:
        return self.fqdn.partition(".")[0]

    @property
    def filesystem_name(self) -> str:
        """As the webhook has it: `ext4`, `zfs (RAID1)`, `btrfs (RAID0)`."""
        return self.filesystem if self.raid is None else f"{self.filesystem} ({self.raid.upper()})"


def check_answer(answer: str, release: str, machine: Hardware) -> InstallOrder:
    """Read a TOML answer with the eyes of one release's installer; raise `InstallerRefused` as it would.

    `release` is one of `INSTALLERS`, such as "9.2".
    """
    try:
        document = tomllib.loads(answer)
    except (ValueError, RecursionError) as error:
        raise InstallerRefused(f"failed parsing answer file: {error}") from error
    return check_document(document, release, machine)


def check_document(document: object, release: str, machine: Hardware) -> InstallOrder:
    """The same for an answer that is parsed already: one that came as JSON (9.2.0 and later)."""
    installer = INSTALLERS[release]
    sections = Table(document, "answer", SECTIONS, installer)
    general = Table(sections.values["global"], "global", GLOBAL, installer)
    disk_setup = Table(sections.values["disk-setup"], "disk-setup", DISK_SETUP, installer)
    webhook = sections.values.get("post-installation-webhook")
    first_boot = sections.values.get("first-boot")

    _check_passwords(general, installer)
    raid, hdsize = check_disk_setup(disk_setup, installer)
    network = _network(sections.values["network"], installer, machine)
    return InstallOrder(
        fqdn=_fqdn(general.values["fqdn"], installer, machine),
        country=general.text("country") or "",
        keyboard=general.text("keyboard") or "",
        timezone=general.text("timezone") or "",
        mailto=general.text("mailto") or "",
        root_password=general.text("root-password"),
        root_password_hashed=general.text("root-password-hashed"),
        root_ssh_keys=general.texts("root-ssh-keys"),
        reboot_on_error=general.flag("reboot-on-error"),
        reboot_mode=general.text("reboot-mode") or "reboot",
        subscription_key=general.text("subscription-key"),
        network=network,
        filesystem=disk_setup.text("filesystem") or "",
        raid=raid,
        hdsize=hdsize,
        disks=select_disks(disk_setup, raid, machine),
        webhook=None if webhook is None else _webhook(webhook, installer),
        first_boot=None if first_boot is None else _first_boot(first_boot, installer),
    )


def _check_passwords(general: Table, installer: Version) -> None:
    """Exactly one; eight bytes at least since 8.4.0. A hash is not looked at: "" passes (9.2.7)."""
    password, hashed = general.text("root-password"), general.text("root-password-hashed")
    if (password is None) == (hashed is None):
        raise InstallerRefused("global: exactly one of root-password and root-password-hashed must be set")
    if password is not None and installer >= (8, 4, 0) and len(password.encode()) < 8:
        raise InstallerRefused("global.root-password: must be at least 8 characters long")


def _fqdn(raw: object, installer: Version, machine: Hardware) -> str:
    """A name, or since 8.4.3 a table that takes the host name from DHCP. The answer's domain wins."""
    if isinstance(raw, str):
        return check_fqdn(raw, "global.fqdn")
    if installer < (8, 4, 3):
        raise InstallerRefused("global.fqdn: invalid type, expected a string")
    table = Table(raw, "global.fqdn", FQDN_TABLE, installer)
    domain = table.text("domain")
    if domain == "" and installer >= (9, 0, 5):
        domain = None
    if domain is None and table.text("source") is None:
        raise InstallerRefused("global.fqdn: neither source nor domain is set")
    lease = machine.lease
    if not lease.hostname:
        raise InstallerRefused("global.fqdn: no host name received from DHCP")
    domain = domain or lease.domain
    if not domain:
        raise InstallerRefused("global.fqdn: no domain received from DHCP and none configured")
    try:
        return check_fqdn(f"{lease.hostname}.{domain}", "global.fqdn")
    except InstallerRefused:
        return "pve.example.invalid"  # the real one falls back without a word


def _network(raw: object, installer: Version, machine: Hardware) -> NetworkOrder:
    """vmbr0's address: the answer's, on the NIC its filter takes, or the current lease frozen."""
    source = text(raw.get("source"), "network.source") if isinstance(raw, dict) else ""
    if source not in NETWORK:
        raise InstallerRefused("network: `source` must be from-dhcp or from-answer")
    table = Table(raw, "network", NETWORK[source], installer)
    pinning = table.values.get("interface-name-pinning")
    pins = {} if pinning is None else _pins(pinning, installer, machine)
    if source == "from-dhcp":
        lease = machine.lease
        return NetworkOrder(
            nic=machine.nics[0],
            cidr=ip_interface(lease.cidr),
            gateway=address(lease.gateway, "lease"),
            dns=address(lease.dns, "lease"),
            pins=pins,
            static=False,
        )
    filters = table.map("filter")
    if not filters:
        raise InstallerRefused("network.filter: no filter defined")
    nic = first_match(filters, sorted(machine.nics, key=lambda nic: nic.name))
    if nic is None:
        raise InstallerRefused("network.filter: filter did not match any network interface")
    found = table.values
    return NetworkOrder(
        nic=nic,
        cidr=ip_interface(str(found["cidr"])),
        gateway=address(str(found["gateway"]), "network.gateway"),
        dns=address(str(found["dns"]), "network.dns"),
        pins=pins,
        static=True,
    )


def _pins(raw: object, installer: Version, machine: Hardware) -> dict[str, str]:
    """Every NIC gets a name once the table is there, even with `enabled = false` (measured, 9.2.7)."""
    wanted = Table(raw, "network.interface-name-pinning", PINNING, installer).map("mapping") or {}
    free = (name for number in range(1 << 16) if (name := f"nic{number}") not in wanted.values())
    return {nic.mac: wanted.get(nic.mac) or next(free) for nic in machine.nics}


def _webhook(raw: object, installer: Version) -> WebhookOrder:
    table = Table(raw, "post-installation-webhook", WEBHOOK, installer)
    return WebhookOrder(
        url=table.text("url") or "",
        cert_fingerprint=table.text("cert-fingerprint"),
        auth_token=table.text("auth-token"),
    )


def _first_boot(raw: object, installer: Version) -> FirstBootOrder:
    table = Table(raw, "first-boot", FIRST_BOOT, installer)
    from_url = table.text("source") == "from-url"
    if from_url and table.text("url") is None:
        raise InstallerRefused("first-boot: source from-url needs a url")
    return FirstBootOrder(
        url=table.text("url") if from_url else None,
        ordering=table.text("ordering") or "fully-up",
        cert_fingerprint=table.text("cert-fingerprint"),
    )
