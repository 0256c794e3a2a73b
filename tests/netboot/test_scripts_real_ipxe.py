"""Every script, run by a real iPXE: Debian's ipxe.lkrn in QEMU, with a web server in this test.

QEMU's user-mode network needs no privileges: the guest finds this machine's loopback at 10.0.2.2. The
kernel and the disk that iPXE starts are a few instructions each that say so on the serial line.
"""

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from attrs import define, field

from provd.domain.hosts import LocalBoot, Mac
from provd.netboot import scripts
from provd.netboot.loaders import IpxeVersion
from provd.netboot.scripts import Form
from provd.simulator.machine.ipxe import BootsLocalDisk, FetchFailed, run_script

QEMU = shutil.which("qemu-system-x86_64")
IPXE = Path("/usr/lib/ipxe/ipxe.lkrn")
pytestmark = pytest.mark.skipif(
    QEMU is None or not IPXE.exists(), reason="needs Debian's packages qemu-system-x86 and ipxe"
)

MAC = Mac.parse("52:54:00:12:34:56")
PRELUDE = """\
#!ipxe
set net0/ip 10.0.2.15
set net0/netmask 255.255.255.0
ifopen net0
"""
"""What QEMU's DHCP server would say, sooner."""
UUID = "5e1f0000-0000-4000-8000-000000000001"
SCRIPT = "/ipxe/52-54-00-12-34-56"
FILES = "/boot/pve"
DONE = "INITRD=([0-9A-F]{8})"
"""The end of what the kernel below prints."""

SAY = bytes.fromhex("ac 84c0 7406 baf803 ee ebf5")
"""`lodsb; test al, al; jz +6; mov dx, 0x3f8; out dx, al; jmp -11`: the text at ds:si to the serial line."""
RESET = bytes.fromhex("b0fe e664 f4 ebfd")
"""By the keyboard controller; QEMU's -no-reboot makes it the end."""


def kernel() -> bytes:
    """A bzImage (Linux x86 boot protocol 2.03) that prints its command line and its initrd's size."""
    image = bytearray(1536)
    image[0x1F1] = 1  # sectors of set-up code behind the first
    image[0x1FE:0x202] = bytes.fromhex("55aa eb5e")  # the jump to 0x260
    image[0x202:0x208] = b"HdrS\x03\x02"
    image[0x211] = 1  # loaded high
    image[0x22C:0x230] = (0x37FFFFFF).to_bytes(4, "little")  # the initrd's highest address
    code = (
        bytes.fromhex("fc be0003")  # cld; mov si, 0x300
        + SAY
        + bytes.fromhex("8b362802 8cd8 c1e004 29c6")  # si = [cmd_line_ptr] - ds * 16
        + SAY
        + bytes.fromhex("be1003")  # mov si, 0x310
        + SAY
        # ebx = [ramdisk_size]; eight times: rol ebx, 4; al = bl & 15 as a hexadecimal digit; out
        + bytes.fromhex("668b1e1c02 b90800 66c1c304 88d8 240f 0430 3c39 7602 0407 baf803 ee e2ea")
        + RESET
    )
    image[0x260 : 0x260 + len(code)] = code
    image[0x300:0x308] = b"\nKERNEL "
    image[0x310:0x318] = b" INITRD="
    return bytes(image)


def disk() -> bytes:
    """A disk whose boot sector prints `DISK`."""
    sector = bytearray(1 << 20)
    code = bytes.fromhex("31c0 8ed8 fc be407c") + SAY + RESET
    sector[: len(code)] = code
    text = b"\n" + b"." * 40 + b"DISK"  # SeaBIOS may still have something to say at the same time
    sector[0x40 : 0x40 + len(text)] = text
    sector[0x1FE:0x200] = b"\x55\xaa"
    return bytes(sector)


@define(eq=False)
class Web:
    """A web server with a few files, which writes down what is asked of it."""

    files: dict[str, bytes]
    url: str = ""
    asked: list[str] = field(factory=list)
    agents: set[str] = field(factory=set)
    lost: dict[str, int] = field(factory=dict)
    """How many more times a file is not there."""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                more = await stream.receive_some(4096)
                if not more:
                    return
                head += more
            target = head.split()[1].decode()
            self.agents |= set(re.findall(r"(?mi)^user-agent: (.*?)\r?$", head.decode()))
            self.asked.append(target)
            path = target.partition("?")[0]
            body = self.files.get(path)
            if self.lost.get(path, 0):
                self.lost[path] -= 1
                body = None
            status = "200 OK" if body is not None else "404 Not Found"
            answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body or b'')}\r\nConnection: close\r\n\r\n"
            await stream.send_all(answer.encode() + (body or b""))


@define(eq=False)
class Screen:
    process: trio.Process
    text: str = ""

    async def until(self, *words: str) -> None:
        """Read until all of `words` were seen, of which `DONE` is a pattern.

        Raises `AssertionError` when the machine ends before.
        """
        stdout = self.process.stdout
        assert stdout is not None
        while not all(self.shows(word) for word in words):
            more = await stdout.receive_some()
            if not more:
                raise AssertionError(f"{words} not in:\n{self.text}")
            self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[c()].?", "", more.decode("latin-1"))

    def shows(self, words: str) -> bool:
        """The 80 columns of the screen break lines anywhere: blanks count nothing."""
        squeezed = re.sub(r"\s", "", self.text)
        return re.sub(r"\s", "", words) in squeezed or (words == DONE and bool(re.search(words, squeezed)))

    def initrd_size(self) -> int:
        found = re.search(DONE, self.text)
        assert found is not None
        return int(found[1], 16)

    async def press(self, keys: bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(keys)


@asynccontextmanager
async def machine(tmp_path: Path, script: str, files: dict[str, bytes]) -> AsyncIterator[tuple[Screen, Web]]:
    """A BIOS machine whose iPXE chains to `script`, in which BASE stands for the web server's URL."""
    web = Web(files)
    prelude, image = tmp_path / "prelude.ipxe", tmp_path / "disk.img"
    image.write_bytes(disk())
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, web.serve, [listener])
            web.url = f"http://10.0.2.2:{listener.socket.getsockname()[1]}"
            web.files[SCRIPT] = script.replace("http://base.invalid", web.url).encode()
            prelude.write_text(PRELUDE + f"chain --replace {web.url}{SCRIPT}\n")
            assert QEMU is not None
            process = await trio.lowlevel.open_process(
                [
                    *(QEMU, "-accel", "tcg", "-nographic", "-no-reboot", "-m", "256"),
                    *("-kernel", str(IPXE), "-initrd", str(prelude)),
                    *("-drive", f"file={image},format=raw,snapshot=on"),
                    *("-netdev", "user,id=n0", "-device", f"e1000,netdev=n0,romfile=,mac={MAC}"),
                    *("-smbios", f"type=1,manufacturer=A & B,product=Box #1/2 50%,serial=S 1,uuid={UUID}"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            screen = Screen(process)
            try:
                yield screen, web
            finally:
                print(screen.text, web.asked)  # pytest shows it where a test fails
                process.kill()
                with trio.move_on_after(5, shield=True):
                    await process.wait()
                nursery.cancel_scope.cancel()


BOTH = 8192 + 110 + 14 + 5000
"""Two files of 5000 bytes: the first padded to whole pages, the second behind a cpio header with a name."""


def installer(form: Form) -> str:
    return scripts.installer_script(hostname="nuc1", base_url=f"http://base.invalid{FILES}", form=form)


def hurried(script: str) -> str:
    return re.sub(r"sleep \S+", "sleep 0", script)


def installer_files(*initrds: str) -> dict[str, bytes]:
    return {f"{FILES}/vmlinuz": kernel()} | {f"{FILES}/{name}": bytes(5000) for name in initrds}


async def test_the_installer_and_its_iso_are_booted(tmp_path: Path) -> None:
    """Kernel, initrd and ISO are fetched in that order, and the kernel gets both as one initrd."""
    files = installer_files("initrd.img", "proxmox.iso")
    async with machine(tmp_path, installer(Form.SEPARATE), files) as (screen, web):
        await screen.until("KERNEL", DONE)
        assert web.asked == [SCRIPT, *(f"{FILES}/{n}" for n in ("vmlinuz", "initrd.img", "proxmox.iso"))]
        assert screen.shows("ramdisk_size=16777216 rw quiet splash=silent proxmox-start-auto-installer")
        assert screen.initrd_size() == BOTH
        (version,) = (IpxeVersion.of_user_agent(agent) for agent in web.agents)
        assert version is not None
        assert version.text.encode() in IPXE.read_bytes()


async def test_the_merged_installer_is_booted(tmp_path: Path) -> None:
    """The one file that holds everything arrives as it is."""
    async with machine(tmp_path, installer(Form.MERGED), installer_files("installer.img")) as (screen, web):
        await screen.until("KERNEL", DONE)
        assert web.asked == [SCRIPT, f"{FILES}/vmlinuz", f"{FILES}/installer.img"]
        assert screen.shows("initrd=installer.img ramdisk_size")
        assert screen.initrd_size() == 5000


async def test_a_lost_file_is_asked_for_again(tmp_path: Path) -> None:
    """A 404 is told on the screen, and everything is loaded anew, without what was loaded before."""
    files = installer_files("initrd.img", "proxmox.iso")
    async with machine(tmp_path, hurried(installer(Form.SEPARATE)), files) as (screen, web):
        web.lost[f"{FILES}/proxmox.iso"] = 1
        await screen.until("the installer could not be loaded, trying again in 5 seconds")
        await screen.until("KERNEL", DONE)
        once = [f"{FILES}/{n}" for n in ("vmlinuz", "initrd.img", "proxmox.iso")]
        assert web.asked == [SCRIPT, *once, *once]
        assert screen.initrd_size() == BOTH


async def test_an_installer_that_never_comes_is_given_up(tmp_path: Path) -> None:
    """The last screen says that nothing was changed, and the disk is booted."""
    async with machine(tmp_path, hurried(installer(Form.SEPARATE)), {}) as (screen, web):
        await screen.until("nothing was changed on its disks", "DISK")
        assert web.asked == [SCRIPT, *[f"{FILES}/vmlinuz"] * 6]


@pytest.mark.parametrize("local_boot", LocalBoot)
async def test_the_local_disk_is_booted(tmp_path: Path, local_boot: LocalBoot) -> None:
    """Nothing is loaded, and the first disk's boot sector runs."""
    async with machine(tmp_path, scripts.local_disk_script("nuc1", local_boot), {}) as (screen, web):
        await screen.until("nuc1 boots its own disk", "DISK")
        assert web.asked == [SCRIPT]


async def test_the_menu_ends_by_itself(tmp_path: Path) -> None:
    """An unknown machine shows what it is, waits for nobody, asks for nothing and boots its disk."""
    script = scripts.unknown_script(mac=MAC, base_url="http://base.invalid")
    patient = f"--timeout {1000 * scripts.MENU_SECONDS} "
    assert patient in script
    async with machine(tmp_path, script.replace(patient, "--timeout 1000 "), {}) as (screen, web):
        await screen.until(f"{MAC} boots its own disk", "DISK")
        for word in (str(MAC), "A & B Box #1/2 50%", "S 1", UUID, "List this machine in provd"):
            assert screen.shows(word)
        assert web.asked == [SCRIPT]


async def test_the_menu_lists_the_machine(tmp_path: Path) -> None:
    """Whoever presses two keys has provd told what the machine is, and then the disk is booted."""
    script = scripts.unknown_script(mac=MAC, base_url="http://base.invalid")
    greeting = scripts.greeting_script(MAC).encode()
    async with machine(tmp_path, hurried(script), {f"{SCRIPT}/hello": greeting}) as (screen, web):
        await screen.until("List this machine in provd")
        await screen.press(b"\x1b[B\r")
        await screen.until("is listed; register it", "DISK")
        (hello,) = web.asked[1:]
        query = parse_qs(urlsplit(hello).query)
        assert query["manufacturer"][0] in ("A ", "A & B")  # the iPXE of 2019 sends %26 as &
        assert (query["uuid"], query["serial"], query["product"]) == ([UUID], ["S 1"], ["Box #1/2 50%"])


async def test_a_machine_that_cannot_be_listed_boots_its_disk(tmp_path: Path) -> None:
    """When provd does not take the greeting, the machine goes on all the same."""
    script = scripts.unknown_script(mac=MAC, base_url="http://base.invalid")
    async with machine(tmp_path, hurried(script), {}) as (screen, _):
        await screen.until("List this machine in provd")
        await screen.press(b"\x1b[B\r")
        await screen.until("the machine could not be listed", "DISK")


async def test_autoexec_finds_the_way(tmp_path: Path) -> None:
    """It takes the NIC that has an address, and replaces itself by the machine's own script."""
    own = "/provd" + SCRIPT
    files = {own: scripts.local_disk_script("nuc1").encode()}
    script = scripts.autoexec_script("http://base.invalid/provd")
    async with machine(tmp_path, script, files) as (screen, web):
        await screen.until("nuc1 boots its own disk", "DISK")
        assert web.asked == [SCRIPT, own]


LINES = [
    "isset ${nothing} && echo A1 || echo A2",
    "isset ${mac} || echo B1 && echo B2",
    "isset ${nothing} || echo C1 && echo C2",
    "isset ${mac} && echo D1 || echo D2",
    "isset ${nothing} && echo E1 ||",
    "iseq a b || iseq a c && echo F1 || echo F2",
    "echo x ; echo y",
    "echo p # || echo q",
    "echo a#b",
    "frobnicate || echo G",
    "goto nowhere || echo H",
    "goto l && echo I1 ||",
    "echo I2",
    ":l",
    "inc q 5 || echo J",
    "echo q=${q}",
    "set name mac",
    "inc name || echo K",
    "echo name=${name}",
    "set two a  b",
    "iseq ${two} ${two} && echo same ||",
    "echo [${two}] [${nothing}] ${${name}:hexhyp}",
    "set z:int32 0x10",
    "inc z",
    "echo ${z}",
    "set pr A B&c/d#e",
    "echo ${pr:uristring}",
    "isset ${net0/mac} && echo L ||",
    "ifopen net7 || echo M",
    "item x y || echo N",
    "choose --default a b || echo O",
    "chain --frobnicate x || echo P",
    "chain nothing-here || echo Q",
    "chain /one && echo R1 || echo R2 ${left}",
    "chain /two && echo S1 || echo S2",
    "set nic:int32 0",
    "isset ${net${nic}/mac} && echo T ||",
]


async def test_the_simulator_reads_lines_as_ipxe_does(tmp_path: Path) -> None:
    """The simulated machine's interpreter prints what a real one prints, line by line."""
    script = "\n".join(["#!ipxe", *LINES, "echo the-end", "frobnicate", "echo not reached"]) + "\n"
    script = script.replace("echo ", "echo @")  # to be told from what iPXE says by itself
    files = {"/one": b"#!ipxe\nset left one\nexit\n", "/two": b"#!ipxe\necho @two\nexit 1\necho @no\n"}

    async def fetch(url: str) -> bytes:
        path = urlsplit(url).path
        if path not in files:
            raise FetchFailed("404")
        return files[path]

    settings = {"mac": str(MAC), "net0/mac": str(MAC)}
    simulated = await run_script(script, base="http://base.invalid/x", settings=settings, fetch=fetch)
    assert simulated.outcome == BootsLocalDisk("script failed: frobnicate: command not found")
    async with machine(tmp_path, script, dict(files)) as (screen, _):
        await screen.until("the-end")
        assert tuple(re.findall(r"(?m)^@(.*?)\s*$", screen.text)) == tuple(
            line.removeprefix("@") for line in simulated.echoed
        )
        assert not screen.shows("not reached")
