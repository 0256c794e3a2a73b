"""Who made a network card, by the first three octets of its address.

scapy brings the IEEE's registry, as Wireshark keeps it, and has read it already when DHCP is served.
"""

from provd.domain.hosts import Mac

LOCALLY_ADMINISTERED = 0x02
"""IEEE 802: an address that no manufacturer gave. Virtual machines and randomised ones have such."""

WELL_KNOWN = {"52:54:00": "QEMU virtual machine"}
"""Given by nobody, and common in a laboratory."""


def vendor_of(mac: Mac) -> str:
    """Its name as the registry writes it; empty where it is not registered."""
    from scapy.data import MANUFDB

    prefix = str(mac)[:8]
    if prefix in WELL_KNOWN:
        return WELL_KNOWN[prefix]
    if int(prefix[:2], 16) & LOCALLY_ADMINISTERED:
        return "locally administered"
    _, name = MANUFDB.d.get(prefix.upper(), ("", ""))
    return str(name)
