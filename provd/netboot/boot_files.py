"""The files that firmware and a freshly started iPXE may read, by TFTP or HTTP, and no others.

A name is looked up in a table that was made at the start. No path is built from it and no file is
opened for it, so that there is nothing to lead out of.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum

from attrs import frozen

from provd.domain.architectures import Architecture
from provd.domain.contacts import Hop
from provd.netboot.loaders import Loaders
from provd.netboot.scripts import autoexec_script

AUTOEXEC = "autoexec.ipxe"


class ContentType(StrEnum):
    EFI = "application/efi"
    """By this, or by the suffix .efi, UEFI's HTTP boot knows a program."""
    SCRIPT = "text/plain; charset=utf-8"
    OTHER = "application/octet-stream"


@frozen(kw_only=True)
class BootFile:
    content: bytes
    content_type: ContentType
    hop: Hop
    """How far a machine has come that has read it."""


class BootFiles:
    """`autoexec` makes the script for the base URL under which a client reaches provd."""

    def __init__(self, loaders: Loaders, autoexec: Callable[[str], str] = autoexec_script) -> None:
        self._builds: Mapping[str, BootFile] = _table(loaders)
        # Debian 13's iPXE asks for it in the root of the TFTP server, 2.0.0 and whatever was started by
        # HTTP beside the build that runs.
        folders = {name.rpartition("/")[0] for name in self._builds}
        self._scripts = {AUTOEXEC, *(f"{folder}/{AUTOEXEC}" for folder in folders if folder)}
        self._autoexec = autoexec

    def find(self, name: str, *, base_url: str) -> BootFile | None:
        """The file called `name`, for a client that reaches provd at `base_url`. None: there is none.

        Some firmware writes back-slashes, some a slash in front.
        """
        name = name.replace("\\", "/").removeprefix("/")
        if name in self._scripts:
            script = self._autoexec(base_url).encode("ascii")
            return BootFile(content=script, content_type=ContentType.SCRIPT, hop=Hop.IPXE)
        return self._builds.get(name)

    def read(self, name: str, *, base_url: str) -> bytes | None:
        """The bytes alone, where the way that they go has no room for more."""
        file = self.find(name, base_url=base_url)
        return file.content if file is not None else None

    def at(self, base_url: str) -> "Shelf":
        """The same files for a server all of whose clients reach provd at `base_url`."""
        return Shelf(self, base_url)


@frozen
class Shelf:
    files: BootFiles
    base_url: str

    def read(self, name: str) -> bytes | None:
        return self.files.read(name, base_url=self.base_url)


def _table(loaders: Loaders) -> dict[str, BootFile]:
    table = {}
    for name, loader in loaders.by_name.items():
        is_bios = loader.architecture is Architecture.BIOS
        kind = ContentType.OTHER if is_bios else ContentType.EFI
        file = BootFile(content=loader.content, content_type=kind, hop=Hop.LOADER)
        table[name] = file
        if is_bios:
            # Some PXE ROMs put it behind any name.
            table[f"{name}.0"] = file
    return table
