"""What a machine's contacts with the boot servers are called, and under which address it finds them."""

from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from attrs import evolve

from house import quiet_config
from provd import network_boot
from provd.config import ServerSection
from provd.domain.architectures import Architecture
from provd.domain.contacts import Contact, Hop
from provd.domain.hosts import HostId, HostOptions, Mac, OperationId
from provd.netboot.boot_files import BootFiles
from provd.netboot.loaders import Loader, Loaders
from provd.netboot.neighbours import Neighbours
from provd.netboot.recorder import FlightRecorder
from provd.netboot.tftp_transfer import Outcome, Read
from provd.network_boot import NetworkBoot, amount, url_at
from provd.orchestrator.bell import Bell
from provd.orchestrator.downloads import Progress
from provd.orchestrator.fleet import Fleet
from provd.store import hosts
from provd.store.database import now, open_store

MAC = Mac("02:00:00:00:00:01")
PEER = "192.0.2.77"
BASE = "http://192.0.2.2:8080"


@pytest.fixture
def boot() -> NetworkBoot:
    loader = Loader(
        name="snponly.efi",
        path=Path("snponly.efi"),
        architecture=Architecture.X64,
        content=b"x" * 2048,
        version=None,
        signed=False,
    )
    loaders = Loaders(directory=Path(), by_name={loader.name: loader}, usual={Architecture.X64: loader})
    neighbours = Neighbours()
    neighbours.heard(IPv4Address(PEER), MAC)
    return NetworkBoot(
        address=IPv4Interface("192.0.2.2/24"),
        loaders=loaders,
        files=BootFiles(loaders),
        neighbours=neighbours,
        recorder=FlightRecorder(),
    )


def read(boot: NetworkBoot, **changes: object) -> list[Contact]:
    """What is told of a TFTP transfer."""
    whole = Read(
        peer=PEER,
        name="snponly.efi",
        sent=2048,
        size=2048,
        seconds=0.5,
        outcome=Outcome.DONE,
        reason="",
        retransmissions=0,
    )
    told: list[Contact] = []
    network_boot.tell_read(boot, told.append, BASE, evolve(whole, **changes))
    return told


def test_a_loader_that_was_read_is_told(boot: NetworkBoot) -> None:
    """By its reader's MAC, with size and time; autoexec.ipxe shows that iPXE runs."""
    assert read(boot) == [
        Contact(mac=MAC, hop=Hop.LOADER, message="read snponly.efi by TFTP: 2 KiB in 0.5 s", address=PEER)
    ]
    assert read(boot, name="autoexec.ipxe")[0].hop is Hop.IPXE


def test_a_size_probe_is_no_contact(boot: NetworkBoot) -> None:
    """OVMF asks for the size and breaks off before it reads; a stranger's address has no name."""
    assert read(boot, outcome=Outcome.PROBE, sent=0) == []
    assert read(boot, peer="192.0.2.78") == []
    assert read(boot, name="no-such-file", outcome=Outcome.ABORTED, sent=0) == []


def test_a_loader_that_was_lost_is_told_as_lost(boot: NetworkBoot) -> None:
    """The machine has come no further than its question."""
    (told,) = read(boot, sent=1024, outcome=Outcome.GAVE_UP, reason="it fell silent")
    assert told.hop is Hop.DISCOVER
    assert told.message == "lost snponly.efi after 1024 of 2048 bytes by TFTP: it fell silent"


async def test_downloads_are_stations(tmp_path: Path) -> None:
    """The kernel is one, the last byte of what holds the ISO another; a cut says how far it was."""
    with open_store(tmp_path / "provd.db") as store:
        fleet = Fleet(store, Bell())
        host = await fleet.change(
            lambda change: hosts.register(change.db, "nuc1", MAC, "nuc", HostOptions(), change.at)
        )
        told: list[Contact] = []

        def tell(name: str, sent: int, host_id: HostId = host.id) -> Contact | None:
            told.clear()
            progress = Progress(
                host_id=host_id,
                operation_id=OperationId(1),
                name=name,
                address=PEER,
                sent=sent,
                total=1000,
                rate=0,
                since=now(),
                complete=sent == 1000,
            )
            network_boot.tell_download(fleet, told.append, progress)
            return told[0] if told else None

        kernel, image, cut = tell("vmlinuz", 1000), tell("installer.img", 1000), tell("proxmox.iso", 430)
        assert kernel is not None
        assert (kernel.mac, kernel.hop) == (MAC, Hop.KERNEL)
        assert image is not None
        assert image.hop is Hop.INITRD
        assert cut is not None
        assert (cut.hop, cut.message) == (Hop.KERNEL, "the connection was lost after 43 % of proxmox.iso")
        assert tell("initrd.img", 1000) is None
        assert tell("vmlinuz", 1000, HostId(99)) is None


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("0.0.0.0:8080", "http://192.0.2.2:8080"),
        ("[::]:80", "http://192.0.2.2:80"),
        ("192.0.2.2:8080", "http://192.0.2.2:8080"),
        ("127.0.0.1:8080", "https://provd.example"),
    ],
)
def test_machines_are_called_to_an_address(listen: str, expected: str) -> None:
    """To the one they see, where the daemon listens there; else by the public URL, to a reverse proxy."""
    server = ServerSection(public_url="https://provd.example", listen=listen)
    assert url_at(server, IPv4Address("192.0.2.2")) == expected


@pytest.mark.parametrize(
    ("size", "seconds", "text"),
    [
        (900, None, "900 bytes"),
        (280_000, 0.14, "273 KiB in 0.14 s"),
        (1_048_576, None, "1 MiB"),
        (1_800_000_000, 18.0, "1.68 GiB in 18 s (95.4 MiB/s)"),
        (1_072_000_000, None, "1022 MiB"),
    ],
)
def test_amounts_are_short(size: int, seconds: float | None, text: str) -> None:
    """Three digits say enough, and no digit of the whole is cut."""
    assert amount(size, seconds) == text


def test_without_pxe_nothing_of_the_network_is_looked_at(tmp_path: Path) -> None:
    """A laptop has no provisioning LAN and no iPXE, and starts all the same."""
    boot = network_boot.open_network_boot(quiet_config(tmp_path))
    assert boot.address is None
    assert boot.lan is None
    assert boot.loaders.by_name == {}
