"""The inside of the lab's virtual machines: parts by themselves, and whole machines in QEMU."""

import json
import shutil
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, evolve, field, frozen

from provd.simulator.cluster import Cluster
from provd.simulator.cluster.api import serve_api
from provd.simulator.lab import free_port
from provd.simulator.machine.answer_rules import check_answer
from provd.simulator.machine.hardware import lease_of
from provd.simulator.machine.refusal import InstallerRefused
from provd.simulator.machine.root_directory import FIRST_BOOT
from provd.simulator.vm import cpio, disk, places
from provd.simulator.vm.hardware import see
from provd.simulator.vm.iso import build_iso
from provd.simulator.vm.lease import read_leases
from provd.simulator.vm.network import bridge_words, pinned_names
from provd.simulator.vm.packages import CannotFetch, default_cache
from provd.simulator.vm.qemu import qemu_arguments

UUID = "9f1c2b00-5d3a-4c86-9be1-020000000001"
MAC = "02:00:00:00:00:01"
OVMF = Path("/usr/share/OVMF")
PATIENCE_SECONDS = 900
"""For one scenario, on a computer that has other things to do as well."""

ANSWER = """\
[global]
country = "us"
keyboard = "en-us"
timezone = "UTC"
fqdn = "nuc1.lab.example"
mailto = "ops@lab.example"
root-password-hashed = "*"
root-ssh-keys = []
[network]
source = "from-dhcp"
interface-name-pinning.enabled = true
interface-name-pinning.mapping."02:00:00:00:00:01" = "lan0"
[disk-setup]
filesystem = "ext4"
disk-list = ["/dev/vda"]
[post-installation-webhook]
url = "@URL@/installed"
[first-boot]
source = "from-url"
url = "@URL@/first-boot"
"""
FIRST_BOOT_SCRIPT = """\
#!/bin/sh
(umask 077; echo '@KEY@' >/root/.ssh/authorized_keys2)
echo "called with $1 on $(cat /etc/hostname)"
"""


# --- parts ---------------------------------------------------------------------------------------


def test_cpio_is_read_by_cpio(tmp_path: Path) -> None:
    """What we write, the tool unpacks: content, permissions, links and directories."""
    if shutil.which("cpio") is None:
        pytest.skip("needs cpio: apt install cpio")
    entries = [
        cpio.directory("d"),
        cpio.file("d/odd", b"12345", 0o755),
        cpio.link("l", "d/odd"),
        cpio.file("e", b""),
    ]
    archive = cpio.archive(entries)
    assert len(archive) % 4 == 0
    subprocess.run(["cpio", "-idm", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "l").read_bytes() == b"12345"
    assert stat.S_IMODE((tmp_path / "d/odd").stat().st_mode) == 0o755
    assert (tmp_path / "e").read_bytes() == b""


def test_layout_fills_the_disk_and_leaves_room_for_grub() -> None:
    """Partitions follow one another to the end of the disk; the record has GRUB's code and the signature."""
    layout = disk.Layout.of(2 << 30)
    (esp, esp_at, esp_size), (root, root_at, root_size) = layout.partitions
    assert (esp, root) == (0xEF, 0x83)
    assert esp_at * 512 == 1 << 20
    assert root_at == esp_at + esp_size
    assert (root_at + root_size) * 512 == 2 << 30
    record = layout.boot_record(bytes(range(256)) * 2)
    assert len(record) == 512
    assert record[:256] == bytes(range(256))
    assert record[510:] == b"\x55\xaa"
    with pytest.raises(InstallerRefused, match="too small"):
        disk.Layout.of(200 << 20)


def test_hardware_is_what_sysfs_shows(tmp_path: Path) -> None:
    """Disks with their udev properties, links in the kernel's order after the default one, DMI as it is."""
    pci = tmp_path / "devices/pci0000:00"
    devices = {
        "0000:00:04.0/virtio1/block/vda": {"size": "4194304", "serial": "DISK1"},
        "0000:00:05.0/nvme/nvme0/nvme0n1": {
            "size": "2097152",
            "wwid": "eui.01",
            "device/model": "QEMU NVMe Ctrl ",
            "device/serial": "N1",
        },
        "0000:00:06.0/block/sr0": {"size": "100"},
    }
    (tmp_path / "block").mkdir()
    for place, attributes in devices.items():
        for name, text in attributes.items():
            (pci / place / name).parent.mkdir(parents=True, exist_ok=True)
            (pci / place / name).write_text(f"{text}\n")
        (tmp_path / "block" / Path(place).name).symlink_to(pci / place)
    for number, (name, mac) in enumerate((("ens3", "02:00:00:00:00:01"), ("ens9", "02:00:00:00:00:02"))):
        (tmp_path / "class/net" / name / "device").mkdir(parents=True)
        (tmp_path / "class/net" / name / "ifindex").write_text(f"{number + 2}\n")
        (tmp_path / "class/net" / name / "address").write_text(f"{mac}\n")
    (tmp_path / "class/net/lo").mkdir()
    (tmp_path / "class/dmi/id").mkdir(parents=True)
    (tmp_path / "class/dmi/id/product_uuid").write_text(f"{UUID}\n")

    seen = see(lease_of("192.0.2.9"), "ens9", tmp_path)

    assert [nic.name for nic in seen.nics] == ["ens9", "ens3"]
    assert seen.system == {"uuid": UUID}
    nvme, virtio = seen.disks
    assert (nvme.device, nvme.size) == ("/dev/nvme0n1", 1 << 30)
    assert nvme.udev["ID_SERIAL"] == "QEMU_NVMe_Ctrl_N1"
    assert nvme.udev["ID_PATH"] == "pci-0000:00:05.0-nvme-1"
    assert virtio.udev == {
        "DEVNAME": "/dev/vda",
        "DEVTYPE": "disk",
        "SUBSYSTEM": "block",
        "ID_SERIAL": "DISK1",
        "ID_PATH": "pci-0000:00:04.0",
    }
    by_serial = ANSWER.replace('disk-list = ["/dev/vda"]', 'filter.ID_SERIAL = "DISK1"')
    assert check_answer(by_serial, "9.2", seen).disks == (virtio,)


def test_the_lease_with_a_router_comes_first(tmp_path: Path) -> None:
    """udhcpc's words become a lease; option 250 is decoded; what is only half written is not looked at."""
    empty = dict.fromkeys(("ip", "mask", "router", "dns", "hostname", "domain", "opt250"), "")
    alone = empty | {"ip": "198.51.100.7", "mask": "24"}
    whole = empty | {"ip": "192.0.2.9", "mask": "25", "router": "192.0.2.1 192.0.2.2", "dns": "192.0.2.53"}
    whole |= {"domain": "lab.example", "opt250": b"http://x/answer".hex()}
    for name, said in {"ens3": alone, "ens4": whole, ".ens5": empty}.items():
        (tmp_path / name).write_text("".join(f"{key}={value}\n" for key, value in said.items()))
    first, second = read_leases(tmp_path)
    assert (first.link, first.manifest_url) == ("ens4", "http://x/answer")
    assert first.lease == evolve(
        lease_of("192.0.2.9"), cidr="192.0.2.9/25", dns="192.0.2.53", domain="lab.example"
    )
    assert (second.link, second.lease.cidr, second.manifest_url) == ("ens3", "198.51.100.7/24", None)


def test_network_reads_what_the_installer_writes(tmp_path: Path) -> None:
    """Only vmbr0's own options count; a `.link` file names a NIC by its MAC."""
    text = "iface lan0 inet manual\n\niface vmbr0 inet static\n\taddress 192.0.2.9/24\n\tbridge-fd 0\n"
    assert bridge_words(text) == {"address": "192.0.2.9/24", "bridge-fd": "0"}
    links = tmp_path / "usr/local/lib/systemd/network"
    links.mkdir(parents=True)
    (links / "50-pmx-lan0.link").write_text(f"[Match]\nMACAddress={MAC.upper()}\n\n[Link]\nName=lan0\n")
    assert pinned_names(tmp_path) == {MAC: "lan0"}


def test_first_boot_lies_where_the_installer_puts_it() -> None:
    """The constant that is repeated to save import time is the same."""
    assert places.FIRST_BOOT == FIRST_BOOT


def test_qemu_arguments_name_what_the_guest_looks_for(tmp_path: Path) -> None:
    """A comma in a path does not end it, and the host's root is shared read-only."""
    arguments = qemu_arguments(uuid=UUID, serial="S1", cluster=tmp_path / "a,b")
    assert f"name=opt/provd/cluster,string={tmp_path}/a,,b" in arguments
    (root,) = (word for word in arguments if word.startswith("local,id=hostroot"))
    assert "readonly=on" in root.split(",")


# --- whole machines ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("qemu-system-x86_64", "xorriso", "ssh", "/usr/sbin/sshd", "mkfs.ext4"):
        if shutil.which(program, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin") is None:
            pytest.skip(f"{Path(program).name} is not installed")
    target = tmp_path_factory.mktemp("iso") / "pve.iso"
    try:
        build_iso(target, default_cache())
    except CannotFetch as exc:
        pytest.skip(f"the lab's ISO cannot be built: {exc}")
    return target


def extract(iso: Path, name: str) -> bytes:
    target = iso.with_name(f"extracted-{Path(name).name}")
    if not target.exists():
        command = ["xorriso", "-osirrox", "on", "-indev", iso, "-extract", name, target]
        subprocess.run(command, check=True, capture_output=True)
    return target.read_bytes()


def test_iso_is_small_and_marked(iso: Path) -> None:
    """It has what an importer of Proxmox' ISOs looks for, and a second build gives the same file."""
    assert iso.stat().st_size < 30 << 20
    assert b"RELEASE='9.2'" in extract(iso, "/.cd-info")
    assert extract(iso, "/auto-installer-capable") == b""
    assert extract(iso, "/boot/linux26")[0x202:0x206] == b"HdrS"
    assert extract(iso, "/boot/initrd.img")[:2] == b"\x1f\x8b"
    again = iso.with_name("again.iso")
    build_iso(again, default_cache())
    assert again.read_bytes() == iso.read_bytes()


@frozen
class Asked:
    method: str
    path: str
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@define
class Provisioner:
    """An HTTP server on loopback that gives every machine the same answer."""

    answer: str
    first_boot: str = ""
    asked: list[Asked] = field(factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """As the machine sees it, through QEMU's own network."""
        return f"http://10.0.2.2:{self.port}"

    @contextmanager
    def serve(self) -> Iterator[None]:
        provisioner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                provisioner.asked.append(Asked("POST", self.path, body))
                self.reply(provisioner.answer if self.path == "/answer" else "")

            def do_GET(self) -> None:
                provisioner.asked.append(Asked("GET", self.path, b""))
                self.reply(provisioner.first_boot)

            def reply(self, text: str) -> None:
                content = text.replace("@URL@", provisioner.url).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.port = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


@define(eq=False)
class Console:
    """What a machine has printed so far."""

    lines: list[str] = field(factory=list)
    ended: bool = False
    _news: trio.Event = field(factory=trio.Event)

    def put(self, line: str, *, ended: bool = False) -> None:
        self.lines.append(line)
        self.ended = ended
        self._news.set()
        self._news = trio.Event()

    async def wait_for(self, text: str) -> str:
        """The first line with `text`. Fails when the machine is off, or stuck, before that."""
        seen = 0
        while True:
            for line in self.lines[seen:]:
                if text in line:
                    return line
                if "waits for somebody" in line or "could not start" in line:
                    pytest.fail("\n".join(self.lines))
            seen = len(self.lines)
            if self.ended:
                pytest.fail(f"never saw {text!r}:\n" + "\n".join(self.lines))
            await self._news.wait()


@define(eq=False)
class VirtualMachine:
    directory: Path
    iso: Path
    cluster: Path | None = None
    ssh_port: int = field(factory=free_port)

    @property
    def disk(self) -> Path:
        return self.directory / "disk"

    @asynccontextmanager
    async def on(self, *arguments: str) -> AsyncIterator[Console]:
        """Run it, with its reset button wired to the power switch; it is off when the block ends."""
        if not self.disk.exists():
            with self.disk.open("xb") as file:
                file.truncate(1 << 30)
        command = [
            "qemu-system-x86_64",
            *qemu_arguments(uuid=UUID, serial="LAB1", cluster=self.cluster),
            *("-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"),
            *("-drive", f"if=none,id=disk,format=raw,file={self.disk}"),
            *("-device", "virtio-blk-pci,drive=disk,serial=DISK1,addr=4"),
            *("-netdev", f"user,id=lan,hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22"),
            *("-device", f"virtio-net-pci,netdev=lan,mac={MAC},addr=3,romfile="),
            *arguments,
        ]
        console = Console()
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(
                    trio.run_process,
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
            )
            nursery.start_soon(self._watch, process, console)
            yield console
            nursery.cancel_scope.cancel()

    async def _watch(self, process: trio.Process, console: Console) -> None:
        rest = b""
        assert process.stdout is not None
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                console.put(line.decode(errors="replace").strip())
        console.put("(off)", ended=True)

    def installer(
        self, words: str = "rw quiet splash=silent proxmox-start-auto-installer left=over"
    ) -> list[str]:
        """Kernel, initrd and ISO, as iPXE would hand them over."""
        prepared = self.directory / "prepared.iso"
        shutil.copyfile(self.iso, prepared)
        mode = self.directory / "mode.toml"
        command = ["xorriso", "-dev", prepared, "-map", mode, "/auto-installer-mode.toml"]
        subprocess.run(command, check=True, capture_output=True)
        kernel, initrd = self.directory / "linux26", self.directory / "initrd"
        kernel.write_bytes(extract(self.iso, "/boot/linux26"))
        first = extract(self.iso, "/boot/initrd.img")
        second = cpio.archive([cpio.file("proxmox.iso", prepared.read_bytes())])
        initrd.write_bytes(first + bytes(-len(first) % 4) + second)
        return ["-kernel", str(kernel), "-initrd", str(initrd), "-append", words]

    def ovmf(self) -> list[str]:
        variables = self.directory / "vars.fd"
        shutil.copyfile(OVMF / "OVMF_VARS_4M.fd", variables)
        return [
            *("-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd"),
            *("-drive", f"if=pflash,format=raw,file={variables}"),
        ]

    async def ssh(self, command: str, stdin: str = "") -> str:
        """Everything that the command said. The host key must be the one of the report."""
        options = [
            *("-i", str(self.directory / "key"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *("-o", f"UserKnownHostsFile={self.directory / 'known_hosts'}"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR"),
        ]
        done = await trio.run_process(
            ["ssh", "-F", "none", *options, "-p", str(self.ssh_port), "root@127.0.0.1", command],
            stdin=stdin.encode(),
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.stdout.decode()

    def know(self, host_key: str) -> None:
        algorithm, body, *_ = host_key.split()
        (self.directory / "known_hosts").write_text(f"[127.0.0.1]:{self.ssh_port} {algorithm} {body}\n")


async def test_a_machine_is_installed_and_boots_with_uefi_and_with_bios(iso: Path, tmp_path: Path) -> None:
    """From an answer to a member of a cluster that survives a power cut, another firmware and a restart."""
    if not (OVMF / "OVMF_CODE_4M.fd").exists():
        pytest.skip("OVMF is not installed: apt install ovmf")
    await trio.run_process(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")])
    key = (tmp_path / "key.pub").read_text().strip()
    cluster = Cluster.create(tmp_path / "cluster", ip="127.0.0.1", root_password="lab-password")
    machine = VirtualMachine(directory=tmp_path, iso=iso, cluster=cluster.directory)
    provisioner = Provisioner(ANSWER, FIRST_BOOT_SCRIPT.replace("@KEY@", key))

    with provisioner.serve(), trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_api, cluster, "pve1")

            # installation
            (tmp_path / "mode.toml").write_text(f'mode = "http"\n[http]\nurl = "{provisioner.url}/answer"\n')
            async with machine.on(*machine.installer()) as console:
                await console.wait_for("(off)")
            question, script, report = provisioner.asked
            assert (question.path, script.path, report.path) == ("/answer", "/first-boot", "/installed")
            assert question.document["network_interfaces"] == [{"link": "ens3", "mac": MAC.upper()}]
            assert question.document["dmi"]["system"]["uuid"] == UUID
            assert report.document["boot-info"] == {"mode": "bios"}
            (link,) = report.document["network-interfaces"]
            assert (link["name"], link["address"], link["is-pinned"]) == ("lan0", "10.0.2.15/24", True)
            machine.know(report.document["ssh-public-host-keys"]["ed25519"])

            # first boot, UEFI
            async with machine.on(*machine.ovmf()) as console:
                await console.wait_for("called with multi-user on nuc1")
                await console.wait_for("has nothing left to do")
                shown = await machine.ssh(
                    "cat /etc/hostname /proc/cmdline /sys/class/dmi/id/product_uuid"
                    " /sys/class/net/lan0/address; ls /sys/firmware /sys/class/net/vmbr0/brif; readlink"
                    " /root/.ssh/authorized_keys; pvecm status"
                )
                for word in ("nuc1", "left=over", UUID, MAC, "efi", "lan0", "priv/authorized_keys"):
                    assert word in shown
                assert "Corosync config '/etc/pve/corosync.conf' does not exist" in shown

            # the plug was pulled; second boot, BIOS
            async with machine.on() as console:
                await console.wait_for("has nothing left to do")
                assert not any("first-boot script" in line for line in console.lines)
                join = f"pvecm add 10.0.2.2 --fingerprint {cluster.fingerprint('pve1')} --link0 10.0.2.15"
                joined = await machine.ssh(join, "lab-password\n")
                assert joined.splitlines()[-1] == "successfully added node 'nuc1' to cluster."
                assert cluster.read().nodes["nuc1"].online
                assert "0x00000002          1 10.0.2.15 (local)" in await machine.ssh("pvecm status")
                config = "/etc/default/grub.d/own.cfg"
                await machine.ssh(
                    f"echo 'GRUB_CMDLINE_LINUX=own=word' >{config}; update-grub; systemctl reboot"
                )
                await console.wait_for("(off)")
            assert not cluster.read().nodes["nuc1"].online

            # third boot, with other words for the kernel
            async with machine.on() as console:
                await console.wait_for("has nothing left to do")
                assert cluster.read().nodes["nuc1"].online
                shown = await machine.ssh("cat /proc/cmdline; pvecm nodes; poweroff")
                assert "own=word" in shown
                assert "nuc1 (local)" in shown
                await console.wait_for("(off)")
            nursery.cancel_scope.cancel()
    assert len(provisioner.asked) == 3


async def test_a_refused_answer_leaves_the_disk_alone(iso: Path, tmp_path: Path) -> None:
    """A disk that the machine does not have stops the installer before it writes or reports anything."""
    provisioner = Provisioner(ANSWER.replace("/dev/vda", "/dev/sda"))
    machine = VirtualMachine(directory=tmp_path, iso=iso)
    with provisioner.serve(), trio.fail_after(PATIENCE_SECONDS):
        (tmp_path / "mode.toml").write_text(f'mode = "http"\n[http]\nurl = "{provisioner.url}/answer"\n')
        async with machine.on(*machine.installer()) as console:
            await console.wait_for("no disk of this machine was matched")
    assert [one.path for one in provisioner.asked] == ["/answer"]
    assert not machine.disk.read_bytes().strip(b"\0")
