"""For what an operation waits in each state of a host, how long, and where to look when it does not come."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta

import trio
from attrs import frozen

from provd.config import Config
from provd.domain.errors import DeadlinePassed
from provd.domain.hosts import Host, HostId
from provd.domain.lifecycle import SETTLED, State
from provd.orchestrator.fleet import Fleet
from provd.server_types import ServerTypeBook
from provd.store.database import now


@frozen
class Wait:
    goal: State
    expected: str
    look_at: str


WAITS: Mapping[State, Wait] = {
    State.PXE_READY: Wait(
        State.PXE_BOOTED,
        "the machine to boot from the network and fetch its boot script",
        "is it powered on, on this LAN, and does its firmware boot from the network first?",
    ),
    State.PXE_BOOTED: Wait(
        State.INSTALLING,
        "the installer to start and ask for its answer",
        "look at its screen: less than 8 GiB of memory, an unreachable installer_url or a network "
        "that takes long to come up stop it here; no disk was touched",
    ),
    State.INSTALLING: Wait(
        State.INSTALLED,
        "the installer to report that it is done",
        "look at its screen, or on its third console at /tmp/auto_installer.log and "
        "/tmp/install-low-level.log; its disk may be half written",
    ),
    State.INSTALLED: Wait(
        State.FIRST_BOOT,
        "the new system to come up from its own disk and call home",
        "does it boot from that disk, and can it reach provd? On the host: journalctl -u proxmox-first-boot",
    ),
    State.FIRST_BOOT: Wait(
        State.JOINING,
        "its turn to join the cluster",
        "can provd reach the host's SSH port?",
    ),
    State.JOINING: Wait(
        State.READY,
        "the cluster to accept it",
        "look at `pvecm status` and `journalctl -u corosync` on the host; UDP 5405 to 5412 may be blocked, "
        "or somebody else changed the cluster meanwhile",
    ),
}


IN_VAIN = ", in vain: "


def in_vain(seconds: float, wait: Wait) -> str:
    return f"waited {duration(seconds)} for {wait.expected}{IN_VAIN}{wait.look_at}"


def split_in_vain(sentence: str) -> tuple[str, str, str]:
    """What `in_vain` said, what to look at, and what was added behind it; empty where it did not say it."""
    for wait in WAITS.values():
        before, said, added = sentence.partition(f" for {wait.expected}{IN_VAIN}{wait.look_at}")
        if said:
            return f"{before} for {wait.expected}, in vain", wait.look_at, added.removeprefix("; ")
    return "", "", ""


class Waits:
    """Waits with the deadlines of the configuration, or of a host's server type."""

    def __init__(self, config: Config, book: ServerTypeBook, fleet: Fleet) -> None:
        self._config = config
        self._book = book
        self._fleet = fleet
        self._started_at = now()

    async def out(self, host_id: HostId, state: State) -> None:
        """Until the machine itself leads the host out of `state`; at once when it has already."""
        with self.deadline(host_id, state):
            await self._fleet.reached(host_id, WAITS[state].goal)

    @contextmanager
    def deadline(self, host_id: HostId, state: State) -> Iterator[None]:
        """`DeadlinePassed`, saying what was expected and what to look at, after the state's time.

        After a restart the clock starts anew: who was late, the machine or the daemon, is unknown.
        """
        seconds = self.seconds_allowed(self._fleet.host(host_id), state) or math.inf
        with trio.move_on_after(seconds) as scope:
            yield
        if scope.cancelled_caught:
            raise DeadlinePassed(in_vain(seconds, WAITS[state]))

    def seconds_allowed(self, host: Host, state: State) -> float | None:
        """How long the host may stay in `state`; None where nobody is working on it."""
        if state in SETTLED:
            return None
        server_type = self._book.current.get(host.server_type)
        own = server_type.deadlines if server_type is not None else {}
        return own.get(state) or self._config.deadlines.of(state)

    def due(self, host: Host) -> datetime | None:
        """When the host must have left its state; None where nobody is waiting for it."""
        seconds = self.seconds_allowed(host, host.state)
        if seconds is None:
            return None
        return max(host.state_since, self._started_at) + timedelta(seconds=seconds)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes and rest else f"{minutes} min" if minutes else f"{rest} s"
