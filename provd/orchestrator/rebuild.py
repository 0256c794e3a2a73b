"""The story of a rebuild, from power-on to a member of the cluster.

    ready        a member goes on as it is, until it is drained where that is wanted, and until the
                 others can do without it: then, and not before, its installer is offered
    armed        the installer is offered; a member is taken out of its cluster, and a machine that is
                 off is asked to wake up                                (pxe_ready)
    booted       the machine fetched its boot script: a former member has left the cluster by now
                                                                        (pxe_booted)
    installing   it fetched its answer; the installer is not offered any more
    installed    the installer reported, and restarts the machine
    first boot   the new system called home: we know its address and its keys
    … and on as in `entering.py`, to `ready`.

`tell` is the same after a restart of the daemon as at the beginning: each wait returns at once when
the host stands there or beyond, and each step looks before it acts.
"""

from provd.config import Config
from provd.domain.activity import Level, News
from provd.domain.errors import Conflict
from provd.domain.hosts import Host
from provd.domain.lifecycle import Fact, State, advance
from provd.domain.operations import Departure, Operation, Outcome, Stage, Wish
from provd.orchestrator.entering import Entering, key_context
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.membership.leaving import Leaving
from provd.orchestrator.waits import Waits
from provd.orchestrator.waking import Waker
from provd.proxmox import memory
from provd.remote.keys import KeyPair, Seal
from provd.store import departures, images, operations, retries
from provd.store.operations import SealedKey


class Rebuild:
    """The `Story` of `Kind.REBUILD`."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        seal: Seal,
        waker: Waker,
        waits: Waits,
        leaving: Leaving,
        entering: Entering,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._seal = seal
        self._waker = waker
        self._waits = waits
        self._leaving = leaving
        self._entering = entering

    # --- the beginning, in the transaction that takes the host ---

    def begin(self, change: Change, host: Host, operation: Operation, wish: Wish) -> None:
        if advance(host.state, Fact.REBUILD_STARTED) is not State.PXE_READY:
            raise Conflict(f"{host.hostname} is {host.state} and cannot be rebuilt from there")
        retries.forget(change.db, host.id)
        key = KeyPair.generate(f"provd-operation-{operation.id}")
        sealed = self._seal.seal(key.seed, key_context(operation.id))
        operations.keep_key(change.db, operation.id, SealedKey(public_line=key.public_line, sealed=sealed))
        if not self._config.proxmox.installer_url:
            _settle_image(change, host, operation)
        if wish.member is None:
            _arm(change, host, operation)
            return
        departures.put(change.db, operation.id, Departure.of(wish.member, wish))

    # --- the story ---

    async def tell(self, operation: Operation) -> None:
        host = self._fleet.host(operation.host_id)
        departure = self._leaving.of(operation.id)
        restarted = False
        if departure is not None and departure.stage is not Stage.LEFT:
            restarted = await self._set_out(operation, host, departure)

        if self._fleet.host(host.id).state is State.PXE_READY and not restarted:
            await self._waker.rebuild_started(host.id)
        await self._waits.out(host.id, State.PXE_READY)
        if departure is not None:
            await self._see_off(operation, host)
        await self._waits.out(host.id, State.PXE_BOOTED)
        await self._waits.out(host.id, State.INSTALLING)
        await self._waits.out(host.id, State.INSTALLED)

        await self._entering.enter(operation)

    async def _set_out(self, operation: Operation, host: Host, departure: Departure) -> bool:
        """Until the installer may be offered to a member; whether it left the cluster and was restarted."""
        who = self._entering.leaver(operation, host.id, await self._entering.credential(operation))
        if departure.stage is Stage.ASKED:
            if departure.drain:
                await self._leaving.drain(who)
            await self._leaving.release(who, lambda change: _arm(change, host, operation))
        if self._fleet.host(host.id).state is not State.PXE_READY:
            return False
        return await self._leaving.leave_running(who, departure)

    async def _see_off(self, operation: Operation, host: Host) -> None:
        """Its old system does not run any more: out of the cluster with it, while the installer starts."""
        departure = self._leaving.of(operation.id)
        if departure is not None and departure.stage is not Stage.LEFT:
            who = self._entering.leaver(operation, host.id, await self._entering.credential(operation))
            await self._leaving.leave_when_off(who, departure)

    # --- the end ---

    def conclude(self, change: Change, operation: Operation) -> None:
        self._entering.conclude(change, operation)

    def break_off(self, change: Change, operation: Operation, host: Host, outcome: Outcome) -> None:
        self._entering.break_off(change, operation, host, outcome)

    async def clean_up(self, operation: Operation, outcome: Outcome) -> None:
        await self._entering.clean_up(operation, outcome)


def _arm(change: Change, host: Host, operation: Operation) -> None:
    """From here on the installer is offered to whoever has this host's MAC."""
    change.fact(
        host.id,
        Fact.REBUILD_STARTED,
        f"rebuild asked for by {operation.started_by}: the installer will be offered to {host.mac}",
    )


def _settle_image(change: Change, host: Host, operation: Operation) -> None:
    """What this operation installs: an image that becomes the default later does not change it midway."""
    image = images.default(change.db)
    if image is None:
        raise Conflict(
            "there is nothing to install yet: import Proxmox VE's ISO, with "
            "`provd image import FILE.iso` or on the page Images"
        )
    operations.set_image(change.db, operation.id, image.id)
    if not memory.fits(image.release, host.memory_mib):
        change.note(
            News(
                event="rebuild.note",
                message=f"{host.hostname} has {host.memory_mib} MiB of memory; the installer of "
                f"{image.release}, loaded over the network, is known to need "
                f"{memory.memory_needed(image.release)} MiB",
                level=Level.WARNING,
                host_id=host.id,
            )
        )
