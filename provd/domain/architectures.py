"""What kinds of firmware there are, by the number that each sends in DHCP option 93.

Sources: RFC 4578 §2.1 (its erratum 4624: firmware in the field swapped 7 and 9), RFC 5970 §3.3, and
the IANA registry "Processor Architecture Types". The number decides, never the text of option 60:
a chained iPXE sends `PXEClient` without any architecture in it.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from attrs import frozen


class Architecture(StrEnum):
    """The values are the operator's words, as keys of `pxe.loaders`."""

    BIOS = "bios"
    X64 = "x64"
    ARM64 = "arm64"
    RISCV64 = "riscv64"
    LOONG64 = "loong64"


class Via(StrEnum):
    """How the firmware fetches its boot file."""

    TFTP = "tftp"
    HTTP = "http"


@frozen
class Firmware:
    architecture: Architecture
    via: Via

    def __str__(self) -> str:
        name = "BIOS" if self.architecture is Architecture.BIOS else f"UEFI {self.architecture}"
        return f"{name} by HTTP" if self.via is Via.HTTP else name


FIRMWARES: Mapping[int, Firmware] = {
    0: Firmware(Architecture.BIOS, Via.TFTP),
    7: Firmware(Architecture.X64, Via.TFTP),
    # "EFI byte code", which is what some x64 firmware says of itself.
    9: Firmware(Architecture.X64, Via.TFTP),
    11: Firmware(Architecture.ARM64, Via.TFTP),
    16: Firmware(Architecture.X64, Via.HTTP),
    17: Firmware(Architecture.X64, Via.HTTP),
    19: Firmware(Architecture.ARM64, Via.HTTP),
    27: Firmware(Architecture.RISCV64, Via.TFTP),
    28: Firmware(Architecture.RISCV64, Via.HTTP),
    39: Firmware(Architecture.LOONG64, Via.TFTP),
    40: Firmware(Architecture.LOONG64, Via.HTTP),
}
"""Those for which there is an iPXE build to give. Others are left alone, and said so."""


def firmware_of(numbers: Sequence[int]) -> Firmware | None:
    """The first of a client's numbers that is known (option 93 is a list, RFC 4578 §2.1)."""
    return next((FIRMWARES[number] for number in numbers if number in FIRMWARES), None)
