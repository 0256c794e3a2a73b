"""The doctor: what each check says of a given state of things, and that none hides another."""

import errno
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from namespaces import Namespace
from netboot.probe_lab import NIC, PROVD, ROGUE, ROUTER, Lan, inside, listens, needs_lan, open_lan
from provd.config import CredentialsSection, ProxmoxSection
from provd.doctor import examination, machine, reach, storage, wire
from provd.doctor.clock import look_at_clock
from provd.doctor.findings import Check, Finding, Result, healthy, ok, problem, run
from provd.doctor.machine import Holder, Port, Transport
from provd.doctor.storage import KnownImage
from provd.domain.architectures import FIRMWARES
from provd.domain.secrets import Secret
from provd.netboot.probe import Offer, Server
from provd.simulator.lab import free_port

OURS = IPv4Address("192.168.1.10")
SUBNET = IPv4Network("192.168.1.0/24")


def results(findings: Iterable[Finding]) -> list[Result]:
    return [finding.result for finding in findings]


def only(findings: Iterable[Finding], result: Result) -> Finding:
    """The one finding of that kind."""
    (found,) = [finding for finding in findings if finding.result is result]
    return found


# --- how checks are run ---------------------------------------------------------------------------


async def test_a_check_that_stumbles_or_hangs_hides_no_other(autojump_clock: MockClock) -> None:
    """Whatever a check raises, and however long it takes, the others' findings are there, in order."""

    async def stumble() -> list[Finding]:
        raise KeyError("boom")

    async def hang() -> list[Finding]:
        await trio.sleep_forever()
        raise AssertionError

    async def fine() -> list[Finding]:
        return [ok("fine", "all is well")]

    checks = [Check(name=look.__name__, seconds=5, look=look) for look in (stumble, hang, fine)]
    found = await run(checks)
    assert [(each.check, each.result) for each in found] == [
        ("stumble", Result.WARNING),
        ("hang", Result.WARNING),
        ("fine", Result.OK),
    ]
    assert "boom" in found[0].what
    assert trio.current_time() == pytest.approx(5)


def test_only_a_problem_is_unhealthy() -> None:
    """Warnings and what was skipped do not fail the whole."""
    assert healthy([ok("a", "b"), Finding(check="c", result=Result.WARNING, what="d")])
    assert not healthy([ok("a", "b"), problem("c", "d", "e")])


# --- the wire -------------------------------------------------------------------------------------

PLAIN = Offer(
    asked=FIRMWARES[7],
    server=IPv4Address("192.168.1.1"),
    address=IPv4Address("192.168.1.77"),
    vendor_class="",
    vendor_options=b"",
    next_server=IPv4Address("192.168.1.1"),
    server_name="",
    boot_file="",
)
PROXY = evolve(PLAIN, address=None, vendor_class="PXEClient", next_server=None)


def judged(*servers: tuple[str, Sequence[Offer]]) -> list[Finding]:
    heard = [
        Server(source=IPv4Address(source), mac="aa:bb:cc:dd:ee:ff", offers=offers)
        for source, offers in servers
    ]
    return list(wire.judge(heard, [OURS], SUBNET, "eth0"))


def test_a_plain_dhcp_server_is_as_it_should_be() -> None:
    """One that gives addresses, and says nothing of booting, is no reason to worry: `siaddr` alone is not."""
    assert results(judged(("192.168.1.1", [PLAIN]))) == [Result.OK]


def test_silence_is_a_problem() -> None:
    """Without a DHCP server no machine gets far enough to ask for anything."""
    assert "no DHCP server" in only(judged(), Result.PROBLEM).what


def test_a_foreign_proxy_is_named_and_our_own_is_not_in_the_way() -> None:
    """By address and MAC. A proxy on this machine is provd."""
    theirs = judged(("192.168.1.1", [PLAIN]), ("192.168.1.66", [evolve(PROXY, boot_file="fog.efi")]))
    found = only(theirs, Result.PROBLEM)
    for word in ("192.168.1.66", "aa:bb:cc:dd:ee:ff", "proxy", "fog.efi"):
        assert word in found.what
    ours = judged(("192.168.1.1", [PLAIN]), (str(OURS), [PROXY]))
    assert results(ours) == [Result.OK, Result.OK]


def test_a_stray_option_60_is_a_problem_for_uefi() -> None:
    """It makes the DHCP server look like a boot server; with option 43 it is a real one."""
    stray = evolve(PLAIN, vendor_class="PXEClient")
    assert "option 60" in only(judged(("192.168.1.1", [stray])), Result.PROBLEM).what
    real = evolve(stray, vendor_options=b"\x06\x01\x08\xff")
    assert Result.PROBLEM not in results(judged(("192.168.1.1", [real])))


@pytest.mark.parametrize(
    ("stray", "words"),
    [
        ({"boot_file": "old.efi", "next_server": IPv4Address("192.168.1.5")}, "old.efi on 192.168.1.5"),
        ({"boot_file": "http://192.168.1.5/x.efi"}, "http://192.168.1.5/x.efi"),
        ({"boot_file": "http://[", "next_server": OURS}, "http://["),
        ({"boot_file": "x", "next_server": None, "server_name": "nas"}, "x on nas"),
        ({"server_name": "192.168.1.5"}, "option 66"),
    ],
)
def test_a_stray_boot_file_is_told_with_where_it_lies(stray: dict[str, Any], words: str) -> None:
    """Options 66 and 67 that lead elsewhere are a warning: some firmware prefers them."""
    assert words in only(judged(("192.168.1.1", [evolve(PLAIN, **stray)])), Result.WARNING).what


@pytest.mark.parametrize(
    "fallback",
    [
        {"boot_file": "snponly.efi", "next_server": OURS},
        {"boot_file": "snponly.efi", "next_server": None, "server_name": str(OURS)},
        {"boot_file": f"http://{OURS}:8080/x.efi"},
    ],
)
def test_a_router_that_sends_machines_to_provd_is_fine(fallback: dict[str, Any]) -> None:
    """That is what the router settings on the doctor's page do."""
    found = judged(("192.168.1.1", [evolve(PLAIN, **fallback)]))
    assert results(found) == [Result.OK, Result.OK]
    assert "to provd" in found[1].what


def test_two_dhcp_servers_and_the_wrong_network_are_warned_of() -> None:
    """Both are told with their addresses."""
    found = judged(
        ("192.168.1.1", [PLAIN]), ("192.168.1.2", [evolve(PLAIN, address=IPv4Address("10.0.0.9"))])
    )
    warnings = [each.what for each in found if each.result is Result.WARNING]
    assert any("10.0.0.9" in each for each in warnings)
    assert any("2 DHCP servers" in each and "192.168.1.2" in each for each in warnings)


# --- this machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", Transport)
def test_a_port_is_free_ours_or_in_somebodys_hands(transport: Transport) -> None:
    """The holder is named with its pid; that it is provd itself is fine."""
    port = Port(transport=transport, address="127.0.0.1", number=free_port(), purpose="a test")
    assert machine.look_at_port(port, ()).result is Result.OK
    kind = socket.SOCK_DGRAM if transport is Transport.UDP else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", port.number))
        if transport is Transport.TCP:
            sock.listen()
        taken = machine.look_at_port(port, ())
        assert taken.result is Result.PROBLEM
        assert f"{psutil.Process().name()} (pid {os.getpid()})" in taken.what
        own = machine.look_at_port(port, [os.getpid()])
        assert (own.result, "provd itself" in own.what) == (Result.OK, True)
    assert machine.look_at_port(port, ()).result is Result.OK


def test_an_address_of_another_machine_is_told() -> None:
    """Nobody can listen there."""
    port = Port(transport=Transport.TCP, address="203.0.113.7", number=free_port(), purpose="a test")
    finding = machine.look_at_port(port, ())
    assert (finding.result, "203.0.113.7" in finding.what) == (Result.PROBLEM, True)


def test_a_holder_that_cannot_be_seen_is_no_certain_problem() -> None:
    """It may be provd itself, which another user may not see."""
    port = Port(transport=Transport.UDP, address="0.0.0.0", number=67, purpose="DHCP")
    hidden = [Holder(name="a process that this user may not see", pid=None)]
    assert machine.judge_holders(port, hidden, (), certain=True).result is Result.WARNING
    assert (
        machine.judge_holders(port, [Holder(name="dnsmasq", pid=7)], (), certain=False).result
        is Result.WARNING
    )
    assert machine.judge_holders(port, [], (), certain=False).result is Result.OK


def test_provd_is_known_by_its_lock(tmp_path: Path) -> None:
    """The process with the lock of the state directory, and nobody once it is gone."""
    lock = tmp_path / "provd.lock"
    assert machine.lock_holders(lock) == frozenset()
    code = "import fcntl,sys;f=open(sys.argv[1],'w');fcntl.flock(f,fcntl.LOCK_EX);print(flush=True);input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert machine.lock_holders(lock) == {holder.pid}
        holder.communicate(b"\n")
    assert machine.lock_holders(lock) == frozenset()


def test_privileges_are_those_of_the_process_that_is_named() -> None:
    """Low ports take CAP_NET_BIND_SERVICE, others nothing; the way out names the unit's two lines."""
    assert machine.look_at_privileges(os.getpid(), "it", [4011, 8080]).result is Result.OK
    with subprocess.Popen(
        ["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, **without_privileges()
    ) as process:
        finding = machine.look_at_privileges(process.pid, "it", [67, 69])
        process.communicate(b"\n")
    if machine.lowest_free_port() > 69:
        assert finding.result is Result.PROBLEM
        assert "67, 69" in finding.what
        assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in finding.mend


def without_privileges() -> dict[str, Any]:
    return {"user": 65534} if os.geteuid() == 0 else {}


def test_an_interface_that_is_not_there_or_elsewhere_is_a_problem() -> None:
    """With the sentence of interfaces.py, and a way out."""
    missing = only(machine.look_at_interface("nope0", SUBNET), Result.PROBLEM)
    assert "nope0" in missing.what
    assert "pxe.interface" in missing.mend
    assert (
        "203.0.113.0/24"
        in only(machine.look_at_interface("lo", IPv4Network("203.0.113.0/24")), Result.PROBLEM).what
    )
    assert results(machine.look_at_interface("lo", IPv4Network("127.0.0.0/8"))) == [Result.OK]
    assert only(machine.look_at_interface("lo", IPv4Network("127.0.0.0/16")), Result.WARNING)


def test_the_clock_is_kept_or_not_or_not_to_be_seen() -> None:
    """The kernel answers adjtimex(2) with something that makes sense, whoever asks."""
    assert look_at_clock().result in (Result.OK, Result.WARNING, Result.SKIPPED)


# --- files ----------------------------------------------------------------------------------------


def image_in(folder: Path, *, default: bool = True, size: int | None = 5) -> KnownImage:
    (folder / "proxmox.iso").write_bytes(b"12345")
    return KnownImage(name="pve-9", default=default, files={folder / "proxmox.iso": size})


def test_images_are_none_without_default_damaged_or_fine(tmp_path: Path) -> None:
    """Each of the four is told apart, and the damaged file is named."""
    whole = image_in(tmp_path)
    assert "no installer image" in only(storage.look_at_images([], ""), Result.PROBLEM).what
    assert results(storage.look_at_images([whole], "")) == [Result.OK]
    assert only(storage.look_at_images([evolve(whole, default=False)], ""), Result.WARNING)
    damaged = only(
        storage.look_at_images([evolve(whole, files={tmp_path / "proxmox.iso": 6})], ""), Result.PROBLEM
    )
    assert "5 bytes instead of 6" in damaged.what
    gone = only(
        storage.look_at_images([evolve(whole, files={tmp_path / "vmlinuz": None})], ""), Result.PROBLEM
    )
    assert "vmlinuz" in gone.what


def test_images_of_another_web_server_are_not_looked_for(tmp_path: Path) -> None:
    """Then nothing need lie here."""
    assert results(storage.look_at_images([], "http://192.168.1.5/pve")) == [Result.SKIPPED]


def test_a_disk_without_room_for_another_image_is_told(tmp_path: Path) -> None:
    """A directory that does not exist yet counts as the one above it; one disk is told once."""
    places = [tmp_path / "state", tmp_path / "state" / "images"]
    free = psutil.disk_usage(str(tmp_path)).free
    if free > 2 * storage.GIB:
        assert results(storage.look_at_disk(places, [])) == [Result.OK]
    huge = KnownImage(name="x", default=True, files={tmp_path / "iso": free * 2})
    assert results(storage.look_at_disk(places, [huge])) == [Result.WARNING]


def test_a_password_file_that_others_may_read_is_a_problem(tmp_path: Path) -> None:
    """It is used as provd would use it, and never shown."""
    file = tmp_path / "password"
    file.write_text("s3cret-of-ours\n")
    file.chmod(0o600)
    section = CredentialsSection(root_password_hash=Secret("x"), cluster_password_file=file)
    good = list(storage.look_at_credentials(section, None))
    assert results(good) == [Result.OK] * 4
    file.chmod(0o644)
    bad = list(storage.look_at_credentials(section, None))
    assert str(file) in only(bad, Result.PROBLEM).what
    assert not any("s3cret" in each.what + each.mend for each in [*good, *bad])


# --- addresses and the cluster --------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost:1", "http://0.0.0.0:80", "http://[::1]:8080"]
)
async def test_a_loopback_address_is_useless_to_machines(url: str) -> None:
    """Even though it answers here."""
    found = await reach.look_at_url("server.public_url", url, None, running=True, health=True)
    assert "means each machine itself" in only(found, Result.PROBLEM).what


async def test_a_name_that_nobody_knows_is_a_problem() -> None:
    """It names the name (RFC 6761: `.invalid` never resolves)."""
    found = await reach.look_at_url(
        "server.public_url", "http://x.invalid:80", None, running=True, health=True
    )
    assert "x.invalid" in only(found, Result.PROBLEM).what


def test_names_and_https_are_remarked_upon() -> None:
    """Both work for a browser and often not for firmware."""
    names = list(reach.remarks("k", "https://provd.lan", "provd.lan", ["192.168.1.10"]))
    assert results(names) == [Result.WARNING, Result.WARNING]
    assert list(reach.remarks("k", "http://192.168.1.10", "192.168.1.10", ["192.168.1.10"])) == []


@pytest.mark.parametrize(
    ("seconds", "result"),
    [(0, Result.OK), (-29, Result.OK), (31, Result.WARNING), (-299, Result.WARNING), (301, Result.PROBLEM)],
)
def test_a_clock_is_judged_by_how_far_it_is_off(seconds: float, result: Result) -> None:
    """In both directions."""
    assert reach.judge_clock(seconds, "10.0.0.5").result is result


async def test_the_member_tells_its_time_and_its_certificate(tmp_path: Path) -> None:
    """A right pin and a wrong clock; a wrong pin; nobody at all."""
    from provd.simulator.cluster import certificates, leaves

    certificates.create_authority(tmp_path)
    certificates.issue_foreign_leaf(tmp_path, "pve1", "127.0.0.1")
    node = tmp_path / "nodes" / "pve1"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(node / "pveproxy-ssl.pem", node / "pveproxy-ssl.key")
    pin = leaves.fingerprint_of(ssl.PEM_cert_to_DER_cert((node / "pveproxy-ssl.pem").read_text()))
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    async with member(context, now) as port:
        section = ProxmoxSection(existing_node=ip_address("127.0.0.1"), join_fingerprint=pin, api_port=port)
        assert results(await reach.look_at_member(section, now)) == [Result.OK, Result.OK]
        late = await reach.look_at_member(section, now + timedelta(minutes=10))
        assert "600 s ahead" in only(late, Result.PROBLEM).what
        wrong = await reach.look_at_member(evolve(section, join_fingerprint=":".join(["AA"] * 32)), now)
        assert "join_fingerprint" in only(wrong, Result.PROBLEM).mend
    nobody = await reach.look_at_member(evolve(section, api_port=free_port()), now)
    assert "cannot be reached" in only(nobody, Result.PROBLEM).what


@asynccontextmanager
async def member(context: ssl.SSLContext, now: datetime) -> AsyncIterator[int]:
    """A web server with that certificate and that time."""
    date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").encode()

    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: " + date + b"\r\n\r\n")
            await stream.receive_some()
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, answer, 0, context, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield listener.transport_listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def test_why_no_packet_could_be_sent_is_said() -> None:
    """A right that is missing and an interface that is gone are different things."""
    assert "root" in examination.unasked(OSError(errno.EACCES, "Permission denied")).mend
    assert "nft" in examination.unasked(OSError(errno.ENETDOWN, "Network is down")).mend


# --- all of it, in a LAN --------------------------------------------------------------------------

CONFIG = """
server: {{public_url: "http://{url}:8080", listen: "0.0.0.0:8080", image_listen: "0.0.0.0:8081"}}
pxe: {{interface: {nic}, subnet: 10.77.0.0/24, loader_dir: {folder}}}
proxmox: {{existing_node: 10.77.0.1, join_fingerprint: "{pin}"}}
credentials: {{root_password_hash: "$6$salt${hash}"}}
paths: {{state_dir: {folder}}}
"""

DOCTOR = """
import argparse, os, sys
from provd import cli, doctor_cli
from provd.config import load_config
commands = argparse.ArgumentParser().add_subparsers(required=True)
doctor_cli.add_commands(commands, cli.add)
options = commands.choices["doctor"].parse_args(sys.argv[1:])
options.command(load_config(options.config, os.environ), options)
"""

STAND_IN = """
import fcntl, http.server, sys
lock = open(sys.argv[1] + "/provd.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status":"ok"}')
http.server.HTTPServer(("0.0.0.0", 8080), Answer).serve_forever()
"""
"""What a check can see of a running provd: its lock, its port, its answer."""


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    with open_lan(tmp_path) as lan:
        yield lan


def doctor(
    lan: Lan, namespace: Namespace, *, url: str = PROVD, options: Sequence[str] = ()
) -> tuple[int, list[Finding]]:
    """The exit code and the findings of `provd doctor --json` there."""
    file = lan.folder / "provisioning.yaml"
    text = CONFIG.format(url=url, nic=NIC, folder=lan.folder, pin=":".join(["AA"] * 32), hash="x" * 86)
    file.write_text(text)
    command = (sys.executable, "-c", DOCTOR, "--config", str(file), "--json", "--listen", "1", *options)
    answer = inside(namespace, *command)
    assert answer.stdout, answer.stderr
    return answer.returncode, [
        Finding(**{**each, "result": Result(each["result"])})
        for each in json.loads(answer.stdout)["findings"]
    ]


def of(findings: Iterable[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


@needs_lan
def test_a_rogue_proxy_a_stray_option_and_a_held_port_are_found(lan: Lan) -> None:
    """In one run: who they are, by address, and that DHCP here is shared with a DHCP server."""
    router, rogue, here = lan.add(ROUTER), lan.add(ROGUE), lan.add(PROVD)
    lan.dnsmasq(
        router,
        "dhcp-range=10.77.0.100,10.77.0.200,1h",
        "dhcp-option-force=60,PXEClient",
        "dhcp-boot=stray.efi,,10.77.0.9",
    )
    lan.dnsmasq(rogue, "dhcp-range=10.77.0.0,proxy", "pxe-service=X86-64_EFI,rogue,rogue.efi")
    lan.dnsmasq(here, "dhcp-range=10.77.0.210,10.77.0.220,1h", "enable-tftp", f"tftp-root={lan.folder}")
    code, findings = doctor(lan, here)
    assert code == 1
    told = {finding.what: finding.result for finding in of(findings, "the wire")}
    assert any(ROGUE in what and "proxy" in what and of_ is Result.PROBLEM for what, of_ in told.items())
    assert any(ROUTER in what and "option 60" in what and of_ is Result.PROBLEM for what, of_ in told.items())
    assert any("stray.efi on 10.77.0.9" in what and of_ is Result.WARNING for what, of_ in told.items())
    assert any("2 DHCP servers" in what for what in told)
    ports = {finding.what: finding.result for finding in of(findings, "ports")}
    assert any("67" in what and "shared with dnsmasq" in what for what in ports)
    assert any(
        "69" in what and "held by dnsmasq" in what and of_ is Result.PROBLEM for what, of_ in ports.items()
    )


@needs_lan
def test_silence_and_a_provd_that_does_not_run(lan: Lan) -> None:
    """Nobody gives addresses: a problem. Nobody answers at public_url, but nobody claims to."""
    code, findings = doctor(lan, lan.add(PROVD))
    assert code == 1
    assert "no DHCP server" in only(of(findings, "the wire"), Result.PROBLEM).what
    assert results(of(findings, "server.public_url")) == [Result.SKIPPED]
    assert results(of(findings, "interface")) == [Result.OK]


@needs_lan
def test_a_running_provd_is_reached_from_the_lans_address(lan: Lan) -> None:
    """It holds its own port and answers; a URL that leads elsewhere does not."""
    router, here = lan.add(ROUTER), lan.add(PROVD)
    lan.dnsmasq(router, "dhcp-range=10.77.0.100,10.77.0.200,1h")
    lan.start(
        here, sys.executable, "-c", STAND_IN, str(lan.folder), ready=lambda pid: listens(pid, "tcp", 8080)
    )
    _, findings = doctor(lan, here)
    assert results(of(findings, "server.public_url")) == [Result.OK]
    assert results(of(findings, "the wire")) == [Result.OK]
    assert any("provd itself listens on TCP port 8080" in each.what for each in of(findings, "ports"))
    assert only(of(findings, "server.image_url"), Result.PROBLEM)
    _, elsewhere = doctor(lan, here, url=ROUTER, options=["--no-probe"])
    assert only(of(elsewhere, "server.public_url"), Result.PROBLEM)
    assert results(of(elsewhere, "the wire")) == [Result.SKIPPED]


@needs_lan
def test_a_dhcp_client_that_keeps_port_68_to_itself_is_named(lan: Lan) -> None:
    """No packet can be sent then, and it says who is in the way."""
    here = lan.add(PROVD)
    hold = "import socket, time; s = socket.socket(2, 2); s.bind(('0.0.0.0', 68)); time.sleep(60)"
    lan.start(here, sys.executable, "-c", hold, ready=lambda pid: listens(pid, "udp", 68))
    _, findings = doctor(lan, here)
    finding = only(of(findings, "the wire"), Result.WARNING)
    assert "port 68" in finding.what
    assert "python" in finding.what
