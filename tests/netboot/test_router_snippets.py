"""Router settings: each as a golden file, and those for dnsmasq proven by dnsmasq."""

import json
import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from attrs import evolve

from netboot.probe_lab import PROVD, ROUTER, ask, needs_lan, open_lan
from provd.domain.architectures import Architecture
from provd.netboot.router_snippets import BootServer, Snippet, matches, snippets

GOLDEN = Path(__file__).parents[1] / "golden"

SERVER = BootServer(
    address=IPv4Address("192.168.1.10"),
    subnet=IPv4Network("192.168.1.0/24"),
    files={
        Architecture.BIOS: "undionly.kpxe",
        Architecture.X64: "snponly.efi",
        Architecture.ARM64: "ipxe-arm64.efi",
    },
    script_url="http://192.168.1.10:8080/ipxe/${mac:hexhyp}",
    loader_url="http://192.168.1.10:8080/loaders",
)
KEYS = [snippet.key for snippet in snippets(SERVER)]


def snippet_for(key: str, server: BootServer = SERVER) -> Snippet:
    return next(snippet for snippet in snippets(server) if snippet.key == key)


@pytest.mark.parametrize("key", KEYS)
def test_each_router_gets_its_golden_text(key: str) -> None:
    """Whoever changes a text looks at the whole of it. PROVD_GOLDEN=write writes the files anew."""
    snippet = snippet_for(key)
    file = GOLDEN / f"router-{key}.txt"
    whole = f"{snippet.router}: {snippet.where}\n\n{snippet.text}"
    if os.environ.get("PROVD_GOLDEN") == "write":
        file.write_text(whole)
    assert whole == file.read_text()


@pytest.mark.parametrize("key", KEYS)
def test_each_text_names_the_server_and_the_usual_file(key: str) -> None:
    """No router's settings lack what all need: our address and the file for UEFI x64."""
    text = snippet_for(key).text
    assert "192.168.1.10" in text
    assert "snponly.efi" in text


def test_nobody_is_promised_a_file_that_there_is_not() -> None:
    """Without an ARM build and without HTTP there is no word of either."""
    bare = evolve(SERVER, files={Architecture.X64: "ipxe.efi"}, loader_url="")
    assert [(match.tag, list(match.architectures), match.file) for match in matches(bare)] == [
        ("provd-x64", [7, 9], "ipxe.efi")
    ]
    for snippet in snippets(bare):
        assert "arm64" not in snippet.text.lower()
        assert "HTTPClient" not in snippet.text
        assert "undionly" not in snippet.text


def test_keas_text_is_json_of_classes_that_exclude_each_other() -> None:
    """It parses, and every class but that of iPXE itself is for others than iPXE."""
    classes = json.loads("{" + snippet_for("kea").text + "}")["client-classes"]
    assert classes[0]["name"] == "provd-ipxe"
    assert all(each["test"].startswith("not member('provd-ipxe') and ") for each in classes[1:])


def test_a_dollar_sign_stays_one_on_a_mikrotik() -> None:
    """In RouterOS' double quotes it would be a variable."""
    assert "/ipxe/\\${mac:hexhyp}" in snippet_for("mikrotik").text


@needs_lan
def test_dnsmasq_with_these_lines_sends_each_firmware_to_its_file(tmp_path: Path) -> None:
    """A real one, asked as BIOS, as UEFI, and as UEFI by HTTP."""
    with open_lan(tmp_path) as lan:
        router, machine = lan.add(ROUTER), lan.add(PROVD)
        lan.dnsmasq(router, "dhcp-range=10.77.0.100,10.77.0.200,1h", snippet_for("dnsmasq").text)
        heard = {each["firmware"]: each for each in ask(machine, 1.0)}
    assert {name: each["file"] for name, each in heard.items()} == {
        "BIOS": "undionly.kpxe",
        "UEFI x64": "snponly.efi",
        "UEFI x64 by HTTP": "http://192.168.1.10:8080/loaders/snponly.efi",
    }
    assert {each["next"] for each in heard.values()} == {"192.168.1.10"}
    assert heard["UEFI x64 by HTTP"]["class"] == "HTTPClient"
    assert heard["UEFI x64"]["class"] in ("", "PXEClient")
