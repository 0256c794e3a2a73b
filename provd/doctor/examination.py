"""Which checks there are, and what each of them is handed. They are run by findings.py, side by side."""

import errno
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

import trio
from attrs import frozen

from provd.config import Config, ServerSection
from provd.doctor import machine, reach, storage, wire
from provd.doctor.clock import look_at_clock
from provd.doctor.findings import Check, Finding, ok, problem, run, skipped, warning
from provd.doctor.machine import Port, Transport
from provd.domain.errors import ConfigError
from provd.netboot import interfaces, probe
from provd.netboot.loaders import load_loaders

T = TypeVar("T")

LISTENING = 4.5
"""Seconds: dnsmasq looks for three whether an address is in use before it first offers it."""
BRIEF, REMOTE = 10.0, 20.0
"""Seconds for what this machine knows, and for what others are asked."""

DHCP, BOOT_SERVER, TFTP = 67, 4011, 69

NO_PXE = "pxe.enabled is false"


@frozen(kw_only=True)
class Surroundings:
    """What is looked up once, and by several checks."""

    config: Config
    daemon: Collection[int]
    """The processes that are provd, as far as they can be seen."""
    pid: int
    """The one whose capabilities count: provd's, or else this one."""
    local: IPv4Address | None
    """Our address on the machines' network."""
    images: storage.Images | None


async def examine(
    config: Config,
    environ: Mapping[str, str],
    *,
    images: storage.Images | None = None,
    listening: float | None = LISTENING,
    in_daemon: bool = False,
) -> list[Finding]:
    """Look at everything. Safe to cancel; takes `REMOTE` seconds at most.

    `images` tells, in this thread, what installer images there are; without it they are not looked at.
    `listening` is for how many seconds answers to a test packet are waited for; None: none is sent.
    `in_daemon`: this process is provd itself.
    """
    around = await in_thread(look_around, config, images, in_daemon)
    credentials_dir = environ.get("CREDENTIALS_DIRECTORY")
    here, wired = partial(Check, seconds=BRIEF), BRIEF + (listening or 0)
    checks = [
        here(name="interface", look=local(look_at_interface, config)),
        here(name="ports", look=local(look_at_ports, around)),
        here(name="privileges", look=local(look_at_privileges, around)),
        Check(name=wire.CHECK, seconds=wired, look=partial(look_at_wire, around, listening)),
        here(name="loaders", look=local(look_at_loaders, config)),
        here(name="images", look=partial(look_at_images, around)),
        here(name="disk", look=partial(look_at_disk, around)),
        Check(name="server.public_url", seconds=REMOTE, look=partial(look_at_public_url, around)),
        Check(name="server.image_url", seconds=REMOTE, look=partial(look_at_image_url, around)),
        Check(name="cluster", seconds=REMOTE, look=partial(look_at_cluster, config)),
        here(name="clock", look=local(lambda: [look_at_clock()])),
        here(
            name="credentials",
            look=local(
                storage.look_at_credentials,
                config.credentials,
                Path(credentials_dir) if credentials_dir else None,
            ),
        ),
    ]
    return await run(checks)


def look_around(config: Config, images: storage.Images | None, in_daemon: bool) -> Surroundings:
    locked = machine.lock_holders(config.paths.state_dir / "provd.lock")
    daemon = {os.getpid()} if in_daemon else set(locked)
    return Surroundings(
        config=config,
        daemon=daemon,
        pid=min(daemon, default=os.getpid()),
        local=own_address(config),
        images=images,
    )


def own_address(config: Config) -> IPv4Address | None:
    """Our address on the machines' network; None where there is none, which is another check's to say."""
    name, subnet = config.pxe.interface, config.pxe.subnet
    if name is None or subnet is None:
        return None
    try:
        return interfaces.address_in(interfaces.find(name), subnet).ip
    except ConfigError:
        return None


async def in_thread(look: Callable[..., T], *arguments: object) -> T:
    """A disk that does not answer takes the thread with it, and not the doctor."""
    return await trio.to_thread.run_sync(partial(look, *arguments), abandon_on_cancel=True)


def local(
    look: Callable[..., Iterable[Finding]], *arguments: object
) -> Callable[[], Awaitable[list[Finding]]]:
    """A check that waits for nothing but this machine, as one that may be waited for."""
    return partial(in_thread, lambda: list(look(*arguments)))


# --- this machine ---------------------------------------------------------------------------------


def look_at_interface(config: Config) -> Iterable[Finding]:
    name, subnet = config.pxe.interface, config.pxe.subnet
    if not config.pxe.enabled or name is None or subnet is None:
        return [skipped("interface", NO_PXE)]
    return machine.look_at_interface(name, subnet)


def look_at_ports(around: Surroundings) -> Iterable[Finding]:
    listeners = listening(around.config.server)
    if not around.config.pxe.enabled:
        return [
            skipped("ports", f"UDP ports {DHCP}, {BOOT_SERVER} and {TFTP}: {NO_PXE}"),
            *(machine.look_at_port(port, around.daemon) for port in listeners),
        ]
    address = str(around.local or "0.0.0.0")
    dhcp = Port(transport=Transport.UDP, address="0.0.0.0", number=DHCP, purpose="DHCP")
    others = [
        Port(transport=Transport.UDP, address=address, number=BOOT_SERVER, purpose="PXE boot server"),
        Port(transport=Transport.UDP, address=address, number=TFTP, purpose="TFTP"),
        *listeners,
    ]
    return [
        machine.look_at_dhcp_port(dhcp, around.daemon, around.pid),
        *(machine.look_at_port(port, around.daemon) for port in others),
    ]


def listening(server: ServerSection) -> Sequence[Port]:
    purposes = {"server.listen": server.listen, "server.image_listen": server.image_listen}
    return [
        Port(
            transport=Transport.TCP,
            address=value.rpartition(":")[0].strip("[]"),
            number=int(value.rpartition(":")[2]),
            purpose=key,
        )
        for key, value in purposes.items()
    ]


def look_at_privileges(around: Surroundings) -> Iterable[Finding]:
    ports = {port.number for port in listening(around.config.server)}
    if around.config.pxe.enabled:
        ports |= {DHCP, TFTP, BOOT_SERVER}
    name = f"provd (pid {around.pid})" if around.daemon else f"this process (uid {os.geteuid()})"
    return [machine.look_at_privileges(around.pid, name, ports)]


def look_at_loaders(config: Config) -> Iterable[Finding]:
    check = "loaders"
    if not config.pxe.enabled:
        return [skipped(check, NO_PXE)]
    mend = "apt install ipxe (Debian 13 or newer), or correct pxe.loader_dir and pxe.loaders."
    try:
        loaders = load_loaders(config.pxe.loader_dir, config.pxe.loaders)
    except ConfigError as exc:
        return [problem(check, str(exc), mend)]
    if not loaders.usual:
        return [problem(check, f"there is no iPXE build in {config.pxe.loader_dir}", mend)]
    names = ", ".join(f"{loader.name} for {kind}" for kind, loader in loaders.usual.items())
    return [ok(check, names), *(warning(check, each, mend) for each in loaders.problems())]


async def look_at_images(around: Surroundings) -> Iterable[Finding]:
    if around.images is None:
        return [skipped("images", "the images are known to the running provd only", "Look at its page.")]
    return await local(storage.look_at_images, list(around.images()), around.config.proxmox.installer_url)()


async def look_at_disk(around: Surroundings) -> Iterable[Finding]:
    paths = around.config.paths
    known = list(around.images()) if around.images else []
    return await local(storage.look_at_disk, [paths.state_dir, paths.images_dir], known)()


# --- the network ----------------------------------------------------------------------------------


async def look_at_wire(around: Surroundings, seconds: float | None) -> Iterable[Finding]:
    pxe = around.config.pxe
    if not pxe.enabled or pxe.interface is None or pxe.subnet is None:
        return [skipped(wire.CHECK, NO_PXE)]
    if seconds is None:
        return [skipped(wire.CHECK, "no test packet was sent, as you wished")]
    everything = await in_thread(interfaces.interfaces)
    interface = next((each for each in everything if each.name == pxe.interface), None)
    if interface is None or not interface.up or around.local is None:
        return [skipped(wire.CHECK, f"{pxe.interface} is not in a state to send a test packet")]
    try:
        servers = await probe.ask(interface, seconds)
    except OSError as exc:
        return [unasked(exc)]
    own = {address.ip for each in everything for address in each.addresses}
    return wire.judge(servers, own, pxe.subnet, interface.name)


def unasked(exc: OSError) -> Finding:
    """Why no test packet could be sent."""
    what = f"no test packet could be sent: {exc.strerror}"
    if exc.errno == errno.EADDRINUSE:
        port = Port(transport=Transport.UDP, address="0.0.0.0", number=probe.CLIENT, purpose="DHCP client")
        found = ", ".join(map(str, machine.holders(port))) or "a process that this user may not see"
        return warning(
            wire.CHECK,
            f"no test packet could be sent: {port} is in the sole hands of {found}",
            "Give the interface a fixed address and end its DHCP client: provd's address shall not change.",
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return warning(wire.CHECK, what, "Run it as root, or look at the page of the running provd.")
    return warning(wire.CHECK, what, "Look at the interface: ip addr, and at the firewall: nft list ruleset")


async def look_at_public_url(around: Surroundings) -> Iterable[Finding]:
    url = around.config.server.public_url
    running = bool(around.daemon)
    return await reach.look_at_url("server.public_url", url, around.local, running=running, health=True)


async def look_at_image_url(around: Surroundings) -> Iterable[Finding]:
    if around.config.proxmox.installer_url:
        url, key = around.config.proxmox.installer_url, "proxmox.installer_url"
        return await reach.look_at_url(key, url, around.local, running=True, health=False)
    url, running = around.config.server.image_url, bool(around.daemon)
    return await reach.look_at_url("server.image_url", url, around.local, running=running, health=False)


async def look_at_cluster(config: Config) -> Iterable[Finding]:
    return await reach.look_at_member(config.proxmox, datetime.now(UTC))
