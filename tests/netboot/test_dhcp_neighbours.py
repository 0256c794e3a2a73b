"""Who has which address, as heard and as the kernel knows."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from provd.domain.hosts import Mac
from provd.netboot.neighbours import ARP_TABLE, CAPACITY, Neighbours

ARP = """\
IP address       HW type     Flags       HW address            Mask     Device
10.9.0.7         0x1         0x2         52:54:00:00:00:07     *        vmbr0
10.9.0.70        0x1         0x2         52:54:00:00:00:70     *        vmbr0
10.9.0.8         0x1         0x0         00:00:00:00:00:00     *        vmbr0
10.9.0.9         0x1         0x6         52:54:00:00:00:09     *        vmbr0
10.9.0.10        0x1         0x2         00:00:00:00:00:00     *        lo
10.9.0.11
"""


@pytest.fixture
def neighbours(tmp_path: Path) -> Neighbours:
    table = tmp_path / "arp"
    table.write_text(ARP)
    return Neighbours(table)


def test_what_was_heard_last_counts(neighbours: Neighbours) -> None:
    """A machine that takes over an address is who is there, before what the kernel remembers."""
    address = IPv4Address("10.9.0.7")
    for last in ("52:54:00:00:00:aa", "52:54:00:00:00:bb"):
        neighbours.heard(address, Mac(last))
        assert neighbours.mac_of(address) == Mac(last)


@pytest.mark.parametrize(
    ("address", "mac"),
    [
        ("10.9.0.7", "52:54:00:00:00:07"),
        ("10.9.0.70", "52:54:00:00:00:70"),
        ("10.9.0.9", "52:54:00:00:00:09"),
        ("10.9.0.8", None),
        ("10.9.0.10", None),
        ("10.9.0.11", None),
        ("10.9.0.1", None),
    ],
)
def test_else_the_kernel_is_asked(neighbours: Neighbours, address: str, mac: str | None) -> None:
    """Of its ARP table the entries count that are complete and one machine's."""
    assert neighbours.mac_of(IPv4Address(address)) == (mac and Mac(mac))


def test_a_missing_table_is_an_empty_one(tmp_path: Path) -> None:
    """Where the kernel does not tell, nobody is known."""
    assert Neighbours(tmp_path / "none").mac_of(IPv4Address("10.9.0.7")) is None


@pytest.mark.skipif(not ARP_TABLE.exists(), reason="this kernel has no /proc/net/arp")
def test_the_kernels_own_table_can_be_read() -> None:
    """Loopback has no neighbours, whatever else is in this machine's table."""
    assert Neighbours().mac_of(IPv4Address("127.0.0.1")) is None


def test_a_bounded_number_is_remembered(neighbours: Neighbours) -> None:
    """Whoever makes up addresses only drives out what was not heard for longest."""
    first = IPv4Address("172.16.0.0")
    for number in range(CAPACITY):
        neighbours.heard(first + number, Mac("52:54:00:00:00:01"))
    neighbours.heard(first, Mac("52:54:00:00:00:02"))
    neighbours.heard(first + CAPACITY, Mac("52:54:00:00:00:03"))
    assert neighbours.mac_of(first) == Mac("52:54:00:00:00:02")
    assert neighbours.mac_of(first + 1) is None
    assert neighbours.mac_of(first + 2) is not None
