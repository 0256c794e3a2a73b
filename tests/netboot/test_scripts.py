from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.errors import Invalid
from provd.domain.hosts import LocalBoot, Mac
from provd.netboot.loaders import IpxeVersion
from provd.netboot.scripts import (
    MENU_SECONDS,
    Form,
    autoexec_script,
    form_for,
    greeting_script,
    installer_script,
    local_disk_script,
    unknown_script,
)
from provd.simulator.machine.ipxe import Boots, BootsLocalDisk, FetchFailed, run_script

GOLDEN = Path(__file__).parents[1] / "golden"
BASE = "http://192.0.2.5:8080/boot/pve/9.2-1"
ROOT = "http://192.0.2.5:8080"
MAC = Mac.parse("52:54:00:12:34:56")
INSTALLER = installer_script(hostname="nuc1", base_url=BASE)
LOCAL_DISK = local_disk_script("nuc1")
UNKNOWN = unknown_script(mac=MAC, base_url=ROOT)
AUTOEXEC = autoexec_script(ROOT)
INSTALLERS = [
    installer_script(hostname="nuc1", base_url=BASE, form=form, local_boot=local_boot)
    for form in Form
    for local_boot in LocalBoot
]
FINAL = [*INSTALLERS, LOCAL_DISK, local_disk_script("nuc1", LocalBoot.SANBOOT), UNKNOWN]
"""Those after which a machine is in other hands."""


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("installer", INSTALLER),
        ("installer-merged", installer_script(hostname="nuc1", base_url=BASE, form=Form.MERGED)),
        (
            "installer-sanboot",
            installer_script(hostname="nuc1", base_url=BASE, local_boot=LocalBoot.SANBOOT),
        ),
        ("local-disk", LOCAL_DISK),
        ("local-disk-sanboot", local_disk_script("nuc1", LocalBoot.SANBOOT)),
        ("unknown", UNKNOWN),
        ("greeting", greeting_script(MAC)),
        ("autoexec", AUTOEXEC),
    ],
)
def test_golden(name: str, script: str) -> None:
    """The scripts that wipe a disk or leave a machine alone are these texts, to the letter."""
    assert (GOLDEN / f"{name}.ipxe").read_text() == script


@pytest.mark.parametrize("script", FINAL)
def test_what_firmware_trips_over_is_not_there(script: str) -> None:
    """The NIC is not opened again, no image is left for the initrd, no failing line ends a script."""
    lines = script.splitlines()
    assert lines[0] == "#!ipxe"
    assert not [line for line in lines if line.split()[:1] in (["dhcp"], ["ifopen"])]
    assert lines.index("imgfree") < min(
        (n for n, line in enumerate(lines) if line.startswith(("kernel", "initrd", "iseq"))),
        default=len(lines),
    )
    for line in lines:
        if line.split()[:1] in (
            ["kernel"],
            ["initrd"],
            ["boot"],
            ["sanboot"],
            ["iseq"],
            ["choose"],
            ["chain"],
        ):
            assert " ||" in line


@pytest.mark.parametrize("script", [*FINAL, AUTOEXEC, greeting_script(MAC)])
def test_what_ipxe_reads(script: str) -> None:
    """ASCII, line feeds, a mark at the head and an end to the last line."""
    assert script.isascii()
    assert script.startswith("#!ipxe\n")
    assert script.endswith("\n")
    assert "\r" not in script


def test_only_the_installer_can_install() -> None:
    """The word that starts the unattended installer stands in no other script, and none loads a kernel."""
    assert all("proxmox-start-auto-installer" in script for script in INSTALLERS)
    for word in ("kernel", "initrd", "auto-installer"):
        for script in (*FINAL[len(INSTALLERS) :], AUTOEXEC, greeting_script(MAC)):
            assert word not in script
    assert "http" not in LOCAL_DISK


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


async def test_the_merged_installer_is_booted() -> None:
    """Where iPXE hands over one initrd only, it is one, and the kernel is told its name."""

    async def fetch(url: str) -> bytes:
        return url.rpartition("/")[2].encode()

    script = installer_script(hostname="nuc1", base_url=BASE, form=Form.MERGED)
    run = await run_script(script, base=BASE, settings={"platform": "efi"}, fetch=fetch)
    assert isinstance(run.outcome, Boots)
    assert run.outcome.kernel.content == b"vmlinuz"
    assert "initrd=installer.img" in run.outcome.kernel.arguments.split()
    assert [(image.content, image.arguments) for image in run.outcome.initrds] == [(b"installer.img", "")]


def test_the_form_follows_the_version() -> None:
    """Separate initrds only for an iPXE that is known to merge them on UEFI; in doubt, one."""
    for text, form in (
        ("1.0.0+git-20190125.36a4c85-5.1", Form.MERGED),
        ("1.21.1+", Form.MERGED),
        ("1.21.1+git20250501.dad20602+dfsg-1", Form.SEPARATE),
        ("2.0.0+dfsg-5", Form.SEPARATE),
    ):
        assert form_for(IpxeVersion.parse(text)) is form
    assert form_for(None) is Form.MERGED


SANBOOT = "sanboot --no-describe --drive 0x80"
WAYS = pytest.mark.parametrize(
    ("platform", "local_boot", "way"),
    [
        ("efi", LocalBoot.EXIT, "exit 1"),
        ("efi", LocalBoot.SANBOOT, SANBOOT),
        ("pcbios", LocalBoot.EXIT, SANBOOT),
        ("pcbios", LocalBoot.SANBOOT, SANBOOT),
    ],
)


@WAYS
async def test_the_local_disk_is_booted(platform: str, local_boot: LocalBoot, way: str) -> None:
    """UEFI is left by a failure, so that it goes on to the disk, or starts the disk where that is wanted."""
    script = local_disk_script("nuc1", local_boot)
    run = await run_script(script, base=BASE, settings={"platform": platform}, fetch=nothing)
    assert run.outcome == BootsLocalDisk(way)
    assert run.echoed == ("provd: nuc1 boots its own disk",)
    assert run.slept == ()


@pytest.mark.parametrize("script", [LOCAL_DISK, *FINAL[-2:]])
async def test_a_disk_that_does_not_start_is_left_behind(script: str) -> None:
    """A disk that cannot be started, or whose loader comes back, is told and left to the firmware."""
    broken = script.replace(SANBOOT, "goto nowhere")
    run = await run_script(broken, base=BASE, settings={"platform": "pcbios"}, fetch=nothing)
    assert run.outcome == BootsLocalDisk("exit 1")
    assert "no first disk that boots" in run.echoed[-1]


@WAYS
async def test_an_unreachable_installer_is_tried_again_and_given_up(
    platform: str, local_boot: LocalBoot, way: str
) -> None:
    """It is tried six times, with longer pauses, then a human can read why, then the disk is booted."""
    script = installer_script(hostname="nuc1", base_url=BASE, local_boot=local_boot)
    run = await run_script(script, base=BASE, settings={"platform": platform}, fetch=nothing)
    assert run.outcome == BootsLocalDisk(way)
    assert run.slept == (5, 10, 15, 20, 25, 30)
    assert f"provd: nuc1 could not load the installer from {BASE}" in run.echoed


async def test_an_unknown_machine_boots_its_disk_by_itself() -> None:
    """Nobody is at the screen: after a few seconds the disk is booted, and nothing was asked for."""
    asked, fetch = book(greeting_script(MAC))
    run = await run_script(UNKNOWN, base=ROOT, settings=MACHINE, fetch=fetch)
    assert run.outcome == BootsLocalDisk("exit 1")
    assert run.slept == (MENU_SECONDS,)
    assert asked == []


async def test_an_unknown_machine_can_be_listed() -> None:
    """Whoever chooses so has provd told what the machine is, with every word of it, and boots the disk."""
    asked, fetch = book(greeting_script(MAC))
    run = await run_script(UNKNOWN, base=ROOT, settings=MACHINE, fetch=fetch, picks="hello")
    assert run.outcome == BootsLocalDisk("exit 1")
    (url,) = asked
    assert url.startswith(f"{ROOT}/ipxe/52-54-00-12-34-56/hello?")
    assert parse_qs(urlsplit(url).query, strict_parsing=True) == {
        "uuid": ["5e1f0000-0000-4000-8000-000000000001"],
        "serial": ["S 1"],
        "product": ["Box #1/2 50%"],
        "manufacturer": ["A & B"],
    }
    assert any("is listed" in line for line in run.echoed)


async def test_listing_may_fail() -> None:
    """When provd does not answer, or not with a script, the disk is booted all the same."""
    for fetch in (nothing, book("sorry")[1], book("#!ipxe\nexit 1")[1]):
        run = await run_script(UNKNOWN, base=ROOT, settings=MACHINE, fetch=fetch, picks="hello")
        assert run.outcome == BootsLocalDisk("exit 1")
        assert "provd: the machine could not be listed" in run.echoed


async def test_autoexec_chains_from_the_nic_that_has_an_address() -> None:
    """The machine's own script is asked for by the MAC that it booted from, and takes over."""
    asked, fetch = book(LOCAL_DISK)
    second = {"net0/mac": "52:54:00:99:99:99", "net1/mac": str(MAC), "net1/ip": "192.0.2.9"}
    run = await run_script(AUTOEXEC, base=ROOT, settings=MACHINE | second, fetch=fetch)
    assert asked == [f"{ROOT}/ipxe/52-54-00-12-34-56"]
    assert run.echoed == ("provd: nuc1 boots its own disk",)
    assert run.outcome == BootsLocalDisk("exit 1")


async def test_autoexec_without_an_address_or_a_script() -> None:
    """No address: iPXE begins by itself. No script: the firmware goes on to the next entry."""
    run = await run_script(AUTOEXEC, base=ROOT, settings={"net0/mac": str(MAC)}, fetch=nothing)
    assert run.outcome == BootsLocalDisk("autoboot")
    found = {"net0/mac": str(MAC), "net0/ip": "192.0.2.9"}
    run = await run_script(AUTOEXEC, base=ROOT, settings=found, fetch=nothing)
    assert run.outcome == BootsLocalDisk("exit 1")


MACHINE = {
    "platform": "efi",
    "uuid": "5e1f0000-0000-4000-8000-000000000001",
    "serial": "S 1",
    "product": "Box #1/2 50%",
    "manufacturer": "A & B",
}


def book(script: str) -> tuple[list[str], Callable[[str], Awaitable[bytes]]]:
    """A server that answers everything with `script`, and the list of what it is asked for."""
    asked: list[str] = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        return script.encode()

    return asked, fetch


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


@given(HOSTILE | st.from_regex(r"https?://[a-z0-9.]+(:[0-9]+)?(/[ -~]*)?", fullmatch=True))
def test_no_url_adds_a_line_or_a_word(base_url: str) -> None:
    """The same for the scripts that lead back to provd."""
    for golden, build in ((UNKNOWN, partial(unknown_script, mac=MAC)), (AUTOEXEC, autoexec_script)):
        try:
            script = build(base_url=base_url)
        except Invalid:
            continue
        assert [len(line.split()) for line in script.splitlines()] == [
            len(line.split()) for line in golden.splitlines()
        ]
        assert script.count("$") == golden.count("$")


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
