"""SSH against a real sshd on the loopback: what works, what is refused, and that every way out is clean."""

import getpass
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from provd.domain.errors import HostKeyMismatch, SshFailed
from provd.remote import ssh
from provd.remote.keys import KeyPair
from provd.remote.ssh import AuthRefused, Completed, Session, connect, learn_host_key
from provd.simulator.lab import free_port

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
STRANGER = KeyPair.generate("somebody else").public_line


@frozen
class Sshd:
    """A running OpenSSH server that takes `key` for the user who runs the tests."""

    port: int
    key: KeyPair
    host_keys: tuple[str, ...]
    """One ed25519 and one RSA key."""
    log: Path

    def connect(
        self, key: KeyPair | None = None, host_keys: tuple[str, ...] | None = None
    ) -> AbstractAsyncContextManager[Session]:
        return connect(
            "127.0.0.1", self.port, getpass.getuser(), key or self.key, host_keys or self.host_keys
        )

    async def logged(self, pattern: str, offset: int) -> str:
        """The log from `offset` on, as soon as it matches."""
        await eventually(lambda: re.search(pattern, self.log.read_text()[offset:]))
        return self.log.read_text()[offset:]


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what another program does."""
    with trio.fail_after(10):
        while True:  # another process cannot set our events
            if condition():
                return
            await trio.sleep(0.01)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    assert SSHD, "these tests need OpenSSH's sshd"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    home = tmp_path_factory.mktemp("sshd")
    key = KeyPair.generate("provd operation 17")
    (home / "authorized_keys").write_text(key.public_line + "\n")
    host_keys = []
    for kind in ("ed25519", "rsa"):
        path = home / f"host_{kind}"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a host", "-f", path], check=True)
        host_keys.append(path.with_suffix(".pub").read_text())
    port = free_port()
    (home / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {home}/host_ed25519\nHostKey {home}/host_rsa\n"
        f"AuthorizedKeysFile {home}/authorized_keys\nStrictModes no\nPermitRootLogin yes\nUsePAM no\n"
        f"PasswordAuthentication no\nPidFile none\nLogLevel VERBOSE\n"
    )
    log = home / "log"
    daemon = subprocess.Popen([SSHD, "-D", "-E", log, "-f", home / "config"], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not log.exists() or "Server listening" not in log.read_text():
            assert daemon.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield Sshd(port, key, tuple(host_keys), log)
    finally:
        daemon.kill()
        daemon.wait()


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Every test ends with no thread but the idle ones that Trio keeps."""
    yield
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and "Trio thread" not in thread.name:
            thread.join(1)  # it was told to end, and may be on its way out
            assert not thread.is_alive(), thread


@pytest.fixture(autouse=True)
async def no_place_taken() -> AsyncIterator[None]:
    """Nor any place in the limiter: who was left behind gives it back, but only while Trio runs."""
    yield
    with trio.fail_after(5):
        while ssh.WORKERS.borrowed_tokens:
            await trio.sleep(0.01)


@asynccontextmanager
async def peer(*sends: bytes) -> AsyncIterator[tuple[int, trio.Event]]:
    """A server that sends something and then falls silent. Gives its port, and an event for "all is sent"."""
    sent = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        for data in sends:
            await stream.send_all(data)
        sent.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1], sent
        nursery.cancel_scope.cancel()


# --- commands --------------------------------------------------------------------------------------


async def test_output_and_status_come_back_apart(sshd: Sshd) -> None:
    """stdout, stderr and the exit status of one command are told apart."""
    async with sshd.connect() as session:
        done = await session.run("printf out; printf err >&2; exit 7")
    assert done == Completed(7, "out", "err")


async def test_one_session_runs_many_commands(sshd: Sshd) -> None:
    """Commands can follow each other, and run at the same time, over one connection."""
    answers: list[str] = []
    async with sshd.connect() as session:

        async def ask(word: str) -> None:
            answers.append((await session.run(f"echo {word}")).stdout)

        await ask("one")
        async with trio.open_nursery() as nursery:
            for word in ("two", "three", "four"):
                nursery.start_soon(ask, word)
    assert sorted(answers) == ["four\n", "one\n", "three\n", "two\n"]


@pytest.mark.parametrize("size", [0, 1, 700_000])
async def test_stdin_is_written_whole_and_ended(sshd: Sshd, size: int) -> None:
    """A command that reads to the end of its input gets all of it, and sees the end."""
    content = (b"0123456789abcde\n" * (size // 16 + 1))[:size]
    async with sshd.connect() as session:
        done = await session.run("cat", content)
    assert done == Completed(0, content.decode(), "")


async def test_stdin_beyond_every_window_goes_through(sshd: Sshd) -> None:
    """Input larger than the receive window of the host flows as the command reads."""
    async with sshd.connect() as session:
        done = await session.run("wc -c", bytes(5_000_000))
    assert done.stdout.strip() == "5000000"


async def test_a_command_need_not_read_its_stdin(sshd: Sshd) -> None:
    """A command that ends at once, whatever is still to be written, has just ended."""
    async with sshd.connect() as session:
        assert await session.run("exit 3", bytes(5_000_000)) == Completed(3, "", "")
        assert (await session.run("echo still here")).stdout == "still here\n"


async def test_many_lines(sshd: Sshd) -> None:
    """200 000 lines on stdout, and as many on stderr, arrive complete and in order."""
    async with sshd.connect() as session:
        done = await session.run("yes a | head -n 200000; yes b | head -n 200000 >&2")
    assert done == Completed(0, "a\n" * 200_000, "b\n" * 200_000)


async def test_endless_output_is_cut_off(sshd: Sshd) -> None:
    """A command that floods fails, names no argument, and the session goes on."""
    async with sshd.connect() as session:
        for stream in ("1", "2"):
            with pytest.raises(SshFailed, match="yes printed more than 1 MiB") as caught:
                await session.run(f"yes secret >&{stream}")
            assert "secret" not in str(caught.value)
        assert (await session.run("echo still here")).stdout == "still here\n"


async def test_reading_never_sends(sshd: Sshd) -> None:
    """No window is announced before the limit is passed: the event loop never waits for the peer to read."""
    async with sshd.connect() as session:
        channel = await session.in_thread(lambda: session.start("true", b""))
        assert channel.in_window_threshold > ssh.OUTPUT_LIMIT + ssh.CHUNK
        await session.in_thread(channel.close)


async def test_output_that_is_not_text(sshd: Sshd) -> None:
    """Bytes that are no UTF-8 are replaced, not fatal."""
    async with sshd.connect() as session:
        done = await session.run(r"printf 'a\377b'")
    assert done.stdout == "a\N{REPLACEMENT CHARACTER}b"


async def test_output_that_ends_before_the_command(sshd: Sshd) -> None:
    """The status is waited for when both streams are closed early."""
    async with sshd.connect() as session:
        assert await session.run("exec >&- 2>&-; sleep 0.1; exit 5") == Completed(5, "", "")


async def test_a_command_killed_by_a_signal_has_no_status(sshd: Sshd) -> None:
    """No status means failure, and is not mistaken for a lost connection."""
    async with sshd.connect() as session:
        with pytest.raises(SshFailed, match="kill ended without an exit status"):
            await session.run("kill -9 $$")
        assert (await session.run("echo still here")).exit_status == 0


# --- who is there ----------------------------------------------------------------------------------


async def test_either_pinned_key_is_enough(sshd: Sshd) -> None:
    """A host with several keys is known by any one of them, an RSA key included."""
    for line in sshd.host_keys:
        async with sshd.connect(host_keys=("", line + "\n")) as session:
            assert (await session.run("true")).exit_status == 0
    async with sshd.connect(host_keys=(STRANGER, *sshd.host_keys)) as session:
        assert (await session.run("true")).exit_status == 0


async def test_another_host_is_told_nothing(sshd: Sshd) -> None:
    """With another host key no user and no key is shown; both fingerprints are named."""
    offset = len(sshd.log.read_text())
    with pytest.raises(HostKeyMismatch) as caught:
        async with sshd.connect(host_keys=(STRANGER,)):
            raise AssertionError("not reached")
    for line in (STRANGER, sshd.host_keys[0]):
        shown = await trio.run_process(
            ["ssh-keygen", "-l", "-f", "-"], stdin=line.encode(), capture_stdout=True
        )
        assert shown.stdout.decode().split()[1] in str(caught.value)
    # Once a user was named, sshd writes "by authenticating user root 127.0.0.1".
    log = await sshd.logged(r"Connection (closed|reset) by .*127\.0\.0\.1 port \d+ \[preauth\]", offset)
    assert "authenticating user" not in log
    assert "publickey" not in log


async def test_a_host_without_a_pinned_type_is_another_host(sshd: Sshd, tmp_path: Path) -> None:
    """Only pinned key types are offered, so that a host cannot present a key nobody can compare."""
    path = tmp_path / "ecdsa"
    await trio.run_process(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(path)])
    with pytest.raises(HostKeyMismatch, match="none of its pinned host keys"):
        async with sshd.connect(host_keys=(path.with_suffix(".pub").read_text(),)):
            raise AssertionError("not reached")


@pytest.mark.parametrize("lines", [("",), ("ssh-dss AAAA",), ("ssh-ed25519",), ("ssh-ed25519 ?",)])
async def test_unusable_pins_pin_nothing(sshd: Sshd, lines: tuple[str, ...]) -> None:
    """Without a host key to compare with, no connection is made."""
    with pytest.raises(SshFailed):
        async with sshd.connect(host_keys=lines):
            raise AssertionError("not reached")


async def test_a_refused_key_is_said_to_be_refused(sshd: Sshd) -> None:
    """The right host that does not know the key: proof that the key is gone there."""
    offset = len(sshd.log.read_text())
    with pytest.raises(AuthRefused, match="does not accept the key 'unknown'"):
        async with sshd.connect(key=KeyPair.generate("unknown")):
            raise AssertionError("not reached")
    # So does sshd, in the words whose absence proves something above.
    assert "authenticating user" in await sshd.logged(r"\[preauth\]", offset)


# --- losing it -------------------------------------------------------------------------------------


async def test_connection_refused() -> None:
    """Nobody listening is one short sentence."""
    with pytest.raises(SshFailed, match=r"^SSH to root@127\.0\.0\.1:\d+: Connection refused$"):
        async with connect("127.0.0.1", free_port(), "root", KeyPair.generate("x"), [STRANGER]):
            raise AssertionError("not reached")


async def test_cancelling_a_command_keeps_the_session(sshd: Sshd, tmp_path: Path) -> None:
    """A command can be given up at once; the next one runs over the same connection."""
    async with sshd.connect() as session:
        marker = tmp_path / "started"
        with trio.fail_after(10), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run, f"touch {marker}; exec sleep 60")
                await eventually(marker.exists)
                before = trio.current_time()
                scope.cancel()
        assert scope.cancelled_caught
        assert trio.current_time() - before < 1
        assert (await session.run("echo still here")).stdout == "still here\n"


async def test_cancelling_stdin_that_nobody_reads(sshd: Sshd, tmp_path: Path) -> None:
    """A command stuck with its input can be given up too; that costs the connection, as later runs say."""
    async with sshd.connect() as session:
        marker = tmp_path / "started"
        with trio.fail_after(10), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run, f"touch {marker}; exec sleep 60", bytes(5_000_000))
                await eventually(marker.exists)
                scope.cancel()
        with pytest.raises(SshFailed, match="connection lost while running echo"):
            await session.run("echo secret")


@pytest.mark.parametrize("sends", [(), (b"SSH-2.0-OpenSSH_9.2\r\n",)], ids=["no banner", "no key exchange"])
async def test_cancelling_a_silent_peer(sends: tuple[bytes, ...]) -> None:
    """A peer that accepts and then says nothing (more) is left at once, bare, and without a thread."""
    async with peer(*sends) as (port, sent):
        with trio.fail_after(5), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def wait() -> None:
                    async with connect("127.0.0.1", port, "root", KeyPair.generate("x"), [STRANGER]):
                        raise AssertionError("not reached")

                await sent.wait()
                before = trio.current_time()
                scope.cancel()
        assert scope.cancelled_caught
        assert trio.current_time() - before < 1


async def test_a_connection_that_dies_under_a_command(sshd: Sshd) -> None:
    """When the host's end is killed the command fails at once, and so does every later one."""
    async with sshd.connect() as session:
        with trio.fail_after(5), pytest.raises(SshFailed, match=r"connection lost while running kill$"):
            await session.run("kill -9 $PPID; sleep 60")
        with pytest.raises(SshFailed, match="connection lost while running echo"):
            await session.run("echo secret")


async def test_a_frozen_host_is_left_at_the_deadline(sshd: Sshd) -> None:
    """A host that stops in the middle costs the caller's deadline and no thread."""
    async with sshd.connect() as session:
        process = int((await session.run("echo $PPID")).stdout)
        os.kill(process, signal.SIGSTOP)
        try:
            with trio.move_on_after(0.3) as scope:
                await session.run("true")
            assert scope.cancelled_caught
        finally:
            os.kill(process, signal.SIGKILL)


async def test_an_error_inside_the_block_comes_out_bare(sshd: Sshd) -> None:
    """The caller's own exception passes through unchanged, and the connection is closed behind it."""
    offset = len(sshd.log.read_text())
    with pytest.raises(ZeroDivisionError):
        async with sshd.connect():
            raise ZeroDivisionError
    await sshd.logged(r"Connection (closed|reset) by|Disconnected from", offset)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.booleans())
async def test_nonsense_is_a_failed_connection(data: bytes, after_banner: bool) -> None:
    """Whatever a peer says instead of SSH, the outcome is `SshFailed` and nothing else."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"SSH-2.0-x\r\n" * after_banner + data)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(5), pytest.raises(SshFailed):
            async with connect("127.0.0.1", port, "root", KeyPair.generate("x"), [STRANGER]):
                raise AssertionError("not reached")
        nursery.cancel_scope.cancel()


# --- a first contact ------------------------------------------------------------------------------


async def test_a_host_key_is_learnt(sshd: Sshd) -> None:
    """One that the host has and can be known by from then on; neither a user nor a key is shown to it."""
    offset = len(sshd.log.read_text())
    key = await learn_host_key("127.0.0.1", sshd.port)
    log = await sshd.logged(r"Connection (closed|reset) by .*127\.0\.0\.1 port \d+ \[preauth\]", offset)
    assert "authenticating user" not in log
    assert key.line in {line.rsplit(" ", 2)[0] for line in sshd.host_keys}
    async with sshd.connect(host_keys=(key.line,)) as session:
        assert (await session.run("true")).exit_status == 0


async def test_a_learnt_key_is_shown_as_openssh_does(sshd: Sshd) -> None:
    """Its fingerprint is the one that `ssh-keygen -l` prints, to be compared by a human."""
    key = await learn_host_key("127.0.0.1", sshd.port)
    shown = await trio.run_process(
        ["ssh-keygen", "-l", "-f", "-"], stdin=key.line.encode(), capture_stdout=True
    )
    assert shown.stdout.decode().split()[1] == key.fingerprint


async def test_nobody_to_learn_from() -> None:
    """Nobody listens, or it is no SSH: one short sentence, with the address as one types it."""
    with pytest.raises(SshFailed, match=r"^SSH to 127\.0\.0\.1:\d+: Connection refused$"):
        await learn_host_key("127.0.0.1", free_port())

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, hang_up, 0)
        with trio.fail_after(5), pytest.raises(SshFailed, match=r"^SSH to 127\.0\.0\.1:\d+: "):
            await learn_host_key("127.0.0.1", listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sends", [(), (b"SSH-2.0-OpenSSH_9.2\r\n",)], ids=["no banner", "no key exchange"])
async def test_a_first_contact_can_be_given_up(sends: tuple[bytes, ...]) -> None:
    """At once, and without a thread left behind."""
    async with peer(*sends) as (port, sent):
        with trio.fail_after(5), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(learn_host_key, "127.0.0.1", port)
                await sent.wait()
                before = trio.current_time()
                scope.cancel()
        assert scope.cancelled_caught
        assert trio.current_time() - before < 1
