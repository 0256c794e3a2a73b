"""A LAN of network namespaces, which nothing leaves: a bridge with the machines, and provd behind a veth.

    namespace LAN                                         namespace SERVER
    br0 10.77.0.1 (the LAN's router and DHCP server)
     |  10.77.0.10 (a member of the cluster)
     +-- tap0, tap1 ... (machines)
     +-- srvp ------------------------------------------- lan0 10.77.0.2 (provd)

Needs root and iproute2. Other computers get namespaces like SERVER. Whatever happens, all of them are gone
at the end, and those of a rack that was killed go when the next one is built.
"""

import itertools
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import field, frozen

SUBNET = "10.77.0.0/24"
ROUTER = "10.77.0.1"
SERVER = "10.77.0.2"
MEMBER = "10.77.0.10"
ROUTER6 = "fd00:77::1"
"""An IPv6 router, and no boot server on IPv6. Without one each start of iPXE waits for it, 16 seconds."""
LEASES = ("10.77.0.100", "10.77.0.199")
INTERFACE = "lan0"
"""provd's."""

_numbers = itertools.count()


@frozen(eq=False)
class Lan:
    tag: str
    namespaces: list[str] = field(factory=list)
    _taps: Iterator[int] = field(factory=itertools.count)

    @property
    def lan(self) -> str:
        return f"provd-lan-{self.tag}"

    @property
    def server(self) -> str:
        return f"provd-srv-{self.tag}"

    def inside(self, namespace: str, command: Sequence[str]) -> list[str]:
        """`command`, to be run in one of the namespaces; the process is the command itself, with its id."""
        return ["ip", "netns", "exec", namespace, *command]

    def add_namespace(self, name: str) -> None:
        ip("netns", "add", name)
        self.namespaces.append(name)
        ip("-n", name, "link", "set", "lo", "up")

    def add_computer(self, label: str, address: str) -> str:
        """A computer behind a veth; returns its namespace, in which its NIC is `INTERFACE`."""
        name, port = f"provd-{label}-{self.tag}", f"{label}p"
        self.add_namespace(name)
        ip(
            "-n", self.lan, "link", "add", port, "type", "veth", "peer", "name", INTERFACE, "netns", name,
        )  # fmt: skip
        ip("-n", self.lan, "link", "set", port, "master", "br0", "up")
        ip("-n", name, "address", "add", f"{address}/24", "brd", "+", "dev", INTERFACE)
        ip("-n", name, "link", "set", INTERFACE, "up")
        return name

    def add_tap(self) -> str:
        """A cable to the bridge, for one machine."""
        name = f"tap{next(self._taps)}"
        ip("-n", self.lan, "tuntap", "add", name, "mode", "tap")
        ip("-n", self.lan, "link", "set", name, "master", "br0", "up")
        return name


@contextmanager
def open_lan() -> Iterator[Lan]:
    """Raises PermissionError for who is not root, CalledProcessError where the kernel refuses."""
    if os.geteuid() != 0:
        raise PermissionError("network namespaces and virtual machines on them need root")
    remove_orphans()
    lan = Lan(f"{os.getpid()}-{next(_numbers)}")
    try:
        lan.add_namespace(lan.lan)
        ip("-n", lan.lan, "link", "add", "br0", "type", "bridge", "forward_delay", "0", "stp_state", "0")
        for address in (ROUTER, MEMBER):
            ip("-n", lan.lan, "address", "add", f"{address}/24", "brd", "+", "dev", "br0")
        ip("-n", lan.lan, "address", "add", f"{ROUTER6}/64", "dev", "br0", "nodad")
        ip("-n", lan.lan, "link", "set", "br0", "up")
        lan.add_computer("srv", SERVER)
        yield lan
    finally:
        for namespace in lan.namespaces:
            with suppress(subprocess.CalledProcessError):
                ip("netns", "delete", namespace)


def remove_orphans() -> None:
    """Namespaces whose maker is not alive any more."""
    for path in Path("/run/netns").glob("provd-*-*"):
        match = re.fullmatch(r"provd-[a-z]+-([0-9]+)-[0-9]+", path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            with suppress(subprocess.CalledProcessError):
                ip("netns", "delete", path.name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
