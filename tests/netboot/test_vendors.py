"""Whose card it is: looked up in the registry that scapy really brings."""

import pytest

from provd.domain.hosts import Mac
from provd.netboot.vendors import vendor_of


@pytest.mark.parametrize(
    ("mac", "name"),
    [
        ("bc:24:11:00:00:01", "Proxmox Server Solutions GmbH"),
        ("1c:69:7a:00:00:01", "EliteGroup Computer Systems Co., LTD"),
        ("52:54:00:00:00:01", "QEMU virtual machine"),
        ("02:00:00:00:00:01", "locally administered"),
        ("00:00:01:00:00:01", "Xerox Corporation"),
        ("00:1b:c5:00:01:33", "Converging Systems Inc."),
        ("00:1b:c5:00:11:33", "OpenRB.com, Direct SIA"),
        ("00:55:da:12:22:33", "KoolPOS Inc."),
        ("00:55:da:02:22:33", "Shinko Technos co.,ltd."),
        ("fc:ff:ff:00:00:01", ""),
    ],
)
def test_a_card_says_who_made_it(mac: str, name: str) -> None:
    """By the registry, also where a block is shared by many; what nobody was given is said to be so."""
    assert vendor_of(Mac.parse(mac)) == name
