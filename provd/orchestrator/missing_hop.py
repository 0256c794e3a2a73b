"""What should be heard next of a machine that boots to be installed, and why it may not have been.

A table: after each station one of several others is expected within some seconds. What is said when
none comes names the causes that are usual there, the most frequent first, and what to look at. Nobody
here knows a clock or a database, and nothing is waited for.

The codes that firmware shows are those of EDK2 (PxeBcBoot.c) and of Intel's boot ROMs.
"""

from collections.abc import Callable, Mapping

from attrs import frozen

from provd.domain.contacts import Hop
from provd.domain.hosts import Discovery


@frozen(kw_only=True)
class Setting:
    """What the causes depend on: how provd is set up, and what this host has instead of the rule."""

    public_url: str
    installer_url: str
    """Where the script sends machines for kernel, initrd and ISO."""
    own_images: bool = True
    """Whether it is provd that serves them: another web server does not tell what was fetched."""
    discovery: Discovery = Discovery.OFFER
    loader: str | None = None
    memory_mib: int | None = None


@frozen(kw_only=True)
class Expectation:
    next: tuple[Hop, ...]
    seconds: float
    from_first: bool
    """Counted since the station was passed first in this boot: firmware asks again by itself, and that it
    has to is part of the matter. Else since it was passed last."""
    sentence: str
    """For the operator, should nothing come: what is missing, the usual causes, what to look at."""


@frozen(kw_only=True)
class Row:
    next: tuple[Hop, ...]
    seconds: float
    from_first: bool = False
    missing: Callable[[Setting], str]


def no_loader(setting: Setting) -> str:
    other = Discovery.BOOT_SERVER if setting.discovery is Discovery.OFFER else Discovery.OFFER
    return (
        "was told where iPXE is and did not fetch it: did the LAN's DHCP server give it an address (else "
        "PXE-E16, E51 or E52 on its screen); does that server or another PXE server send options 60, 66, 67 "
        "or a boot file of its own (PXE-E53, E55); does a firewall stop UDP 69 or 4011 to provd or the "
        "answers; or does its firmware want the other form (PXE-E18, E55): give the host the option "
        f"discovery: {other}"
    )


def no_loader_from_boot_server(_: Setting) -> str:
    return (
        "was told on port 4011 which file to load and did not read it: TFTP is stopped somewhere (PXE-E18, "
        "E23 or E32 on its screen). Requests come to UDP 69 and provd's answers leave from another port: "
        "look at the firewall of this machine and at those on the way; a tunnel may lose large datagrams"
    )


def no_ipxe(setting: Setting) -> str:
    other = "snponly.efi" if setting.loader == "ipxe.efi" else "ipxe.efi"
    return (
        "has read iPXE, and iPXE was not heard: Secure Boot refuses unsigned builds (“Access Denied”, "
        "“Security Violation” or nothing on its screen): switch it off, or set pxe.loader_dir to signed "
        "ones; if the screen stops at “initialising devices”, the drivers in this build do not suit the "
        f"machine: give the host the option loader: {other}"
    )


def no_script(setting: Setting) -> str:
    return (
        f"runs iPXE, which did not fetch its script from {setting.public_url}: can the machine reach that "
        "address and TCP port, and is it server.public_url as the LAN sees it; does its screen say “No "
        "configuration methods succeeded” (the LAN's DHCP server gave iPXE no address) or “Nothing to boot” "
        "(that server's own boot file won)"
    )


def no_kernel(setting: Setting) -> str:
    return (
        f"has its script and did not fetch the kernel from {setting.installer_url}: can the machine reach "
        "that address and TCP port, another one than the dashboard's (server.image_listen), and is it "
        "server.image_url as the LAN sees it? iPXE names the reason on its screen"
    )


def no_initrd(_: Setting) -> str:
    return (
        "has the kernel, and initrd and ISO did not reach it whole: does its screen say “No space left on "
        "device” (too little memory, or iPXE by BIOS, which puts everything below 4 GiB: let it boot by "
        "UEFI)? If it stopped half-way look at cable and switch port; or iPXE's driver is at fault: another "
        "build can be given by the host's option loader"
    )


def no_answer(setting: Setting) -> str:
    known = f", it has {setting.memory_mib} MiB" if setting.memory_mib else ""
    return (
        "should run the installer by now, which did not ask for its answer: most often there is less than "
        f"8 GiB of memory{known} (its screen says “Initramfs unpacking failed” and “no device with valid "
        "ISO found”), or the link was not up within 10 s (“Network unreachable”; spanning tree: make it an "
        "edge port), or the ISO was not prepared for this provd (a shell on its screen). No disk was touched"
    )


ROWS: Mapping[Hop, Row] = {
    # EDK2 asks at 0, 4, 12 and 28 s until the LAN has given it an address.
    Hop.DISCOVER: Row(next=(Hop.BOOT_SERVER, Hop.LOADER), seconds=30, from_first=True, missing=no_loader),
    # Four times again, within 10 s; then the file takes a second, or some with small blocks.
    Hop.BOOT_SERVER: Row(next=(Hop.LOADER,), seconds=30, from_first=True, missing=no_loader_from_boot_server),
    # iPXE opens the network 7 s after it was read, builds of 2019 after 15 s.
    Hop.LOADER: Row(next=(Hop.IPXE, Hop.SCRIPT), seconds=60, missing=no_ipxe),
    Hop.IPXE: Row(next=(Hop.SCRIPT,), seconds=60, missing=no_script),
    Hop.SCRIPT: Row(next=(Hop.KERNEL,), seconds=60, missing=no_kernel),
    Hop.KERNEL: Row(next=(Hop.INITRD,), seconds=120, missing=no_initrd),
    # Unpacking two gigabytes, waiting for the NICs, the LAN's DHCP server.
    Hop.INITRD: Row(next=(Hop.ANSWER,), seconds=240, missing=no_answer),
}
"""From the answer on each state of the host has its own deadline (`orchestrator/rebuild.py`)."""

SCRIPT_WITH_FOREIGN_IMAGES = Row(next=(Hop.ANSWER,), seconds=600, missing=no_answer)
"""Fetching the images is not heard of, and may be slow: they come from another web server."""


def expected_after(hop: Hop, setting: Setting) -> Expectation | None:
    """What must follow `hop` when a machine boots its installer; None where nothing is watched here."""
    row = ROWS.get(hop)
    if row is None:
        return None
    if hop is Hop.SCRIPT and not setting.own_images:
        row = SCRIPT_WITH_FOREIGN_IMAGES
    return Expectation(
        next=row.next, seconds=row.seconds, from_first=row.from_first, sentence=row.missing(setting)
    )
