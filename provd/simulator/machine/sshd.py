"""The real OpenSSH server of a simulated machine: its own configuration, keys, address and environment.

A command that comes in runs as the user who runs the simulator, with the machine's programs first in
PATH and PROVD_ROOT pointing at what plays `/`. Nothing is confined: it is a simulation, not a jail.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import trio

from provd.simulator.machine.processes import kill_process_tree, kill_tree

HOW_TO_GET_IT = (
    "OpenSSH's sshd is not installed, a stand-in written with paramiko takes its place;"
    " for the real one: apt install openssh-server (its service may stay disabled)"
)


class SshdFailed(Exception):
    """sshd did not start, or ended by itself; the text has what it said."""


def find_sshd() -> str | None:
    """sshd insists on an absolute path, and lives where a user's PATH does not look."""
    return shutil.which(
        "sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )


async def serve(
    root: Path,
    *,
    ip: str,
    port: int,
    environment: Mapping[str, str],
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run sshd until cancelled; started with its pid once it listens. Cancelling kills open sessions too.

    Raises `SshdFailed`.
    """
    program = find_sshd()
    if program is None:
        raise SshdFailed(HOW_TO_GET_IT)
    configuration = _prepare(root, ip, port, environment)
    said = b""
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                [program, "-D", "-e", "-f", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
                deliver_cancel=kill_process_tree,
            )
        )
        assert process.stderr is not None
        listening = False
        with (root / "var/log/sshd.log").open("ab", buffering=0) as log:
            async for chunk in process.stderr:
                log.write(chunk)
                said = (said + chunk)[-4096:]
                if not listening and b"Server listening on " in said:
                    listening = True
                    task_status.started(process.pid)
        raise SshdFailed(f"sshd on {ip} port {port} ended: {said.decode(errors='replace').strip()}")


def end_leftover(root: Path) -> None:
    """Kill the sshd of this root that a simulator left behind when it was killed itself.

    The pid counts only if that process still runs with this root's configuration.
    """
    try:
        pid = int((root / ".sshd.pid").read_text())
    except (OSError, ValueError):
        return
    shown = subprocess.run(["ps", "-p", str(pid), "-ww", "-o", "args="], capture_output=True, text=True)
    if f" {root / 'etc/ssh/sshd_config'} " in shown.stdout.replace("\n", " "):
        kill_tree(pid)


def _prepare(root: Path, ip: str, port: int, environment: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # privilege separation insists on it
    file = root / "etc/ssh/sshd_config"
    file.write_text(_configuration(root, ip, port, environment))
    return file


def _configuration(root: Path, ip: str, port: int, environment: Mapping[str, str]) -> str:
    """Where OpenSSH takes a keyword's first value only (SetEnv), all values stand on one line."""
    keys = [root / f"etc/ssh/ssh_host_{kind}_key" for kind in ("ecdsa", "ed25519", "rsa")]
    variables = " ".join(f'"{name}={value}"' for name, value in environment.items())
    return "\n".join(
        [
            f"ListenAddress {ip}:{port}",
            *(f'HostKey "{key}"' for key in keys),
            f'PidFile "{root}/.sshd.pid"',
            f'AuthorizedKeysFile "{root}/root/.ssh/authorized_keys" "{root}/root/.ssh/authorized_keys2"',
            f"SetEnv {variables}",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "StrictModes no",
            "PermitUserRC no",
            "PrintMotd no",
            "LogLevel VERBOSE",
            "",
        ]
    )
