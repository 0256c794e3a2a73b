"""The inside of the lab's virtual machines, in parts. Whole ones run in `tests/firmware`."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from attrs import evolve

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
from provd.simulator.vm.shown import PROJECT, PYTHON, show

UUID = "9f1c2b00-5d3a-4c86-9be1-020000000001"
MAC = "02:00:00:00:00:01"

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
    """A comma in a path does not end it, and what is shown of the host is shared read-only."""
    arguments = qemu_arguments(uuid=UUID, serial="S1", root=tmp_path, cluster=tmp_path / "a,b")
    assert f"name=opt/provd/cluster,string={tmp_path}/a,,b" in arguments
    (root,) = (word for word in arguments if word.startswith("local,id=hostroot"))
    assert "readonly=on" in root.split(",")


def test_what_is_shown_of_the_host_has_no_secret(tmp_path: Path) -> None:
    """Files that not everybody may read are left out, and /root, /home and the project's state are empty."""
    shown = show(tmp_path / "shown")
    assert (shown.directory / "etc/passwd").read_bytes() == Path("/etc/passwd").read_bytes()
    assert not (shown.directory / "etc/shadow").exists()
    mounted = {target.relative_to(shown.directory) for _, target in shown.mounts}
    files = [path for path in shown.directory.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.relative_to(shown.directory).parts[0] for path in files} == {"etc"}
    assert all(path.stat().st_mode & stat.S_IROTH for path in files)
    assert not {Path(name) for name in (".", "etc", "home", "root", "var")} & mounted
    again = show(tmp_path / "shown")
    assert again == shown


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_is_shown_of_the_host_is_enough(tmp_path: Path) -> None:
    """In there, programs run and Python finds the lab; out here, nothing is mounted."""
    shown = show(tmp_path / "shown")
    lab = ["env", f"PYTHONPATH={PROJECT}", str(PYTHON), "-c", "import provd.simulator.vm.installer, trio"]
    for command in (lab, ["openssl", "version"], ["/usr/sbin/sshd", "-V"], ["ls", "/home", "/etc/shadow"]):
        inside = shown.beneath(["chroot", str(shown.directory), *command])
        done = subprocess.run(
            inside, capture_output=True, text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        )
        assert (done.returncode == 0) == (command[0] != "ls"), done.stderr
    assert "Permission denied" not in done.stderr
    assert done.stderr.count("No such file") == 2
    assert str(shown.directory) not in Path("/proc/self/mounts").read_text()


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
