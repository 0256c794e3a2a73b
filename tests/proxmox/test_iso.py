"""What a Proxmox VE ISO is, whatever else somebody calls one, and the one file that is added to it."""

import io
import time
from collections.abc import Callable
from pathlib import Path

import pycdlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iso_maker import INITRD, KERNEL, XORRISO, contents, make_hybrid_iso, make_iso
from provd.domain.errors import BadImage
from provd.proxmox.iso import (
    MODE_FILE_SIZE,
    PLACEHOLDER,
    ProxmoxIso,
    inspect,
    mode_file_offset,
    patched,
)
from provd.proxmox.iso9660 import SECTOR, Volume


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_iso(tmp_path_factory.mktemp("iso") / "a.iso").read_bytes()


def look(data: bytes) -> ProxmoxIso:
    return inspect(io.BytesIO(data))


def prepared(data: bytes, found: ProxmoxIso) -> bytes:
    return patched(0, data.ljust(found.prepared_size, b"\0"), found.patches)


def read(data: bytes, path: str) -> bytes:
    volume = Volume(io.BytesIO(data))
    entry = volume.find(path)
    assert entry is not None, path
    return b"".join(volume.pieces(entry))


def read_elsewhere(data: bytes, path: str) -> bytes:
    """As a reader that is not ours reads it."""
    image, content = pycdlib.PyCdlib(), io.BytesIO()
    image.open_fp(io.BytesIO(data))
    image.get_file_from_iso_fp(content, rr_path=path)
    image.close()
    return content.getvalue()


Maker = Callable[[Path], bytes]
MAKERS: dict[str, Maker] = {
    "pycdlib": lambda tmp: make_iso(tmp / "a.iso").read_bytes(),
    "pycdlib, Joliet": lambda tmp: make_iso(tmp / "a.iso", joliet=True).read_bytes(),
    "xorriso": lambda tmp: make_hybrid_iso(tmp / "a.iso", tmp / "tree").read_bytes(),
    "xorriso, Joliet": lambda tmp: make_hybrid_iso(tmp / "a.iso", tmp / "tree", joliet=True).read_bytes(),
}
needs_xorriso = pytest.mark.skipif(XORRISO is None, reason="xorriso is not installed")


@pytest.mark.parametrize(
    "maker", [pytest.param(name, marks=[needs_xorriso] if "xorriso" in name else []) for name in MAKERS]
)
def test_one_file_is_added_and_nothing_else_changes(tmp_path: Path, maker: str) -> None:
    """Every old file is where it was, bit for bit; the new one is found, by a foreign reader too."""
    data = MAKERS[maker](tmp_path)
    found = look(data)
    after = prepared(data, found)
    assert (found.name, found.product, found.release) == ("proxmox-ve_9.2-1", "pve", "9.2-1")
    assert found.mode_offset % SECTOR == 0
    assert after[found.mode_offset : found.mode_offset + MODE_FILE_SIZE] == PLACEHOLDER
    assert mode_file_offset(io.BytesIO(after)) == found.mode_offset
    assert read_elsewhere(after, "/auto-installer-mode.toml") == PLACEHOLDER
    old, new = Volume(io.BytesIO(data)), Volume(io.BytesIO(after))
    for path, content in contents().items():
        before, now = old.find(path), new.find(path)
        assert before is not None
        assert now is not None
        assert (now.offset, now.size) == (before.offset, before.size)
        if path != "/boot/eltorito.img":  # xorriso writes the boot information table into it
            assert read(after, path) == read_elsewhere(after, path) == content
    changed = sum(1 for a, b in zip(data, after, strict=False) if a != b)
    assert 0 < changed < 200, "the descriptor, two path tables and the way up from a few directories"


def test_every_way_to_the_root_leads_to_the_new_one(plain: bytes) -> None:
    """Descriptor, path tables, "." and "..", and ".." of the directories in it; in both byte orders."""
    after = prepared(plain, look(plain))
    descriptor = after[16 * SECTOR : 17 * SECTOR]
    place = descriptor[158:166]
    root = int.from_bytes(place[:4], "little")
    assert root == int.from_bytes(place[4:], "big") == len(after) // SECTOR - 1
    assert int.from_bytes(descriptor[80:84], "little") == len(after) // SECTOR
    little = int.from_bytes(descriptor[140:144], "little")
    big = int.from_bytes(descriptor[148:152], "big")
    assert after[little * SECTOR + 2 :][:4] == place[:4]
    assert after[big * SECTOR + 2 :][:4] == place[4:]
    at = root * SECTOR
    for identifier in (b"\0", b"\1"):
        assert after[at + 2 : at + 10] == place
        assert after[at + 33 : at + 34] == identifier
        at += after[at]
    folder = Volume(io.BytesIO(after)).find("/boot")
    assert folder is not None
    parent = folder.offset + after[folder.offset]
    assert after[parent + 2 : parent + 10] == place


def test_what_was_planned_twice_is_the_same(plain: bytes) -> None:
    """A prepared image can be prepared again: its mode file is replaced, and there is one."""
    once = prepared(plain, look(plain))
    again = prepared(once, look(once))
    volume = Volume(io.BytesIO(again))
    assert [e.name for e in volume._entries(volume._root)].count("auto-installer-mode.toml") == 1
    assert mode_file_offset(io.BytesIO(again)) == look(once).mode_offset


def test_a_mode_file_of_proxmox_own_tool_is_replaced(tmp_path: Path) -> None:
    """An ISO that was prepared by `prepare-iso` asks provd, not whom it was told to ask."""
    foreign = {"/auto-installer-mode.toml": b'mode = "http"\n[http]\nurl = "http://elsewhere/"\n'}
    data = make_iso(tmp_path / "a.iso", more=foreign).read_bytes()
    assert read_elsewhere(prepared(data, look(data)), "/auto-installer-mode.toml") == PLACEHOLDER


def test_a_root_directory_of_several_sectors(tmp_path: Path) -> None:
    """Records do not cross sectors, before and after."""
    more = {f"/{'x' * 40}-{number}": b"%d" % number for number in range(60)}
    data = make_iso(tmp_path / "a.iso", more=more).read_bytes()
    after = prepared(data, look(data))
    assert read_elsewhere(after, "/auto-installer-mode.toml") == PLACEHOLDER
    for path, content in more.items():
        assert read(after, path) == read_elsewhere(after, path) == content


def test_kernel_and_initrd_are_found(plain: bytes) -> None:
    """By their place in the image."""
    found = look(plain)
    for entry, content in ((found.kernel, KERNEL), (found.initrd, INITRD)):
        assert plain[entry.offset : entry.offset + entry.size] == content


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"product": "pbs", "release": "3.4"}, "Proxmox Backup Server; provd installs Proxmox VE"),
        ({"release": "8.1", "without": ["/auto-installer-capable"]}, "8.1-1 cannot install unattended"),
        ({"without": ["/.cd-info"]}, "not one of Proxmox'"),
        ({"without": ["/.pve-cd-id.txt"]}, "no /.pve-cd-id.txt"),
        ({"without": ["/boot/linux26"]}, "no /boot/linux26"),
        ({"more": {"/boot/initrd.img": b""}}, "/boot/initrd.img in the image is not what"),
        ({"release": "nine"}, "no release"),
        ({"more": {"/.cd-info": b"x" * 5000}}, ".cd-info in the image has 5000 bytes"),
        ({"more": {"/.cd-info": b"PRODUCT=\xff\x1b[2J"}}, r"\\x1b"),
    ],
)
def test_what_cannot_be_installed_is_refused_and_named(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    """The message says what the image is instead, with nothing in it that acts on a terminal."""
    path = make_iso(tmp_path / "a.iso", **options)  # type: ignore[arg-type]
    with pytest.raises(BadImage, match=words):
        look(path.read_bytes())


def test_an_image_that_is_cut_off_is_named_so(plain: bytes) -> None:
    """One sector less is enough, and the sizes are said."""
    with pytest.raises(BadImage, match=f"cut off: it has {len(plain) - SECTOR} of {len(plain)} bytes"):
        look(plain[:-SECTOR])


def test_other_isos_and_other_files(tmp_path: Path) -> None:
    """Nothing, text, zeros, and an ISO of somebody else."""
    image = pycdlib.PyCdlib()
    image.new(rock_ridge="1.09")
    image.write(str(tmp_path / "other.iso"))
    with pytest.raises(BadImage, match="not one of Proxmox'"):
        look((tmp_path / "other.iso").read_bytes())
    image = pycdlib.PyCdlib()
    image.new()
    image.write(str(tmp_path / "bare.iso"))
    with pytest.raises(BadImage, match="no Rock Ridge"):
        look((tmp_path / "bare.iso").read_bytes())
    for data in (b"", b"text", bytes(100_000), b"<html>" * 20_000):
        with pytest.raises(BadImage, match="not an ISO image"):
            look(data)


def try_it(data: bytes) -> None:
    try:
        found = look(data)
    except BadImage:
        return
    after = prepared(data, found)
    assert len(after) == found.prepared_size < len(data) + 2 * 1024 * 1024
    try:
        mode_file_offset(io.BytesIO(after))
    except BadImage:
        return


@settings(deadline=None, max_examples=300)
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)), max_size=20))
def test_a_damaged_image_gives_a_value_or_the_error(plain: bytes, changes: list[tuple[int, bytes]]) -> None:
    """Wherever bytes are other ones: in descriptors, directories, names or contents."""
    data = bytearray(plain)
    for at, junk in changes:
        # Most of the places that matter are near the beginning.
        where = 16 * SECTOR + at % (20 * SECTOR) if at % 4 else at % len(data)
        data[where : where + len(junk)] = junk
    try_it(bytes(data))


@settings(deadline=None, max_examples=100)
@given(length=st.integers(0, 1 << 20))
def test_a_shorter_image_is_refused(plain: bytes, length: int) -> None:
    """However much is missing."""
    if length < len(plain):
        with pytest.raises(BadImage):
            look(plain[:length])


@given(data=st.binary(max_size=3000), at=st.sampled_from([0, 16 * SECTOR, 16 * SECTOR + 1]))
def test_any_bytes_are_a_value_or_the_error(data: bytes, at: int) -> None:
    """Also behind the sectors that nobody looks at."""
    try_it(bytes(at) + data)


@pytest.mark.parametrize("size", [b"\xff" * 8, b"\0" * 8])
def test_huge_and_empty_sizes(plain: bytes, size: bytes) -> None:
    """In the descriptor's volume and root directory: refused at once, without memory for it."""
    for at in (80, 158, 166):
        data = bytearray(plain)
        data[16 * SECTOR + at : 16 * SECTOR + at + 8] = size
        started = time.monotonic()
        try_it(bytes(data))
        assert time.monotonic() - started < 2


def test_names_that_never_end_are_bounded(plain: bytes) -> None:
    """A continuation area that continues in itself is an error, and soon one."""
    data = bytearray(plain)
    root = int.from_bytes(data[16 * SECTOR + 158 : 16 * SECTOR + 162], "little")
    at = root * SECTOR + data[root * SECTOR]
    at += data[at]  # the third record: a file's
    use = at + 33 + data[at + 32] + (1 - data[at + 32] % 2)
    here = (root).to_bytes(4, "little") + bytes(4)
    offset = (use - root * SECTOR).to_bytes(4, "little") + bytes(4)
    data[use : use + 28] = b"CE\x1c\x01" + here + offset + (28).to_bytes(4, "little") + bytes(4)
    with pytest.raises(BadImage, match="names do not end"):
        look(bytes(data))
