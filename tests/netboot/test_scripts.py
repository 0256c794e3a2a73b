from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.errors import Invalid
from provd.netboot.scripts import installer_script, local_disk_script
from provd.simulator.machine.ipxe import Boots, BootsLocalDisk, FetchFailed, run_script

GOLDEN = Path(__file__).parents[1] / "golden"
BASE = "http://192.0.2.5:8080/boot/pve/9.2-1"
INSTALLER = installer_script(hostname="nuc1", base_url=BASE)
LOCAL_DISK = local_disk_script("nuc1")


def test_golden_installer() -> None:
    """The script that leads to a wiped disk is this text, to the letter."""
    assert (GOLDEN / "installer.ipxe").read_text() == INSTALLER


def test_golden_local_disk() -> None:
    """The script that leaves a machine alone is this text, to the letter."""
    assert (GOLDEN / "local-disk.ipxe").read_text() == LOCAL_DISK


@pytest.mark.parametrize("script", [INSTALLER, LOCAL_DISK])
def test_what_firmware_trips_over_is_not_there(script: str) -> None:
    """The NIC is not opened again, no image is left for the initrd, no failing line ends a script."""
    lines = script.splitlines()
    assert lines[0] == "#!ipxe"
    assert not [line for line in lines if line.split()[:1] in (["dhcp"], ["ifopen"], ["chain"])]
    assert lines.index("imgfree") < min(
        (n for n, line in enumerate(lines) if line.startswith(("kernel", "initrd", "iseq"))),
        default=len(lines),
    )
    for line in lines:
        if line.split()[:1] in (["kernel"], ["initrd"], ["boot"], ["sanboot"], ["iseq"]):
            assert " || " in line


def test_only_one_of_the_two_can_install() -> None:
    """The word that starts the unattended installer stands in one script, and the other loads nothing."""
    assert "proxmox-start-auto-installer" in INSTALLER
    for word in ("kernel", "initrd", "http", "auto-installer"):
        assert word not in LOCAL_DISK


@pytest.mark.parametrize("platform", ["efi", "pcbios"])
async def test_the_installer_is_booted(platform: str) -> None:
    """A machine that runs the script ends in the installer, with its ISO under the name it looks for."""
    asked = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        return b"x"

    run = await run_script(INSTALLER, base=BASE, settings={"platform": platform}, fetch=fetch)
    assert isinstance(run.outcome, Boots)
    assert asked == [f"{BASE}/{name}" for name in ("vmlinuz", "initrd.img", "proxmox.iso")]
    assert "proxmox-start-auto-installer" in run.outcome.kernel.arguments.split()
    assert "initrd=initrd.magic" in run.outcome.kernel.arguments.split()
    assert [image.arguments for image in run.outcome.initrds] == ["", "proxmox.iso"]


@pytest.mark.parametrize(
    ("platform", "way"), [("efi", "exit 1"), ("pcbios", "sanboot --no-describe --drive 0x80")]
)
async def test_the_local_disk_is_booted(platform: str, way: str) -> None:
    """Each firmware is left by the way that it takes for a failed attempt, so that it goes on to the disk."""
    run = await run_script(LOCAL_DISK, base=BASE, settings={"platform": platform}, fetch=nothing)
    assert run.outcome == BootsLocalDisk(way)
    assert run.echoed == ("provd: nuc1 boots its own disk",)
    assert run.slept == ()


@pytest.mark.parametrize(
    ("platform", "way"), [("efi", "exit 1"), ("pcbios", "sanboot --no-describe --drive 0x80")]
)
async def test_an_unreachable_installer_is_tried_again_and_given_up(platform: str, way: str) -> None:
    """It is tried six times, with longer pauses, then a human can read why, then the disk is booted."""
    run = await run_script(INSTALLER, base=BASE, settings={"platform": platform}, fetch=nothing)
    assert run.outcome == BootsLocalDisk(way)
    assert run.slept == (5, 10, 15, 20, 25, 30)
    assert f"provd: nuc1 could not load the installer from {BASE}" in run.echoed


async def nothing(url: str) -> bytes:
    raise FetchFailed("HTTP 404")


HOSTILE = st.text() | st.sampled_from(
    [
        "n1\nshell",
        "n1 || shell",
        "${net0/mac}",
        "n1#",
        "http://h/\nshell",
        "http://h/a b",
        "http://h/${x}",
        "http://h/&&",
    ]
)


@given(HOSTILE, HOSTILE | st.from_regex(r"https?://[a-z0-9.]+(:[0-9]+)?(/[ -~]*)?", fullmatch=True))
def test_no_value_adds_a_line_or_a_word(hostname: str, base_url: str) -> None:
    """A value is refused, or the script has as many lines, and words on each, as the golden one."""
    shape = [len(line.split()) for line in INSTALLER.splitlines()]
    try:
        script = installer_script(hostname=hostname, base_url=base_url)
    except Invalid:
        return
    assert [len(line.split()) for line in script.splitlines()] == shape
    assert script.count("$") == INSTALLER.count("$")


@given(HOSTILE)
def test_no_hostname_adds_a_line_or_a_word(hostname: str) -> None:
    """The same for the script that every idle machine gets."""
    try:
        script = local_disk_script(hostname)
    except Invalid:
        return
    assert [len(line.split()) for line in script.splitlines()] == [
        len(line.split()) for line in LOCAL_DISK.splitlines()
    ]


@pytest.mark.parametrize(
    "url", ["http://192.0.2.5:8080", "http://[2001:db8::5]:8080/x/", "https://boot.lab.example/p-v_e/9.2~1"]
)
def test_plain_urls_are_taken(url: str) -> None:
    """Names, addresses of both families, ports and paths may stand in a script; a last slash is dropped."""
    assert f"set base {url.rstrip('/')}\n" in installer_script(hostname="n1", base_url=url)
