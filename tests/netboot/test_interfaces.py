"""The interfaces of this machine, as the kernel has them."""

import os
import socket
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from provd.domain.errors import ConfigError
from provd.netboot.interfaces import Interface, address_in, broadcast_of, find, interfaces


def test_loopback_is_found_with_its_number_and_address() -> None:
    """Every Linux has it, up, and with the address and index that the kernel gives."""
    lo = find("lo")
    assert (lo.name, lo.index, lo.up, lo.loopback) == ("lo", socket.if_nametoindex("lo"), True, True)
    assert IPv4Interface("127.0.0.1/8") in lo.addresses


def test_all_of_the_kernels_interfaces_are_there() -> None:
    """None is left out, not even those without an address."""
    assert {(each.index, each.name) for each in interfaces()} == set(socket.if_nameindex())


def test_a_missing_interface_is_named_with_those_that_there_are() -> None:
    """The sentence says what was wanted, and what could have been meant."""
    with pytest.raises(ConfigError, match="'nope0'") as caught:
        find("nope0")
    for each in interfaces():
        assert each.loopback or each.name in str(caught.value)


LOOK = """
import os, socket
assert not os.path.exists("/proc/net/dev")
from provd.doctor import machine
from provd.netboot.interfaces import find
lo = find("lo")
assert lo.up and lo.addresses, lo
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("127.0.0.1", 0))
    port = machine.Port(
        transport=machine.Transport.UDP, address="127.0.0.1", number=sock.getsockname()[1], purpose="x"
    )
    assert "provd itself" in machine.look_at_port(port, [os.getpid()]).what
print("seen")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="another /proc takes root")
def test_a_unit_with_a_bare_proc_sees_as_much() -> None:
    """Under systemd's ProcSubset=pid there is no /proc/net, which psutil leans on."""
    bare = 'mount -t proc -o subset=pid proc /proc && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", bare, "sh", sys.executable, "-c", LOOK]
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    seen = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (seen.stdout, seen.stderr) == ("seen\n", "")


ETH0 = Interface(
    name="eth0",
    index=2,
    up=True,
    addresses=(
        IPv4Interface("10.0.0.5/8"),
        IPv4Interface("192.168.1.10/24"),
        IPv4Interface("192.168.1.11/24"),
    ),
)


def test_the_address_within_the_subnet_is_chosen() -> None:
    """The first that fits, though others stand before it."""
    assert address_in(ETH0, IPv4Network("192.168.1.0/24")) == IPv4Interface("192.168.1.10/24")


def test_an_interface_elsewhere_is_told_with_its_addresses() -> None:
    """Interface, subnet and every address are in the sentence."""
    with pytest.raises(ConfigError) as caught:
        address_in(ETH0, IPv4Network("172.16.0.0/12"))
    for word in ("eth0", "172.16.0.0/12", "10.0.0.5/8", "192.168.1.10/24"):
        assert word in str(caught.value)
    with pytest.raises(ConfigError, match="no IPv4 address at all"):
        address_in(Interface(name="eth1", index=3, up=True), IPv4Network("172.16.0.0/12"))


@pytest.mark.parametrize(
    ("address", "broadcast"),
    [("192.168.1.10/24", "192.168.1.255"), ("10.0.0.1/30", "10.0.0.3"), ("10.0.0.1/31", "255.255.255.255")],
)
def test_the_broadcast_address(address: str, broadcast: str) -> None:
    """The last of the network, except in those that have none (RFC 3021)."""
    assert broadcast_of(IPv4Interface(address)) == IPv4Address(broadcast)
