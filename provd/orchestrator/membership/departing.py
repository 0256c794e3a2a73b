"""How a host's leaving for good begins: who it is in the cluster is looked up before anything is promised."""

from contextlib import suppress

import trio

from provd.domain.cluster import Node
from provd.domain.errors import ClusterFailed
from provd.domain.hosts import Host, HostId
from provd.domain.operations import Kind, Operation, Wish
from provd.domain.secrets import Secret
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.membership.link import ClusterLink
from provd.orchestrator.operations import Operations
from provd.orchestrator.passwords import ClusterPasswords
from provd.proxmox.survey import see_cluster

LOOK_SECONDS = 5.0


class Departing:
    def __init__(
        self,
        fleet: Fleet,
        link: ClusterLink,
        passwords: ClusterPasswords,
        operations: Operations,
        *,
        drain: bool,
    ) -> None:
        self._fleet = fleet
        self._link = link
        self._passwords = passwords
        self._operations = operations
        self._drain = drain

    async def is_member(self, host: Host) -> bool:
        """Whether the cluster lists it; where that does not say it in time, whether it did so last time."""
        if self._link.section.existing_node is None:
            return False
        with trio.move_on_after(LOOK_SECONDS), suppress(ClusterFailed):
            return await self._member(host, None) is not None
        return any(one.name.lower() == host.hostname.lower() for one in self._link.remembered())

    async def start(self, host_id: HostId, password: Secret | None, by: str) -> Operation:
        """Begin to take it out of cluster, inventory and provd. Raises `ClusterFailed`, `Conflict`."""
        host = self._fleet.host(host_id)
        clustered = self._link.section.existing_node is not None
        member = await self._member(host, password) if clustered else None
        wish = Wish(member=member, drain=self._drain)
        operation = await self._operations.start(host_id, Kind.DECOMMISSION, by, wish)
        if password is not None:
            self._passwords.give(operation.id, password)
        return operation

    async def _member(self, host: Host, password: Secret | None) -> Node | None:
        async with self._link.open(password, avoid={host.hostname}) as asked:
            cluster = await see_cluster(asked)
        return cluster.node(host.hostname) if cluster is not None else None
