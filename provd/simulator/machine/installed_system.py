"""An installed system that runs: sshd, Proxmox' own first steps, and the first-boot script, for real.

The order is that of the original's units: sshd answers first, then pveproxy's `pvecm updatecerts`
turns root's authorized_keys into a link, and only then comes a `fully-up` script.
"""

import os
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio
from attrs import frozen

from provd.simulator.cluster import services
from provd.simulator.cluster.machine import Machine as PveRoot
from provd.simulator.cluster.machine import stop_pvecm
from provd.simulator.machine import paramiko_server, sshd
from provd.simulator.machine.processes import kill_process_tree
from provd.simulator.machine.programs import POWER
from provd.simulator.machine.root_directory import FIRST_BOOT, FLAG


@frozen(kw_only=True)
class InstalledSystem:
    """`root` plays `/`. `say` prints on the console."""

    root: Path
    ip: str
    ssh_port: int
    say: Callable[[str], None]

    @property
    def environment(self) -> dict[str, str]:
        """What a process on this machine finds, whoever starts it."""
        own = [str(self.root / "usr/local" / directory) for directory in ("sbin", "bin")]
        path = [*own, "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        return {"PROVD_ROOT": str(self.root), "HOME": str(self.root / "root"), "PATH": os.pathsep.join(path)}

    async def live(
        self,
        start_up: Callable[[trio.Nursery], Awaitable[None]],
        *,
        ssh_answers: Callable[[int], None],
    ) -> str:
        """Run it until somebody on it says `reboot` or `poweroff`, which is returned. Cancelled: no power.

        `ssh_answers` is called with sshd's pid once it listens, and then `start_up` in a nursery for all that
        lasts as long as the system.
        """
        machine = PveRoot(self.root)
        services.boot(machine)
        try:
            async with self.open_power() as power, trio.open_nursery() as nursery:
                ssh_answers(await nursery.start(self.serve_ssh))
                nursery.start_soon(start_up, nursery)
                word = (await power.receive_some(64)).decode().split()[0]
                self.say(f"was told to {word}")
                nursery.cancel_scope.cancel(reason=word)
        finally:
            stop_pvecm(self.root)
            services.halt(machine)
        return word

    async def serve_ssh(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Run an SSH server until cancelled; started with its pid, 0 for one within this process."""
        serve = sshd.serve
        if sshd.find_sshd() is None:
            self.say(sshd.HOW_TO_GET_IT)
            serve = paramiko_server.serve
        await serve(
            self.root, ip=self.ip, port=self.ssh_port, environment=self.environment, task_status=task_status
        )

    async def start_up(
        self,
        *,
        before_pveproxy: Callable[[], Awaitable[None]],
        start_pveproxy: Callable[[], Awaitable[None]],
        fail_once: bool,
        run_twice: bool,
    ) -> bool:
        """All that happens by itself after the kernel; False if the first-boot script is still to be done."""
        script = partial(self._first_boot, fail_once=fail_once, run_twice=run_twice)
        ordering_file = self.root / FIRST_BOOT / "ordering"
        early = ordering_file.exists() and ordering_file.read_text() != "multi-user"
        done = await script() if early else True
        await before_pveproxy()
        await self.run(["pvecm", "updatecerts", "--silent"])
        await start_pveproxy()
        return done if early else await script()

    def open_power(self) -> trio.lowlevel.FdStream:
        """Where `reboot` or `poweroff` on the machine can be heard; to be opened before anybody logs in."""
        fifo = self.root / POWER
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo)
        # Open for writing too, so that it never comes to its end and no writer ever waits for a reader.
        return trio.lowlevel.FdStream(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))

    async def run(self, command: list[str]) -> int:
        """Run a program of the machine; its output goes to ROOT/var/log/console.log."""
        return await self._run(command, self.root / "var/log/console.log")

    async def _first_boot(self, *, fail_once: bool, run_twice: bool) -> bool:
        """Run the script if its flag is there; the flag goes only after an exit with 0, as in systemd."""
        flag = self.root / FLAG
        if not flag.exists():
            return True
        argument = (self.root / FIRST_BOOT / "ordering").read_text()
        script = [str(self.root / FIRST_BOOT / "proxmox-first-boot"), argument]
        if fail_once:
            script = ["/bin/sh", "-c", "echo 'proxmox-first-boot: failed' >&2; exit 1"]
        log = self.root / "var/log/proxmox-first-boot.log"
        for _ in range(2 if run_twice else 1):
            self.say(f"runs the first-boot script ({argument})")
            status = await self._run(script, log)
            if status != 0:
                self.say(
                    f"the first-boot script ended with {status}, it runs again at the next boot; see {log}"
                )
                return False
        flag.unlink(missing_ok=True)
        self.say("the first-boot script is done")
        return True

    async def _run(self, command: list[str], log: Path) -> int:
        """Killed with all its children when cancelled. A file that cannot be executed ends with 203."""
        environment: Mapping[str, str] = {"LANG": "C.UTF-8"} | self.environment
        with log.open("ab") as output, suppress(OSError):
            completed = await trio.run_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                cwd="/",
                env=environment,
                deliver_cancel=kill_process_tree,
            )
            return completed.returncode
        return 203
