"""`provd doctor` as a command: its exit code, its lines, and that it disturbs nobody when asked not to."""

import argparse
import json
import os
from pathlib import Path

import pytest

from provd import cli, doctor_cli
from provd.config import load_config
from provd.doctor.findings import Finding, Result, ok, problem, skipped, warning
from provd.domain.errors import NotFound
from provd.simulator.lab import free_port

CONFIG = """
server: {{public_url: "{url}", listen: "127.0.0.1:{listen}", image_listen: "127.0.0.1:{images}"}}
pxe: {{enabled: false}}
proxmox: {{existing_node: 127.0.0.1, join_fingerprint: "{pin}", api_port: {api}}}
credentials: {{root_password_hash: "$6$salt${hash}"}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A set-up in which nothing runs, and whose public address is loopback."""
    file = tmp_path / "provisioning.yaml"
    listen, images, api = free_port(), free_port(), free_port()
    text = CONFIG.format(
        url=f"http://127.0.0.1:{listen}",
        listen=listen,
        images=images,
        api=api,
        pin=":".join(["AA"] * 32),
        hash="x" * 86,
    )
    file.write_text(text)
    return file


def doctor(config: Path, *options: str) -> None:
    """Raises `SystemExit` where it found a problem."""
    commands = argparse.ArgumentParser().add_subparsers(required=True)
    doctor_cli.add_commands(commands, cli.add)
    parsed = commands.choices["doctor"].parse_args([*options, "--config", str(config)])
    environ = {"STATE_DIRECTORY": str(config.parent / "state")}
    parsed.command(load_config(parsed.config, environ), parsed)


def test_a_problem_is_the_exit_code_and_stands_in_the_json(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loopback public_url is one. Nothing that was not asked for is in the way of JSON."""
    with pytest.raises(SystemExit) as ended:
        doctor(config, "--json", "--no-probe")
    assert ended.value.code == 1
    document = json.loads(capsys.readouterr().out)
    assert document["healthy"] is False
    assert {"check", "result", "what", "mend"} == document["findings"][0].keys()
    wrong = {each["check"] for each in document["findings"] if each["result"] == "problem"}
    assert {"server.public_url", "cluster"} <= wrong
    checked = {each["check"] for each in document["findings"]}
    assert {"interface", "ports", "privileges", "the wire", "loaders", "images", "disk", "clock"} <= checked


def test_lines_are_printed_for_people(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without colours where nobody sees them."""
    with pytest.raises(SystemExit):
        doctor(config, "--no-probe")
    printed = capsys.readouterr().out
    assert "✗ server.public_url" in printed
    assert "→ Write this machine's address on the LAN" in printed
    assert "\x1b" not in printed


def test_each_result_has_its_symbol_and_is_counted() -> None:
    """A way to mend stands below, in line with the words; long ones are folded."""
    findings = [
        ok("disk", "3 GiB are free"),
        warning("clock", "not kept", "timedatectl"),
        problem("the wire", "nobody " * 12, "switch it on"),
        skipped("images", "elsewhere"),
    ]
    assert list(doctor_cli.lines(findings, 50, colour=False)) == [
        "✓ disk      3 GiB are free",
        "! clock     not kept",
        "            → timedatectl",
        "✗ the wire  nobody nobody nobody nobody nobody\n"
        "            nobody nobody nobody nobody nobody\n"
        "            nobody nobody",
        "            → switch it on",
        "- images    elsewhere",
        "",
        "1 ok, 1 warning, 1 problem, 1 skipped",
    ]


def test_colours_are_for_terminals() -> None:
    """The symbol alone is coloured, so that the columns stay in line."""
    (first, *_) = doctor_cli.lines([Finding(check="a", result=Result.PROBLEM, what="b")], 80, colour=True)
    assert first == "\x1b[31m✗\x1b[0m a  b"


def test_a_routers_settings_are_printed_instead(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the addresses of this set-up; an unknown router is answered with those that are known."""
    doctor(config, "--router", "dnsmasq")
    assert "dhcp-boot=tag:provd-ipxe,http://127.0.0.1:" in capsys.readouterr().out
    with pytest.raises(NotFound, match=r"openwrt, dnsmasq, pfsense, opnsense, mikrotik, unifi, isc, kea"):
        doctor(config, "--router", "fritzbox")


def test_the_environment_is_left_alone(config: Path) -> None:
    """Neither the state directory nor anything else is made by looking."""
    before, files = dict(os.environ), set(config.parent.iterdir())
    with pytest.raises(SystemExit):
        doctor(config, "--no-probe")
    assert (dict(os.environ), set(config.parent.iterdir())) == (before, files)
