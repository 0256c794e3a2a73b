"""A stand-in for sshd on computers that have none: publickey login and `exec`, the way OpenSSH does it.

Threads, because paramiko's server is made of them; they end with their sockets. Everything else
(PTYs, forwarding, SFTP, passwords) is refused.
"""

import os
import pwd
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import paramiko
import trio
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)

from provd.simulator.machine.processes import kill_tree

_CHUNK = 32768


class _Session(paramiko.ServerInterface):
    """One connection: who may log in, and what may be asked for."""

    def __init__(self, root: Path, environment: Mapping[str, str], running: set[int]) -> None:
        self.root = root
        self.environment = environment
        self.running = running

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        allowed = (word for line in self._authorized_lines() for word in line.split())
        return AUTH_SUCCESSFUL if key.get_base64() in allowed else AUTH_FAILED

    def _authorized_lines(self) -> list[str]:
        """Read for every login: a dangling link means that nobody gets in, as with sshd."""
        lines: list[str] = []
        for name in ("authorized_keys", "authorized_keys2"):
            with suppress(OSError):
                lines += (self.root / "root/.ssh" / name).read_text().splitlines()
        return [line for line in lines if not line.startswith("#")]

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind == "session":
            return OPEN_SUCCEEDED
        return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._execute, args=(channel, command), daemon=True).start()
        return True

    def _execute(self, channel: paramiko.Channel, command: bytes) -> None:
        user = pwd.getpwuid(os.geteuid())
        process = subprocess.Popen(
            [user.pw_shell or "/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={"USER": user.pw_name, "LOGNAME": user.pw_name} | dict(self.environment),
        )
        self.running.add(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        pumps = [
            threading.Thread(target=_pump, args=(process.stdout.read, channel.sendall), daemon=True),
            threading.Thread(target=_pump, args=(process.stderr.read, channel.sendall_stderr), daemon=True),
        ]
        feeder = threading.Thread(target=_feed, args=(channel, process.stdin), daemon=True)
        for thread in (*pumps, feeder):
            thread.start()
        for thread in pumps:
            thread.join()
        status = process.wait()
        self.running.discard(process.pid)
        process.stdout.close()
        process.stderr.close()
        with suppress(OSError, paramiko.SSHException):
            channel.send_exit_status(status if status >= 0 else 128 - status)
            channel.close()
        feeder.join()


def _pump(read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
    """Copy until the end, or until nobody listens any more."""
    with suppress(OSError, paramiko.SSHException):
        while chunk := read(_CHUNK):
            write(chunk)


def _feed(channel: paramiko.Channel, stdin: IO[bytes]) -> None:
    _pump(channel.recv, stdin.write)
    with suppress(OSError):
        stdin.close()


async def serve(
    root: Path,
    *,
    ip: str,
    port: int,
    environment: Mapping[str, str],
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, as `sshd.serve` does; started with 0, for there is no process of its own."""
    names = ("ssh_host_ed25519_key", "ssh_host_ecdsa_key", "ssh_host_rsa_key")
    keys = [paramiko.PKey.from_path(root / "etc/ssh" / name) for name in names]
    transports: list[paramiko.Transport] = []
    running: set[int] = set()
    with trio.socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await listener.bind((ip, port))
        listener.listen()
        task_status.started(0)
        try:
            while True:
                connection, _ = await listener.accept()
                plain = socket.socket(fileno=connection.detach())
                plain.setblocking(True)
                transport = paramiko.Transport(plain)
                for key in keys:
                    transport.add_server_key(key)
                transports.append(transport)
                # The event keeps start_server from waiting for the handshake here.
                transport.start_server(event=threading.Event(), server=_Session(root, environment, running))
        finally:
            for transport in transports:
                transport.close()
            for pid in list(running):
                kill_tree(pid)
