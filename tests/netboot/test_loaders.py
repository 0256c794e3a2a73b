"""What lies in a directory of iPXE builds, which of them a machine is given, and what is said about them."""

import struct
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.architectures import Architecture
from provd.domain.errors import ConfigError
from provd.netboot.loaders import LARGEST_LOADER, MACHINES, IpxeVersion, identify, load_loaders

DEBIAN_12 = "1.0.0+git-20190125.36a4c85-5.1"
DEBIAN_13 = "1.21.1+git20250501.dad20602+dfsg-1"
NUMBERS = {architecture: number for number, architecture in MACHINES.items()}


def program(
    architecture: Architecture = Architecture.X64, version: str = DEBIAN_13, *, signed: bool = False
) -> bytes:
    """The head of a UEFI program, with a banner as iPXE has it."""
    header = bytearray(512)
    header[:2] = b"MZ"
    struct.pack_into("<I", header, 0x3C, 0x80)
    struct.pack_into("<4sH", header, 0x80, b"PE\0\0", NUMBERS[architecture])
    struct.pack_into("<H", header, 0x98, 0x20B)
    struct.pack_into("<I", header, 0x98 + 108, 16)
    if signed:
        struct.pack_into("<II", header, 0x98 + 144, 0x200, 64)
    return bytes(header) + f"iPXE/%s\0{version}\0".encode()


def fill(directory: Path, *names: str, version: str = DEBIAN_13) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        word = next((a for a in NUMBERS if a in name), Architecture.X64)
        path.write_bytes(program(word, version) if path.suffix == ".efi" else b"\x1f compressed")
    return directory


@pytest.mark.parametrize(
    ("text", "release", "committed", "merges", "autoexec", "disks"),
    [
        (DEBIAN_12, (1, 0), date(2019, 1, 25), False, False, False),
        ("1.21.1+git-20210531.d5f3bd9-1", (1, 21), date(2021, 5, 31), True, False, False),
        ("1.21.1+git-20220113.fbbdc3926-0ubuntu1", (1, 21), date(2022, 1, 13), True, False, False),
        (DEBIAN_13, (1, 21), date(2025, 5, 1), True, True, True),
        ("20240119.gitde8a0821-4.fc41", None, date(2024, 1, 19), True, True, False),
        ("2.0.0+dfsg-5", (2, 0), None, True, True, True),
        ("2.0.0+ (g1a2b3)", (2, 0), None, True, True, True),
        # The tag is of December 2020, and every build until March 2026 bears it.
        ("1.21.1", (1, 21), None, False, False, False),
        ("1.21.1+ (g20240119)", (1, 21), None, False, False, False),
        ("1.21.1+git20251399.x", (1, 21), None, False, False, False),
    ],
)
def test_what_a_version_can_do(
    text: str,
    release: tuple[int, int] | None,
    committed: date | None,
    merges: bool,
    autoexec: bool,
    disks: bool,
) -> None:
    """The date of the commit decides, a second major release has everything, and no date means old."""
    version = IpxeVersion.of_user_agent(f"iPXE/{text}")
    assert version is not None
    assert (version.text, version.release, version.committed) == (text, release, committed)
    assert (version.merges_initrds, version.has_autoexec, version.sanboots_on_efi) == (
        merges,
        autoexec,
        disks,
    )


@pytest.mark.parametrize("header", [None, "", "iPXE", "iPXE/", "iPXE/new", "UefiHttpBoot/1.0", "curl/8.1.2"])
def test_others_have_no_version(header: str | None) -> None:
    """Firmware and strangers are not taken for iPXE."""
    assert IpxeVersion.of_user_agent(header) is None


@given(st.text() | st.from_regex(r"[0-9]{0,4}\.[0-9]{0,4}.*git-?[0-9]{6,9}.*"))
def test_any_header_is_a_version_or_none(text: str) -> None:
    """Whatever stands in the header, it breaks nothing, and what is kept of it fits into a log line."""
    version = IpxeVersion.of_user_agent(f"iPXE/{text}")
    if version is not None:
        assert len(version.text) <= 80
        assert version.text.isascii()
        assert version.text.isprintable()


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: b"MZ" + tail))
def test_any_file_is_identified_or_refused(content: bytes) -> None:
    """No content breaks the reader; a file that is no UEFI program is none, whatever its name says."""
    assert identify("x.kpxe", Path("x.kpxe"), content) is not None
    loader = identify("x.efi", Path("x.efi"), content)
    assert loader is None or content.startswith(b"MZ")


@given(st.integers(0, 511), st.integers(0, 255))
def test_a_broken_header_breaks_nothing(at: int, value: int) -> None:
    """One wrong byte anywhere in the header gives another loader or none."""
    content = bytearray(program())
    content[at] = value
    identify("x.efi", Path("x.efi"), bytes(content))


def test_debian_13(tmp_path: Path) -> None:
    """Each architecture gets its build, the firmware's own network driver first, and nothing is amiss."""
    names = ["ipxe.efi", "ipxe-amd64.efi", "ipxe-arm64.efi", "ipxe-riscv64.efi", "ipxe-loong64.efi"]
    fill(tmp_path, *names, "snponly.efi", "undionly.kpxe", "ipxe.pxe", "ipxe.iso", "ipxe.lkrn")
    loaders = load_loaders(tmp_path, {})
    assert {kind: loader.name for kind, loader in loaders.usual.items()} == {
        Architecture.BIOS: "undionly.kpxe",
        Architecture.X64: "snponly.efi",
        Architecture.ARM64: "ipxe-arm64.efi",
        Architecture.RISCV64: "ipxe-riscv64.efi",
        Architecture.LOONG64: "ipxe-loong64.efi",
    }
    assert set(loaders.by_name) == {*names, "snponly.efi", "undionly.kpxe", "ipxe.pxe"}
    assert loaders.problems() == ()
    assert loaders.by_name["snponly.efi"].version == IpxeVersion.parse(DEBIAN_13)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ipxe.efi", "ipxe-amd64.efi"], "ipxe.efi"),
        (["ipxe-snponly-x86_64.efi", "ipxe-x86_64.efi"], "ipxe-snponly-x86_64.efi"),
        (["x86_64/snponly.efi", "x86_64/ipxe.efi", "x86_64-sb/snponly.efi"], "x86_64/snponly.efi"),
        (["snponly.efi", "ipxe.efi", "shimx64.efi", "snponly-shim.efi"], "snponly-shim.efi"),
        (["arm64-efi/snponly.efi"], None),
        (["something-else.efi"], None),
    ],
)
def test_what_an_x64_machine_usually_gets(tmp_path: Path, names: list[str], expected: str | None) -> None:
    """The layouts of distributions and of upstream are known; a shim goes before what it loads."""
    loader = load_loaders(fill(tmp_path, *names), {}).pick(Architecture.X64)
    assert (loader.name if loader is not None else None) == expected


def test_a_name_does_not_make_an_architecture(tmp_path: Path) -> None:
    """snponly.efi may be made for arm64: then x64 machines do not get it, and arm64 ones do."""
    (tmp_path / "snponly.efi").write_bytes(program(Architecture.ARM64))
    loaders = load_loaders(tmp_path, {})
    assert set(loaders.usual) == {Architecture.ARM64}


def test_a_host_may_want_another_build(tmp_path: Path) -> None:
    """It gets that one, none when it is not there, and the usual one when it is made for other machines."""
    loaders = load_loaders(fill(tmp_path, "snponly.efi", "ipxe.efi", "undionly.kpxe"), {})
    for architecture, wanted, expected in (
        (Architecture.X64, None, "snponly.efi"),
        (Architecture.X64, "ipxe.efi", "ipxe.efi"),
        (Architecture.X64, "ipxe-debug.efi", None),
        (Architecture.BIOS, "ipxe.efi", "undionly.kpxe"),
        (Architecture.ARM64, None, None),
    ):
        loader = loaders.pick(architecture, wanted)
        assert (loader.name if loader is not None else None) == expected


def test_overrides(tmp_path: Path) -> None:
    """The configured name is taken before the usual one, whatever it looks like."""
    fill(tmp_path, "snponly.efi", "ipxe.efi", "undionly.kpxe")
    (tmp_path / "own.bin").write_bytes(b"\x1f mine")
    wanted = {Architecture.X64: "ipxe.efi", Architecture.BIOS: "own.bin"}
    loaders = load_loaders(tmp_path, wanted)
    assert {kind: loader.name for kind, loader in loaders.usual.items()} == wanted


@pytest.mark.parametrize("name", ["missing.efi", "undionly.kpxe", "broken.efi", "folder.efi", "arm64.efi"])
def test_a_wrong_override_is_the_operators_error(tmp_path: Path, name: str) -> None:
    """A build that is not there, or is not made for that architecture, is refused by name at the start."""
    fill(tmp_path, "undionly.kpxe", "arm64.efi")
    (tmp_path / "broken.efi").write_text("no program")
    (tmp_path / "folder.efi").mkdir()
    with pytest.raises(ConfigError, match=rf"pxe\.loaders\.x64.*{name}"):
        load_loaders(tmp_path, {Architecture.X64: name})


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """pxe.loader_dir names a directory; a file is refused."""
    (tmp_path / "ipxe.efi").write_bytes(program())
    with pytest.raises(ConfigError, match=r"pxe\.loader_dir"):
        load_loaders(tmp_path / "ipxe.efi", {})


def test_what_is_not_installed_is_reported(tmp_path: Path) -> None:
    """provd starts without any build, and says which package is missing."""
    loaders = load_loaders(tmp_path / "none", {Architecture.X64: "ipxe.efi"})
    assert not loaders.by_name
    (problem,) = loaders.problems()
    assert "BIOS and UEFI x64" in problem
    assert "package ipxe" in problem


def test_old_and_nameless_builds_are_reported(tmp_path: Path) -> None:
    """For UEFI only, and only what is in use: that a build merges no initrds, or may not."""
    fill(tmp_path, "snponly.efi", "ipxe.efi", "undionly.kpxe", version=DEBIAN_12)
    (old,) = load_loaders(tmp_path, {}).problems()
    assert old.startswith(f"snponly.efi is iPXE {DEBIAN_12} of 2019-01-25")
    (tmp_path / "snponly.efi").write_bytes(program(version="own build"))
    (nameless,) = load_loaders(tmp_path, {}).problems()
    assert "does not tell its version" in nameless


def test_unusable_files_are_reported_and_left_out(tmp_path: Path) -> None:
    """Empty, huge and mislabelled files are named; they are not served."""
    fill(tmp_path, "snponly.efi", "undionly.kpxe")
    (tmp_path / "empty.kpxe").touch()
    (tmp_path / "text.efi").write_text("no program")
    with (tmp_path / "huge.efi").open("wb") as huge:
        huge.truncate(LARGEST_LOADER + 1)
    loaders = load_loaders(tmp_path, {})
    assert set(loaders.by_name) == {"snponly.efi", "undionly.kpxe"}
    assert len(loaders.problems()) == 3
    for name in ("empty.kpxe", "text.efi", "huge.efi"):
        assert any(name in problem for problem in loaders.problems())


def test_signatures_are_seen(tmp_path: Path) -> None:
    """The certificate table of the program header tells whether there is one."""
    (tmp_path / "ipxe.efi").write_bytes(program(signed=True))
    fill(tmp_path, "snponly.efi")
    loaders = load_loaders(tmp_path, {})
    assert {name: loader.signed for name, loader in loaders.by_name.items()} == {
        "ipxe.efi": True,
        "snponly.efi": False,
    }


def test_the_package_of_this_machine() -> None:
    """Debian's real files are understood: architecture, version, and one build for BIOS and x64 each."""
    directory = Path("/usr/lib/ipxe")
    if not (directory / "snponly.efi").exists():
        pytest.skip("needs Debian's package ipxe")
    loaders = load_loaders(directory, {})
    assert loaders.usual[Architecture.BIOS].name == "undionly.kpxe"
    assert loaders.usual[Architecture.X64].name == "snponly.efi"
    for loader in loaders.by_name.values():
        assert (loader.version is not None) == (loader.path.suffix == ".efi")
        assert not loader.signed
