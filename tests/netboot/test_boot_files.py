"""The table of boot files: what can be read under a name, and that nothing else can."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.architectures import Architecture
from provd.domain.contacts import Hop
from provd.netboot.boot_files import BootFiles, ContentType
from provd.netboot.loaders import Loader, Loaders
from provd.netboot.scripts import autoexec_script

BASE = "http://192.0.2.5:8080"


def loader(name: str, architecture: Architecture | None) -> Loader:
    return Loader(
        name=name,
        path=Path("/nowhere") / name,
        architecture=architecture,
        content=name.encode(),
        version=None,
        signed=False,
    )


BUILDS = {
    "undionly.kpxe": Architecture.BIOS,
    "snponly.efi": Architecture.X64,
    "ipxe-arm64.efi": Architecture.ARM64,
    "arm64/snponly.efi": Architecture.ARM64,
}
FILES = BootFiles(
    Loaders(
        directory=Path("/nowhere"),
        by_name={name: loader(name, architecture) for name, architecture in BUILDS.items()},
        usual={},
    )
)
NAMES = {*BUILDS, "undionly.kpxe.0", "autoexec.ipxe", "arm64/autoexec.ipxe"}


@pytest.mark.parametrize(
    ("name", "content", "content_type"),
    [
        ("undionly.kpxe", b"undionly.kpxe", ContentType.OTHER),
        ("undionly.kpxe.0", b"undionly.kpxe", ContentType.OTHER),
        ("snponly.efi", b"snponly.efi", ContentType.EFI),
        ("/snponly.efi", b"snponly.efi", ContentType.EFI),
        ("ipxe-arm64.efi", b"ipxe-arm64.efi", ContentType.EFI),
        ("arm64\\snponly.efi", b"arm64/snponly.efi", ContentType.EFI),
    ],
)
def test_a_build_is_read_by_its_name(name: str, content: bytes, content_type: ContentType) -> None:
    """As it is called, as some ROMs spell it, and with what HTTP boot must be told."""
    file = FILES.find(name, base_url=BASE)
    assert file is not None
    assert (file.content, file.content_type, file.hop) == (content, content_type, Hop.LOADER)
    assert FILES.read(name, base_url=BASE) == content


@pytest.mark.parametrize("name", ["autoexec.ipxe", "/autoexec.ipxe", "arm64/autoexec.ipxe"])
def test_autoexec_leads_to_where_it_was_asked_for(name: str) -> None:
    """In the root and beside every build; its URL is that of the way the client came."""
    for base in (BASE, "http://10.0.0.1"):
        file = FILES.find(name, base_url=base)
        assert file is not None
        assert file.content.decode() == autoexec_script(base)
        assert (file.content_type, file.hop) == (ContentType.SCRIPT, Hop.IPXE)
        assert FILES.at(base).read(name) == file.content


@given(st.text() | st.sampled_from(sorted(NAMES)).flatmap(lambda name: st.text(max_size=4).map(name.__add__)))
@pytest.mark.parametrize("prefix", ["", "../", "./", "//", "arm64/../", "%2e%2e/", "C:", "\\\\"])
def test_there_is_nothing_else(prefix: str, name: str) -> None:
    """Any other name is no file, however it is made up."""
    asked = prefix + name
    if asked.replace("\\", "/").removeprefix("/") not in NAMES:
        assert FILES.find(asked, base_url=BASE) is None
