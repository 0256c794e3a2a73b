"""Network namespaces for tests: made with names of their own, and removed whatever happens.

Nothing of them is reachable from outside, so ports 67 and 69 may be used in them. They need root.
"""

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from itertools import count
from pathlib import Path

import pytest
import trio
from attrs import frozen

CLONE_NEWNET = 0x40000000
PATIENCE = 10.0
"""Seconds that a command may take, and a process to end."""
NUMBERS = count(1)


@frozen
class Namespace:
    name: str

    def ip(self, *arguments: str) -> str:
        """`ip` in this namespace."""
        return run("ip", "-n", self.name, *arguments)

    def command(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str) -> str:
        """What a command in this namespace writes. Raises CalledProcessError, TimeoutExpired."""
        return run(*self.command(*command))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside: sockets opened here stay here. Not to be held across an await."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as there:
            set_namespace(there.fileno())
            try:
                yield
            finally:
                set_namespace(home.fileno())

    def udp(self, *, interface: str | None = None, address: str = "0.0.0.0", port: int = 0) -> socket.socket:
        """A bound non-blocking socket that may broadcast. The caller closes it.

        With `interface` it lets nothing in or out elsewhere.
        """
        with self.entered():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            if interface is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
            sock.bind((address, port))
        except BaseException:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    @asynccontextmanager
    async def process(
        self, *command: str, log: Path, env: dict[str, str] | None = None
    ) -> AsyncIterator[trio.Process]:
        """A program inside, whose words go to the file `log`. It is ended when the block is left."""
        with log.open("ab") as out:
            process = await trio.lowlevel.open_process(
                self.command(*command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env
            )
        try:
            yield process
        finally:
            process.terminate()
            with trio.move_on_after(PATIENCE, shield=True):
                await process.wait()
            process.kill()


@contextmanager
def namespaces(*labels: str) -> Iterator[tuple[Namespace, ...]]:
    """New ones, each with its loopback up."""
    with ExitStack() as stack:
        found = []
        for label in labels:
            namespace = Namespace(f"provd-{os.getpid()}-{next(NUMBERS)}-{label}")
            run("ip", "netns", "add", namespace.name)
            stack.callback(remove, namespace)
            namespace.ip("link", "set", "lo", "up")
            found.append(namespace)
        yield tuple(found)


def remove(namespace: Namespace) -> None:
    """Its interfaces, and their peers elsewhere, go with it. What still runs inside is killed."""
    for pid in run("ip", "netns", "pids", namespace.name).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), 9)
    run("ip", "netns", "delete", namespace.name)


def bridge(namespace: Namespace, name: str, *addresses: str) -> None:
    """A switch inside, up, that forwards from the first moment."""
    namespace.ip("link", "add", name, "type", "bridge", "forward_delay", "0", "stp_state", "0")
    configure(namespace, name, addresses)


def plug(namespace: Namespace, name: str, lan: Namespace, switch: str, *addresses: str) -> None:
    """Give a namespace a network card on a switch that stands in another."""
    port = f"p{next(NUMBERS)}"
    lan.ip("link", "add", port, "type", "veth", "peer", "name", name, "netns", namespace.name)
    lan.ip("link", "set", port, "master", switch, "up")
    configure(namespace, name, addresses)


def configure(namespace: Namespace, name: str, addresses: Sequence[str]) -> None:
    for address in addresses:
        namespace.ip("address", "add", address, "dev", name)
    namespace.ip("link", "set", name, "up")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout


def set_namespace(descriptor: int) -> None:
    """setns(2); os.setns is younger than Python 3.11."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@lru_cache
def obstacle() -> str:
    """Why there can be no namespaces here; nothing where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    try:
        with namespaces("probe"):
            return ""
    except (OSError, subprocess.SubprocessError) as exc:
        return f"no network namespace can be made here: {exc}"


needs_namespaces = pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "there are namespaces")
