"""How a host's leaving for good begins: who it is in the cluster is looked up before anything is promised."""

from contextlib import suppress

from provd.domain.errors import ClusterFailed
from provd.domain.hosts import Host, HostId
from provd.domain.operations import Kind, Operation, Wish
from provd.domain.secrets import Secret
from provd.orchestrator.cluster_link import ClusterLink
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.operations import Operations
from provd.orchestrator.passwords import ClusterPasswords
from provd.proxmox.survey import see_cluster


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

    def is_known_member(self, host: Host) -> bool:
        """Whether the cluster listed it when it was asked last; nobody is asked now."""
        return any(one.name.lower() == host.hostname.lower() for one in self._link.remembered())

    async def wish(self, host: Host, password: Secret | None) -> Wish:
        member = None
        with suppress(ClusterFailed):
            async with self._link.open(password, avoid={host.hostname}) as asked:
                cluster = await see_cluster(asked)
            member = cluster.node(host.hostname) if cluster is not None else None
        return Wish(member=member, drain=self._drain)

    async def start(self, host_id: HostId, password: Secret | None, by: str) -> Operation:
        """Begin to take it out of cluster, inventory and provd. Raises `ClusterFailed`, `Conflict`."""
        host = self._fleet.host(host_id)
        member = None
        if self._link.section.existing_node is not None:
            async with self._link.open(password, avoid={host.hostname}) as asked:
                cluster = await see_cluster(asked)
            member = cluster.node(host.hostname) if cluster is not None else None
        wish = Wish(member=member, drain=self._drain)
        operation = await self._operations.start(host_id, Kind.DECOMMISSION, by, wish)
        if password is not None:
            self._passwords.give(operation.id, password)
        return operation
