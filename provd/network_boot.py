"""The wiring of the network boot: proxy-DHCP, TFTP and what machines do with either.

Packets are understood in provd/netboot, and what a machine may boot is decided in provd/orchestrator.
Here the two are introduced to each other.
"""

import logging
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, ip_address

import trio
from attrs import frozen

from provd.config import Config, ServerSection
from provd.domain.contacts import Contact, Hop
from provd.domain.errors import ConfigError, NotFound
from provd.domain.hosts import HostId, Mac
from provd.netboot import dhcp_server, interfaces, tftp_server
from provd.netboot.boot_files import BootFiles
from provd.netboot.loaders import Loaders, load_loaders
from provd.netboot.neighbours import Neighbours
from provd.netboot.proxy_dhcp import Directions, Ports
from provd.netboot.recorder import FlightRecorder
from provd.netboot.tftp_transfer import Outcome, Read
from provd.orchestrator.downloads import Progress
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.front_desk import FrontDesk
from provd.orchestrator.waking import Lan
from provd.proxmox.installer_files import ISO, KERNEL, MERGED
from provd.store.database import now

log = logging.getLogger("provd.netboot")

TFTP_PORT = 69

WHOLE = frozenset({ISO, MERGED})
"""Whoever has read one of these to its end has all that the installer's kernel needs."""


@frozen(kw_only=True)
class NetworkBoot:
    """What the boot servers share with each other and with the pages."""

    address: IPv4Interface | None
    """Ours on the machines' LAN. None: `pxe.enabled` is false."""
    loaders: Loaders
    files: BootFiles
    neighbours: Neighbours
    recorder: FlightRecorder

    @property
    def lan(self) -> Lan | None:
        if self.address is None:
            return None
        return Lan(address=self.address.ip, broadcast=interfaces.broadcast_of(self.address))

    def mac_of(self, address: str) -> Mac | None:
        found = ip_address(address)
        return self.neighbours.mac_of(found) if isinstance(found, IPv4Address) else None


def open_network_boot(config: Config) -> NetworkBoot:
    """Raises `ConfigError` for an interface or an iPXE build that is configured and cannot be used."""
    pxe, address = config.pxe, None
    loaders = Loaders(directory=pxe.loader_dir, by_name={}, usual={})
    if pxe.enabled:
        interface, subnet = pxe.lan
        address = interfaces.address_in(interfaces.find(interface), subnet)
        loaders = load_loaders(pxe.loader_dir, pxe.loaders)
        for sentence in loaders.problems():
            log.warning("%s", sentence)
    return NetworkBoot(
        address=address,
        loaders=loaders,
        files=BootFiles(loaders),
        neighbours=Neighbours(),
        recorder=FlightRecorder(),
    )


async def serve(
    config: Config,
    boot: NetworkBoot,
    desk: FrontDesk,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """DHCP and TFTP until cancelled; started when all ports are open, else raises `ConfigError`."""
    server, (interface, subnet) = config.server, config.pxe.lan
    assert boot.address is not None, "open_network_boot found it"
    address, base_url = boot.address.ip, url_at(server, boot.address.ip)
    directions = Directions(
        loader_for=lambda firmware, wanted: (
            loader.name if (loader := boot.loaders.pick(firmware.architecture, wanted)) else None
        ),
        loader_url=lambda ours, name: f"{url_at(server, ours)}/boot/{name}",
        script_url=lambda ours, mac: f"{url_at(server, ours)}/ipxe/{mac.text.replace(':', '-')}",
    )
    async with trio.open_nursery() as nursery:
        _, sharing = await nursery.start(
            partial(
                dhcp_server.serve,
                desk,
                interface=interface,
                subnet=subnet,
                directions=directions,
                unknown=config.pxe.unknown,
                neighbours=boot.neighbours,
                recorder=boot.recorder,
                ports=Ports(),
            )
        )
        try:
            await nursery.start(
                partial(
                    tftp_server.serve,
                    boot.files.at(base_url),
                    str(address),
                    port=TFTP_PORT,
                    on_read=partial(tell_read, boot, desk.heard, base_url),
                    on_packet=partial(record, boot),
                )
            )
        except OSError as exc:
            raise ConfigError(
                f"TFTP cannot have port {TFTP_PORT} of {address}: {exc.strerror}; see `provd doctor`"
            ) from exc
        log.info("answers machines on %s as %s, on port 67 %s", interface, address, sharing.value)
        task_status.started()


def url_at(server: ServerSection, address: IPv4Address) -> str:
    """How a machine that sees us at `address` reaches the daemon: there, if the daemon listens there.

    By address rather than by name, since firmware need not have been told a name server.
    """
    if ip_address(server.listen_host) in (address, IPv4Address(0), ip_address("::")):
        return f"http://{address}:{server.listen_port}"
    return server.public_url


def tell_read(boot: NetworkBoot, heard: Callable[[Contact], None], base_url: str, read: Read) -> None:
    """A TFTP transfer is over. A size probe is none: OVMF asks, hears the size and breaks off."""
    mac = boot.mac_of(read.peer)
    file = boot.files.find(read.name, base_url=base_url)
    if mac is None or file is None or read.outcome is Outcome.PROBE:
        return
    if read.sent >= read.size:
        message, hop = f"read {read.name} by TFTP: {amount(read.sent, read.seconds)}", file.hop
    else:
        message = f"lost {read.name} after {read.sent} of {read.size} bytes by TFTP: {read.reason}"
        hop = Hop.DISCOVER
    heard(Contact(mac=mac, hop=hop, message=message, address=read.peer))


def record(boot: NetworkBoot, source: tuple[str, int], target: tuple[str, int], payload: bytes) -> None:
    ours = str(boot.address.ip) if boot.address is not None else ""
    mac = boot.mac_of(target[0] if source[0] == ours else source[0])
    if mac is not None:
        boot.recorder.record(mac, source=source, target=target, payload=payload)


def tell_download(fleet: Fleet, heard: Callable[[Contact], None], progress: Progress) -> None:
    """A machine has read one of the installer's files, or was cut off."""
    try:
        mac = fleet.host(HostId(progress.host_id)).mac
    except NotFound:
        return
    if not progress.complete:
        percent = 100 * progress.sent // max(progress.total, 1)
        message, hop = f"the connection was lost after {percent} % of {progress.name}", Hop.KERNEL
    elif progress.name == KERNEL:
        message, hop = f"read the installer's kernel: {amount(progress.total)}", Hop.KERNEL
    elif progress.name in WHOLE:
        seconds = (now() - progress.since).total_seconds()
        message, hop = f"read {progress.name}: {amount(progress.total, seconds)}", Hop.INITRD
    else:
        return
    heard(Contact(mac=mac, hop=hop, message=message, address=progress.address))


def amount(size: int, seconds: float | None = None) -> str:
    """`275 KiB in 0.4 s`, `1.7 GiB in 18 s (96 MiB/s)`."""
    unit, name = next(((1 << 10 * n, name) for n, name in UNITS if size >= 1 << 10 * n), (1, "bytes"))
    text = f"{size / unit:.3g} {name}" if size < 1000 * unit else f"{size // unit} {name}"
    if not seconds:
        return text
    rate = f" ({size / seconds / (1 << 20):.3g} MiB/s)" if size >= 1 << 20 else ""
    return f"{text} in {seconds:.2g} s{rate}" if seconds < 10 else f"{text} in {seconds:.0f} s{rate}"


UNITS = ((3, "GiB"), (2, "MiB"), (1, "KiB"))
