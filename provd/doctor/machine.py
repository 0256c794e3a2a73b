"""This machine: its interface, its ports and who holds them, and what a process may do here."""

import errno
import os
import socket
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import psutil
from attrs import evolve, frozen

from provd.doctor.findings import Finding, Result, ok, problem, warning
from provd.domain.errors import ConfigError
from provd.netboot.interfaces import address_in, find

CAP_NET_BIND_SERVICE, CAP_NET_RAW = 10, 13
"""Their bits in capabilities(7)."""
PRIVILEGED_PORTS = 1024


class Transport(StrEnum):
    UDP = "udp"
    TCP = "tcp"


@frozen(kw_only=True)
class Port:
    """One that provd listens on."""

    transport: Transport
    address: str
    number: int
    purpose: str

    def __str__(self) -> str:
        return f"{self.transport.upper()} port {self.number} ({self.purpose})"


@frozen(kw_only=True)
class Holder:
    name: str
    pid: int | None
    """None: it is not ours to see."""

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid else self.name


# --- interface ------------------------------------------------------------------------------------


def look_at_interface(name: str, subnet: IPv4Network) -> Iterator[Finding]:
    check = "interface"
    try:
        interface = find(name)
        address = address_in(interface, subnet)
    except ConfigError as exc:
        yield problem(
            check, str(exc), "Correct pxe.interface or pxe.subnet, or give the interface an address."
        )
        return
    if not interface.up:
        yield problem(check, f"{name} is down", f"Plug in its cable, or switch it on: ip link set {name} up")
    else:
        yield ok(check, f"{name} is up and has {address}")
    if address.network != subnet:
        yield warning(
            check,
            f"{name} has {address}, but pxe.subnet is {subnet}",
            f"If the network is {address.network}, write that in pxe.subnet.",
        )


# --- ports ----------------------------------------------------------------------------------------


def look_at_port(port: Port, daemon: Collection[int]) -> Finding:
    """`daemon` are the processes that are provd itself."""
    outcome = bind(port)
    if outcome is None:
        return ok("ports", f"{port} is free")
    if outcome == errno.EADDRNOTAVAIL:
        what = f"{port}: this machine has no address {port.address}"
        return problem("ports", what, "Correct it in provisioning.yaml.")
    return judge_holders(port, holders(port), daemon, certain=outcome == errno.EADDRINUSE)


def look_at_dhcp_port(port: Port, daemon: Collection[int], pid: int) -> Finding:
    """As `look_at_port`, for the one that provd shares with a DHCP server if it must.

    `pid` is the process whose capabilities count. See provd/netboot/dhcp_sockets.py.
    """
    finding = look_at_port(port, daemon)
    if finding.result is not Result.PROBLEM:
        return finding
    others = ", ".join(map(str, holders(port)))
    if bind(evolve(port, address="255.255.255.255"), share=True) is None:
        what = f"{port} is shared with {others}, which also gets what relays forward"
        return ok("ports", what)
    if may(pid, CAP_NET_RAW):
        return ok("ports", f"{port} is in the sole hands of {others}; provd listens along by a raw socket")
    return problem(
        "ports",
        f"{port} is in the sole hands of {others}",
        "Let it share the port (dnsmasq: bind-interfaces), or give provd CAP_NET_RAW to listen along: "
        "`systemctl edit provd`, and under [Service] add it to AmbientCapabilities= and "
        "CapabilityBoundingSet=.",
    )


def judge_holders(port: Port, found: Sequence[Holder], daemon: Collection[int], *, certain: bool) -> Finding:
    """`certain`: the port cannot be had. Otherwise nobody was allowed to try."""
    if any(holder.pid in daemon for holder in found):
        return ok("ports", f"provd itself listens on {port}")
    look = f"Look as root: ss -lnp --{port.transport} 'sport = :{port.number}'"
    if not found and certain:
        return warning("ports", f"{port} is in use, but nobody is seen there", look)
    if not found:
        return ok("ports", f"{port} is free, as far as this user may look")
    others = ", ".join(map(str, found))
    if not certain or any(holder.pid is None for holder in found):
        return warning("ports", f"{port} is held by {others}, which may be provd itself", look)
    mend = "Stop that program, or take the port from it; provd does not share it."
    return problem("ports", f"{port} is held by {others}", mend)


def bind(port: Port, *, share: bool = False) -> int | None:
    """Try to take the port as provd would, and give it back. Returns the errno, or None.

    Only the kernel knows that two programs on one port do not collide, for instance because the other
    has an interface of its own (libvirt's dnsmasq on virbr0).
    """
    kind = socket.SOCK_DGRAM if port.transport is Transport.UDP else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET6 if ":" in port.address else socket.AF_INET, kind) as sock:
        try:
            # For TCP: what is left of old connections does not count.
            if share or port.transport is Transport.TCP:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind((port.address, port.number))
            if port.transport is Transport.TCP:
                sock.listen(1)
        except OSError as exc:
            return exc.errno
    return None


def holders(port: Port) -> Sequence[Holder]:
    """The programs that have a socket on that port and address, whatever their interface."""
    addresses = {"0.0.0.0", "::", port.address}
    found = [
        pid
        for address, number, pid in sockets(port.transport)
        if number == port.number and (address in addresses or port.address in ("0.0.0.0", "::"))
    ]
    return [Holder(name=name_of(pid), pid=pid) for pid in dict.fromkeys(found)]


def sockets(transport: Transport) -> Iterator[tuple[str, int, int | None]]:
    """Address, port and process of each that listens."""
    try:
        connections = psutil.net_connections(transport)
    except FileNotFoundError:
        yield from own_sockets(transport)
        return
    for each in connections:
        if each.laddr and each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE):
            yield each.laddr.ip, each.laddr.port, each.pid


def own_sockets(transport: Transport) -> Iterator[tuple[str, int, int | None]]:
    """The same without /proc/net, which systemd's ProcSubset=pid hides: only our own have a process."""
    ours = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            ours.add(str(entry.readlink()))
    for row in Path(f"/proc/self/net/{transport}").read_text().splitlines()[1:]:
        # proc(5): number, local address, remote address, state, …, inode. Hexadecimal, as in memory.
        _, local, _, state, *more = row.split()
        if state in ("07", "0A"):
            address, port = local.split(":")
            pid = os.getpid() if f"socket:[{more[5]}]" in ours else None
            yield str(IPv4Address(int.from_bytes(bytes.fromhex(address), sys.byteorder))), int(port, 16), pid


def name_of(pid: int | None) -> str:
    if pid is None:
        return "a process that this user may not see"
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process that has ended"


def lock_holders(lock: Path) -> Collection[int]:
    """The processes with an flock(2) on that file: provd, where it is the lock of its state directory.

    Nobody where the file or /proc/locks cannot be seen, as under systemd's ProcSubset=pid.
    """
    try:
        inode = lock.stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return frozenset()
    # "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF". Btrfs has several numbers for one device, so
    # only the inode is compared.
    rows = [line.split() for line in lines]
    return frozenset(
        int(row[4])
        for row in rows
        if len(row) > 5 and row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(inode)
    )


# --- what a process may do ------------------------------------------------------------------------


def look_at_privileges(pid: int, name: str, ports: Collection[int]) -> Finding:
    """Whether the process `pid` may listen on `ports`. `name` is how it is called in the sentence."""
    low = sorted(port for port in ports if port < lowest_free_port())
    wanted = ", ".join(map(str, low))
    check = "privileges"
    if not low:
        return ok(check, f"{name} needs none for its ports")
    if may(pid, CAP_NET_BIND_SERVICE):
        return ok(check, f"{name} may listen on the ports {wanted}")
    return problem(
        check,
        f"{name} may not listen on the ports {wanted}: it lacks CAP_NET_BIND_SERVICE",
        "As a service: `systemctl edit provd`, and under [Service] both "
        "AmbientCapabilities=CAP_NET_BIND_SERVICE and CapabilityBoundingSet=CAP_NET_BIND_SERVICE. "
        f"By hand: run it as root, or sysctl net.ipv4.ip_unprivileged_port_start={low[0]}",
    )


def may(pid: int, capability: int) -> bool:
    """Whether the process has the capability in force. Raises `OSError` for one that has ended."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    effective = next((line.split()[1] for line in status if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> capability & 1)


def lowest_free_port() -> int:
    """The first that needs no capability (ip(7)); systemd's ProcSubset=pid hides the setting."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except OSError:
        return PRIVILEGED_PORTS
