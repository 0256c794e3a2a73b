"""Who made a network card, by how its address begins.

scapy brings the IEEE's registry, as Wireshark keeps it, and reads it when its DHCP is imported, which the
daemon does at its start in any case. So nothing is loaded here, and a look costs two microseconds.
"""

from scapy.data import MANUFDB

from provd.domain.hosts import Mac

LOCALLY_ADMINISTERED = 0x02
"""IEEE 802: an address that no manufacturer gave. Virtual machines and randomised ones have such."""

WELL_KNOWN = {"52:54:00": "QEMU virtual machine"}
"""Given by nobody, and common in a laboratory."""


def vendor_of(mac: Mac) -> str:
    """Its name as the registry writes it; empty where it is not registered."""
    if name := WELL_KNOWN.get(mac.text[:8]):
        return name
    if int(mac.text[:2], 16) & LOCALLY_ADMINISTERED:
        return "locally administered"
    return next((MANUFDB.d[block][1] for block in blocks(mac.text.upper()) if block in MANUFDB.d), "")


def blocks(address: str) -> tuple[str, str, str]:
    """What scapy calls the blocks that hold an address, the smallest first: of 2^12, 2^20 and 2^24."""
    return f"{address[:13]}0/36", f"{address[:10]}0/28", address[:8]
