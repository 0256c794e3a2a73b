"""How far a machine got between power-on and a working system, as it made itself heard on the way."""

from enum import StrEnum

from attrs import frozen

from provd.domain.hosts import Mac


class Hop(StrEnum):
    """The stations of a network boot, in order. Not every machine passes all of them."""

    DISCOVER = "discover"
    """The firmware asked who boots it, and provd answered (DHCP port 67)."""
    BOOT_SERVER = "boot_server"
    """It asked once more, where the boot file is (port 4011)."""
    LOADER = "loader"
    """It read iPXE, by TFTP or HTTP."""
    IPXE = "ipxe"
    """iPXE runs: it read autoexec.ipxe, or asked for its script's address by DHCP."""
    SCRIPT = "script"
    KERNEL = "kernel"
    INITRD = "initrd"
    """The whole of what the kernel needs, the ISO included."""
    ANSWER = "answer"
    FIRST_BOOT_SCRIPT = "first_boot_script"
    REPORT = "report"
    PHONE_HOME = "phone_home"


@frozen(kw_only=True)
class Contact:
    """A machine was at `hop`. `message` is one sentence for the operator, without the machine's name."""

    mac: Mac
    hop: Hop
    message: str
    address: str = ""
    """Its IP address, where it has one already."""
    firmware: str = ""
    """What kind it has, where this contact tells."""
