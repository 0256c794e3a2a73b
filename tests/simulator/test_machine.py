"""A simulated machine from power-on: what it asks the network, what it wipes, what runs on it."""

import json
import os
import signal
import subprocess
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from provd.simulator.cluster.api import serve_api
from provd.simulator.cluster.cluster import Cluster
from provd.simulator.lab import free_port
from provd.simulator.machine import paramiko_server, sshd
from provd.simulator.machine.faults import Faults
from provd.simulator.machine.machine import Machine, Phase
from provd.simulator.machine.refusal import InstallerRefused
from provd.simulator.machine.requests import request
from provd.simulator.machine.root_directory import make_host_keys
from simulator.scripted_daemon import ANSWER, Reply, ScriptedDaemon, scripted_daemon

MAC = "02:00:00:00:00:11"
IP = "127.77.1.11"
SCRIPT = f"/ipxe/{MAC.replace(':', '-')}"
ASK, TOLD, HOOK = "/api/boot/answer", "/api/hosts/1/installed", "/api/hosts/1/first-boot-script"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Machine]:
    """Machines beside a cluster of one."""
    Cluster.create(tmp_path / "cluster", ip="127.77.1.1", api_port=free_port())

    def build(daemon: ScriptedDaemon, **options: Any) -> Machine:
        return Machine(
            mac=MAC,
            ip=IP,
            ssh_port=free_port(),
            directory=tmp_path / "machine",
            public_url=daemon.url,
            cluster_dir=tmp_path / "cluster",
            **options,
        )

    return build


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "operator"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def public(key: Path) -> str:
    return key.with_suffix(".pub").read_text().strip()


async def ssh(
    machine: Machine, key: Path, command: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR")
    flags = [word for option in options for word in ("-o", option)]
    port = str(machine.ssh_port)
    return await trio.run_process(
        ["ssh", "-F", "none", "-i", str(key), "-p", port, *flags, machine.ip, command],
        stdin=stdin,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


async def run_until(machine: Machine, phase: Phase) -> None:
    """Switch on, wait for the phase, pull the plug."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.run_until_off)
            await machine.wait_phase(phase)
            machine.power_off()


async def test_a_whole_installation(make: Callable[..., Machine], key: Path) -> None:
    """Armed once, a machine installs itself once, reports, boots its disk and runs its script."""
    async with scripted_daemon() as daemon:
        daemon.keys = [public(key)]
        machine = make(daemon)
        await run_until(machine, Phase.IDLE)
        paths = [one.path for one in daemon.received if not one.path.startswith("/files/")]
        assert paths == [SCRIPT, ASK, HOOK, TOLD, SCRIPT]
        assert {one.peer for one in daemon.received} == {IP}
    assert machine.wipes("nvme0n1") == machine.wipes() == 1
    assert machine.phase is Phase.OFF
    assert (machine.root / "etc/hostname").read_text() == "nuc1\n"
    assert (machine.root / "etc/kernel/cmdline").read_text().endswith(" initrd=initrd.magic\n")
    assert (machine.root / "etc/modules").read_text().endswith("vfio-pci\n")
    assert "update-grub --all\n" in (machine.root / "var/log/programs.log").read_text()
    assert "serves the API" in "\n".join(machine.console)
    assert (machine.root / "sys/class/net/vmbr0/address").read_text() == f"{MAC}\n"
    log = (machine.root / "var/log/proxmox-first-boot.log").read_text()
    assert log == "argument: multi-user, directory: /\n"


async def test_the_request_for_an_answer_is_that_of_the_release(make: Callable[..., Machine]) -> None:
    """9.2 asks with upper-case MACs and an Accept header; 9.1 with the kernel's lower case and without."""
    for release, mac, accept in (
        ("9.2", MAC.upper(), "application/json, application/toml;q=0.5"),
        ("9.1", MAC.lower(), None),
    ):
        async with scripted_daemon() as daemon:
            daemon.replies[ASK] = Reply(404, body=b"no such machine")
            await run_until(make(daemon, release=release), Phase.INSTALLER_SHELL)
            (asked,) = daemon.of(ASK)
        assert asked.headers["content-type"] == "application/json; charset=utf-8"
        assert asked.headers.get("accept") == accept
        assert asked.json["$schema"] == {"version": "1.0"}
        assert asked.json["iso"] == {"release": release, "isorelease": "1"}
        assert asked.json["network_interfaces"][0] == {"link": "enp2s0", "mac": mac}
        assert asked.json["dmi"]["system"]["name"] == "NUC13ANHi5"


async def test_the_report_is_complete(make: Callable[..., Machine]) -> None:
    """The webhook carries whole host key lines, the final address, the machine id and lower-case MACs."""
    async with scripted_daemon() as daemon:
        token = '{url}/api/hosts/1/installed"\nauth-token = "t0ken"'
        daemon.answer = ANSWER.replace('{url}/api/hosts/1/installed"', token)
        machine = make(daemon)
        await run_until(machine, Phase.INSTALLED_SYSTEM)
        (told,) = daemon.of(TOLD)
    report = told.json
    assert report["$schema"] == {"version": "1.2"}
    assert report["token"] == "t0ken"
    assert report["fqdn"] == "nuc1.lab.example"
    assert report["machine-id"] == (machine.root / "etc/machine-id").read_text().strip()
    nic = report["network-interfaces"][0]
    assert (nic["mac"], nic["address"], nic["is-management"]) == (MAC, f"{IP}/24", True)
    for kind, line in report["ssh-public-host-keys"].items():
        assert line == (machine.root / f"etc/ssh/ssh_host_{kind}_key.pub").read_text().strip()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(404, body=b"no such machine"), "no such machine"),
        (Reply(204), "status 204"),
        (Reply(503), "status 503"),
        (Reply(307), "redirect failed"),
        (Reply(302), "no such path"),
        (Reply(200, "application/toml", b"[global]\nfoo = 1"), "missing field"),
        (Reply(200, "application/json", b"[global]"), "failed parsing"),
        (Reply(200, "text/plain", b'{"global": {}}'), "failed parsing"),
        (Reply(200, "text/plain", b"\xff"), "UTF-8"),
    ],
)
async def test_a_bad_answer_leaves_the_disk_alone(
    make: Callable[..., Machine], reply: Reply, reason: str
) -> None:
    """Whatever is wrong with the answer: one attempt, a shell with the reason, no wipe."""
    async with scripted_daemon() as daemon:
        daemon.replies[ASK] = reply
        daemon.replies["/elsewhere"] = Reply(404, body=b"no such path")
        machine = make(daemon)
        await run_until(machine, Phase.INSTALLER_SHELL)
        assert len(daemon.of(ASK)) == 1
    assert reason in (machine.shell_reason or "")
    assert machine.wipes() == 0


async def test_answers_in_json_and_after_a_redirect(make: Callable[..., Machine]) -> None:
    """9.2 reads JSON, where null is absent, also from where a 302 sends it; 9.1 takes it for bad TOML."""
    for release, phase in (("9.1", Phase.INSTALLER_SHELL), ("9.2", Phase.INSTALLED_SYSTEM)):
        async with scripted_daemon() as daemon:
            document = tomllib.loads(daemon.answer.format(url=daemon.url, keys="[]", reboot_on_error="true"))
            document["global"]["subscription-key"] = None
            body = json.dumps(document).encode()
            daemon.replies[ASK] = Reply(302)
            daemon.replies["/elsewhere"] = Reply(201, "application/json; charset=utf-8", body)
            daemon.disarmed_by = "/elsewhere"
            machine = make(daemon, release=release)
            await run_until(machine, phase)
            assert [one.method for one in daemon.of("/elsewhere")] == ["GET"]


async def test_no_first_boot_script_no_wipe(make: Callable[..., Machine]) -> None:
    """The first-boot script is fetched before the disk is touched; a failure stops the installation."""
    async with scripted_daemon() as daemon:
        daemon.replies[HOOK] = Reply(404)
        machine = make(daemon)
        await run_until(machine, Phase.INSTALLER_SHELL)
    assert "first-boot script failed: status 404" in (machine.shell_reason or "")
    assert machine.wipes() == 0


async def test_a_first_boot_script_is_cut_at_one_mebibyte(make: Callable[..., Machine]) -> None:
    """What exceeds 1 MiB is lost without a word."""
    async with scripted_daemon() as daemon:
        daemon.first_boot = b"#!/bin/sh\nexit 0\n".ljust(2 << 20, b"#")
        machine = make(daemon)
        await run_until(machine, Phase.IDLE)
    assert (machine.root / "var/lib/proxmox-first-boot/proxmox-first-boot").stat().st_size == 1 << 20


@pytest.mark.parametrize(("status", "release"), [(204, "9.2"), (404, "9.2"), (500, "9.1")])
async def test_a_failed_webhook_and_reboot_on_error(
    make: Callable[..., Machine], status: int, release: str
) -> None:
    """A webhook that is not accepted stops the machine, unless the answer says to reboot on errors."""
    async with scripted_daemon() as daemon:
        daemon.replies[TOLD] = Reply(status)
        daemon.reboot_on_error = False
        machine = make(daemon, release=release)
        await run_until(machine, Phase.INSTALLER_SHELL)
        assert machine.has_system
        daemon.reboot_on_error, daemon.armed = True, True
        await run_until(machine, Phase.IDLE)
        assert len(daemon.of(TOLD)) == 2
    assert machine.wipes() == 2


async def test_an_old_installer_takes_any_success(make: Callable[..., Machine]) -> None:
    """Up to 9.1 a webhook answered with 204 has succeeded."""
    async with scripted_daemon() as daemon:
        daemon.replies[TOLD] = Reply(204)
        daemon.reboot_on_error = False
        await run_until(make(daemon, release="9.1"), Phase.IDLE)


@pytest.mark.parametrize(
    "reply", [Reply(404), Reply(body=b"#!ipxe\nsanboot --drive 0x80\n"), Reply(body=b"hello")]
)
async def test_without_an_installer_an_empty_machine_switches_itself_off(
    make: Callable[..., Machine], reply: Reply
) -> None:
    """No kernel from the network and nothing on the disk: no bootable device, no wipe."""
    async with scripted_daemon() as daemon:
        daemon.replies[SCRIPT] = reply
        machine = make(daemon)
        with trio.fail_after(10):
            await machine.run_until_off()
    assert machine.phase is Phase.OFF
    assert "no bootable device" in machine.console
    assert machine.wipes() == 0


async def test_the_installer_needs_its_iso_and_its_word(make: Callable[..., Machine]) -> None:
    """Without /proxmox.iso no valid ISO is found; without the kernel word a graphical installer waits."""
    async with scripted_daemon() as daemon:
        daemon.words = "splash=silent"
        machine = make(daemon)
        await run_until(machine, Phase.INSTALLER_SHELL)
        assert "graphical installer" in (machine.shell_reason or "")
        body = f"#!ipxe\nkernel {daemon.url}/files/a proxmox-start-auto-installer\nboot\n"
        daemon.replies[SCRIPT] = Reply(body=body.encode())
        await run_until(machine, Phase.INSTALLER_SHELL)
        assert machine.shell_reason == "no device with valid ISO found"
        assert not daemon.of(ASK)


async def test_ssh_into_the_machine(make: Callable[..., Machine], key: Path) -> None:
    """A key of the answer opens a real sshd whose commands see the machine's root; it dies with the power."""
    async with scripted_daemon() as daemon:
        daemon.keys = [public(key)]
        machine = make(daemon)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(machine.run_until_off)
                await machine.wait_phase(Phase.IDLE)
                pid = machine.sshd_pid
                assert pid
                done = await ssh(
                    machine, key, 'cat > "$PROVD_ROOT/tmp/x"; command -v pvecm; echo $HOME; exit 7', b"abc"
                )
                assert done.returncode == 7, done.stderr
                assert done.stdout.decode().split() == [
                    str(machine.root / "usr/local/bin/pvecm"),
                    str(machine.root / "root"),
                ]
                assert (machine.root / "tmp/x").read_bytes() == b"abc"
                keys = machine.root / "root/.ssh/authorized_keys"
                assert os.readlink(keys) == str(machine.root / "etc/pve/priv/authorized_keys")
                started = machine.root / "tmp/started"
                os.mkfifo(started)
                nursery.start_soon(ssh, machine, key, f"echo $$ > {started}; exec sleep 1000")
                async with await trio.open_file(started) as said:
                    session = int(await said.readline())
                assert alive(session)
                machine.power_off()
    for ended in (pid, session):
        assert not alive(ended)


def alive(pid: int) -> bool:
    """Zombies, which a container without init may keep, do not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_an_sshd_left_behind_is_ended(make: Callable[..., Machine]) -> None:
    """A simulator that was killed leaves an sshd; the machine's next power-on ends it, and nothing else."""
    async with scripted_daemon() as daemon:
        machine = make(daemon)
        await run_until(machine, Phase.IDLE)
        program = sshd.find_sshd()
        assert program
        left = await trio.lowlevel.open_process(
            [program, "-D", "-e", "-f", str(machine.root / "etc/ssh/sshd_config")], stderr=subprocess.PIPE
        )
        assert left.stderr is not None
        async with left.stderr:
            with trio.fail_after(10):
                assert b"listening" in await left.stderr.receive_some()
                # sshd writes its pid down only after it has said that it listens.
                while (machine.root / ".sshd.pid").read_text().strip() != str(left.pid):
                    await trio.sleep(0.01)
        await run_until(machine, Phase.IDLE)
        assert await left.wait() == -signal.SIGKILL
        (machine.root / ".sshd.pid").write_text(f"{os.getpid()}\n")
        await run_until(machine, Phase.INSTALLED_SYSTEM)


async def test_sshd_answers_before_the_keys_move(make: Callable[..., Machine], key: Path) -> None:
    """Until pveproxy starts, authorized_keys is a regular file without a last newline, and works."""
    gate = trio.Event()
    async with scripted_daemon() as daemon:
        daemon.keys = [public(key), "ssh-ed25519 AAAA other"]
        machine = make(daemon, before_pveproxy=gate.wait)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(machine.run_until_off)
                await machine.wait_phase(Phase.INSTALLED_SYSTEM)
                keys = machine.root / "root/.ssh/authorized_keys"
                assert not keys.is_symlink()
                assert keys.read_text() == "\n".join(daemon.keys)
                assert (await ssh(machine, key, "true")).returncode == 0
                gate.set()
                await machine.wait_phase(Phase.IDLE)
                assert keys.is_symlink()
                assert (await ssh(machine, key, "true")).returncode == 0
                machine.power_off()


async def test_reboot_and_poweroff_from_within(make: Callable[..., Machine], key: Path) -> None:
    """`reboot` on the machine sends it through the firmware again, `poweroff` switches it off."""
    async with scripted_daemon() as daemon:
        daemon.keys = [public(key)]
        machine = make(daemon)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(machine.run_until_off)
                await machine.wait_phase(Phase.IDLE)
                nursery.start_soon(ssh, machine, key, "systemctl reboot")
                await machine.wait_phase(Phase.FIRMWARE)
                await machine.wait_phase(Phase.IDLE)
                nursery.start_soon(ssh, machine, key, "shutdown -h now")
                await machine.wait_phase(Phase.OFF)
    assert machine.wipes() == 1


async def test_a_member_comes_and_goes_with_its_power(
    make: Callable[..., Machine], key: Path, tmp_path: Path
) -> None:
    """Joined over SSH, it is online while it runs; reinstalled, it is nobody until it joins again."""
    cluster = Cluster.open(tmp_path / "cluster")

    def online() -> bool:
        return cluster.read().nodes["nuc1"].online

    async with scripted_daemon() as daemon, trio.open_nursery() as nursery:
        await nursery.start(serve_api, cluster, "pve1")
        daemon.keys = [public(key)]
        machine = make(daemon)
        with trio.fail_after(30):
            async with trio.open_nursery() as power:
                power.start_soon(machine.run_until_off)
                await machine.wait_phase(Phase.IDLE)
                join = f"pvecm add 127.77.1.1 --fingerprint {cluster.fingerprint('pve1')}"
                done = await ssh(machine, key, join, b"secret\n")
                assert b"successfully added node 'nuc1'" in done.stdout, done
                assert online()
                assert (await ssh(machine, key, "true")).returncode == 255  # the key did not come along
                machine.power_off()
        assert not online()
        for armed, member in ((False, True), (True, False)):
            daemon.armed = armed
            with trio.fail_after(30):
                async with trio.open_nursery() as power:
                    power.start_soon(machine.run_until_off)
                    await machine.wait_phase(Phase.IDLE)
                    assert online() is member
                    machine.power_off()
        nursery.cancel_scope.cancel()


async def test_a_pinned_certificate(tmp_path: Path) -> None:
    """https is taken from the one leaf with the pinned fingerprint, self-signed or not, and from no other."""
    cluster = Cluster.create(tmp_path / "cluster", ip=IP, api_port=free_port())
    async with trio.open_nursery() as nursery:
        _, port = await nursery.start(serve_api, cluster, "pve1")
        url = f"https://{IP}:{port}/api2/json/access/domains"
        fetch = partial(request, "GET", url, source_ip=IP, at_most=1 << 20)
        pin = cluster.fingerprint("pve1")
        assert (await fetch(fingerprint=pin)).status == 200
        assert (await fetch(fingerprint=pin.replace(":", "").lower())).status == 200
        with pytest.raises(InstallerRefused, match="does not match"):
            await fetch(fingerprint="00" + pin[2:] if pin[:2] != "00" else "01" + pin[2:])
        with pytest.raises(InstallerRefused, match="certificate verify failed"):
            await fetch()
        nursery.cancel_scope.cancel()


# --- faults --------------------------------------------------------------------------------------


async def test_fault_first_boot_fails_once(make: Callable[..., Machine]) -> None:
    """A script that failed runs again at the next boot, and never after it succeeded."""
    async with scripted_daemon() as daemon:
        machine = make(daemon, faults=Faults(first_boot_script_fails_once=True))
        counts = []
        for _ in range(3):
            await run_until(machine, Phase.IDLE)
            counts.append((machine.root / "etc/modules").read_text().count("vfio-pci"))
    assert counts == [0, 1, 1]


async def test_fault_lost_response(make: Callable[..., Machine]) -> None:
    """The answer is asked for twice, and only one installation comes of it."""
    async with scripted_daemon() as daemon:
        machine = make(daemon, faults=Faults(answer_response_lost=True))
        await run_until(machine, Phase.IDLE)
        assert len(daemon.of(ASK)) == 2
        assert daemon.of(ASK)[0].body == daemon.of(ASK)[1].body
    assert machine.wipes() == 1


async def test_faults_of_the_webhook(make: Callable[..., Machine]) -> None:
    """Lost, doubled, or with the host keys of another machine."""
    async with scripted_daemon() as daemon:
        machine = make(daemon, faults=Faults(webhook_lost=True))
        await run_until(machine, Phase.IDLE)
        assert not daemon.of(TOLD)
        daemon.armed, machine.faults = True, Faults(duplicate_webhook=True, wrong_host_keys_in_webhook=True)
        await run_until(machine, Phase.IDLE)
        first, second = daemon.of(TOLD)
    assert first.body == second.body
    real = (machine.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().strip()
    assert first.json["ssh-public-host-keys"]["ed25519"] != real


async def test_faults_of_the_power(make: Callable[..., Machine]) -> None:
    """One machine never starts, another dies with its disk wiped and nothing to boot."""
    async with scripted_daemon() as daemon:
        machine = make(daemon, faults=Faults(never_powers_on=True))
        await machine.run_until_off()
        assert not daemon.received
        machine.faults = Faults(dies_in_installer=True)
        await machine.run_until_off()
    assert machine.phase is Phase.OFF
    assert machine.wipes() == 1
    assert not machine.has_system


async def test_faults_of_identity(make: Callable[..., Machine]) -> None:
    """Another set of MACs asks first; hostile strings arrive unchanged and stay one console line."""
    async with scripted_daemon() as daemon:
        daemon.first_boot = b"#!/bin/sh\necho once >> $PROVD_ROOT/etc/modules\n"
        faults = Faults(other_macs=("02:99:00:00:00:01",), hostile_strings=True, duplicate_phone_home=True)
        machine = make(daemon, faults=faults)
        await run_until(machine, Phase.IDLE)
        stranger, own = daemon.of(ASK)
    assert stranger.json["network_interfaces"] == [{"link": "eno1", "mac": "02:99:00:00:00:01"}]
    assert "\r\n<script>" in own.json["dmi"]["system"]["serial"]
    assert "<b>" in own.json["network_interfaces"][-1]["link"]
    assert (machine.root / "etc/modules").read_text().count("once") == 2
    assert not [line for line in machine.console if "\n" in line or "\x1b" in line]


async def test_a_machine_stays_on_loopback(make: Callable[..., Machine], tmp_path: Path) -> None:
    """No address but a loopback one is accepted."""
    with pytest.raises(ValueError, match="loopback"):
        Machine(mac=MAC, ip="192.0.2.1", ssh_port=1, directory=tmp_path, public_url="", cluster_dir=tmp_path)


# --- the stand-in for sshd -----------------------------------------------------------------------


async def test_the_stand_in_for_sshd(make: Callable[..., Machine], key: Path, tmp_path: Path) -> None:
    """It takes the same keys, streams stdin, and gives the exit status and both outputs, as sshd does."""
    async with scripted_daemon() as daemon:
        machine = make(daemon)
    root = tmp_path / "elsewhere"
    (root / "root/.ssh").mkdir(parents=True)
    (root / "etc/ssh").mkdir(parents=True)
    await make_host_keys(root / "etc/ssh", "root@test")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            environment = {"PROVD_ROOT": str(root), "HOME": "/nowhere", "PATH": os.environ["PATH"]}
            serve = partial(
                paramiko_server.serve, root, ip=IP, port=machine.ssh_port, environment=environment
            )
            await nursery.start(serve)
            assert (await ssh(machine, key, "true")).returncode == 255
            (root / "root/.ssh/authorized_keys2").write_text(public(key))
            done = await ssh(machine, key, "cat; echo $PROVD_ROOT >&2; exit 3", b"x" * 300_000)
            assert (done.returncode, len(done.stdout)) == (3, 300_000)
            assert done.stderr.decode().strip() == str(root)
            nursery.cancel_scope.cancel()
