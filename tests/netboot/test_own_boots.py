"""Whole boots of real firmware from provd, replayed: what it answered then, it answers today, to the byte.

The captures are those of provd's own flight recorder; pcaps/README.md says which firmware and which iPXE.
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address

import pytest

from netboot.dhcp_checker import check_reply
from netboot.dhcp_client import Captured, all_captures, captured
from provd.config import Unknown
from provd.domain.architectures import Architecture
from provd.domain.hosts import Discovery
from provd.domain.lifecycle import Boots
from provd.netboot.desk import Policy
from provd.netboot.dhcp_packet import build, parse
from provd.netboot.proxy_dhcp import Answer, Arrival, Directions, Door, Ports, decide
from provd.netboot.tftp_options import Bounds, negotiate
from provd.netboot.tftp_packet import build_oack, parse_request

SERVER = "10.77.0.2"
TFTP = 69
SCRIPT = f"http://{SERVER}:8080/ipxe/02-00-00-00-02-01"
DEBIAN_12 = {"snponly.efi": 173_792}
DEBIAN_13 = {"snponly.efi": 284_672, "ipxe-arm64.efi": 1_011_712, "autoexec.ipxe": 297}
"""Sizes of the files that were there to be read."""
BUILDS = {
    Architecture.X64: "snponly.efi",
    Architecture.BIOS: "undionly.kpxe",
    Architecture.ARM64: "ipxe-arm64.efi",
}
DIRECTIONS = Directions(
    loader_for=lambda firmware, wanted: wanted or BUILDS.get(firmware.architecture),
    loader_url=lambda address, name: f"http://{address}:8080/boot/{name}",
    script_url=lambda address, mac: f"http://{address}:8080/ipxe/{str(mac).replace(':', '-')}",
)
PROBED_AND_READ = ["snponly.efi by TFTP", "snponly.efi by TFTP"]
"""OVMF asks for the size first, and breaks off."""
NOT_OURS = "silence: it asks a server that hands out addresses"
BOOTS = {
    # Debian 12's iPXE asks by DHCP once more.
    "provd_uefi": [
        "UEFI x64 asked for a boot server and got snponly.efi by TFTP",
        NOT_OURS,
        *PROBED_AND_READ,
        f"iPXE on UEFI x64 asked for its script and was sent to {SCRIPT}",
        NOT_OURS,
    ],
    # Debian 13's goes on with what the firmware was told.
    "provd_uefi_newer": [
        "UEFI x64 asked for a boot server and got snponly.efi by TFTP",
        NOT_OURS,
        *PROBED_AND_READ,
        "autoexec.ipxe by TFTP",
    ],
    "provd_uefi_4011": [
        "UEFI x64 asked for a boot server and got snponly.efi by TFTP",
        NOT_OURS,
        "UEFI x64 asked for its boot file and got snponly.efi by TFTP",
        *PROBED_AND_READ,
        "autoexec.ipxe by TFTP",
    ],
    "provd_uefi_http": [
        "UEFI x64 by HTTP asked for a boot server and got snponly.efi by HTTP",
        NOT_OURS,
    ],
    "provd_bios": [
        f"iPXE on BIOS asked for its script and was sent to {SCRIPT}",
        NOT_OURS,
    ],
    "provd_arm64": [
        "UEFI arm64 asked for a boot server and got ipxe-arm64.efi by TFTP",
        NOT_OURS,
        "ipxe-arm64.efi by TFTP",
        "ipxe-arm64.efi by TFTP",
        "autoexec.ipxe by TFTP",
    ],
}
POLICIES = {"provd_uefi_4011": Policy(boots=Boots.INSTALLER, discovery=Discovery.BOOT_SERVER)}


def exchanges(file: str) -> Iterator[tuple[Captured, list[Captured]]]:
    """Each packet of the machine's, with what provd sent before the next one."""
    asked: Captured | None = None
    answers: list[Captured] = []
    for each in captured(file):
        if each.source[0] == SERVER:
            answers.append(each)
            continue
        if asked is not None:
            yield asked, answers
        asked, answers = each, []
    assert asked is not None
    yield asked, answers


def by_dhcp(asked: Captured, answers: list[Captured], policy: Policy) -> str:
    """What provd says today, checked against what it said then; in a sentence."""
    decision = decide(
        parse(asked.payload),
        Arrival(door=Door(asked.target[1]), local=IPv4Address(SERVER), peer=asked.source),
        policy_of=lambda _: policy,
        directions=DIRECTIONS,
        unknown=Unknown.LOG,
        ports=Ports(),
    )
    if not isinstance(decision, Answer):
        assert answers == []
        return f"silence: {decision.reason}"
    (then,) = answers
    check_reply(then.payload, asked.payload, server=SERVER)
    assert build(decision.reply) == then.payload
    assert decision.target == then.target
    assert then.source == (SERVER, asked.target[1])
    return decision.contact.message


def by_tftp(asked: Captured, answers: list[Captured], sizes: Mapping[str, int]) -> str:
    request = parse_request(asked.payload)
    (then,) = answers
    terms = negotiate(request.options, size=sizes[request.name], bounds=Bounds())
    assert build_oack(terms.answer) == then.payload
    assert then.target == asked.source
    return f"{request.name} by TFTP"


def test_there_is_a_story_for_each_capture() -> None:
    """None lies there that nobody replays."""
    assert set(BOOTS) == {name for name in all_captures() if name.startswith("provd_")}


@pytest.mark.parametrize("file", BOOTS)
def test_a_boot_goes_today_as_it_went_then(file: str) -> None:
    """Every packet of the machine's gets the answer, or the silence, with which it came to its script."""
    policy = POLICIES.get(file, Policy(boots=Boots.INSTALLER))
    sizes = DEBIAN_12 if file == "provd_uefi" else DEBIAN_13
    story = [
        by_tftp(asked, answers, sizes) if asked.target[1] == TFTP else by_dhcp(asked, answers, policy)
        for asked, answers in exchanges(file)
    ]
    assert story == BOOTS[file]
