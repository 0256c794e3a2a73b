"""A homelab for a test that drives a browser: the world lives on Trio, in a thread of its own.

The test's thread belongs to Playwright. What a test asks of the lab is done over there, and every method
here returns when it is done.
"""

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import trio
from attrs import define, field

from endtoend.world import PATIENCE, Json, World, open_world
from provd.config import load_config
from provd.daemon import database_path
from provd.domain.lifecycle import State
from provd.simulator.machine.machine import Machine
from provd.store.database import open_store
from provd.web import access

T = TypeVar("T")


@define(eq=False)
class Homelab:
    world: World
    thread: trio.lowlevel.TrioToken
    """Where the world lives."""
    cookies: Any = None
    """Of a browser that was signed in, once there was one; Playwright's `storage_state`."""
    _stop: tuple[int, str] | None = field(init=False, default=None)
    """The host and the state that its machine may not leave."""

    def do(self, work: Callable[..., Awaitable[T]], *args: object, **more: object) -> T:
        """Any method of the world that waits."""
        return trio.from_thread.run(partial(work, *args, **more), trio_token=self.thread)

    # --- the daemon ---

    @property
    def url(self) -> str:
        """Of the daemon itself: browsers do not come through the machines' doorway."""
        return self.world.lab.public_url

    def start(self) -> None:
        self.do(self.world.start)

    def stop(self) -> None:
        self.do(self.world.stop)

    def kill(self) -> None:
        self.do(self.world.kill)

    def configure(self, change: Callable[[Json], None]) -> None:
        """Edit provisioning.yaml; counts from the daemon's next start on."""
        self.world.configure(change)

    def sign_in_link(self) -> str:
        """As `provd sign-in` prints it."""
        return self.do(self._sign_in_link)

    async def _sign_in_link(self) -> str:
        with open_store(database_path(load_config(self.world.lab.configuration, {}))) as store:
            return (await access.create_sign_in_link(store, self.url)).reveal()

    # --- another operator, who uses the API ---

    def call(self, method: str, path: str, body: object = None, *, expect: int = 200) -> Json:
        return self.do(self.world.call, method, path, body, expect=expect)

    def register(self, machine: Machine, **more: object) -> Json:
        return self.do(self.world.register, machine, **more)

    def rebuild(self, host: Json, **body: object) -> Json:
        return self.do(self.world.rebuild, host, **body)

    def until(self, host: Json, *states: str) -> Json:
        return self.do(self.world.until, host, *states)

    def until_over(self, operation: Json) -> Json:
        return self.do(self.world.until_over, operation)

    def story(self, operation: Json) -> list[str]:
        return self.do(self.world.story, operation)

    # --- the machines ---

    def machine(self, number: int = 1, **more: Any) -> Machine:
        machine = self.world.machine(number, **more)
        machine.before_pveproxy = partial(self._hold_ssh, machine)
        self.world.doorway.guard = self._hold_requests
        return machine

    def power_on(self, machine: Machine) -> None:
        trio.from_thread.run_sync(self.world.power_on, machine, trio_token=self.thread)

    def boot(self, mac: str) -> None:
        """As the firmware of a machine that asks for its script, and is never heard of again."""
        self.do(self._boot, mac)

    async def _boot(self, mac: str) -> None:
        async with httpx.AsyncClient(trust_env=False) as firmware:
            response = await firmware.get(f"{self.url}/ipxe/{mac}")
            assert response.status_code in (200, 404), response.text  # 404: nobody knows it

    def set_faults(self, **faults: object) -> None:
        """Of the cluster."""
        with self.world.cluster.edit() as state:
            for name, value in faults.items():
                assert hasattr(state.faults, name), name
                setattr(state.faults, name, value)

    def lead(self, machine: Machine, host: Json, state: State) -> None:
        """Let the rebuild of `host` go on as far as `state` and no further, until it is led on.

        What holds it there is what may hold it in life: a request that is slow, an SSH server that does
        not answer, a cluster without quorum.
        """
        self._stop = (host["id"], str(state))
        self.set_faults(udp_blocked=state is State.JOINING)
        if machine.sshd_pid:
            os.kill(machine.sshd_pid, signal.SIGCONT)
        self.until(host, str(state))

    async def _hold_requests(self) -> None:
        while (stop := self._stop) is not None:
            host, state = stop
            with suppress(httpx.TransportError):  # while the daemon is away, nothing goes on
                if (await self.world.host({"id": host}))["state"] != state:
                    return
            await trio.sleep(0.02)

    async def _hold_ssh(self, machine: Machine) -> None:
        """Between the moment when it answers and the call home, upon which provd logs in."""
        await trio.lowlevel.checkpoint()
        if self._stop is not None and self._stop[1] == str(State.FIRST_BOOT):
            assert machine.sshd_pid, "without OpenSSH's sshd a machine cannot be held in its first boot"
            os.kill(machine.sshd_pid, signal.SIGSTOP)


@contextmanager
def open_homelab(directory: Path, *, members: int = 1, trusted: bool = False) -> Iterator[Homelab]:
    """A lab whose daemon has not been started. What goes wrong in its thread is raised at its end."""
    born: Future[tuple[World, trio.lowlevel.TrioToken]] = Future()
    over = trio.Event()

    async def live() -> None:
        async with open_world(directory, members=members, trusted=trusted) as world:
            born.set_result((world, trio.lowlevel.current_trio_token()))
            await over.wait()

    with ThreadPoolExecutor(1, "homelab") as threads:
        life = threads.submit(trio.run, live)
        wait([born, life], PATIENCE, FIRST_COMPLETED)
        if life.done():
            life.result()
        world, thread = born.result(0)
        try:
            yield Homelab(world, thread)
        finally:
            with suppress(trio.RunFinishedError):
                thread.run_sync_soon(over.set)
            life.result()
