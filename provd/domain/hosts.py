"""Who the machines are. A MAC is a name here, never a credential (CVE-2016-4985)."""

import re
from datetime import datetime
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import NewType

from attrs import field, frozen

from provd.domain.errors import Invalid
from provd.domain.lifecycle import State

HostId = NewType("HostId", int)
OperationId = NewType("OperationId", int)
IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface

_MAC_SHAPES = re.compile(
    r"([0-9a-f]{2})([:-]?)([0-9a-f]{2})\2([0-9a-f]{2})\2([0-9a-f]{2})\2([0-9a-f]{2})\2([0-9a-f]{2})"
)
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


@frozen(kw_only=True)
class StaticAddress:
    """What `ip` the host shall have for good. Without one the installer freezes its DHCP lease."""

    cidr: IPInterface
    gateway: IPAddress
    dns: IPAddress


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
    inventory_pending: bool = False


@frozen(kw_only=True)
class Sighting:
    """A machine that made itself heard and is not registered."""

    mac: Mac
    address: str
    via: str
    first_seen: datetime
    last_seen: datetime
    times: int = field(default=1)
