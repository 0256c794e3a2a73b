"""The person in the room of the lab, who knows the daemon by its REST API alone."""

from collections.abc import Callable

import httpx
import trio
from attrs import define, field

from provd.simulator.machine.machine import Machine, Phase
from provd.simulator.seats import SEATS

PATIENCE = 5
"""Looks at the daemon, after which a machine that was to restart by itself gets its power button pressed."""


@define(kw_only=True, eq=False)
class Operator:
    """The person in the room: registers machines, and presses power buttons when the daemon wants a boot."""

    machines: tuple[Machine, ...]
    client: httpx.AsyncClient
    nursery: trio.Nursery
    say: Callable[[str], None]
    look_every: float
    _waiting: set[str] = field(factory=set)
    _patience: dict[str, tuple[float, int]] = field(factory=dict)
    """Until when a running machine may restart by itself, in Trio's time, and how often it had booted."""
    _states: dict[str, str] = field(factory=dict)
    _complaint: str | None = None

    async def work(self) -> None:
        """Look at the daemon's hosts every few moments, for ever; a daemon that is away is waited for."""
        introduced = False
        while True:
            try:
                if not introduced:
                    await self._introduce()
                    introduced = True
                await self.look()
                self._complaint = None
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                self._complain(f"waits for the daemon: {str(error) or type(error).__name__}")
            await trio.sleep(self.look_every)

    async def _introduce(self) -> None:
        """Register the machines that are to be known, and let the others be seen."""
        for machine, seat in zip(self.machines, SEATS, strict=True):
            if not seat.register:
                self._press(machine)
                continue
            wanted = {"mac": seat.mac, "server_type": seat.server_type}
            if seat.hostname is not None:
                wanted["hostname"] = seat.hostname
            response = await self.client.post("/api/hosts", json=wanted)
            if response.status_code != 409:
                response.raise_for_status()
                self.say(f"{seat.mac}  is registered as {seat.hostname or seat.server_type}")

    async def look(self) -> None:
        """Power on whatever has become `pxe_ready` and is off. A busy one is waited for.

        One whose system runs may be restarted by the daemon itself; it is given `PATIENCE` looks for that.
        """
        response = await self.client.get("/api/hosts")
        response.raise_for_status()
        states = {host["mac"].lower(): str(host["state"]) for host in response.json()["hosts"]}
        ready = {mac for mac, state in states.items() if state == "pxe_ready"}
        self._waiting &= ready
        self._waiting |= {mac for mac in ready if self._states.get(mac) != "pxe_ready"}
        self._states = states
        for machine in self.machines:
            if machine.mac in self._waiting and self._is_due(machine):
                self._waiting.discard(machine.mac)
                machine.power_off()
                await machine.wait_phase(Phase.OFF)
                self._press(machine)

    def _is_due(self, machine: Machine) -> bool:
        """Whether its button is to be pressed now. It stops waiting for one that has restarted by itself."""
        if machine.phase in (Phase.OFF, Phase.INSTALLER_SHELL):
            return True
        until, boots = self._patience.setdefault(
            machine.mac, (trio.current_time() + PATIENCE * self.look_every, machine.boots)
        )
        if machine.boots != boots:
            self._waiting.discard(machine.mac)
        elif machine.phase is not Phase.IDLE or trio.current_time() < until:
            return False
        del self._patience[machine.mac]
        return machine.boots == boots

    def _press(self, machine: Machine) -> None:
        self.nursery.start_soon(machine.run_until_off)

    def _complain(self, line: str) -> None:
        """Say it once, not every second."""
        if line != self._complaint:
            self._complaint = line
            self.say(line)
