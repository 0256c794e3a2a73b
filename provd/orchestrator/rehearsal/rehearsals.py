"""Gathers what a rehearsal looks at: from the database, the configuration, and one visit to the cluster."""

from collections.abc import Awaitable, Collection
from contextlib import suppress
from typing import Protocol

import trio
from attrs import evolve

from provd.config import Config
from provd.credentials import ClusterCredentials
from provd.domain.cluster import Survey
from provd.domain.errors import ClusterFailed
from provd.domain.hosts import Host, HostId, Membership
from provd.domain.rehearsal import Rehearsal
from provd.domain.secrets import Secret
from provd.orchestrator.planning import plan_or_reason
from provd.orchestrator.rehearsal.rehearse import rehearse
from provd.orchestrator.rehearsal.situation import Credentials, Elsewhere, Other, Situation
from provd.proxmox.cluster import LoginRefused
from provd.server_types import ServerTypeBook
from provd.store import departures, hardware, hosts, images, operations
from provd.store.database import Db, Store, now

LAST_SECONDS = 1.0
"""Of the caller's time: what is left for a verdict when the cluster took all the rest of it."""


class Ask(Protocol):
    """`ClusterLink.survey`."""

    def __call__(
        self, password: Secret | None = None, *, avoid: Collection[str] = ()
    ) -> Awaitable[Survey]: ...


class Rehearsals:
    def __init__(
        self,
        config: Config,
        store: Store,
        book: ServerTypeBook,
        survey: Ask,
        standing: Credentials,
    ) -> None:
        """`standing` are the credentials that the configuration names."""
        self._config = config
        self._store = store
        self._book = book
        self._survey = survey
        self._standing = standing

    async def of(
        self, host_id: HostId, password: Secret | None = None, *, drain: bool | None = None
    ) -> Rehearsal:
        """Nothing is started or changed. Raises `NotFound`; the caller sets a deadline."""
        return rehearse(await self.look(host_id, password, drain=drain))

    async def look(
        self,
        host_id: HostId,
        password: Secret | None = None,
        *,
        drain: bool | None = None,
        keep_entry: bool = False,
    ) -> Situation:
        """What the verdict of `of` comes from. `drain` None: as the configuration says."""
        host = self._store.read(lambda db: hosts.get(db, host_id))
        survey = await self._ask(host, password)
        # Read afterwards: nothing that is known here is older than the cluster's answer.
        situation = self._store.read(lambda db: self._situation(db, host_id, survey, password, drain))
        return evolve(situation, keep_entry=keep_entry)

    def _situation(
        self,
        db: Db,
        host_id: HostId,
        survey: Survey | str | None,
        password: Secret | None,
        drain: bool | None,
    ) -> Situation:
        host = hosts.get(db, host_id)
        server_type = self._book.current.get(host.server_type)
        image = images.default(db)
        elsewhere = self._config.proxmox.installer_url
        told = hardware.get(db, host_id)
        has = self._standing
        return Situation(
            at=now(),
            host=host,
            busy=operations.busy(db, host),
            server_type=server_type,
            plan=plan_or_reason(self._config, server_type, host),
            image=Elsewhere(elsewhere) if elsewhere else image.release if image is not None else None,
            public_url=self._config.server.public_url,
            hardware=told.hardware if told is not None else None,
            others=tuple(_other(one) for one in hosts.everyone(db) if one.id != host_id),
            survey=survey,
            away=departures.released(db),
            credentials=Credentials(
                password=has.password or password is not None, token=has.token, ssh_key=has.ssh_key
            ),
            drain=self._config.proxmox.drain if drain is None else drain,
        )

    async def _ask(self, host: Host, password: Secret | None) -> Survey | str | None:
        """Asks another member than the host, for one that is cut off believes itself; else the host."""
        if self._config.proxmox.existing_node is None or host.options.cluster is Membership.NONE:
            return None
        with trio.move_on_at(trio.current_effective_deadline() - LAST_SECONDS):
            try:
                return await self._survey(password, avoid={host.hostname})
            except LoginRefused as exc:
                return str(exc)
            except ClusterFailed as exc:
                failure = str(exc)
            try:
                by_itself = await self._survey(password)
            except ClusterFailed:
                return failure
            with suppress(ClusterFailed):  # whom it has just told of
                return await self._survey(password, avoid={host.hostname})
            return by_itself
        return "it did not answer in time"


def standing_credentials(read: ClusterCredentials) -> Credentials:
    return Credentials(
        password=read.password is not None, token=read.token is not None, ssh_key=read.key is not None
    )


def _other(host: Host) -> Other:
    wanted = host.options.address
    known = (wanted.cidr.ip if wanted is not None else host.ip, *(host.options.links or ()))
    return Other(hostname=host.hostname, addresses=tuple(one for one in known if one is not None))
