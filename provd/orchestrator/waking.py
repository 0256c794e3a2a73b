"""Switches a machine on when it is to boot, as far as that can be done from here, and says what remains.

Whether it worked is heard, if at all, as the machine's next contact: Wake-on-LAN has no answer.
"""

from ipaddress import IPv4Address

from attrs import frozen

from provd.domain.activity import Level, News
from provd.domain.errors import Conflict
from provd.domain.hosts import Host, HostId
from provd.orchestrator.fleet import Fleet
from provd.remote.wake import PORT, WakeFailed, wake

BY_HAND = "power it on and choose network boot"


@frozen(kw_only=True)
class Lan:
    """Where machines to be woken are reached: provd's own address there, and how to call everybody."""

    address: IPv4Address
    broadcast: IPv4Address
    port: int = PORT


class Waker:
    def __init__(self, fleet: Fleet, lan: Lan | None) -> None:
        """`lan`: None where provd does not know it (`pxe.enabled: false`); then nothing is sent."""
        self._fleet = fleet
        self._lan = lan

    @property
    def can_wake(self) -> bool:
        return self._lan is not None

    async def wake(self, host_id: HostId, asked_by: str) -> str:
        """Send a wake-up packet; the sentence that says so.

        Raises `NotFound`, `Conflict` where there is no LAN to send it to, `WakeFailed`.
        """
        host = self._fleet.host(host_id)
        if self._lan is None:
            raise Conflict(
                f"provd does not know the LAN of {host.hostname}, since pxe.enabled is false: {BY_HAND}"
            )
        await self._send(host, self._lan)
        said = f"sent a wake-up packet; if it stays off, {BY_HAND}"
        await self._note(host, f"{asked_by} {said}")
        return said

    async def rebuild_started(self, host_id: HostId) -> None:
        """What a rebuild does about a machine that is off. A packet that could not be sent is only told."""
        host = self._fleet.host(host_id)
        if self._lan is None:
            await self._note(host, f"please {BY_HAND}")
            return
        try:
            await self._send(host, self._lan)
        except WakeFailed as exc:
            await self._note(host, f"{exc}; please {BY_HAND}", Level.WARNING)
        else:
            await self._note(host, f"sent a wake-up packet; if it stays off, {BY_HAND}")

    async def _send(self, host: Host, lan: Lan) -> None:
        await wake(host.mac, broadcast=lan.broadcast, source=lan.address, port=lan.port)

    async def _note(self, host: Host, message: str, level: Level = Level.INFO) -> None:
        await self._fleet.note(News(event="host.wake", message=message, level=level, host_id=host.id))
