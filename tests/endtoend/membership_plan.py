"""What may happen to a cluster that provd works on, as plans: rebuilds, faults, power cuts; and their player.

A plan is a value, so that it can be shrunk, printed, and pasted back as an example. `Play` is a person in the
room: it does what the plan says, does what provd asks for (a machine is to be switched off, or on), writes
down what it did itself, and mends everything at the end.
"""

import re
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import trio
from attrs import define, field, frozen

from endtoend.world import PATIENCE, Json, World
from provd.simulator.cluster import services
from provd.simulator.cluster.machine import Machine as PveRoot
from provd.simulator.machine.machine import Machine, Phase

GLANCE = 0.1
QUIET = 12.0
"""Seconds without a word after which an operation waits for a human who will not come: it is cancelled."""
SETTLED_WITHIN = 150.0

AT_REST = (Phase.OFF, Phase.IDLE, Phase.INSTALLER_SHELL)

JOIN_FAULTS: dict[str, dict[str, object]] = {
    "none": {},
    "stopped before it is listed": {"drop_after_step": 5},
    "stopped when it is listed": {"drop_after_step": 11},
    "stopped half-way": {"drop_after_step": 13},
    "udp": {"udp_blocked": True},
    "invalid": {"addnode_errors": {"link0": "is wrong"}},
}
HEALTHY: dict[str, object] = {"drop_after_step": None, "udp_blocked": False, "addnode_errors": {}}

# --- plans --------------------------------------------------------------------------------------------


@frozen
class Rebuild:
    """Of a machine, by its number; numbers beyond the last one begin again."""

    machine: int
    keep_entry: bool = False
    force: bool = False


@frozen
class Cancel:
    machine: int


@frozen
class Rejoin:
    machine: int


@frozen
class Decommission:
    machine: int


@frozen
class CutPower:
    machine: int


@frozen
class PowerOn:
    machine: int


@frozen
class Down:
    """A member that is no machine, by its number."""

    member: int


@frozen
class Up:
    member: int


@frozen
class KillDaemon:
    pass


@frozen
class LockBusy:
    on: bool


@frozen
class JoinFault:
    name: str


@frozen
class Listen:
    """Until provd has said so much more, or nothing for a while."""

    sentences: int


Step = (
    Rebuild
    | Cancel
    | Rejoin
    | Decommission
    | CutPower
    | PowerOn
    | Down
    | Up
    | KillDaemon
    | LockBusy
    | JoinFault
    | Listen
)


@frozen
class Plan:
    members: int
    """That are no machines."""
    veterans: int
    """Machines that are members and hosts from the start."""
    newcomers: int
    """Machines that are hosts and no members yet."""
    trusted: bool
    """Whether provd has an SSH key to the cluster."""
    steps: tuple[Step, ...]


# --- playing them -------------------------------------------------------------------------------------


@frozen
class PowerEvent:
    """Somebody other than provd took a node away, at some moment between two."""

    node: str
    begun: float  # Unix time
    over: float


@define(eq=False)
class Play:
    world: World
    plan: Plan
    machines: list[Machine] = field(factory=list)
    hosts: list[Json] = field(factory=list)
    cut: set[str] = field(factory=set)
    """Nodes that the plan has taken away and not given back."""
    events: list[PowerEvent] = field(factory=list)
    accepted: dict[str, int] = field(factory=dict)
    """Rebuilds that were accepted, by the name of the node."""
    obeyed: set[int] = field(factory=set)
    """Operations whose machine was switched off and on because provd waits for its boot."""
    daemon: trio.Lock = field(factory=trio.Lock)
    """Held while the daemon is away."""
    trouble: list[str] = field(factory=list)

    async def run(self) -> None:
        await self._prepare()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey)
            for step in self.plan.steps:
                print(f"--- {step}")
                await self._play(step)
                self.look()
            print("--- mended")
            await self._mend()
            await self._settle()
            nursery.cancel_scope.cancel()
        self.look()

    async def _prepare(self) -> None:
        world, plan = self.world, self.plan
        world.configure(lambda document: document.update(deadlines={"joining": "8s"}))
        await world.start()
        _log_turns(world)
        first = plan.members + 1
        for number in range(first, first + plan.veterans):
            machine = world.member_machine(number)
            self.machines.append(machine)
            self.hosts.append(await world.register_member(machine))
            await world.power_on_member(machine)
        for number in range(first + plan.veterans, first + plan.veterans + plan.newcomers):
            self.machines.append(world.machine(number))
            self.hosts.append(await world.register(self.machines[-1]))
        assert all(world.member_states().values())
        world.begun = len(world.cluster.history()) - 1

    # --- the plan's steps ---

    async def _play(self, step: Step) -> None:
        world = self.world
        match step:
            case Rebuild(machine=number, keep_entry=keep_entry, force=force):
                host = self._host(number)
                name = host["hostname"]
                body = ({"keep_entry": True} if keep_entry else {}) | ({"force": name} if force else {})
                if await self._ask("POST", f"/api/hosts/{host['id']}/rebuild", body or None):
                    self.accepted[name] = self.accepted.get(name, 0) + 1
            case Rejoin(machine=number):
                await self._ask("POST", f"/api/hosts/{self._host(number)['id']}/rejoin")
            case Decommission(machine=number):
                await self._ask("DELETE", f"/api/hosts/{self._host(number)['id']}?cluster=remove")
            case Cancel(machine=number):
                host_id = self._host(number)["id"]
                for (operation,) in world.rows(f"{ACTIVE} AND host_id = {host_id}"):
                    await self._ask("POST", f"/api/operations/{operation}/cancel")
            case CutPower(machine=number):
                await self._cut(self._machine(number), self._host(number)["hostname"])
            case PowerOn(machine=number):
                self.cut.discard(self._host(number)["hostname"])
                await self._switch_on(self._machine(number))
            case Down(member=number):
                name = f"pve{number % self.plan.members + 1}"
                if name not in self.cut:
                    begun = time.time()
                    await world.member_down(name)
                    self.events.append(PowerEvent(name, begun, time.time()))
                    self.cut.add(name)
            case Up(member=number):
                await self._bring_up(f"pve{number % self.plan.members + 1}")
            case KillDaemon():
                async with self.daemon:
                    await world.restart_killed()
            case LockBusy(on=on):
                with world.cluster.edit() as state:
                    state.faults.lock_busy = on
            case JoinFault(name=name):
                with world.cluster.edit() as state:
                    for fault, value in (HEALTHY | JOIN_FAULTS[name]).items():
                        setattr(state.faults, fault, value)
            case Listen(sentences=sentences):
                await self._listen(sentences)

    def _machine(self, number: int) -> Machine:
        return self.machines[number % len(self.machines)]

    def _host(self, number: int) -> Json:
        return self.hosts[number % len(self.hosts)]

    async def _ask(self, method: str, path: str, body: object = None) -> bool:
        """Whether provd does it. A refusal is a legal answer, and must say why."""
        response = await self.world.client.request(method, path, json=body)
        if response.status_code in (200, 202):
            return True
        print(f"    refused: {response.status_code} {response.text}")
        assert response.status_code in (404, 409, 502), response.text
        assert response.json()["detail"], response.text
        return False

    async def _listen(self, sentences: int) -> None:
        goal = self._said() + sentences
        with trio.move_on_after(4):
            while self._said() < goal:
                await trio.sleep(GLANCE / 4)

    def _said(self) -> int:
        return int(self.world.rows("SELECT coalesce(max(id), 0) FROM activity")[0][0])

    # --- power ---

    async def _cut(self, machine: Machine, name: str) -> None:
        begun = time.time()
        machine.power_off()
        with trio.fail_after(PATIENCE):
            await machine.wait_phase(Phase.OFF)
        self.events.append(PowerEvent(name, begun, time.time()))
        self.cut.add(name)

    async def _switch_on(self, machine: Machine) -> None:
        if machine.phase is Phase.OFF:
            self.world.power_on(machine)
            with trio.fail_after(PATIENCE):
                await machine.wait_phase(Phase.FIRMWARE)

    async def _bring_up(self, name: str) -> None:
        if name in self.cut:
            self._repair(name)
            await self.world.member_up(name)
            self.cut.discard(name)

    def _repair(self, name: str) -> None:
        """What missed a change of members gets the others' corosync.conf, as from an operator."""
        node = self.world.cluster.read().nodes.get(name)
        if node is None or node.online or node.root is None:
            return
        root = PveRoot(Path(node.root))
        if root.read().hostname == name and root.path("/etc/corosync/authkey").exists():
            self.world.cluster.repair_configuration(name)
            if root.read().failed_units:
                services.start_corosync(root)

    async def _obey(self) -> None:
        """Do for ever what provd asks for, and look at the cluster meanwhile."""
        while True:
            for machine, host in zip(self.machines, self.hosts, strict=True):
                async with self.daemon:
                    with suppress(httpx.HTTPError):
                        await self._obey_for(machine, host)
            self.look()
            await trio.sleep(GLANCE)

    async def _obey_for(self, machine: Machine, host: Json) -> None:
        name = host["hostname"]
        if name in self.cut:
            return
        active = self.world.rows(
            "SELECT operations.id, hosts.state FROM operations JOIN hosts ON hosts.id = host_id"
            f" WHERE outcome IS NULL AND host_id = {host['id']}"
        )
        for operation, state in active:
            story = " ".join(await self.world.story({"id": operation}))
            if f"please switch {name} off" in story and machine.phase is Phase.IDLE:
                await self.world.power_off(machine)
            if state == "pxe_ready" and machine.phase is Phase.OFF:
                await self._switch_on(machine)
            alone = re.search("cannot be taken out of the cluster while it runs|please power it on", story)
            runs = machine.phase is Phase.IDLE and operation not in self.obeyed
            if state == "pxe_ready" and alone and runs:
                self.obeyed.add(operation)
                await self.world.power_off(machine)
                await self._switch_on(machine)

    # --- the end ---

    async def _mend(self) -> None:
        with self.world.cluster.edit() as state:
            state.faults.lock_busy = False
            for fault, value in HEALTHY.items():
                setattr(state.faults, fault, value)
        for name in sorted(self.cut & set(self.world.members)):
            await self._bring_up(name)
        for machine, host in zip(self.machines, self.hosts, strict=True):
            if host["hostname"] in self.cut:
                self._repair(host["hostname"])
                self.cut.discard(host["hostname"])
                await self._switch_on(machine)

    async def _settle(self) -> None:
        """Until no operation is active: one that says nothing any more is cancelled."""
        heard, since = self._said(), trio.current_time()
        with trio.fail_after(SETTLED_WITHIN):
            while active := self.world.rows(ACTIVE):
                await trio.sleep(GLANCE)
                for name in self.world.cluster.read().nodes:
                    self._repair(name)
                if self._said() != heard:
                    heard, since = self._said(), trio.current_time()
                elif trio.current_time() - since > QUIET:
                    print(f"--- cancelled, since nothing is said any more: {active}")
                    for (operation,) in active:
                        await self._ask("POST", f"/api/operations/{operation}/cancel")
            while any(machine.phase not in AT_REST for machine in self.machines):
                await trio.sleep(GLANCE)
            for name in self.world.cluster.read().nodes:
                self._repair(name)

    # --- what must hold at every moment ---

    def look(self) -> None:
        """Raises `AssertionError` for what must not be, at any time."""
        keys = {line.split()[1] for (line,) in self.world.rows(PUBLIC_KEYS)}
        leaked = [line for line in self.world.cluster.authorized_keys() if keys & set(line.split())]
        assert not leaked, f"root of every member: {leaked}"
        nodes = self.world.cluster.read().nodes.values()
        assert len({node.nodeid for node in nodes}) == len(nodes), nodes
        addresses = [address for node in nodes for address in node.links.values()]
        assert len(set(addresses)) == len(addresses), addresses


ACTIVE = "SELECT id FROM operations WHERE outcome IS NULL"
PUBLIC_KEYS = "SELECT public_key FROM operations WHERE public_key IS NOT NULL"


# --- whose turn it was ----------------------------------------------------------------------------------


@frozen
class Turn:
    operation: int
    hostname: str
    begun: float  # Unix time
    over: float


def _log_turns(world: World) -> None:
    """Triggers in the daemon's own database write down whose turn it is: nothing can hide from them."""
    with closing(sqlite3.connect(world.lab.directory / "state" / "provd.db", timeout=10)) as db:
        db.executescript(
            """
            CREATE TABLE seen_turns (operation_id INTEGER, julian_day REAL, begins INTEGER);
            CREATE TRIGGER turn_begins AFTER INSERT ON locks WHEN NEW.name = 'cluster'
            BEGIN INSERT INTO seen_turns VALUES (NEW.operation_id, julianday('now'), 1); END;
            CREATE TRIGGER turn_ends AFTER DELETE ON locks WHEN OLD.name = 'cluster'
            BEGIN INSERT INTO seen_turns VALUES (OLD.operation_id, julianday('now'), 0); END;
            """
        )


def turns(world: World) -> list[Turn]:
    rows: list[tuple[Any, ...]] = world.rows(
        "SELECT operation_id, hostname, (julian_day - 2440587.5) * 86400, begins"
        " FROM seen_turns JOIN operations ON id = operation_id ORDER BY seen_turns.rowid"
    )
    found: list[Turn] = []
    for begin, end in zip(rows[::2], rows[1::2], strict=True):
        assert (begin[0], begin[3], end[3]) == (end[0], 1, 0), rows
        found.append(Turn(begin[0], begin[1], begin[2], end[2]))
    return found
