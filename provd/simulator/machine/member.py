"""A member of the cluster that has always been there: its API and its sshd, and its power switch.

It boots no network and is never installed; a member that shall be is a `Machine`, see `veteran`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio
from attrs import define, field

from provd.simulator.cluster.api import serve_api
from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.keys import first_boot_updatecerts
from provd.simulator.cluster.locked import exclusive
from provd.simulator.cluster.machine import Machine
from provd.simulator.machine import sshd
from provd.simulator.machine.installed_system import InstalledSystem
from provd.simulator.machine.programs import install_programs
from provd.simulator.machine.root_directory import write_file


def _say_nothing(line: str) -> None:
    pass


@define(kw_only=True, eq=False)
class Member:
    """The member `name` of `cluster`, made by `add_member`; SSH answers at its address and `ssh_port`."""

    cluster: Cluster
    name: str
    ssh_port: int
    say: Callable[[str], None] = _say_nothing

    sshd_pid: int | None = field(init=False, default=None)
    _power: trio.CancelScope | None = field(init=False, default=None)
    _off: trio.Event = field(init=False, factory=trio.Event)

    @property
    def root(self) -> Path:
        """What plays `/` of it."""
        return self.cluster.directory / "members" / self.name

    @property
    def ip(self) -> str:
        return Machine(self.root).read().ip

    @property
    def is_on(self) -> bool:
        return self._power is not None

    async def run_until_off(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Switch it on and live until it is off; started once SSH and API answer. `reboot` boots it again."""
        if self._power is not None:
            raise RuntimeError(f"{self.name} is on already")
        root, ip = self.root, self.ip
        _furnish(root, self.name, ip)
        sshd.end_leftover(root)
        self._off = trio.Event()
        system = InstalledSystem(root=root, ip=ip, ssh_port=self.ssh_port, say=self._say)
        if not self.cluster.read().ssh_port:
            with self.cluster.edit() as state:
                state.ssh_port = self.ssh_port
        started = False

        async def start_up(nursery: trio.Nursery) -> None:
            nonlocal started
            with exclusive(self.cluster.document):
                if (root / "etc/pve/local").is_symlink():
                    first_boot_updatecerts(root)
            await nursery.start(partial(serve_api, self.cluster, self.name, root=root))
            if not started:
                started = True
                task_status.started()

        def ssh_answers(pid: int) -> None:
            self.sshd_pid = pid

        with trio.CancelScope() as self._power:
            try:
                while await system.live(start_up, ssh_answers=ssh_answers) == "reboot":
                    self._say("reboots")
            finally:
                self._power = self.sshd_pid = None
                self._off.set()
                self._say("is off")

    async def power_off(self) -> None:
        """Pull the plug; returns when nothing of it runs any more."""
        if self._power is not None:
            self._power.cancel(reason="power off")
            await self._off.wait()

    def _say(self, line: str) -> None:
        self.say(f"{self.name}  {line}")


def _furnish(root: Path, name: str, ip: str) -> None:
    """The files and programs of an installed system that the cluster itself does not look at."""
    for directory in ("run", "tmp", "usr/local/sbin", "var/log"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    write_file(root / "etc/hostname", f"{name}\n")
    if not (root / "etc/hosts").exists():
        write_file(root / "etc/hosts", f"127.0.0.1 localhost\n{ip} {name}.home.arpa {name}\n")
    install_programs(root)
