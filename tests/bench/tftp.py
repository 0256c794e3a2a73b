"""How fast provd gives files by TFTP, beside dnsmasq: `python tests/bench/tftp.py`.

Both servers run in processes of their own on one core and give the same file over loopback, in a
network namespace made for it, as dnsmasq knows no port but 69. The clients, a plain epoll loop that
throws away what it receives, run on the other core. The servers take turns; each number is the least
of the rounds. What counts is the ratio.

A delay is one that the clients keep before each answer: to the server that is a longer way to them.
dnsmasq knows windows since 2.92; an older one, asked for four blocks, sends them one by one.
"""

import argparse
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import trio
from attrs import frozen

sys.path.insert(0, str(Path(__file__).parents[2]))
from provd.netboot.tftp_server import Limits, serve

SERVER_CORE, CLIENT_CORE = 0, 1
NAME = "ipxe.efi"
SIZE = 1 << 20
BLKSIZE = 1428
TRANSFERS = 1000
RESEND = 2.0
"""Seconds until a client asks or answers again."""
GRACE = 60.0
"""Seconds for a run; if somebody is not served by then, it has failed."""
DATA, OACK = 3, 6


@frozen(kw_only=True)
class Case:
    clients: int
    window: int = 1
    delay: float = 0.0
    """Seconds."""

    def __str__(self) -> str:
        return f"{self.clients:>3} clients, window {self.window}, {self.delay * 1000:g} ms away"


CASES = [
    Case(clients=clients, window=window, delay=delay)
    for delay in (0.0, 1e-3)
    for window in (1, 4)
    for clients in (1, 50, 200)
]


@frozen(kw_only=True)
class Result:
    wall: float
    cpu: float
    """The server's."""
    resent: int
    """Packets that clients had to send again."""


# --- servers ---


class OneFile:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, name: str) -> bytes | None:
        return self._content if name == NAME else None


def run_provd(root: Path, address: str) -> None:
    limits = Limits(transfers=TRANSFERS, transfers_per_address=TRANSFERS)
    trio.run(partial(serve, OneFile((root / NAME).read_bytes()), address, limits=limits))


def provd_command(root: Path, address: str) -> list[str]:
    return [sys.executable, __file__, "--serve", str(root), "--address", address]


def dnsmasq_command(root: Path, address: str) -> list[str]:
    return [
        shutil.which("dnsmasq", path=f"{os.environ['PATH']}:/usr/sbin") or "dnsmasq",
        *("--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--user=root"),
        *("--enable-tftp", f"--tftp-root={root}", f"--tftp-max={TRANSFERS}", "--quiet-tftp"),
        *(f"--listen-address={address}", "--bind-interfaces", "--log-facility=/dev/null"),
    ]


SERVERS: dict[str, tuple[str, Callable[[Path, str], list[str]]]] = {
    "dnsmasq": ("127.0.0.2", dnsmasq_command),
    "provd": ("127.0.0.3", provd_command),
}


@contextmanager
def running(command: list[str]) -> Iterator[int]:
    process = subprocess.Popen(command)
    os.sched_setaffinity(process.pid, {SERVER_CORE})
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def wait_ready(address: str) -> None:
    """Returns when a file that is not there is refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        for _ in range(100):
            sock.sendto(b"\0\1nothing\0octet\0", (address, 69))
            try:
                sock.recv(516)
            except TimeoutError:
                continue
            return
    raise SystemExit(f"no TFTP server at {address}")


def cpu_seconds(pid: int) -> float:
    """Of the only thread that works (proc_schedstat: nanoseconds on the CPU)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


# --- clients ---


class Client:
    """Reads the file once. Its answers wait in `late` for as long as its way is."""

    def __init__(self, server: str, case: Case, late: deque[tuple[float, "Client"]]) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.server = server
        self.done = False
        self.resent = 0
        self.delay = case.delay
        self.late = late
        self.buffer = bytearray(2048)
        self.packet = f"\0\1{NAME}\0octet\0blksize\0{BLKSIZE}\0".encode()
        if case.window > 1:
            self.packet += f"windowsize\0{case.window}\0".encode()
        self.blocks = 0
        self.window = 1
        self.connected = False
        self.answered_at = time.perf_counter()
        self.sock.sendto(self.packet, (server, 69))

    def receive(self, now: float) -> None:
        if not self.connected:
            length, peer = self.sock.recvfrom_into(self.buffer)
            self.sock.connect(peer)
            self.connected = True
            packet = bytes(self.buffer[:length])
            assert packet[1] == OACK, packet
            if b"windowsize\0" in packet:
                self.window = int(packet.split(b"windowsize\0")[1].split(b"\0")[0])
            self._answer(now)
            return
        length = self.sock.recv_into(self.buffer)
        opcode, block = struct.unpack_from("!HH", self.buffer)
        if opcode != DATA or block != (self.blocks + 1) & 0xFFFF:
            return
        self.blocks += 1
        if length < BLKSIZE + 4:
            self.done = True
            self.delay = 0.0
            self._answer(now)
        elif not self.blocks % self.window:
            self._answer(now)

    def _answer(self, now: float) -> None:
        self.packet = b"\0\4" + (self.blocks & 0xFFFF).to_bytes(2)
        self.answered_at = now
        if self.delay:
            self.late.append((now + self.delay, self))
        else:
            self.sock.send(self.packet)

    def remind(self, now: float) -> None:
        if not self.done and now - self.answered_at > RESEND:
            self.answered_at = now
            self.resent += 1
            self.sock.sendto(self.packet, (self.server, 69)) if not self.connected else self.sock.send(
                self.packet
            )


def read_all(server: str, case: Case) -> tuple[float, int]:
    """Seconds until everybody has the file, and how many packets clients sent again."""
    late: deque[tuple[float, Client]] = deque()
    with select.epoll() as epoll, ExitStack() as stack:
        begun = now = time.perf_counter()
        clients: dict[int, Client] = {}
        for _ in range(case.clients):
            client = Client(server, case, late)
            stack.enter_context(client.sock)
            clients[client.sock.fileno()] = client
            epoll.register(client.sock, select.EPOLLIN)
        missing = len(clients)
        checked = begun
        while missing:
            ready = epoll.poll(0 if late else 0.5, 64)
            now = time.perf_counter()
            while late and late[0][0] <= now:
                client = late.popleft()[1]
                client.sock.send(client.packet)
            for fd, _ in ready:
                client = clients[fd]
                client.receive(now)
                if client.done:
                    epoll.unregister(fd)
                    missing -= 1
            if now - checked > 0.5:
                checked = now
                for client in clients.values():
                    client.remind(now)
                if now - begun > GRACE:
                    raise SystemExit(f"{missing} of {case}: not served within {GRACE:g} s")
        assert all(client.blocks == SIZE // BLKSIZE + 1 for client in clients.values())
        return now - begun, sum(client.resent for client in clients.values())


# --- the run ---


def measure(address: str, pid: int, case: Case) -> Result:
    before = cpu_seconds(pid)
    wall, resent = read_all(address, case)
    return Result(wall=wall, cpu=cpu_seconds(pid) - before, resent=resent)


def compare(rounds: int, cases: list[Case]) -> None:
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        root = Path(place)
        (root / NAME).write_bytes(os.urandom(SIZE))
        pids = {
            name: stack.enter_context(running(command(root, address)))
            for name, (address, command) in SERVERS.items()
        }
        for address, _ in SERVERS.values():
            wait_ready(address)
        os.sched_setaffinity(0, {CLIENT_CORE})
        print(f"{'':35}{'wall ms':>16}{'':8}{'server CPU ms':>16}{'':8}{'resent':>12}")
        print(f"{'':35}" + f"{'dnsmasq':>8}{'provd':>8}{'ratio':>8}" * 2 + f"{'dnsmasq':>8}{'provd':>6}")
        for case in cases:
            results: dict[str, list[Result]] = {name: [] for name in SERVERS}
            for turn in range(rounds):
                for name in list(SERVERS)[:: 1 if turn % 2 else -1]:
                    results[name].append(measure(SERVERS[name][0], pids[name], case))
            line = f"{case!s:35}"
            for kind in ("wall", "cpu"):
                theirs, ours = (min(getattr(each, kind) for each in results[name]) for name in SERVERS)
                line += f"{theirs * 1000:8.1f}{ours * 1000:8.1f}{ours / theirs:8.2f}"
            theirs, ours = (sum(each.resent for each in results[name]) for name in SERVERS)
            print(f"{line}{theirs:8}{ours:6}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="provd's TFTP beside dnsmasq's")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", help="a part of a case's name, such as '200 clients, window 4'", default="")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        run_provd(given.serve, given.address)
    elif not given.inside:
        root = [] if os.getuid() == 0 else ["--map-root-user"]
        os.execvp("unshare", ["unshare", "--net", *root, sys.executable, *sys.argv, "--inside"])
    else:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        compare(given.rounds, [case for case in CASES if given.only in str(case)])


if __name__ == "__main__":
    main()
