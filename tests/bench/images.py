"""How fast images leave provd, beside nginx: `python tests/bench/images.py`.

Both servers run in processes of their own on one core and serve the same bytes from the page cache over
loopback; the clients run on the other core and throw away what they receive inside the kernel, so that
the server is what is measured. The servers take turns; each number is a median. What counts is the ratio,
the median of those of all rounds: rounds go on until it is known to 5 %, or there were enough of them.
"""

import argparse
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import trio
from attrs import frozen

sys.path.insert(0, str(Path(__file__).parents[2]))
from provd.domain.hosts import HostId, OperationId
from provd.domain.virtual_file import Extent, VirtualFile
from provd.orchestrator.downloads import Downloads
from provd.orchestrator.installers import Served
from provd.proxmox.installer_files import INITRD, ISO, KERNEL, MERGED, installer_files
from provd.proxmox.mode_file import MODE_FILE_SIZE
from provd.web import image_server
from provd.web.server import listen

PRECISION = 0.05
"""Of the ratio, for better or for worse."""
MODE_OFFSET = 64 * 1024
MODE_FILE = b"#".ljust(MODE_FILE_SIZE)
FILES = {"plain": ISO, "merged": MERGED}
NGINX = """\
daemon off; worker_processes 1; pid {place}/nginx.pid; error_log stderr error; user root;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
    client_body_temp_path {place}/a; proxy_temp_path {place}/b; fastcgi_temp_path {place}/c;
    uwsgi_temp_path {place}/d; scgi_temp_path {place}/e;
    server {{ listen 127.0.0.1:{port}; root {place}; keepalive_requests 1000000; }}
}}
"""


class Shelf:
    """An installer that everybody may read."""

    def __init__(self, directory: Path) -> None:
        self.files = installer_files(directory, MODE_OFFSET, MODE_FILE)

    def find(self, token: str, name: str) -> Served | None:
        file = self.files[name]
        return Served(name=name, file=file, host_id=HostId(1), operation_id=OperationId(1))


def serve(place: Path, port: int) -> None:
    async def main() -> None:
        await image_server.serve(
            Shelf(place / "t"), Downloads(lambda progress: None), [listen(f"127.0.0.1:{port}")]
        )

    trio.run(main)


# --- files ---


def prepare(place: Path, size: int) -> None:
    """An installer in `place/t`, and its merged initrd as a real file for nginx."""
    directory = place / "t"
    directory.mkdir()
    for name, length in {KERNEL: 1 << 20, INITRD: 55_878_409, ISO: size}.items():
        fill(directory / name, length)
    virtual = installer_files(directory, MODE_OFFSET, MODE_FILE)[MERGED]
    with (directory / MERGED).open("wb") as out:
        copy(virtual, out.fileno())
    for file in directory.iterdir():
        reread(file)


def fill(path: Path, length: int) -> None:
    with path.open("wb") as file:
        while (left := length - file.tell()) > 0:
            file.write(os.urandom(1 << 20)[:left])


def copy(virtual: VirtualFile, out: int) -> None:
    for part in virtual.parts:
        if isinstance(part, Extent):
            with part.path.open("rb") as file:
                offset, end = part.offset, part.offset + part.length
                while offset < end:
                    offset += os.sendfile(out, file.fileno(), offset, end - offset)
        else:
            os.write(out, part)


def reread(path: Path) -> None:
    """Into the page cache as a reader brings it there, whoever wrote it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 20):
            pass


# --- servers ---


@frozen(kw_only=True)
class Server:
    process: psutil.Process
    port: int


@contextmanager
def running(command: list[str], port: int, core: int) -> Iterator[psutil.Process]:
    """The process that does the work, once it answers."""
    with subprocess.Popen(command) as process:
        try:
            os.sched_setaffinity(process.pid, {core})
            deadline = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
            workers = psutil.Process(process.pid).children()  # nginx's worker; provd has none
            for worker in workers:
                os.sched_setaffinity(worker.pid, {core})
            yield workers[0] if workers else psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)


def cpu_seconds(process: psutil.Process) -> float:
    """Finer than the clock ticks of /proc/PID/stat."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) / 1e9
        for task in Path(f"/proc/{process.pid}/task").iterdir()
    )


# --- clients ---


def download(port: int, name: str, clients: int, seconds: float, core: int) -> int:
    """Bytes that all clients received together."""
    held, go = os.pipe()
    reads = []
    for _ in range(clients):
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(go)
            os.sched_setaffinity(0, {core})
            os.write(write, b"%d" % receive(port, name, held, write, seconds))
            os._exit(0)
        os.close(write)
        reads.append(read)
    for read in reads:
        os.read(read, 1)  # it is connected
    os.close(held)
    os.close(go)
    total = 0
    for read in reads:
        with open(read) as pipe:
            total += int(pipe.read())
        os.wait()
    return total


def receive(port: int, name: str, held: int, ready: int, seconds: float) -> int:
    """Once all clients are there, read the file again and again, without copying it (MSG_TRUNC, tcp(7))."""
    request = f"GET /t/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    room, count = bytearray(4 << 20), 0
    with socket.create_connection(("127.0.0.1", port)) as sock:
        os.write(ready, b"!")
        os.read(held, 1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sock.sendall(request)
            head = sock.recv(4096, socket.MSG_PEEK)
            length = head.index(b"\r\n\r\n") + 4
            sock.recv(length)
            left = int(head.lower().split(b"content-length:")[1].split()[0])
            while left and time.monotonic() < end:
                got = sock.recv_into(room, min(left, len(room)), socket.MSG_TRUNC)
                left -= got
                count += got
    return count


# --- the table ---


@frozen(kw_only=True)
class Sample:
    rate: float
    """GB/s."""
    cpu: float
    """The server's, in s/GB."""


@frozen(kw_only=True)
class Round:
    """Both servers, one right after the other: what else the machine does falls on both."""

    nginx: Sample
    provd: Sample


def notch(values: list[float]) -> float:
    """How far the true median may be from the one found: McGill, Tukey and Larsen, "Variations of Box
    Plots" (1978), for a confidence of 95 %."""
    lower, _, upper = statistics.quantiles(values, n=4)
    return 1.57 * (upper - lower) / math.sqrt(len(values))


def measure(file: str, clients: int, server: Server, given: argparse.Namespace, core: int) -> Sample:
    before = cpu_seconds(server.process)
    gigabytes = download(server.port, file, clients, given.seconds, core) / 1e9
    used = cpu_seconds(server.process) - before
    return Sample(rate=gigabytes / given.seconds, cpu=used / gigabytes)


def compare(
    file: str, clients: int, servers: dict[str, Server], given: argparse.Namespace, core: int
) -> list[Round]:
    rounds: list[Round] = []
    while len(rounds) < given.most_rounds:
        order = sorted(servers, reverse=bool(len(rounds) % 2))
        rounds.append(Round(**{name: measure(file, clients, servers[name], given, core) for name in order}))
        ratios = [each.provd.rate / each.nginx.rate for each in rounds]
        if len(rounds) >= given.rounds and notch(ratios) < PRECISION * statistics.median(ratios):
            break
    return rounds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=0.5, help="of each sample")
    options.add_argument("--rounds", type=int, default=9, help="at least so many")
    options.add_argument("--most-rounds", type=int, default=60)
    options.add_argument("--clients", type=int, nargs="*", default=[1, 4, 16])
    options.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.serve:
        serve(Path(given.serve[0]), int(given.serve[1]))
        return
    if shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") is None:
        sys.exit("nginx is not installed, and there is nothing to compare with")
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        place = Path(directory)
        place.chmod(0o755)
        room = min(psutil.virtual_memory().available // 8, shutil.disk_usage(place).free // 8)
        size = min(1 << 30, room)
        prepare(place, size)
        core, other = 0, min(1, (os.cpu_count() or 1) - 1)
        ports = {"nginx": free_port(), "provd": free_port()}
        (place / "nginx.conf").write_text(NGINX.format(place=place, port=ports["nginx"]))
        commands = {
            "nginx": ["nginx", "-c", str(place / "nginx.conf"), "-p", str(place)],
            "provd": [sys.executable, __file__, "--serve", str(place), str(ports["provd"])],
        }
        servers = {
            name: Server(
                process=stack.enter_context(running(commands[name], ports[name], core)), port=ports[name]
            )
            for name in commands
        }
        print(f"ISO of {size / 2**20:.0f} MiB, rounds of 2 x {given.seconds} s; server CPU in s/GB")
        print(
            f"{'file':8}{'clients':>8}  {'nginx':>16}  {'provd':>16}  {'ratio':>6}{'+-':>5}"
            f"  {'CPU ratio':>9}  {'rounds':>6}  load"
        )
        for label, file in FILES.items():
            for clients in given.clients:
                report(label, clients, compare(file, clients, servers, given, other))


def report(label: str, clients: int, rounds: list[Round]) -> None:
    median = statistics.median
    shown = [
        f"{median(each.rate for each in taken):5.2f} GB/s {median(each.cpu for each in taken):.3f}"
        for taken in ([each.nginx for each in rounds], [each.provd for each in rounds])
    ]
    rates = [each.provd.rate / each.nginx.rate for each in rounds]
    cpu = median(each.provd.cpu / each.nginx.cpu for each in rounds)
    print(
        f"{label:8}{clients:8}  {shown[0]:>16}  {shown[1]:>16}  {median(rates):6.2f}{notch(rates):5.2f}"
        f"  {cpu:9.2f}  {len(rounds):6}  {os.getloadavg()[0]:4.1f}",
        flush=True,
    )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    main()
