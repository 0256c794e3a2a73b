"""SSH to a machine that was just installed: one key pair, pinned host keys, commands one at a time.

paramiko is blocking code around a thread of its own. The bargain struck with it here:

- Trio makes the TCP connection. Handshake, login and the start of a command run in worker threads
  that a cancellation ends by shutting the socket down, which wakes every call paramiko can block in.
- Output is read in the event loop, without a thread. The receive window is so large that reading
  never has to send (`WINDOW`), and so cannot block the loop on a peer that stopped reading.
- paramiko keeps an exception of *any* type that its thread died of, and raises it in ours. During
  handshake and login, where the peer is not proven yet, only its events are waited for, and the
  exception is taken as a value.

There is no known_hosts file and no policy: a host key is one of those that were pinned when the
machine was installed, or nothing is said to it. This file refuses to know what the commands mean.
"""

import base64
import hashlib
import logging
import math
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from io import StringIO
from typing import TypeVar

import paramiko
import trio
from attrs import define, frozen

from provd.domain.errors import HostKeyMismatch, SshFailed
from provd.remote.keys import KeyPair

T = TypeVar("T")

OUTPUT_LIMIT = 1 << 20
"""Bytes of stdout and stderr together. What is read here ends in an activity or is parsed: both are short."""

WINDOW = 16 * OUTPUT_LIMIT
"""Receive window of a channel. paramiko announces more once a tenth is used up: never, below the limit."""

CHUNK = 1 << 16

CLOSE_SECONDS = 2.0
"""How long a polite end may take before the connection is simply dropped."""

POLL_SECONDS = 0.1
"""paramiko's own pace of noticing that its transport died; some of its events are not set then."""

WORKERS = trio.CapacityLimiter(40)
"""SSH has worker threads of its own, so that hosts that hang cannot starve the rest of the daemon."""

RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
"""The algorithms behind a key of type `ssh-rsa` (RFC 8332 §3)."""

# It prints whole tracebacks for a port scanner's banner. Every failure is raised here, once.
logging.getLogger("paramiko.transport").setLevel(logging.CRITICAL)


class AuthRefused(SshFailed):
    """The proven host answered, and does not take this key for this user: the key is not there (any more)."""


@frozen
class Completed:
    """How a command ended. Output that is not UTF-8 has replacement characters."""

    exit_status: int
    stdout: str
    stderr: str


@frozen
class HostKey:
    """A public host key: its type and the blob of RFC 4253 §6.6."""

    type: str
    blob: bytes

    @classmethod
    def parse(cls, line: str) -> "HostKey":
        """Read a line of a `.pub` file. Raise `SshFailed` for anything else."""
        words = line.split()
        try:
            return cls(words[0], base64.b64decode(words[1], validate=True))
        except (IndexError, ValueError) as exc:
            raise SshFailed(f"{line[:60]!r} is not a public host key") from exc

    @property
    def line(self) -> str:
        """As in a `.pub` file, without a comment."""
        return f"{self.type} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


class Bell(threading.Event):
    """Lets paramiko's thread wake a Trio task; paramiko takes it for a `threading.Event`.

    Not `Channel.fileno()`: its pipe is shared by two buffers under two locks, which can lose a wake-up,
    and closing the channel under a peer that still sends can write into somebody else's descriptor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.token = trio.lowlevel.current_trio_token()
        self.next_ring = trio.Event()

    def set(self) -> None:
        with suppress(trio.RunFinishedError):
            self.token.run_sync_soon(self.ring, idempotent=True)

    def clear(self) -> None:
        """Nothing: each ring is an event of its own."""

    def ring(self) -> None:
        self.next_ring.set()
        self.next_ring = trio.Event()


@define(eq=False)
class Session:
    """A connection whose host is proven and whose user is logged in. Closed with the block of `connect`."""

    peer: str
    """`user@address:port`, for sentences."""
    sock: socket.socket
    transport: paramiko.Transport
    starting: paramiko.Channel | None = None
    """The channel whose command was started last."""

    async def run(self, command: str, stdin: bytes = b"") -> Completed:
        """Run a command through the user's shell, feed it `stdin`, and wait for its end.

        Raise `SshFailed` when the connection is lost, a signal killed the command, or it printed more
        than `OUTPUT_LIMIT`. Errors name the first word of the command only, and nothing of `stdin`.

        May be cancelled at any moment. The command is not: it goes on at the host until it notices
        that nobody listens. The session stays usable where the host still answers; it is closed, and
        later runs fail, where it does not within `CLOSE_SECONDS`, or while a command was being started.
        """
        word = command.split(maxsplit=1)[0]
        try:
            channel = await self.in_thread(lambda: self.start(command, stdin))
            try:
                stdout, stderr = await self.read(channel, word)
                # The output has ended: waiting for the status before would deadlock (paramiko #448).
                status = await self.in_thread(channel.recv_exit_status)
            finally:
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await self.in_thread(lambda: close_quietly(channel))
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise self.failed(f"connection lost while running {word}: {reason(exc)}") from exc
        if status != -1:
            return Completed(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
        # A dying transport closes its channels before it counts as dead.
        await self.in_thread(lambda: self.transport.join(POLL_SECONDS))
        if self.transport.is_active():
            raise self.failed(f"{word} ended without an exit status, as when a signal kills it")
        raise self.failed(f"connection lost while running {word}")

    def start(self, command: str, stdin: bytes) -> paramiko.Channel:
        """Blocks; for a worker thread. A `stdin` beyond the peer's window (2 MiB) blocks until it is read."""
        channel = self.starting = self.transport.open_session(window_size=WINDOW)
        channel.exec_command(command)
        # A command may end without reading its input. If it was the connection, reading will tell.
        with suppress(OSError, EOFError):
            channel.sendall(stdin)
            channel.shutdown_write()
        channel.settimeout(0.0)
        return channel

    async def read(self, channel: paramiko.Channel, word: str) -> tuple[bytes, bytes]:
        """Everything up to the end of stdout and stderr."""
        bell = Bell()
        channel.in_buffer.set_event(bell)
        channel.in_stderr_buffer.set_event(bell)
        stdout, stderr = bytearray(), bytearray()
        unfinished = {channel.recv: stdout, channel.recv_stderr: stderr}
        while unfinished:
            ring = bell.next_ring  # taken before looking: what comes after the look will ring it
            for receive, output in list(unfinished.items()):
                with suppress(TimeoutError):
                    while chunk := receive(CHUNK):
                        output += chunk
                        if len(stdout) + len(stderr) > OUTPUT_LIMIT:
                            raise self.failed(f"{word} printed more than {OUTPUT_LIMIT >> 20} MiB")
                    del unfinished[receive]
            if unfinished:
                await ring.wait()
        return bytes(stdout), bytes(stderr)

    def check_host_key(self, pinned: Collection[HostKey]) -> None:
        """Blocks; for a worker thread. Raise `HostKeyMismatch` unless the host proved to own a pinned key."""
        # For paramiko the key type is also the offer: without this the host may choose to present a key
        # of another type, which nobody knows.
        wanted = {
            name for key in pinned for name in (RSA_SIGNATURES if key.type == "ssh-rsa" else [key.type])
        }
        options = self.transport.get_security_options()
        if not (usable := [name for name in options.key_types if name in wanted]):
            raise self.failed(f"none of its known host keys is of a usable type: {listing(pinned)}")
        options.key_types = usable
        try:
            presented = self.shown_host_key()
        except SshFailed as exc:
            if isinstance(exc.__cause__, paramiko.ssh_exception.IncompatiblePeer) and "host key" in str(exc):
                raise HostKeyMismatch(
                    f"{self.peer} has none of its pinned host keys: {listing(pinned)}"
                ) from exc
            raise
        if presented not in pinned:
            raise HostKeyMismatch(
                f"{self.peer} is not the machine that was installed: it presented the host key"
                f" {presented.fingerprint}, expected was {listing(pinned)}"
            )

    def shown_host_key(self) -> HostKey:
        """Blocks; for a worker thread. The key that the host proved to own, whoever it is."""
        negotiated = threading.Event()
        self.transport.start_client(negotiated)
        self.settle(negotiated)
        shown = self.transport.get_remote_server_key()
        return HostKey(shown.get_name(), shown.asbytes())

    def log_in(self, user: str, key: KeyPair) -> None:
        """Blocks; for a worker thread. Raise `AuthRefused` when the host says no."""
        # paramiko would report its own impatience as a refusal; the caller's deadline is the only one.
        self.transport.auth_timeout = math.inf
        answered = threading.Event()
        with suppress(paramiko.SSHException):  # gone already: `settle` says so
            self.transport.auth_publickey(
                user, paramiko.Ed25519Key.from_private_key(StringIO(key.private_openssh())), answered
            )
        self.settle(answered)
        if not self.transport.is_authenticated():
            raise AuthRefused(f"SSH to {self.peer}: the host does not accept the key {key.comment!r}")

    def settle(self, event: threading.Event) -> None:
        """Wait for paramiko's thread to set the event; raise `SshFailed` when it ended instead."""
        while self.transport.is_active() and not event.wait(POLL_SECONDS):
            pass
        if not self.transport.is_active():
            exc = self.transport.get_exception()
            raise self.failed(reason(exc)) from exc

    def failed(self, what: str) -> SshFailed:
        return SshFailed(f"SSH to {self.peer}: {what}")

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking paramiko code in a worker thread. A cancellation drops the connection.

        The thread is waited for, but not for ever, and woken: `exec_command` has an instant in which the
        loss of the transport goes unnoticed, and then waits for an answer that nobody can send any more. A
        thread that is left behind would keep its place in `WORKERS`.
        """
        ended = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def watched() -> T:
            try:
                return work()
            finally:
                token.run_sync_soon(ended.set)

        try:
            return await trio.to_thread.run_sync(watched, abandon_on_cancel=True, limiter=WORKERS)
        except trio.Cancelled:
            self.hang_up()
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                while not ended.is_set():
                    self.wake()
                    with trio.move_on_after(POLL_SECONDS):
                        await ended.wait()
            raise

    def wake(self) -> None:
        """Let `exec_command` see that the connection has ended. Once may be too early: it forgets first."""
        if self.starting is not None:
            self.starting.event.set()

    def hang_up(self) -> None:
        """End the connection without a word, and with it every wait for it."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """End the connection and paramiko's threads; the caller bounds the wait."""
        self.hang_up()
        if self.transport.is_alive():
            await trio.to_thread.run_sync(self.transport.join, abandon_on_cancel=True, limiter=WORKERS)
        # Only now: a thread that still reads from the descriptor could read from its next owner.
        self.sock.close()
        self.transport.packetizer.complete_handshake()  # stops a timer thread that no failure stops


@asynccontextmanager
async def connect(
    address: str, port: int, user: str, key: KeyPair, host_keys: Collection[str]
) -> AsyncIterator[Session]:
    """Open a session to the host that owns one of `host_keys`, given as whole lines of `.pub` files.

    Raise `HostKeyMismatch` before the user or the key is shown to another machine, `AuthRefused` when
    the proven host refuses the key, `SshFailed` for everything else. May be cancelled at any moment.
    A peer that falls silent is the caller's deadline to notice; a dead one is noticed by TCP in half a
    minute.
    """
    peer = f"{user}@[{address}]:{port}" if ":" in address else f"{user}@{address}:{port}"
    pinned = [HostKey.parse(line) for line in host_keys if line.strip()]
    sock = await dial(address, port, peer)
    session = Session(peer, sock, paramiko.Transport(sock))
    try:
        await session.in_thread(lambda: session.check_host_key(pinned))
        await session.in_thread(lambda: session.log_in(user, key))
        yield session
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await session.close()


async def learn_host_key(address: str, port: int) -> HostKey:
    """The host key of whoever answers there, for a first contact: nobody vouches for it.

    Nothing is said to that host. Raise `SshFailed`. May be cancelled at any moment.
    """
    peer = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    sock = await dial(address, port, peer)
    session = Session(peer, sock, paramiko.Transport(sock))
    try:
        return await session.in_thread(session.shown_host_key)
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await session.close()


async def dial(address: str, port: int, peer: str) -> socket.socket:
    """A connected socket that belongs to nobody yet. Raise `SshFailed`."""
    try:
        stream = await trio.open_tcp_stream(address, port)
    except OSError as exc:
        raise SshFailed(f"SSH to {peer}: {reason(exc)}") from exc
    sock = socket.socket(fileno=stream.socket.detach())
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),  # seconds
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),  # seconds
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),  # milliseconds
    ):
        sock.setsockopt(level, option, value)
    return sock


def close_quietly(channel: paramiko.Channel) -> None:
    """Blocks; for a worker thread."""
    with suppress(paramiko.SSHException, EOFError, OSError):
        channel.close()


def listing(keys: Collection[HostKey]) -> str:
    return ", ".join(f"{key.fingerprint} ({key.type})" for key in keys) or "none is known"


def reason(exc: BaseException | None) -> str:
    """A short phrase for what paramiko or the operating system raised."""
    if isinstance(exc, OSError) and isinstance(exc.__cause__, ExceptionGroup):  # Trio tried all addresses
        return ", ".join({reason(each): None for each in exc.__cause__.exceptions})
    if exc is None or isinstance(exc, EOFError):
        return "the connection was closed"
    if isinstance(exc, OSError) and exc.errno and not isinstance(exc, socket.gaierror):
        return os.strerror(exc.errno)
    return " ".join(str(exc).split())[:200] or type(exc).__name__
