"""What the LAN's DHCP server told the installer, read from the files that udhcpc's script wrote."""

from pathlib import Path

from attrs import frozen

from provd.simulator.machine.hardware import Lease

NO_LEASE = Lease(cidr="192.168.100.2/24", gateway="192.168.100.1", dns="192.168.100.1")
"""What Proxmox' installer falls back to: an address that leads nowhere."""


@frozen(kw_only=True)
class Obtained:
    """`manifest_url` is DHCP option 250: where the answer is."""

    link: str
    lease: Lease
    manifest_url: str | None


def read_leases(directory: Path) -> list[Obtained]:
    """Those that are there now, the one with a default route first."""
    found = [
        (said, link.name)
        for link in sorted(directory.iterdir())
        if not link.name.startswith(".")
        for said in [dict(line.partition("=")[::2] for line in link.read_text().splitlines())]
    ]
    return [_obtained(said, link) for said, link in sorted(found, key=lambda item: not item[0]["router"])]


def _obtained(said: dict[str, str], link: str) -> Obtained:
    gateway = _first(said["router"]) or NO_LEASE.gateway
    return Obtained(
        link=link,
        lease=Lease(
            cidr=f"{said['ip']}/{said['mask']}",
            gateway=gateway,
            dns=_first(said["dns"]) or gateway,
            hostname=said["hostname"] or None,
            domain=said["domain"] or None,
        ),
        manifest_url=_option(said["opt250"]),
    )


def _first(words: str) -> str | None:
    return next(iter(words.split()), None)


def _option(digits: str) -> str | None:
    """udhcpc prints an option that it has no name for in hexadecimal."""
    return bytes.fromhex(digits).decode(errors="replace").rstrip("\0") or None
