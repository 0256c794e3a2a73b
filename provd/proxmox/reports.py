"""What machines tell of themselves: the installer twice, the new system once. Bytes in, values out.

Three documents of three senders. All come from strangers, so nothing in them proves anything; what
they say is checked for form here and for truth by whoever compares it. Unknown names are passed
over, because next year's installer will know more of them.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_interface

from attrs import frozen

from provd.domain.documents import as_list, as_object, as_text, one_line, parse_json
from provd.domain.errors import BadDocument, Invalid
from provd.domain.hardware import Disk, Hardware, Link
from provd.domain.hosts import IPAddress, IPInterface, Mac
from provd.domain.installation import parse_ssh_public_key

MAX_HOST_KEYS = 16
MAX_REMEMBERED = 64
"""NICs, and disks, of one machine."""
MAX_NAME = 128
"""Characters of what hardware is called. udev's names stay below it."""

FILLER_UUIDS = frozenset(
    {
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "12345678-1234-5678-90ab-cddeefaabbcc",
        "01234567-8910-1112-1314-151617181920",
    }
)
"""UUIDs that mainboards leave the factory with, thousands alike."""

_BROADCAST = ip_address("255.255.255.255")
_RELEASE = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})(?:[.-].{0,40})?", re.DOTALL)
MOST_MEMORY_MIB = 1 << 30

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@frozen(kw_only=True)
class Dmi:
    """What the firmware says the machine is: empty where it is silent, often a vendor's filler."""

    uuid: str
    serial: str
    product_name: str


@frozen(kw_only=True)
class SystemInfo:
    """The installer's question: what it is, on which machine, and so: what shall it do there?"""

    release: tuple[int, int]
    """Of the installer, e.g. (9, 2): decides which words of an answer it understands."""
    product: str
    """Its short name: `pve`."""
    links: tuple[Link, ...]
    """In the kernel's order. The one it booted from is not marked."""
    dmi: Dmi

    @property
    def identity(self) -> str:
        """The same text for the same firmware data: tells that two requests come from one machine.

        Two machines without real DMI data share it, so it is compared besides the MAC, not instead.
        """
        said = repr((self.dmi.uuid.lower(), self.dmi.serial, self.dmi.product_name))
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    @property
    def hardware(self) -> Hardware:
        """What of it is worth remembering, made harmless and bounded."""
        return Hardware(
            identity=self.identity,
            product=one_line(self.dmi.product_name, MAX_NAME),
            installer=self.release,
            links=tuple(
                Link(one_line(link.name, MAX_NAME), link.mac) for link in self.links[:MAX_REMEMBERED]
            ),
        )


@frozen(kw_only=True)
class InstallReport:
    """The installer's last word, posted once, before it reboots."""

    fqdn: str
    machine_id: str
    host_keys: tuple[str, ...]
    """`type base64` lines of the new system's SSH host keys."""
    links: tuple[Link, ...]
    management: Link | None
    """None where the installer did not mark one (9.1 and 9.2 do not, with pinned names)."""
    address: IPInterface | None
    """The final one, of the management link."""
    product_version: str
    disks: tuple[Disk, ...]
    """Their size is not told: what the installer calls so is the space it was told to use."""
    hardware_uuid: str | None
    """None unless the firmware has a real one."""


@frozen(kw_only=True)
class PhoneHome:
    """What our own first-boot script sends from the new system.

    `ip` may be any unicast address: whether it is one of the caller's own is for the caller to ask.
    """

    ip: IPAddress
    hardware_id: str
    host_keys: tuple[str, ...]
    hostname: str
    reboot_needed: bool
    memory_mib: int | None = None
    """None: the script is older than this field, or the kernel did not say."""


def parse_system_info(body: bytes) -> SystemInfo:
    """The body of the answer request, of any installer since 8.2. Raises `BadDocument`.

    Links whose address is not one machine's Ethernet address are left out.
    """
    root = as_object(parse_json(body), "the system information")
    iso = as_object(root.get("iso"), "iso")
    product = as_object(root.get("product"), "product")
    entries = as_list(root.get("network_interfaces"), "network_interfaces")
    links = [_link(as_object(entry, "a network interface"), "link") for entry in entries]
    return SystemInfo(
        release=_release(as_text(iso.get("release"), "iso.release")),
        product=as_text(product.get("product"), "product.product", 40),
        links=tuple(link for link in links if link is not None),
        dmi=_dmi(root.get("dmi")),
    )


def parse_install_report(body: bytes) -> InstallReport:
    """The body of the post-installation webhook, of any installer since 8.3. Raises `BadDocument`.

    Since 9.2.5 the installer writes "unknown" or nothing where it could not find a thing out.
    """
    root = as_object(parse_json(body), "the installation report")
    product = as_object(root.get("product"), "product")
    entries = [
        as_object(entry, "a network interface")
        for entry in as_list(root.get("network-interfaces", []), "network-interfaces")
    ]
    found = [(link, entry) for entry in entries if (link := _link(entry, "name")) is not None]
    management, address = next(
        ((link, entry.get("address")) for link, entry in found if entry.get("is-management") is True),
        (None, None),
    )
    keys = as_object(root.get("ssh-public-host-keys", {}), "ssh-public-host-keys")
    return InstallReport(
        fqdn=as_text(root.get("fqdn"), "fqdn", 253),
        machine_id=as_text(root.get("machine-id", ""), "machine-id", 64),
        host_keys=_host_keys(key for key in keys.values() if key not in (None, "", "unknown")),
        links=tuple(link for link, _ in found),
        management=management,
        address=_interface(address),
        product_version=as_text(product.get("version"), "product.version", 40),
        disks=_disks(root.get("disks")),
        hardware_uuid=real_uuid(_dmi(root.get("dmi")).uuid),
    )


def parse_phone_home(body: bytes) -> PhoneHome:
    """The body that the first-boot script posts. Raises `BadDocument`.

    `{"ip", "uuid", "mac", "hostname", "host_keys": [line, …], "reboot_needed", "memory_mib"}`
    """
    root = as_object(parse_json(body), "the call")
    memory = root.get("memory_mib")
    uuid = real_uuid(as_text(root.get("uuid"), "uuid"))
    host_keys = _host_keys(as_list(root.get("host_keys"), "host_keys"))
    if not host_keys:
        raise BadDocument("the call has no SSH host keys, so the host could not be recognised over SSH")
    return PhoneHome(
        ip=_unicast(as_text(root.get("ip"), "ip")),
        hardware_id=uuid or f"mac-{_mac(as_text(root.get('mac'), 'mac'))}",
        host_keys=host_keys,
        hostname=as_text(root.get("hostname"), "hostname", 253),
        reboot_needed=root.get("reboot_needed") is True,
        memory_mib=memory if type(memory) is int and 0 < memory <= MOST_MEMORY_MIB else None,
    )


def real_uuid(text: str) -> str | None:
    """A DMI system UUID in lower case; None for what is none, or what many machines share."""
    uuid = text.strip().lower()
    digits = set(uuid) - {"-"}
    if _UUID.fullmatch(uuid) is None or uuid in FILLER_UUIDS or len(digits) <= 2:
        return None
    return uuid


def _release(text: str) -> tuple[int, int]:
    match = _RELEASE.fullmatch(text)
    if match is None:
        raise BadDocument(f"iso.release is {one_line(text, 40)!r}, not a release like 9.2")
    return int(match[1]), int(match[2])


def _dmi(value: object) -> Dmi:
    """Firmware without DMI data, or with other things in its place, is an empty one."""
    system = value.get("system") if isinstance(value, dict) else None
    said = system if isinstance(system, dict) else {}
    texts = {key: text for key in ("uuid", "serial", "name") if isinstance(text := said.get(key), str)}
    return Dmi(
        uuid=texts.get("uuid", "").strip(),
        serial=texts.get("serial", "").strip(),
        product_name=texts.get("name", "").strip(),
    )


def _link(entry: Mapping[str, object], name: str) -> Link | None:
    label, mac = entry.get(name), entry.get("mac")
    if not isinstance(label, str) or not isinstance(mac, str):
        return None
    try:
        return Link(label, Mac.parse(mac))
    except Invalid:
        return None


def _disks(value: object) -> tuple[Disk, ...]:
    """Those that udev has a device for. A report without any is as good: they are no part of its point."""
    entries = value if isinstance(value, list) else []
    told = [entry.get("udev-properties") for entry in entries[:MAX_REMEMBERED] if isinstance(entry, dict)]
    disks = [_disk(properties) for properties in told if isinstance(properties, dict)]
    return tuple(disk for disk in disks if disk.device)


def _disk(properties: Mapping[str, object]) -> Disk:
    def said(key: str) -> str:
        text = properties.get(key)
        return one_line(text.strip(), MAX_NAME) if isinstance(text, str) else ""

    return Disk(
        device=said("DEVNAME"),
        model=said("ID_MODEL").replace("_", " ").strip(),
        serial=said("ID_SERIAL_SHORT"),
        serial_id=said("ID_SERIAL"),
        wwn=said("ID_WWN"),
        wwn_id=said("ID_WWN_WITH_EXTENSION"),
    )


def _mac(text: str) -> Mac:
    try:
        return Mac.parse(text)
    except Invalid as exc:
        raise BadDocument(str(exc)) from exc


def _interface(value: object) -> IPInterface | None:
    if not isinstance(value, str):
        return None
    try:
        return ip_interface(value)
    except ValueError:
        return None


def _unicast(text: str) -> IPAddress:
    try:
        address = ip_address(text)
    except ValueError as exc:
        raise BadDocument(f"ip is {one_line(text, 60)!r}, not an IP address") from exc
    if address.is_multicast or address.is_unspecified or address == _BROADCAST or "%" in text:
        raise BadDocument(f"{address} is not the address of one host")
    return address


def _host_keys(lines: Iterable[object]) -> tuple[str, ...]:
    """Without comments: a key is its type and its body."""
    keys: dict[str, None] = {}
    for line in lines:
        try:
            keys[" ".join(parse_ssh_public_key(as_text(line, "a host key", 16_384)).split()[:2])] = None
        except Invalid as exc:
            raise BadDocument(f"a host key is not one: {one_line(str(exc))}") from exc
    if len(keys) > MAX_HOST_KEYS:
        raise BadDocument(f"{len(keys)} host keys are more than one host has")
    return tuple(keys)
