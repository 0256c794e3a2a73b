"""The first-boot script, really run by a shell, in a directory that plays `/`, against a real server."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from subprocess import STDOUT

import pytest
import trio
from attrs import define, field

from provd.domain.errors import Invalid
from provd.domain.secrets import Secret
from provd.proxmox.first_boot import TEMPLATE, build_first_boot_script, fill, key_options
from provd.proxmox.reports import parse_phone_home

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYPXYoVsJrVMtWFkxX0HzOaUO2f0yzmYSmBEbpDrmaN provd-operation-7"
HOST_KEYS = {
    "ed25519": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYPXYoVsJrVMtWFkxX0HzOaUO2f0yzmYSmBEbpDrmaM",
    "rsa": "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQE=",
}
UUID = "9f1c2b00-5d3a-4c86-9be1-1c697aaabbcc"
TOKEN = Secret("s3cret-token_0123456789.~")
EXPIRES = datetime(2026, 1, 31, 22, 5, tzinfo=UTC)
KEY_LINE = f'restrict,expiry-time="202601312205Z" {KEY}\n'
STORED = "var/lib/proxmox-first-boot/proxmox-first-boot"
INTERFACES = """\
auto lo
iface lo inet loopback

iface eno1 inet manual

auto vmbr0
iface vmbr0 inet static
\taddress 192.0.2.21/24
\tgateway 192.0.2.1
\tbridge-ports eno1

iface vmbr1 inet static
\taddress 198.51.100.1/24
"""
FILES = {
    "etc/network/interfaces": INTERFACES,
    "etc/hostname": "nuc1\n",
    "etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n',
    "etc/default/grub.d/installer.cfg": 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX initrd=initrd.magic"\n',
    "etc/kernel/cmdline": "root=ZFS=rpool/ROOT/pve-1 boot=zfs initrd=initrd.magic\n",
    "etc/kernel/proxmox-boot-uuids": "1234-ABCD\n",
    "etc/ssh/ssh_host_ed25519_key.pub": f"{HOST_KEYS['ed25519']} root@nuc1\n",
    "etc/ssh/ssh_host_rsa_key.pub": HOST_KEYS["rsa"],
    "proc/cpuinfo": "vendor_id\t: AuthenticAMD\n",
    "proc/meminfo": "MemTotal:       16316412 kB\nMemFree:  1 kB\n",
    "proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/mapper/pve-root ro quiet\n",
    "sys/class/dmi/id/product_uuid": f"{UUID}\n",
    "sys/class/net/eno1/address": "1c:69:7a:aa:bb:cc\n",
}
PROGRAMS = ("update-grub", "proxmox-boot-tool", "update-initramfs", "modprobe")


@define
class Request:
    head: str
    body: bytes


@define(eq=False)
class Home:
    """Answers requests with the scripted statuses; the last one for ever."""

    statuses: list[int]
    requests: list[Request] = field(factory=list)
    url: str = ""

    async def answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some()
            head, _, body = data.partition(b"\r\n\r\n")
            length = next(
                int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
            )
            while len(body) < length:
                body += await stream.receive_some()
            self.requests.append(Request(head.decode(), body))
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)


@pytest.fixture
async def home(nursery: trio.Nursery) -> Home:
    home = Home([200])
    listeners = await nursery.start(partial(trio.serve_tcp, home.answer, 0, host="127.0.0.1"))
    home.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/api/hosts/1/phone-home"
    return home


@define(eq=False)
class Node:
    """A directory that plays a fresh system; its `sleep` and `curl` write down how they were called."""

    root: Path
    tools: Path

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def install(self, url: str, *, gpu: bool = False) -> None:
        script = build_first_boot_script(
            phone_home_url=url,
            token=TOKEN,
            public_key_line=KEY,
            key_expires=EXPIRES,
            gpu=gpu,
            hostname="nuc1",
        )
        self.write(STORED, script.decode(), 0o700)

    async def boot(self, shell: str = "sh") -> str:
        """Run the installed script; return what it said."""
        with trio.fail_after(30):
            done = await trio.run_process(
                [shell, self.root / STORED, "multi-user"],
                env={
                    "PROVD_ROOT": str(self.root),
                    "PATH": f"{self.tools}:{os.environ['PATH']}",
                    "LANG": "C.UTF-8",
                },
                capture_stdout=True,
                stderr=STDOUT,
                check=False,
                cwd="/",
            )
        assert done.returncode == 0
        return done.stdout.decode()

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def calls(self) -> list[str]:
        """What was asked of the system's programs, in order."""
        log = self.root / "calls"
        return log.read_text().splitlines() if log.exists() else []

    def noted(self, tool: str) -> list[str]:
        log = self.tools / f"{tool}.log"
        return log.read_text().splitlines() if log.exists() else []

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Everything under the root but the log, with modes."""
        return {
            str(path.relative_to(self.root)): (path.stat().st_mode, path.read_bytes())
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path.name != "calls"
        }


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path / "root", tmp_path / "tools")
    for name, text in FILES.items():
        node.write(name, text)
    for name in PROGRAMS:
        node.write(f"usr/sbin/{name}", f'#!/bin/sh\necho "{name} $*" >>"$PROVD_ROOT/calls"\n', 0o755)
    node.tools.mkdir()
    real_curl = next(f"{d}/curl" for d in os.environ["PATH"].split(":") if os.access(f"{d}/curl", os.X_OK))
    for name, then in (("sleep", ":"), ("curl", f'exec {real_curl} "$@"')):
        tool = node.tools / name
        tool.write_text(f'#!/bin/sh\necho "$*" >>"$0.log"\n{then}\n')
        tool.chmod(0o755)
    return node


@pytest.mark.parametrize("shell", ["dash", "bash"])
async def test_it_lets_provd_in_tidies_up_and_calls_home(node: Node, home: Home, shell: str) -> None:
    """One run leaves the key, a clean command line, no token, and a call that provd understands."""
    node.install(home.url)
    said = await node.boot(shell)

    assert "called home as 192.0.2.21" in said
    [request] = home.requests
    assert request.head.startswith("POST /api/hosts/1/phone-home HTTP/1.1")
    assert f"authorization: bearer {TOKEN.reveal()}" in request.head.lower()
    assert "content-type: application/json" in request.head.lower()
    call = parse_phone_home(request.body)
    assert str(call.ip) == "192.0.2.21"
    assert call.hardware_id == UUID
    assert set(call.host_keys) == set(HOST_KEYS.values())
    assert (call.hostname, call.reboot_needed, call.memory_mib) == ("nuc1", False, 15933)
    assert json.loads(request.body)["mac"] == "1c:69:7a:aa:bb:cc"

    keys = node.root / "root/.ssh/authorized_keys2"
    assert keys.read_text() == KEY_LINE
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert not (node.root / "root/.ssh/authorized_keys").exists()
    assert node.read("etc/kernel/cmdline") == "root=ZFS=rpool/ROOT/pve-1 boot=zfs \n"
    assert node.read("etc/default/grub.d/installer.cfg") == 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX "\n'
    assert node.calls() == ["update-grub ", "proxmox-boot-tool refresh"]
    assert TOKEN.reveal() not in said + "".join(node.noted("curl"))
    assert TOKEN.reveal() not in node.read(STORED)
    assert (node.root / STORED).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("shell", ["dash", "bash"])
async def test_a_second_run_changes_nothing(node: Node, home: Home, shell: str) -> None:
    """Run again, as after a power cut, it calls again and leaves every file and the boot loader alone."""
    node.install(home.url, gpu=True)
    await node.boot(shell)
    node.install(home.url, gpu=True)
    files, calls = node.files(), node.calls()
    await node.boot(shell)
    assert [r.body for r in home.requests] == [home.requests[0].body] * 2
    assert {**node.files(), STORED: ()} == {**files, STORED: ()}
    assert [call for call in node.calls()[len(calls) :] if not call.startswith("modprobe")] == []


async def test_without_its_token_it_does_not_call(node: Node, home: Home) -> None:
    """A run after the call got through keeps the peace."""
    node.install(home.url)
    await node.boot()
    await node.boot()
    assert len(home.requests) == 1


async def test_other_keys_stay(node: Node, home: Home) -> None:
    """Whoever put a key there keeps it; our own line is renewed, not repeated."""
    node.write("root/.ssh/authorized_keys2", f'ssh-rsa AAAA admin\nrestrict,expiry-time="1" {KEY}', 0o600)
    node.install(home.url)
    await node.boot()
    assert node.read("root/.ssh/authorized_keys2") == f"ssh-rsa AAAA admin\n{KEY_LINE}"


@pytest.mark.parametrize(
    ("cpu", "words"), [("GenuineIntel", "intel_iommu=on iommu=pt"), ("AuthenticAMD", "iommu=pt")]
)
async def test_gpu(node: Node, home: Home, cpu: str, words: str) -> None:
    """IOMMU words for either boot loader, vfio now and at each boot, and the wish for a reboot."""
    node.write("proc/cpuinfo", f"processor\t: 0\nvendor_id\t: {cpu}\n")
    node.install(home.url, gpu=True)
    await node.boot()
    assert node.read("etc/modules-load.d/provd-vfio.conf") == "vfio\nvfio_iommu_type1\nvfio_pci\n"
    assert node.read("etc/kernel/cmdline").split() == [
        "root=ZFS=rpool/ROOT/pve-1",
        "boot=zfs",
        *words.split(),
    ]
    assert node.read("etc/default/grub.d/provd-iommu.cfg") == (
        f'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT {words}"\n'
    )
    assert node.calls() == [
        "update-initramfs -u -k all",
        *(f"modprobe {module}" for module in ("vfio", "vfio_iommu_type1", "vfio_pci")),
        "update-grub ",
        "proxmox-boot-tool refresh",
    ]
    assert parse_phone_home(home.requests[0].body).reboot_needed

    node.write("proc/cmdline", f"root=/dev/sda1 ro {words}\n")
    node.install(home.url, gpu=True)
    await node.boot()
    assert not parse_phone_home(home.requests[1].body).reboot_needed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("root=x initrd=a quiet\n", "root=x quiet\n"),
        ("initrd=a\troot=x initrd=b initrd=c\n", "root=x \n"),
        ('A="initrd=\\boot\\a b"\n', 'A="b"\n'),
        ("A='b initrd=a'\n", "A='b '\n"),
        ("# initrd=a\nB=rdinitrd=a\n", "# initrd=a\nB=rdinitrd=a\n"),
        ("root=x noinitrd myinitrd=a\n", "root=x noinitrd myinitrd=a\n"),
        ("initrd=a", "initrd=a"),  # nothing would be left: better not
    ],
)
async def test_leaked_initrd_words(node: Node, home: Home, before: str, after: str) -> None:
    """Whole words `initrd=…` go, wherever they stand; all else stays, and so does the file's mode."""
    for name in ("etc/default/grub.d/installer.cfg", "etc/kernel/cmdline"):
        (node.root / name).unlink()
    path = node.write("etc/default/grub", before, 0o640)
    node.install(home.url)
    await node.boot()
    assert path.read_text() == after
    assert path.stat().st_mode & 0o777 == 0o640
    assert bool(node.calls()) == (before != after)
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == ["grub"]


async def test_a_bare_system_is_enough(node: Node, home: Home) -> None:
    """Without boot loader files, programs or UUID it still calls: the NIC under the bridge names the host."""
    for name in (
        *(n for n in FILES if n.startswith(("etc/default", "etc/kernel", "sys/class/dmi", "proc"))),
    ):
        (node.root / name).unlink()
    for name in PROGRAMS:
        (node.root / "usr/sbin" / name).unlink()
    (node.root / "etc/hostname").unlink()
    node.install(home.url, gpu=True)
    await node.boot()
    call = parse_phone_home(home.requests[0].body)
    assert (call.hardware_id, call.hostname) == ("mac-1c:69:7a:aa:bb:cc", "nuc1")


async def test_the_routing_table_knows_the_address_too(node: Node, home: Home) -> None:
    """Where /etc/network/interfaces has no vmbr0, the address towards the default route is reported."""
    node.write("etc/network/interfaces", "iface eno1 inet dhcp\n")
    tool = node.tools / "ip"
    tool.write_text('#!/bin/sh\necho "192.0.2.1 via 192.0.2.254 dev eno1 src 192.0.2.77 uid 0 \\\\ cache"\n')
    tool.chmod(0o755)
    node.install(home.url)
    await node.boot()
    assert str(parse_phone_home(home.requests[0].body).ip) == "192.0.2.77"


async def test_hostile_files_cannot_break_out_of_the_json(node: Node, home: Home) -> None:
    """Whatever the files say, the call is one JSON object with the same names."""
    evil = '","x":"$(touch /tmp/x)`id`\\"\x1b[31m\x01é'
    for name in ("etc/hostname", "sys/class/dmi/id/product_uuid", "sys/class/net/eno1/address"):
        node.write(name, f"{evil}\n{evil}")
    node.write("etc/ssh/ssh_host_ed25519_key.pub", f"{evil} {evil} {evil}\n{evil}")
    node.install(home.url)
    await node.boot()
    document = json.loads(home.requests[0].body)
    assert set(document) == {
        "ip",
        "uuid",
        "mac",
        "hostname",
        "host_keys",
        "reboot_needed",
        "memory_mib",
    }
    assert all(isinstance(key, str) for key in document["host_keys"])


@pytest.mark.parametrize("status", [500, 503, 301, 408, 429])
async def test_it_calls_until_it_gets_through(node: Node, home: Home, status: int) -> None:
    """Trouble on the other side is waited out, longer each time."""
    home.statuses = [status] * 3 + [204]
    node.install(home.url)
    await node.boot()
    assert len(home.requests) == 4
    assert node.noted("sleep") == ["1", "2", "4"]
    assert TOKEN.reveal() not in node.read(STORED)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410])
async def test_a_refusal_is_final(node: Node, home: Home, status: int) -> None:
    """Who is told no does not ask again, now or at the next boot."""
    home.statuses = [status]
    node.install(home.url)
    assert f"HTTP {status}" in await node.boot()
    await node.boot()
    assert len(home.requests) == 1


async def test_nobody_there(node: Node) -> None:
    """For a quarter of an hour it tries; then it ends well, keeps its token, and says how to go on."""
    node.install("http://127.0.0.1:1/")
    said = await node.boot()
    assert 600 <= sum(map(int, node.noted("sleep"))) <= 1_000
    assert f"run {node.root / STORED}" in said
    assert TOKEN.reveal() in node.read(STORED)


# --- filling it in -----------------------------------------------------------------------------------


def built(**changes: object) -> bytes:
    values: dict[str, object] = {
        "phone_home_url": "http://192.0.2.5:8080/x",
        "token": TOKEN,
        "public_key_line": KEY,
        "key_expires": EXPIRES,
        "gpu": False,
        "hostname": "nuc1",
    }
    build: Callable[..., bytes] = build_first_boot_script
    return build(**(values | changes))


def test_it_is_small_and_complete() -> None:
    """The installer cuts off at 1 MiB and runs what has a shebang."""
    script = built()
    assert script.startswith(b"#!/bin/sh\n")
    assert len(script) < 64 * 1024
    assert b"@TOKEN@" in TEMPLATE.encode()
    assert b"@TOKEN@" not in script


@pytest.mark.parametrize(
    "changes",
    [
        {"token": Secret("")},
        {"token": Secret('a"\nurl = "file:///etc/shadow')},
        {"token": Secret("a b")},
        {"phone_home_url": "file:///etc/shadow"},
        {"phone_home_url": "http://x/\n"},
        {"public_key_line": "nonsense"},
        {"hostname": "a b"},
    ],
)
def test_wrong_values_are_refused(changes: dict[str, object]) -> None:
    """What curl, sshd or a shell could misread does not get in."""
    with pytest.raises(Invalid):
        built(**changes)


def test_the_key_ends_in_utc() -> None:
    """Whatever the time zone of the value, sshd reads the same moment."""
    there = EXPIRES.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert key_options(there) == key_options(EXPIRES) == 'restrict,expiry-time="202601312205Z"'


@pytest.mark.parametrize("shell", ["dash", "bash"])
async def test_every_value_is_one_shell_word(shell: str) -> None:
    """Quotes, expansions, newlines and other placeholders come out of the shell as they went in."""
    values = {"A": "'\"$(id)`id`\\n\n@B@", "B": "", "C": "*? ~ $HOME"}
    script = fill('printf "%s|%s|%s" @A@ @B@ @C@', values)
    done = await trio.run_process([shell, "-c", script], capture_stdout=True)
    assert done.stdout.decode() == "|".join(values.values())


@pytest.mark.parametrize(("template", "values"), [("@A@ @B@", {"A": ""}), ("@A@", {"A": "", "B": ""})])
def test_placeholders_and_values_belong_together(template: str, values: dict[str, str]) -> None:
    """A placeholder without value, and a value without placeholder, are mistakes of ours."""
    with pytest.raises(KeyError):
        fill(template, values)
