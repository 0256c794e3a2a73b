"""Which machine has which IP address, so that who asks by TFTP or HTTP has a name.

It is a name for the operator's eyes, and proves nothing: anybody may claim an address.
"""

from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from attrs import define, field

from provd.domain.errors import Invalid
from provd.domain.hosts import Mac

ARP_TABLE = Path("/proc/self/net/arp")  # /proc/net is hidden by ProcSubset=pid, systemd.exec(5)
"""Its columns (proc(5)): IP address, hardware type, flags, hardware address, mask, device."""
COMPLETE = 0x2
"""The flag of an entry that has an answer (ATF_COM)."""

CAPACITY = 4096
"""Addresses remembered; those not heard for longest are forgotten."""


@define
class Neighbours:
    _arp_table: Path = field(default=ARP_TABLE)
    _macs: dict[IPv4Address, Mac] = field(factory=dict, init=False)

    def heard(self, ip: IPv4Address, mac: Mac) -> None:
        """`mac` said that `ip` is its address: in a DHCP request, that it accepts it."""
        self._macs.pop(ip, None)
        self._macs[ip] = mac
        if len(self._macs) > CAPACITY:
            del self._macs[next(iter(self._macs))]

    def mac_of(self, ip: IPv4Address) -> Mac | None:
        """Who was last heard at `ip`, else whom the kernel knows there, else None."""
        return self._macs.get(ip) or self._by_arp(ip)

    def _by_arp(self, ip: IPv4Address) -> Mac | None:
        try:
            lines = self._arp_table.read_text(errors="replace").splitlines()[1:]
        except OSError:
            return None
        for line in lines:
            match line.split():
                case [address, _, flags, mac, *_] if address == str(ip):
                    with suppress(Invalid, ValueError):
                        return Mac.parse(mac) if int(flags, 16) & COMPLETE else None
        return None
