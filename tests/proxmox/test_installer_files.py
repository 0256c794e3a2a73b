"""The merged initrd is what a kernel unpacks, and the served ISO has the mode file in its place."""

import gzip
import os
import subprocess
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from provd.domain.errors import BadImage
from provd.domain.virtual_file import Extent, VirtualFile
from provd.proxmox import installer_files as room
from provd.proxmox.installer_files import INITRD, ISO, KERNEL, MERGED, installer_files
from provd.proxmox.mode_file import MODE_FILE_SIZE

MODE_OFFSET = 4096
MODE_FILE = b"# the mode file".ljust(MODE_FILE_SIZE)
OWN_FILES = {"init": b"#!/bin/sh\n", "etc/motd": b"hello"}


def read(file: VirtualFile) -> bytes:
    found = b""
    for part in file.parts:
        if isinstance(part, Extent):
            part_of = part.path.read_bytes()[part.offset : part.offset + part.length]
            assert len(part_of) == part.length
            found += part_of
        else:
            found += part
    assert len(found) == file.size
    return found


def cpio_archive(directory: Path) -> bytes:
    """An initrd's archive as GNU cpio makes it."""
    for name, text in OWN_FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(text)
    names = "".join(f"{name}\n" for name in ["etc", *OWN_FILES])
    return run(["cpio", "--quiet", "-o", "-H", "newc"], names.encode(), directory)


def run(command: list[str], data: bytes, directory: Path | None = None) -> bytes:
    return subprocess.run(command, input=data, cwd=directory, check=True, capture_output=True).stdout


COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "uncompressed": lambda archive: archive,
    "gzip": gzip.compress,
    "zstd": lambda archive: run(["zstd", "-q", "-c"], archive),
    "zstd with a checksum in two frames": lambda archive: (
        run(["zstd", "-q", "-c", "--check"], archive[:512])
        + run(["zstd", "-q", "-c", "--check"], archive[512:])
    ),
}


def make(directory: Path, *, initrd: bytes = b"\x1f\x8b initrd", iso_size: int = 20_001) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / KERNEL).write_bytes(b"MZ kernel")
    (directory / INITRD).write_bytes(initrd)
    (directory / ISO).write_bytes(os.urandom(iso_size))
    return directory


# --- a kernel's view of an initrd (its Documentation/driver-api/early-userspace/buffer-format.rst) ---


def unpack(initrd: bytes) -> dict[str, tuple[int, bytes]]:
    """Names to modes and contents. Archives, compressed ones and zero bytes, one behind the other."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while at < len(initrd):
        if initrd[at] == 0:
            at += 1
        elif initrd[at : at + 6] == b"070701":
            assert at % 4 == 0, "the kernel skips an archive that is not aligned, and says nothing"
            at = unpack_archive(initrd, at, found)
        else:
            archive, length = decompress(initrd[at:])
            at += length
            unpack_archive(archive, 0, found)
    return found


def unpack_archive(data: bytes, at: int, found: dict[str, tuple[int, bytes]]) -> int:
    """Where the archive ends."""
    while True:
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = at + 110 + name_size
        start += -start % 4
        at = start + size
        at += -at % 4
        assert at <= len(data)
        if name == b"TRAILER!!!\0":
            return at
        found[name[:-1].decode()] = (mode, data[start : start + size])


def decompress(data: bytes) -> tuple[bytes, int]:
    """The content of the first compressed piece, and how long that piece is."""
    if data[:2] == b"\x1f\x8b":
        unzip = zlib.decompressobj(wbits=31)
        content = unzip.decompress(data)
        assert unzip.eof
        return content, len(data) - len(unzip.unused_data)
    length = 0
    while data[length : length + 4] == b"\x28\xb5\x2f\xfd":
        length += zstd_frame(data[length:])
    return run(["zstd", "-q", "-d", "-c"], data[:length]), length


def zstd_frame(data: bytes) -> int:
    """How long the frame at the head of `data` is (RFC 8878 §3.1.1)."""
    descriptor = data[4]
    single, checksum = bool(descriptor & 0x20), bool(descriptor & 0x04)
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    at += (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    last = False
    while not last:
        block = int.from_bytes(data[at : at + 3], "little")
        last = bool(block & 1)
        at += 3 + (1 if (block >> 1) & 3 == 1 else block >> 3)
    return at + (4 if checksum else 0)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("odd", range(4))
def test_a_kernel_finds_the_iso_beside_the_initrds_own_files(
    tmp_path: Path, compression: str, odd: int
) -> None:
    """Whatever compresses the initrd, and whatever its and the ISO's length are modulo four."""
    initrd = COMPRESSIONS[compression](cpio_archive(tmp_path / "tree"))
    initrd += bytes(odd)
    directory = make(tmp_path / "image", initrd=initrd, iso_size=20_000 + odd)
    files = installer_files(directory, MODE_OFFSET, MODE_FILE)
    unpacked = unpack(read(files[MERGED]))
    assert unpacked[ISO] == (0o100644, read(files[ISO]))
    assert {name: unpacked[name][1] for name in OWN_FILES} == OWN_FILES


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, VirtualFile]:
    return installer_files(make(tmp_path / "image"), MODE_OFFSET, MODE_FILE)


@pytest.fixture
def archive(files: Mapping[str, VirtualFile]) -> bytes:
    """What stands behind the initrd."""
    merged, initrd = read(files[MERGED]), read(files[INITRD])
    assert merged.startswith(initrd)
    return merged[len(initrd) + -len(initrd) % 4 :]


@pytest.mark.parametrize("cpio", [["cpio"], ["busybox", "cpio"]])
def test_cpio_lists_and_unpacks_it(
    tmp_path: Path, files: Mapping[str, VirtualFile], archive: bytes, cpio: list[str]
) -> None:
    """GNU's and BusyBox's cpio see one file, /proxmox.iso, as it is served on its own."""
    assert run([*cpio, "-t"], archive).decode().split() == [ISO]
    target = tmp_path / "target"
    target.mkdir()
    run([*cpio, "-i"], archive, target)
    assert (target / ISO).read_bytes() == read(files[ISO])
    assert (target / ISO).stat().st_mode & 0o777 == 0o644


def test_the_mode_file_lies_over_its_place_and_nothing_else_changes(tmp_path: Path) -> None:
    """Every other byte of the ISO is the one on disk, at both borders and at both ends of the ISO."""
    directory = make(tmp_path)
    disc = (directory / ISO).read_bytes()
    for offset in (0, 1, MODE_OFFSET, len(disc) - MODE_FILE_SIZE):
        expected = disc[:offset] + MODE_FILE + disc[offset + MODE_FILE_SIZE :]
        assert read(installer_files(directory, offset, MODE_FILE)[ISO]) == expected


def test_kernel_and_initrd_are_served_as_they_are(tmp_path: Path) -> None:
    """Byte for byte."""
    directory = make(tmp_path)
    files = installer_files(directory, MODE_OFFSET, MODE_FILE)
    for name in (KERNEL, INITRD):
        assert read(files[name]) == (directory / name).read_bytes()


def test_another_content_has_another_tag(tmp_path: Path) -> None:
    """Same bytes, same tags; a changed file, size or mode file changes the tags of what holds it."""

    def tags(mode_file: bytes = MODE_FILE) -> dict[str, str]:
        files = installer_files(directory, MODE_OFFSET, mode_file)
        return {name: file.etag for name, file in files.items()}

    directory = make(tmp_path)
    for name in (KERNEL, INITRD, ISO):
        os.utime(directory / name, ns=(1, 1))
    files = installer_files(directory, MODE_OFFSET, MODE_FILE)
    first = tags()
    assert first == tags()
    assert len(set(first.values())) == 4

    def changed() -> set[str]:
        return {name for name, tag in tags().items() if tag != first[name]}

    assert {name for name, tag in tags(MODE_FILE[:-1] + b"!").items() if tag != first[name]} == {ISO, MERGED}
    os.utime(directory / INITRD, ns=(1, 2))
    assert changed() == {INITRD, MERGED}
    os.truncate(directory / ISO, files[ISO].size + 1)
    os.utime(directory / ISO, ns=(1, 1))
    assert changed() == {INITRD, ISO, MERGED}


def test_an_iso_that_no_initrd_can_hold_is_refused(tmp_path: Path) -> None:
    """A cpio header says lengths below 4 GiB: the largest stands in it, one byte more is refused."""
    directory = make(tmp_path)
    os.truncate(directory / ISO, room.LARGEST_MEMBER)
    files = installer_files(directory, MODE_OFFSET, MODE_FILE)
    head = files[MERGED].parts[1]
    assert isinstance(head, bytes)
    assert b"FFFFFFFF" in head
    os.truncate(directory / ISO, room.LARGEST_MEMBER + 1)
    with pytest.raises(BadImage, match="4 GiB"):
        installer_files(directory, MODE_OFFSET, MODE_FILE)


@pytest.mark.parametrize("name", [KERNEL, INITRD, ISO])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    """Missing, empty, or no file at all: one sentence with its path."""
    directory = make(tmp_path)
    (directory / name).write_bytes(b"")
    with pytest.raises(BadImage, match=name):
        installer_files(directory, MODE_OFFSET, MODE_FILE)
    (directory / name).unlink()
    with pytest.raises(BadImage, match=f"{name} cannot be read: no such file"):
        installer_files(directory, MODE_OFFSET, MODE_FILE)
    os.mkfifo(directory / name)
    with pytest.raises(BadImage, match=name):
        installer_files(directory, MODE_OFFSET, MODE_FILE)


@pytest.mark.parametrize(
    ("offset", "mode_file"),
    [(-1, MODE_FILE), (20_001 - MODE_FILE_SIZE + 1, MODE_FILE), (0, MODE_FILE + b" "), (0, b"")],
)
def test_a_mode_file_must_fit(tmp_path: Path, offset: int, mode_file: bytes) -> None:
    """One of another size, or beyond the ISO's end, would change what is served in silence."""
    with pytest.raises(BadImage, match="mode file"):
        installer_files(make(tmp_path), offset, mode_file)
