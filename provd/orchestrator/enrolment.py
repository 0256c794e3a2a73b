"""Hosts come and go by an operator's word."""

from itertools import count

from provd.config import Config
from provd.domain.activity import REMOVED, News
from provd.domain.errors import Conflict, Invalid
from provd.domain.hosts import Host, HostId, HostOptions, Mac
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.planning import make_plan
from provd.server_types import ServerTypeBook
from provd.store import hosts, operations


class Enrolment:
    def __init__(self, config: Config, book: ServerTypeBook, fleet: Fleet) -> None:
        self._config = config
        self._book = book
        self._fleet = fleet

    async def register(
        self, mac: Mac, server_type_key: str, hostname: str | None, options: HostOptions, by: str
    ) -> Host:
        """Raises `Invalid` for what could not be installed, `Conflict` for what is taken.

        Without a host name it gets its server type's prefix and the next free number.
        """
        server_type = self._book.current.get(server_type_key)
        if server_type is None:
            known = ", ".join(sorted(self._book.current)) or "none at all"
            raise Invalid(
                f"there is no server type {server_type_key!r} in server-types.yaml; it has {known}",
                "server_type",
            )

        def write(change: Change) -> Host:
            name = hostname or _next_free(server_type.hostname_prefix, hosts.hostnames(change.db))
            host = hosts.register(change.db, name, mac, server_type_key, options, change.at)
            make_plan(self._config, server_type, host)
            change.note(
                News(
                    event="host.registered",
                    message=f"{name} registered by {by}: {mac}, {server_type.display_name}",
                    host_id=host.id,
                )
            )
            return host

        return await self._fleet.change(write)

    async def ignore(self, mac: Mac, ignored: bool, by: str) -> None:
        """Whether an unknown machine is shown among those to be registered. Raises `NotFound`."""

        def write(change: Change) -> None:
            if not hosts.ignore_sighting(change.db, mac, ignored):
                return
            change.note(
                News(
                    event="machine.ignored" if ignored else "machine.unignored",
                    message=f"unknown machine {mac} is {'ignored' if ignored else 'shown again'}: {by}",
                )
            )

        await self._fleet.change(write)

    async def configure(self, host_id: HostId, options: HostOptions, by: str) -> Host:
        """Replace a host's options. Raises `Invalid` for what could not be installed.

        How it boots counts from its next contact on, what is installed from its next rebuild on.
        """

        def write(change: Change) -> Host:
            hosts.set_options(change.db, host_id, options)
            host = hosts.get(change.db, host_id)
            server_type = self._book.current.get(host.server_type)
            if server_type is not None:
                make_plan(self._config, server_type, host)
            change.note(News(event="host.configured", message=f"options changed by {by}", host_id=host_id))
            return host

        return await self._fleet.change(write)

    async def remove(self, host_id: HostId, by: str) -> None:
        """Forget a host. The machine itself is left alone. Raises `Conflict` while it is worked on."""

        def write(change: Change) -> None:
            host = hosts.get(change.db, host_id)
            holder = operations.active_on(change.db, host_id)
            if holder is not None:
                raise Conflict(
                    f"{host.hostname} is being worked on by {holder.kind} {holder.id}: cancel that first"
                )
            change.note(
                News(
                    event=REMOVED,
                    message=f"{host.hostname} ({host.mac}) removed by {by}",
                    host_id=host_id,
                )
            )
            hosts.remove(change.db, host_id)

        await self._fleet.change(write)


def _next_free(prefix: str, taken: set[str]) -> str:
    return next(name for n in count(1) if (name := f"{prefix}{n}").lower() not in taken)
