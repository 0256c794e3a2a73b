"""A LAN made of network namespaces, with real DHCP servers in it and a place to look at it from."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from namespaces import NUMBERS, Namespace, bridge, namespaces, obstacle, plug

CHECKOUT = Path(__file__).parents[2]
NIC = "up0"
"""The network card of everybody who stands at the switch."""
ROUTER, ROGUE, PROVD = "10.77.0.1", "10.77.0.66", "10.77.0.2"
PATIENCE = 10.0

no_lan = obstacle() or ("" if shutil.which("dnsmasq") else "dnsmasq is not installed")
needs_lan = pytest.mark.skipif(bool(no_lan), reason=no_lan or "there is a LAN")

ASK = """
import json, sys, trio
from provd.netboot import interfaces, probe
async def main():
    found = []
    for server in await probe.ask(interfaces.find(sys.argv[1]), float(sys.argv[2])):
        for offer in server.offers:
            found.append({"source": str(server.source), "firmware": str(offer.asked), "proxy": offer.proxy,
                "address": str(offer.address), "server": str(offer.server), "class": offer.vendor_class,
                "next": str(offer.next_server), "file": offer.boot_file, "mac": server.mac})
    print(json.dumps(found))
trio.run(main)
"""


class Lan:
    """One switch, and everybody who was added to it."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        (self.switch,) = stack.enter_context(namespaces("switch"))
        bridge(self.switch, "br0")

    def add(self, address: str) -> Namespace:
        (newcomer,) = self.stack.enter_context(namespaces("host"))
        plug(newcomer, NIC, self.switch, "br0", f"{address}/24")
        return newcomer

    def start(self, namespace: Namespace, *command: str, ready: Callable[[int], bool]) -> None:
        """Run a program there until the LAN is torn down. Returns when `ready(pid)`."""
        log = self.folder / f"program{next(NUMBERS)}.log"
        with log.open("w") as out:
            program = subprocess.Popen(namespace.command(*command), stdout=out, stderr=out, env=environment())
        self.stack.callback(end, program)
        deadline = time.monotonic() + PATIENCE
        while not ready(program.pid):
            assert program.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{command[0]} is not ready: {log.read_text()}"
            time.sleep(0.02)

    def dnsmasq(self, namespace: Namespace, *lines: str) -> None:
        """A DHCP server there, as `lines` of dnsmasq.conf say."""
        number = next(NUMBERS)
        config, leases = self.folder / f"dnsmasq{number}.conf", self.folder / f"leases{number}"
        common = ("port=0", f"interface={NIC}", "bind-interfaces", "user=root", "no-ping", "no-resolv")
        config.write_text("\n".join([*common, f"dhcp-leasefile={leases}", "pid-file=", *lines]) + "\n")
        command = ("dnsmasq", "--keep-in-foreground", f"--conf-file={config}")
        self.start(namespace, *command, ready=lambda pid: listens(pid, "udp", 67))


def listens(pid: int, table: str, port: int) -> bool:
    """Whether somebody has that port in the namespace of the process (proc(5), /proc/net/udp)."""
    return f":{port:04X} " in Path(f"/proc/{pid}/net/{table}").read_text()


def ask(namespace: Namespace, seconds: float) -> Sequence[dict[str, Any]]:
    """What `probe.ask` hears there, by offer."""
    answer = inside(namespace, sys.executable, "-c", ASK, NIC, str(seconds))
    assert answer.returncode == 0, answer.stderr
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    return found


def inside(namespace: Namespace, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program there to its end."""
    return subprocess.run(
        namespace.command(*command),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def environment() -> dict[str, str]:
    """With provd to be imported from this checkout."""
    return os.environ | {"PYTHONPATH": str(CHECKOUT)}


@contextmanager
def open_lan(folder: Path) -> Iterator[Lan]:
    with ExitStack() as stack:
        yield Lan(stack, folder)


def end(program: "subprocess.Popen[bytes]") -> None:
    program.terminate()
    try:
        program.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait(PATIENCE)
