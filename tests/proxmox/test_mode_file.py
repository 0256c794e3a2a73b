"""auto-installer-mode.toml: exact keys for each release, always of one size."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.errors import Invalid
from provd.domain.secrets import Secret
from provd.proxmox.installer_files import MODE_FILE_SIZE as SERVED_SIZE
from provd.proxmox.memory import fits, memory_needed
from provd.proxmox.mode_file import MODE_FILE_SIZE, build_mode_file, version_of

URL = "http://192.0.2.5:8080/api/boot/answer"
FINGERPRINT = ":".join(["AB"] * 32)
TOKEN = Secret("lab:s3cret")


def parsed(content: bytes) -> dict[str, object]:
    assert len(content) == MODE_FILE_SIZE
    return tomllib.loads(content.decode())


def test_what_serves_the_file_expects_its_size() -> None:
    """One number, in two places."""
    assert MODE_FILE_SIZE == SERVED_SIZE == 2048


def test_the_newest_installer_gets_all_keys() -> None:
    """Names as Proxmox' own tool writes them."""
    assert parsed(build_mode_file("9.2-1", URL, fingerprint=FINGERPRINT, token=TOKEN)) == {
        "mode": "http",
        "partition_label": "proxmox-ais",
        "http": {"url": URL, "cert_fingerprint": FINGERPRINT, "token": "lab:s3cret"},
    }


@pytest.mark.parametrize("release", ["9.1-1", "9.0-1", "8.4-1", "8.3-1"])
def test_no_token_before_9_2(release: str) -> None:
    """Those installers have no such key."""
    assert parsed(build_mode_file(release, URL, token=TOKEN)) == {
        "mode": "http",
        "partition_label": "proxmox-ais",
        "http": {"url": URL},
    }


def test_no_label_for_8_2() -> None:
    """It refuses what it does not know, and the installation ends."""
    assert parsed(build_mode_file("8.2-1", URL)) == {"mode": "http", "http": {"url": URL}}


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("ftp://192.0.2.5/", {}),
        ("http://192.0.2.5/a b", {}),
        ('http://192.0.2.5/"\n[x]', {}),
        ("http://münchen/", {}),
        ("", {}),
        ("http://192.0.2.5/" + "x" * 2048, {}),
        (URL, {"fingerprint": "AB:CD"}),
        (URL, {"token": Secret("no colon")}),
        (URL, {"token": Secret("a:b\nc")}),
    ],
)
def test_what_no_installer_would_take(url: str, more: dict[str, object]) -> None:
    """It is refused here, and the secret is not in the message."""
    with pytest.raises(Invalid) as caught:
        build_mode_file("9.2-1", url, **more)  # type: ignore[arg-type]
    assert "colon" not in str(caught.value) or "no colon" not in str(caught.value)


@given(path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=2200))
def test_any_url_fits_or_is_refused(path: str) -> None:
    """What was built says exactly what was given."""
    try:
        content = build_mode_file("9.2-1", f"http://h/{path}")
    except Invalid:
        assert len(path) > 1000
        return
    assert parsed(content)["http"] == {"url": f"http://h/{path}"}


@pytest.mark.parametrize("release", ["", "9", "nine", "9.", "9.1000", "²9.1"])
def test_what_is_no_release(release: str) -> None:
    """A sentence, not a crash."""
    with pytest.raises(Invalid):
        version_of(release)


def test_releases_compare_as_numbers() -> None:
    """9.10 is after 9.2."""
    assert version_of("9.10-1") > version_of("9.2-1") > version_of("8.4-1")


def test_memory_by_release() -> None:
    """8 GiB for a 9, and what a firmware keeps of them for itself does not count; unknown may try."""
    assert memory_needed("9.2-1") == memory_needed("10.0-1") == 8192
    assert memory_needed("8.4-1") == memory_needed("8.1-1") == 6144
    assert fits("9.2-1", 7680)
    assert fits("9.2-1", None)
    assert not fits("9.2-1", 7168)
    assert fits("8.4-1", 7168)
    assert not fits("8.4-1", 4096)
