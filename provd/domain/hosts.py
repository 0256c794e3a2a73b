"""Who the machines are. A MAC is a name here, never a credential (CVE-2016-4985)."""

import re
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import NewType, TypeVar

from attrs import field, frozen

from provd.domain.errors import Invalid
from provd.domain.lifecycle import State

HostId = NewType("HostId", int)
OperationId = NewType("OperationId", int)
W = TypeVar("W", bound=StrEnum)
IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface

_MAC_SHAPES = re.compile(
    r"([0-9a-f]{2})([:-]?)([0-9a-f]{2})\2([0-9a-f]{2})\2([0-9a-f]{2})\2([0-9a-f]{2})\2([0-9a-f]{2})"
)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)


@frozen(order=True)
class Mac:
    """An Ethernet address in its canonical form: six lower-case octets with colons.

    Installers up to PVE 9.1 post lower case, 9.2 posts upper case, iPXE may write hyphens: they all
    meet here.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> "Mac":
        """Raise `Invalid` for anything but the address of one single machine."""
        match = _MAC_SHAPES.fullmatch(text.strip().lower())
        if match is None:
            raise Invalid(f"{text[:40]!r} is not a MAC address like 52:54:00:12:34:56", "mac")
        octets = [match[1], *match.groups()[2:]]
        if int(octets[0], 16) & 1 or set(octets) == {"00"}:
            raise Invalid(f"{':'.join(octets)} is a group or null address, not one machine's", "mac")
        return cls(":".join(octets))

    def __str__(self) -> str:
        return self.text


def parse_hostname(text: str) -> str:
    """One DNS label, lower-cased (RFC 1123 §2.1; the installer refuses a label of digits alone)."""
    name = text.strip()
    if _LABEL.fullmatch(name) is None or name.isdigit():
        raise Invalid(
            f"{text[:70]!r} is not a host name: 1 to 63 letters, digits and hyphens, not digits alone",
            "hostname",
        )
    return name.lower()


def one_of(words: type[W]) -> Callable[[str], W]:
    """A parser of one of an enumeration's values."""

    def parse(text: str) -> W:
        try:
            return words(text.strip().lower())
        except ValueError as exc:
            raise Invalid(f"{text[:40]!r} is not one of {', '.join(words)}") from exc

    return parse


def parse_file_name(text: str) -> str:
    """The name of a file in a directory that is known, and nothing that leads out of it."""
    name = text.strip()
    if _FILE_NAME.fullmatch(name) is None:
        raise Invalid(f"{text[:60]!r} is not the plain name of a file, like ipxe.efi")
    return name


def parse_nodeid(text: str) -> int:
    """A node's number in its cluster (corosync.conf(5))."""
    if re.fullmatch(r"[1-9][0-9]{0,8}", text.strip(), re.ASCII) is None:
        raise Invalid(f"{text[:20]!r} is not a node id: a whole number from 1 on")
    return int(text)


@frozen(kw_only=True)
class StaticAddress:
    """What `ip` the host shall have for good. Without one the installer freezes its DHCP lease."""

    cidr: IPInterface
    gateway: IPAddress
    dns: IPAddress


class Discovery(StrEnum):
    """How a host's firmware is told where its boot file is. No form suits every firmware."""

    OFFER = "offer"
    """In the offer, with option 43 saying so (PXE 2.1 discovery control 8). The rule."""
    BOOT_SERVER = "boot-server"
    """On port 4011, asked for separately: for UEFI that ignores offers which have option 43."""
    OFF = "off"
    """Not at all: this host's network boot is left alone."""


class LocalBoot(StrEnum):
    """How iPXE hands a UEFI machine over to its own disk. On BIOS it always starts the first disk."""

    EXIT = "exit"
    """Leave with an error, so that the firmware goes on with its boot order. The rule."""
    SANBOOT = "sanboot"
    """Start the first disk from iPXE: for firmware that stops in its set-up menu instead."""


class Membership(StrEnum):
    """Whether a host becomes a member of the cluster."""

    JOIN = "join"
    """The rule, where there is a cluster."""
    NONE = "none"
    """It stands alone, and is ready without a join."""


@frozen(kw_only=True)
class HostOptions:
    """What one host wants otherwise than its server type. None: as the type, then the defaults, say."""

    address: StaticAddress | None = None
    filesystem: str | None = None
    raid: str | None = None
    disks: tuple[str, ...] | None = None
    timezone: str | None = None
    keyboard: str | None = None
    country: str | None = None
    mailto: str | None = None
    domain: str | None = None
    discovery: Discovery | None = None
    local_boot: LocalBoot | None = None
    loader: str | None = None
    """The file name of another iPXE build, e.g. ipxe.efi where snponly.efi fails."""
    cluster: Membership | None = None
    links: tuple[IPAddress, ...] | None = None
    """Its addresses for the second and further corosync links of the cluster, in their order."""
    nodeid: int | None = None
    """Which number it gets in the cluster. None: the one it had, or the lowest free one."""


@frozen(kw_only=True)
class Host:
    """A registered machine, as the database has it."""

    id: HostId
    hostname: str
    mac: Mac
    server_type: str
    options: HostOptions
    state: State
    state_since: datetime
    registered_at: datetime
    ip: IPAddress | None = None
    hardware_id: str | None = None
    memory_mib: int | None = None
    """As the machine's last first boot reported it. None: not known yet."""
    inventory_pending: bool = False
    retry_until: datetime | None = None
    """Until when a join that failed can be tried again without a new installation."""


@frozen(kw_only=True)
class Sighting:
    """A machine that made itself heard and is not registered."""

    mac: Mac
    address: str
    via: str
    first_seen: datetime
    last_seen: datetime
    times: int = field(default=1)
    firmware: str = ""
    """What kind it has, e.g. `UEFI x64`; empty: nothing that was heard of it tells."""
    ignored: bool = False
    """The operator knows it, and does not want it."""
