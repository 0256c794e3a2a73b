"""A homelab for one test: the real daemon as a process of its own, and simulated machines around it.

Between the machines and the daemon stands a doorway that keeps a request waiting while the daemon is
away, as a listening socket held by systemd does. Without it every test that restarts the daemon would
be a race between the machine's next request and the new process.
"""

import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import httpx
import trio
import yaml
from attrs import define, field

from provd.simulator.cluster.cluster import Cluster
from provd.simulator.lab import CLUSTER_PASSWORD, Lab, free_port, member_ip, prepare, serve_files
from provd.simulator.machine.machine import Machine, Phase
from provd.simulator.machine.member import Member
from provd.simulator.machine.veteran import make_veteran

TOKEN = "provd_" + "t" * 43
PATIENCE = 45.0
"""Seconds that nothing in these tests may take; reached only when something is broken."""

Json = dict[str, Any]


@define(eq=False)
class Doorway:
    """Forwards connections to the daemon; while it is closed, they wait in front of it."""

    daemon_port: int
    open: trio.Event = field(factory=trio.Event)
    guard: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    """Awaited by each connection before it comes to the door."""
    inside: int = 0
    """How many connections are on their way."""

    async def close(self) -> None:
        """From here on they wait; returns when those on their way have their answers."""
        if self.open.is_set():
            self.open = trio.Event()
        with trio.fail_after(PATIENCE):
            while self.inside:
                await trio.sleep(0.01)

    async def serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._receive, 0)
            task_status.started(listeners[0].socket.getsockname()[1])

    async def _receive(self, machine: trio.SocketStream) -> None:
        async with machine:
            await self.guard()
            while not self.open.is_set():
                await self.open.wait()
            self.inside += 1
            try:
                await self._forward(machine)
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self.inside -= 1

    async def _forward(self, machine: trio.SocketStream) -> None:
        async with (
            await trio.open_tcp_stream("127.0.0.1", self.daemon_port) as daemon,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_pump, machine, daemon)
            await _pump(daemon, machine)
            nursery.cancel_scope.cancel()


async def _pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    async for chunk in source:
        await sink.send_all(chunk)
    await sink.send_eof()


@define(eq=False)
class World:
    lab: Lab
    cluster: Cluster
    doorway: Doorway
    client: httpx.AsyncClient
    nursery: trio.Nursery
    log: Path
    daemon: trio.Process | None = None
    machines: list[Machine] = field(factory=list)
    begun: int = 0
    """Where in the cluster's history the test itself begins."""
    members: dict[str, Member] = field(factory=dict)
    """Those that are no machines: `pve1`, and what `more_members` brought."""

    # --- the daemon ---

    async def start(self, **environ: str) -> None:
        """Start the daemon and wait until it answers."""
        with self.log.open("ab") as log:
            self.daemon = await trio.lowlevel.open_process(
                [
                    sys.executable,
                    "-W",
                    "error",
                    "-m",
                    "provd",
                    "serve",
                    "--config",
                    str(self.lab.configuration),
                ],
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PROVD_API_TOKEN": TOKEN, **environ},
            )
        with trio.fail_after(PATIENCE):
            while True:
                with suppress(httpx.HTTPError):
                    if (await self.client.get("/healthz")).status_code == 200:
                        break
                assert self.daemon.poll() is None, self.log.read_text()
                await trio.sleep(0.05)
        self.doorway.open.set()

    async def kill(self) -> None:
        """kill -9: no time to write anything down."""
        await self.doorway.close()
        assert self.daemon is not None
        self.daemon.kill()
        await self.daemon.wait()

    async def stop(self) -> float:
        """SIGTERM; returns how many seconds it took."""
        await self.doorway.close()
        assert self.daemon is not None
        before = trio.current_time()
        self.daemon.send_signal(signal.SIGTERM)
        with trio.fail_after(PATIENCE):
            await self.daemon.wait()
        assert self.daemon.returncode == 0, self.log.read_text()
        return trio.current_time() - before

    async def restart_killed(self) -> None:
        await self.kill()
        await self.start()

    def configure(self, change: Callable[[Json], None]) -> None:
        """Edit provisioning.yaml before the daemon starts."""
        document = yaml.safe_load(self.lab.configuration.read_text())
        change(document)
        self.lab.configuration.write_text(yaml.safe_dump(document))

    # --- the operator ---

    async def call(self, method: str, path: str, body: object = None, *, expect: int = 200) -> Json:
        response = await self.client.request(method, path, json=body)
        assert response.status_code == expect, f"{method} {path}: {response.status_code} {response.text}"
        answer: Json = response.json() if response.content else {}
        return answer

    async def register(self, machine: Machine, **more: object) -> Json:
        body = {"mac": machine.mac, "server_type": "nuc", **more}
        return await self.call("POST", "/api/hosts", body, expect=201)

    async def rebuild(self, host: Json, **body: object) -> Json:
        return await self.call("POST", f"/api/hosts/{host['id']}/rebuild", body or None, expect=202)

    async def host(self, host: Json) -> Json:
        return await self.call("GET", f"/api/hosts/{host['id']}")

    async def operation(self, operation: Json) -> Json:
        return await self.call("GET", f"/api/operations/{operation['id']}")

    async def until(self, host: Json, *states: str) -> Json:
        """The host as it is when it first is seen in one of `states`."""
        with trio.fail_after(PATIENCE):
            while True:
                now = await self.host(host)
                if now["state"] in states:
                    return now
                await trio.sleep(0.02)

    async def until_over(self, operation: Json) -> Json:
        with trio.fail_after(PATIENCE):
            while True:
                now = await self.operation(operation)
                if not now["active"]:
                    return now
                await trio.sleep(0.05)

    async def story(self, operation: Json) -> list[str]:
        """The operation's activity, oldest first, as its sentences."""
        lines = await self.call("GET", f"/api/activity?operation_id={operation['id']}&limit=1000")
        return [line["message"] for line in reversed(lines["activity"])]

    async def heard(self, operation: Json, words: str) -> None:
        """Until the operation's activity holds `words`."""
        with trio.fail_after(PATIENCE):
            while words not in " ".join(await self.story(operation)):
                await trio.sleep(0.05)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the daemon's database file says, read beside the running daemon."""
        with closing(sqlite3.connect(self.lab.directory / "state" / "provd.db")) as db:
            return db.execute(query).fetchall()

    @property
    def password(self) -> str:
        """Of root on the cluster's first member."""
        return CLUSTER_PASSWORD

    # --- the machines ---

    def machine(self, number: int = 1, **more: Any) -> Machine:
        machine = Machine(
            mac=f"02:00:00:00:01:{number:02x}",
            ip=f"127.77.1.{number}",
            ssh_port=self.lab.ports.ssh,
            directory=self.lab.directory / "machines" / str(number),
            public_url=self.public_url,
            cluster_dir=self.lab.cluster_dir,
            on_event=print,  # pytest shows it when the test fails
            **more,
        )
        self.machines.append(machine)
        return machine

    @property
    def public_url(self) -> str:
        document: Mapping[str, Any] = yaml.safe_load(self.lab.configuration.read_text())
        return str(document["server"]["public_url"])

    def member_machine(self, number: int, hostname: str | None = None, **more: Any) -> Machine:
        """A machine, still off, that is a member of the cluster from the start: `pve<number>` if not said.

        Nobody told the daemon about it: see `register_member`.
        """
        machine = self.machine(number, **more)
        make_veteran(machine, hostname or f"pve{number}", root_password=CLUSTER_PASSWORD)
        return machine

    def hostname(self, machine: Machine) -> str:
        """Of the system on its disk."""
        return (machine.root / "etc/hostname").read_text().strip()

    async def register_member(self, machine: Machine, **more: object) -> Json:
        return await self.register(machine, hostname=self.hostname(machine), **more)

    def power_on(self, machine: Machine) -> None:
        self.nursery.start_soon(machine.run_until_off)

    async def power_on_member(self, machine: Machine) -> None:
        """Returns when its old system runs, which needs a daemon that says so at its network boot."""
        self.power_on(machine)
        with trio.fail_after(PATIENCE):
            await machine.wait_phase(Phase.IDLE)

    async def power_off(self, machine: Machine) -> None:
        """Returns when nothing of it runs any more."""
        machine.power_off()
        with trio.fail_after(PATIENCE):
            await machine.wait_phase(Phase.OFF)

    # --- the members that are no machines ---

    async def more_members(self, count: int) -> None:
        """`pve2` and so on, until the cluster has `count` such members; all answer by API and SSH."""
        for number in range(1, count + 1):
            name = f"pve{number}"
            if name not in self.members:
                if name not in self.cluster.read().nodes:
                    self.cluster.add_member(name, member_ip(number), root_password=CLUSTER_PASSWORD)
                await self.member_up(name)

    async def member_up(self, name: str) -> None:
        """Returns when its API and its sshd answer. It stays offline if it missed a change of members."""
        member = self.members.setdefault(
            name, Member(cluster=self.cluster, name=name, ssh_port=self.lab.ports.ssh, say=print)
        )
        with trio.fail_after(PATIENCE):
            await self.nursery.start(member.run_until_off)

    async def member_down(self, name: str) -> None:
        await self.members[name].power_off()

    def member_states(self) -> dict[str, bool]:
        """Which nodes the cluster lists, and whether each is online."""
        return {name: node.online for name, node in self.cluster.read().nodes.items()}

    async def whole_rebuild(self, machine: Machine) -> tuple[Json, Json]:
        """Register and rebuild `machine`; the host and its operation when that is over."""
        host = await self.register(machine)
        operation = await self.rebuild(host)
        self.power_on(machine)
        over = await self.until_over(operation)
        return await self.host(host), over


@asynccontextmanager
async def open_world(directory: Path, *, members: int = 1, trusted: bool = False) -> AsyncIterator[World]:
    """Cluster, files and doorway are up; the test configures and starts the daemon itself.

    `trusted`: the daemon has an API token and an SSH key for the cluster, beside the password.
    """
    doorway = Doorway(daemon_port=free_port())
    lab = prepare(directory, port=doorway.daemon_port, members=members, seats=(), trusted=trusted)
    cluster = Cluster.open(lab.cluster_dir)
    client = httpx.AsyncClient(
        base_url=lab.public_url,
        headers={"Authorization": f"Bearer {TOKEN}"},
        trust_env=False,
        timeout=PATIENCE,
    )
    async with client, trio.open_nursery() as nursery:
        await nursery.start(serve_files, lab.directory / "files", lab.ports.files)
        port = await nursery.start(doorway.serve)
        world = World(lab, cluster, doorway, client, nursery, directory / "provd.log")

        def through_the_doorway(document: Json) -> None:
            document["server"]["public_url"] = f"http://127.0.0.1:{port}"

        world.configure(through_the_doorway)
        await world.more_members(members)
        try:
            yield world
        finally:
            for machine in world.machines:
                machine.power_off()
            if world.daemon is not None and world.daemon.poll() is None:
                world.daemon.kill()
                with trio.move_on_after(5, shield=True):
                    await world.daemon.wait()
            print(world.log.read_text() if world.log.exists() else "the daemon was not started")
            nursery.cancel_scope.cancel()
