"""The machine's network interfaces, as the kernel has them at this moment.

What an interface is for, and which one was configured, is not known here.
"""

import fcntl
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import psutil
from attrs import frozen

from provd.domain.errors import ConfigError

SIOCGIFFLAGS = 0x8913
REQUEST = struct.Struct("=16sH14x")
"""struct ifreq with flags (netdevice(7))."""
UP, LOOPBACK, RUNNING = 0x1, 0x8, 0x40


@frozen(kw_only=True)
class Interface:
    name: str
    index: int
    """The kernel's number for it, as in IP_PKTINFO."""
    up: bool
    """Switched on, and with a carrier (IFF_UP and IFF_RUNNING)."""
    loopback: bool = False
    mac: str = ""
    """Empty where it has none of six bytes."""
    addresses: Sequence[IPv4Interface] = ()
    """In the kernel's order: the primary one first."""


def interfaces() -> Sequence[Interface]:
    """All of them. Raises `OSError` where the kernel does not tell."""
    addresses = psutil.net_if_addrs()
    found = []
    for index, name in socket.if_nameindex():
        known, flags = addresses.get(name, []), flags_of(name)
        links = [each.address for each in known if each.family == socket.AF_PACKET]
        found.append(
            Interface(
                name=name,
                index=index,
                up=bool(flags & UP and flags & RUNNING),
                loopback=bool(flags & LOOPBACK),
                mac=links[0].lower() if links and len(links[0]) == 17 else "",
                addresses=tuple(
                    IPv4Interface(f"{each.address}/{each.netmask or 32}")
                    for each in known
                    if each.family == socket.AF_INET
                ),
            )
        )
    return tuple(found)


def flags_of(name: str) -> int:
    """The kernel's IFF_ bits; none for an interface that has gone meanwhile.

    psutil would ask /proc/net/dev first, which systemd's ProcSubset=pid hides.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, SIOCGIFFLAGS, REQUEST.pack(name.encode(), 0).ljust(40, b"\0"))
        except OSError:
            return 0
    return int(REQUEST.unpack_from(answer)[1])


def find(name: str) -> Interface:
    """The interface of that name. Raises `ConfigError` where there is none, naming those that there are."""
    everything = interfaces()
    for each in everything:
        if each.name == name:
            return each
    others = ", ".join(each.name for each in everything if not each.loopback) or "none but loopback"
    raise ConfigError(f"there is no network interface {name!r} here; pxe.interface may be one of: {others}")


def address_in(interface: Interface, subnet: IPv4Network) -> IPv4Interface:
    """The interface's first address within `subnet`, with the prefix that the kernel gives it.

    Raises `ConfigError` where there is none.
    """
    for each in interface.addresses:
        if each.ip in subnet:
            return each
    known = ", ".join(map(str, interface.addresses)) or "no IPv4 address at all"
    raise ConfigError(
        f"the interface {interface.name} has no address in {subnet} (pxe.subnet); it has {known}"
    )


def broadcast_of(address: IPv4Interface) -> IPv4Address:
    """Where to reach everybody on the address's LAN; 255.255.255.255 where its prefix leaves none."""
    if address.network.prefixlen > 30:
        return IPv4Address("255.255.255.255")
    return address.network.broadcast_address
