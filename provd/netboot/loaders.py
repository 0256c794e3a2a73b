"""The iPXE builds that firmware is given, and what each of them can do.

They are read once, when the daemon starts: a package upgrade in the middle of a boot changes nothing.
How a build reaches a machine is no business of this file. Nor does it trust names: what a file is
made for stands in the file, and so does its version.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

from attrs import field, frozen

from provd.domain.architectures import Architecture
from provd.domain.errors import ConfigError

LARGEST_LOADER = 16 << 20
"""Bytes. Builds have about one megabyte, with every debug message on three."""

INITRD_MAGIC = date(2021, 5, 22)
"""Since upstream's e5f025517 a UEFI kernel is given all initrds as one file, `initrd.magic`."""
AUTOEXEC = date(2022, 6, 1)
"""Since some day in 2021 UEFI builds read autoexec.ipxe by TFTP. A late date, to be sure."""
LOCAL_DISKS = date(2025, 1, 1)
"""Since late in 2024 `sanboot` finds the machine's own disks on UEFI, even unconnected ones."""

# A date is never part of a commit's hash, which may have the same digits.
_DATE = re.compile(r"(?<![0-9a-f])(?<!\(g)(20\d\d)([01]\d)([0-3]\d)(?![0-9a-f])")
_RELEASE = re.compile(r"(\d{1,3})\.(\d{1,3})")
_BANNER = re.compile(rb"(?<=\0)(?:\d{1,3}\.\d{1,3}\.\d{1,3}(?![.\d])|20\d{6}\.)[ -~]{0,80}(?=\0)")


@frozen
class IpxeVersion:
    """What a build says of itself: `1.21.1+git20250501.dad20602+dfsg-1`, or `2.0.0+ (g1a2b3)`.

    The release number alone tells little: everything between December 2020 and March 2026 called
    itself 1.21.1. Distributions add the date of the commit; without one the build counts as old.
    DHCP's option 175 is no help, there Debian 13's build says 1.0.0.
    """

    text: str
    release: tuple[int, int] | None
    committed: date | None

    @classmethod
    def parse(cls, text: str) -> "IpxeVersion | None":
        text = re.sub(r"[^ -~]", "?", text.strip())[:80]
        day, release = _DATE.search(text), _RELEASE.match(text)
        committed = None
        if day is not None:
            try:
                committed = date(*map(int, day.groups()))
            except ValueError:
                day = None
        if day is None and release is None:
            return None
        return cls(text, (int(release[1]), int(release[2])) if release else None, committed)

    @classmethod
    def of_user_agent(cls, header: str | None) -> "IpxeVersion | None":
        """From the User-Agent of an HTTP request. None: not iPXE, or it does not say."""
        name, _, version = (header or "").partition("/")
        return cls.parse(version) if name == "iPXE" else None

    @classmethod
    def of_build(cls, content: bytes) -> "IpxeVersion | None":
        """From the banner inside a build. None for what is compressed, as all BIOS builds are."""
        if b"iPXE" not in content:
            return None
        found = (cls.parse(match[0].decode("ascii")) for match in _BANNER.finditer(content))
        return next((version for version in found if version is not None), None)

    @property
    def merges_initrds(self) -> bool:
        """Whether a UEFI kernel gets every initrd of a script, named ones too. On BIOS it always does."""
        return self._has(INITRD_MAGIC)

    @property
    def has_autoexec(self) -> bool:
        """Whether a UEFI build reads autoexec.ipxe over the network. No BIOS build does."""
        return self._has(AUTOEXEC)

    @property
    def sanboots_on_efi(self) -> bool:
        return self._has(LOCAL_DISKS)

    def _has(self, since: date) -> bool:
        if self.release is not None and self.release >= (2, 0):
            return True
        return self.committed is not None and self.committed >= since

    def __str__(self) -> str:
        return self.text


@frozen(kw_only=True)
class Loader:
    """One build. `name` is what a machine asks for."""

    name: str
    path: Path
    architecture: Architecture | None
    """None: for machines that provd knows nothing of, like 32-bit UEFI."""
    content: bytes = field(repr=False)
    version: IpxeVersion | None
    signed: bool
    """It bears a signature; whose, is for the firmware to judge."""

    @property
    def is_shim(self) -> bool:
        """The first stage of Secure Boot, which loads the build itself from beside it."""
        return "shim" in self.name


def _names(*words: str) -> tuple[str, ...]:
    """`snponly` is the firmware's own network driver and hangs least; `ipxe` brings drivers of its own.

    Shims come first: where they lie in the directory somebody has put them, for Secure Boot, and DHCP
    does not tell whether it is on. They work without it too.
    """
    names = ["snponly-shim.efi", "ipxe-shim.efi"]
    for kind in ("snponly", "ipxe-snponly", "ipxe"):
        names.append(f"{kind}.efi")
        names += [f"{kind}-{word}.efi" for word in words]
        names += [f"{folder}/{kind}.efi" for word in words for folder in (word, f"{word}-efi")]
    return tuple(names)


USUAL: Mapping[Architecture, tuple[str, ...]] = {
    Architecture.BIOS: ("undionly.kpxe", "undionly.kkpxe", "ipxe.pxe"),
    Architecture.X64: _names("x64", "amd64", "x86_64"),
    Architecture.ARM64: _names("arm64", "aarch64"),
    Architecture.RISCV64: _names("riscv64"),
    Architecture.LOONG64: _names("loong64"),
}
"""The first of these that is there, and is made for the architecture, is what its machines get.

Names of Debian's and Fedora's packages, of boot.ipxe.org and of upstream's `ipxeboot.tar.gz`.
"""

SUFFIXES = frozenset({".efi", ".kpxe", ".kkpxe", ".kkkpxe", ".pxe"})

MACHINES: Mapping[int, Architecture] = {
    0x8664: Architecture.X64,
    0xAA64: Architecture.ARM64,
    0x5064: Architecture.RISCV64,
    0x6264: Architecture.LOONG64,
}
"""Of the COFF header (PE format specification, "Machine Types")."""

_NECESSARY = {Architecture.BIOS: "BIOS", Architecture.X64: "UEFI x64"}
"""The architectures whose absence is worth a word: a homelab may well have no other."""


@frozen(kw_only=True)
class Loaders:
    directory: Path
    by_name: Mapping[str, Loader]
    usual: Mapping[Architecture, Loader]
    complaints: tuple[str, ...] = ()
    """About files that could not be used."""

    def pick(self, architecture: Architecture, wanted: str | None = None) -> Loader | None:
        """The build for a machine. None: there is none to give.

        A host that wants a build which does not lie here gets no other: somebody had a reason. One that
        is made for another architecture is left aside: the machine was switched to BIOS, or back.
        """
        if wanted is None:
            return self.usual.get(architecture)
        loader = self.by_name.get(wanted)
        if loader is not None and loader.architecture is not architecture:
            return self.usual.get(architecture)
        return loader

    def problems(self) -> tuple[str, ...]:
        """What an operator should know, one sentence each."""
        return *self.complaints, *self.missing(), *self._old()

    def missing(self) -> tuple[str, ...]:
        """What keeps machines from booting, one sentence each."""
        missing = [name for kind, name in _NECESSARY.items() if kind not in self.usual]
        if not missing:
            return ()
        return (
            f"{self.directory} has no iPXE build for {' and '.join(missing)}: such machines are left "
            "alone until Debian's package ipxe is installed, or pxe.loader_dir names another directory",
        )

    def _old(self) -> Iterator[str]:
        for architecture, loader in self.usual.items():
            if architecture is Architecture.BIOS or loader.is_shim:
                continue
            version = loader.version
            if version is None:
                yield (
                    f"{loader.name} does not tell its version and is taken for an old one: provd serves "
                    "it the installer as one merged initrd"
                )
            elif not version.merges_initrds:
                age = f" of {version.committed}" if version.committed else ""
                yield (
                    f"{loader.name} is iPXE {version}{age}, which gives a UEFI kernel only one initrd: "
                    "provd serves it the installer merged into one; Debian 13's package ipxe is newer"
                )


def load_loaders(directory: Path, overrides: Mapping[Architecture, str]) -> Loaders:
    """Read every build in `directory`; `overrides` are the names to use instead of the usual ones.

    Raises `ConfigError` where the configuration names what cannot be: no directory, a build that does
    not lie there or is made for other machines. What is merely not installed is a problem to report.
    """
    complaints: list[str] = []
    found = {loader.name: loader for loader in _read(directory, overrides, complaints)}
    usual: dict[Architecture, Loader] = {}
    for architecture, names in USUAL.items():
        fit = (found[name] for name in names if name in found)
        loader = next((loader for loader in fit if loader.architecture is architecture), None)
        if loader is not None:
            usual[architecture] = loader
    if directory.exists():
        for architecture, name in overrides.items():
            usual[architecture] = _overriding(directory, architecture, found.get(name), name)
    return Loaders(directory=directory, by_name=found, usual=usual, complaints=tuple(complaints))


def _overriding(directory: Path, architecture: Architecture, loader: Loader | None, name: str) -> Loader:
    if loader is None:
        raise ConfigError(f"pxe.loaders.{architecture}: {directory / name} cannot be used as an iPXE build")
    if loader.architecture is not architecture:
        made_for = loader.architecture or "something else"
        raise ConfigError(f"pxe.loaders.{architecture}: {loader.path} is made for {made_for}")
    return loader


def _read(directory: Path, overrides: Mapping[Architecture, str], complaints: list[str]) -> Iterator[Loader]:
    if not directory.exists():
        return
    try:
        names = {file.name for file in directory.iterdir() if file.suffix in SUFFIXES}
    except OSError as exc:
        raise ConfigError(f"pxe.loader_dir: {directory} cannot be read: {exc.strerror}") from exc
    names |= {name for usual in USUAL.values() for name in usual if "/" in name}
    names |= set(overrides.values())
    for name in sorted(names):
        path = directory / name
        if not path.is_file():
            continue
        try:
            size = path.stat().st_size
            content = path.read_bytes() if size <= LARGEST_LOADER else b""
        except OSError as exc:
            complaints.append(f"{path} cannot be read: {exc.strerror}")
            continue
        if not content:
            complaints.append(f"{path} has {size} bytes and is no iPXE build")
            continue
        loader = identify(name, path, content)
        if loader is None:
            complaints.append(f"{path} is named like a UEFI program and is none")
        else:
            yield loader


def identify(name: str, path: Path, content: bytes) -> Loader | None:
    """What `content` is. None: a UEFI program by its name only."""
    program = _examine_pe(content)
    if program is None and path.suffix == ".efi":
        return None
    architecture = Architecture.BIOS if program is None else MACHINES.get(program.machine)
    return Loader(
        name=name,
        path=path,
        architecture=architecture,
        content=content,
        version=IpxeVersion.of_build(content),
        signed=program is not None and program.signed,
    )


@frozen
class _Program:
    machine: int
    signed: bool


def _examine_pe(content: bytes) -> _Program | None:
    """The two facts of a PE32+ file that matter here. None: it is no PE file at all."""
    try:
        (offset,) = struct.unpack_from("<I", content, 0x3C)
        magic, machine = struct.unpack_from("<4sH", content, offset)
        if content[:2] != b"MZ" or magic != b"PE\0\0":
            return None
        optional = offset + 24
        (kind,) = struct.unpack_from("<H", content, optional)
        # PE32 is four bytes wider before, and four words narrower behind, the image's base address.
        directories = optional + (112 if kind == 0x20B else 96)
        (count,) = struct.unpack_from("<I", content, directories - 4)
        certificates = struct.unpack_from("<II", content, directories + 4 * 8) if count > 4 else (0, 0)
    except struct.error:
        return None
    return _Program(machine, all(certificates))
