"""How fast a room of machines is answered, beside dnsmasq as a proxy: `python tests/bench/dhcp.py`, as root.

Each server has a namespace, with a LAN of its own to the clients', and stays for the whole run; they take
turns. All clients of a storm ask at the same moment, and who got no answer asks again after four seconds, as
EDK2 and PXE ROMs do. What counts is the ratio: above 1, provd is the slower one.
"""

import os
import select
import socket
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path

import psutil
import trio
from attrs import frozen

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from namespaces import Namespace, namespaces, obstacle, plug  # noqa: E402
from namespaces import bridge as make_bridge  # noqa: E402
from netboot.dhcp_client import packet  # noqa: E402

ROUNDS = {1: 150, 100: 20, 1000: 5}
"""How many storms of each size."""
ASK_AGAIN = 4.0
"""Seconds."""
PATIENCE = 60.0
"""Seconds for a storm."""
PROBE = 0xFFFFFFFF


@frozen(kw_only=True)
class Server:
    sock: socket.socket
    """The clients', on the LAN that leads to it."""
    process: psutil.Process


@frozen(kw_only=True)
class Storm:
    all_ms: float
    """From the first question until everybody has an answer."""
    p99_ms: float
    """From a client's first question to its answer, for all but the slowest hundredth."""
    cpu_us: float
    """What the server's process used for each client, the kernel's part included."""
    asked_again: int
    """Clients whose first question was lost."""


def questions(count: int, round_number: int) -> list[bytes]:
    """One DISCOVER each, of machines that were never there before."""
    return [
        packet(mac=f"52:54:{round_number:02x}:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}", xid=n)
        for n in range(count)
    ]


def storm(server: Server, asked: list[bytes]) -> Storm:
    """Plain non-blocking calls: the clients shall not be what is measured. Raises TimeoutError."""
    sock, before = server.sock, server.process.cpu_times()
    sent, came = [0.0] * len(asked), [0.0] * len(asked)
    lost = 0
    to_ask = list(range(len(asked)))
    start = time.perf_counter()
    while not all(came):
        for xid in to_ask:
            sent[xid] = sent[xid] or time.perf_counter()
            sock.sendto(asked[xid], ("255.255.255.255", 67))
            hear(sock, came)
        again_at = time.perf_counter() + ASK_AGAIN
        while not all(came) and select.select([sock], [], [], max(0, again_at - time.perf_counter()))[0]:
            hear(sock, came)
        to_ask = [xid for xid in range(len(asked)) if not came[xid]]
        lost = lost or len(to_ask)
        if time.perf_counter() > start + PATIENCE:
            raise TimeoutError(f"{len(to_ask)} of {len(asked)} clients were never answered")
    after = server.process.cpu_times()
    waits = sorted(1000 * (end - begin) for begin, end in zip(sent, came, strict=True))
    return Storm(
        all_ms=1000 * (max(came) - start),
        p99_ms=waits[(len(waits) - 1) * 99 // 100],
        cpu_us=1e6 * (after.user + after.system - before.user - before.system) / len(asked),
        asked_again=lost,
    )


def hear(sock: socket.socket, came: list[float]) -> None:
    """Note when each answer came that is there by now."""
    with suppress(BlockingIOError):
        while answer := sock.recv(2048):
            xid = int.from_bytes(answer[4:8], "big")
            if xid < len(came) and not came[xid]:
                came[xid] = time.perf_counter()


def measure(servers: dict[str, Server]) -> None:
    columns = f"{'all ms':>9} {'p99 ms':>9} {'CPU us':>9}"
    print(f"{'clients':>7} {'server':>8} {columns} {'asked again':>12}   ratios: all, p99, CPU")
    number = 0
    for size, rounds in ROUNDS.items():
        storms: dict[str, list[Storm]] = {name: [] for name in servers}
        for turn in range(rounds):
            number = (number + 1) % 256
            for name in list(servers)[:: 1 if turn % 2 else -1]:
                storms[name].append(storm(servers[name], questions(size, number)))
        rows = {name: summary(found) for name, found in storms.items()}
        pairs = zip(rows["provd"], rows["dnsmasq"], strict=True)
        ratios = " ".join(f"{mine / other:.2f}" for mine, other in pairs if other)
        for name, row in rows.items():
            again = sum(each.asked_again for each in storms[name]) / rounds
            numbers = " ".join(f"{value:9.2f}" for value in row)
            print(f"{size:>7} {name:>8} {numbers} {again:12.1f}   {ratios if name == 'provd' else ''}")


def summary(storms: list[Storm]) -> tuple[float, float, float]:
    """Medians of the times; the mean of what is counted in ticks of 10 ms."""
    return (
        statistics.median(each.all_ms for each in storms),
        statistics.median(each.p99_ms for each in storms),
        statistics.fmean(each.cpu_us for each in storms),
    )


async def until_it_answers(sock: socket.socket) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            sock.sendto(packet(xid=PROBE), ("255.255.255.255", 67))
            with trio.move_on_after(0.2):
                await trio.lowlevel.wait_readable(sock)
                return


async def main() -> None:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        clients, ours, theirs = stack.enter_context(namespaces("clients", "provd", "dnsmasq"))
        programs: dict[str, tuple[Namespace, str, list[str]]] = {
            "provd": (ours, "10.77.1", [
                sys.executable, str(ROOT / "tests/netboot/dhcp_responder.py"),
                "--interface", "lan", "--subnet", "10.77.1.0/24", "--quiet",
            ]),
            "dnsmasq": (theirs, "10.77.2", [
                "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0",
                "--interface=lan", "--bind-interfaces", "--dhcp-range=10.77.2.0,proxy", "--pid-file=",
                f"--dhcp-leasefile={directory}/leases", f"--log-facility={directory}/dnsmasq.log",
                "--pxe-service=X86-64_EFI,provd,snponly.efi", "--pxe-service=x86PC,provd,undionly.kpxe",
            ]),
        }  # fmt: skip
        async with AsyncExitStack() as running:
            servers = {}
            for name, (namespace, network, command) in programs.items():
                make_bridge(clients, name, f"{network}.1/24")
                plug(namespace, "lan", clients, name, f"{network}.2/24")
                process = await running.enter_async_context(
                    namespace.process(
                        *command, log=directory / f"{name}.out", env={**os.environ, "PYTHONPATH": str(ROOT)}
                    )
                )
                sock = clients.udp(interface=name, port=68)
                running.callback(sock.close)
                await until_it_answers(sock)
                servers[name] = Server(sock=sock, process=psutil.Process(process.pid))
            measure(servers)


if __name__ == "__main__":
    if why := obstacle():
        sys.exit(why)
    trio.run(main)
