"""The way to the cluster: through the configured member, or through any other that it told of.

The cluster itself says who its members are, where, and with which certificate. That is remembered at every
visit, so that the configured member may be down, or be the very one that is rebuilt. A machine is believed
only when it has a certificate that is configured, or that a believed member told.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta

import trio
from attrs import evolve, frozen

from provd.config import ProxmoxSection
from provd.domain.activity import Level, News
from provd.domain.cluster import Survey
from provd.domain.errors import ClusterFailed
from provd.domain.secrets import Secret
from provd.orchestrator.fleet import Fleet
from provd.proxmox.api_token import ApiToken
from provd.proxmox.cluster import CertificateChanged, ClusterStatus, LoginRefused, Member, open_member
from provd.proxmox.survey import survey
from provd.store import departures, members
from provd.store.database import Db, Store, now
from provd.store.members import RememberedMember

REMEMBER_AGAIN = timedelta(minutes=10)
"""How old `seen_at` may become while nothing else changed: each write is an fsync."""

WARN_AGAIN = timedelta(days=1)

PATIENCE_SECONDS = 30
"""With one member, where there may be others: a machine that hangs takes connections and says nothing."""


@frozen
class Candidate:
    """A machine that may be asked."""

    name: str
    """Empty for the configured member as long as nobody said what it is called."""
    address: str
    fingerprint: str
    configured: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.name else self.address


class ClusterLink:
    def __init__(
        self,
        section: ProxmoxSection,
        store: Store,
        fleet: Fleet,
        token: ApiToken | None,
        standing: Secret | None,
    ) -> None:
        self.section = section
        self._store = store
        self._fleet = fleet
        self._token = token
        self._standing = standing
        self._warned: dict[tuple[str, str], datetime] = {}
        """When a certificate at an address was told last."""

    @asynccontextmanager
    async def open(
        self, password: Secret | None = None, *, avoid: Collection[str] = ()
    ) -> AsyncIterator[Member]:
        """A live member that is none of `avoid`, in a cluster with quorum where there is one to be found.

        As root@pam with `password` or the standing one; else with the token, which only reads. Raise
        `ClusterFailed` with why each member did not do, or `LoginRefused` when all of them said no.
        """
        login = password or self._standing or self._token
        if login is None:
            raise ClusterFailed(
                "the cluster cannot be asked: there is neither root's password nor an API token; set"
                " credentials.cluster_token_file"
            )
        async with AsyncExitStack() as stack:
            yield await self._find(stack, login, {name.lower() for name in avoid})

    async def survey(self, password: Secret | None = None, *, avoid: Collection[str] = ()) -> Survey:
        """All that a member can tell. Raise `ClusterFailed` as `open` does."""
        async with self.open(password, avoid=avoid) as member:
            return await survey(member)

    def remembered(self) -> tuple[RememberedMember, ...]:
        """The members that count: none, when they are of another cluster than the configured one.

        Those that are about to go, or were struck out a moment ago, come last.
        """
        everyone = self._store.read(members.everyone)
        if not any(is_configured(self.section, one) for one in everyone):
            return ()
        leaving = self._leaving()
        return tuple(sorted(everyone, key=lambda one: one.name.lower() in leaving))

    def _leaving(self) -> set[str]:
        return {name.lower() for name in self._store.read(departures.released)}

    async def _find(self, stack: AsyncExitStack, login: Secret | ApiToken, avoid: set[str]) -> Member:
        failures: list[ClusterFailed] = []
        changed: list[tuple[Candidate, CertificateChanged]] = []
        second_best: Member | None = None
        for candidate in self._candidates():
            if candidate.name.lower() in avoid:
                continue
            way = open_member(candidate.address, self.section.api_port, candidate.fingerprint, login)
            answered = False
            try:
                with trio.move_on_after(PATIENCE_SECONDS):
                    member = await stack.enter_async_context(way)
                    status = await member.status()
                    fingerprints = await member.fingerprints()
                    answered = True
            except CertificateChanged as exc:
                changed.append((candidate, exc))
                failures.append(_outdated(str(candidate), exc) if candidate.configured else exc)
                continue
            except ClusterFailed as exc:
                failures.append(exc)
                continue
            if not answered:
                failures.append(
                    ClusterFailed(f"the cluster member {candidate} did not answer in {PATIENCE_SECONDS} s")
                )
                continue
            if member.node_name.lower() in avoid:
                continue
            if status.name is None or not status.quorate:
                # Alone or cut off: perhaps it was struck out, and the others know better.
                second_best = second_best or member
                continue
            await self._remember(candidate, member, status, fingerprints)
            await self._warn(changed, member)
            return member
        if second_best is not None:
            return second_best
        raise _nobody(failures, avoid)

    def _candidates(self) -> Sequence[Candidate]:
        """The configured one first, then the remembered, each under one certificate at a time."""
        address = self.section.existing_node
        if address is None:
            raise ClusterFailed("there is no cluster: proxmox.existing_node is not set")
        others = self.remembered()
        name = next((one.name for one in others if one.address == str(address)), "")
        first = Candidate(name, str(address), self.section.join_fingerprint, configured=True)
        ways = {(first.address, first.fingerprint): first}
        for one in others:
            ways.setdefault((one.address, one.fingerprint), Candidate(one.name, one.address, one.fingerprint))
        return list(ways.values())

    async def _remember(
        self, candidate: Candidate, member: Member, status: ClusterStatus, fingerprints: dict[str, str]
    ) -> None:
        known = {one.name.lower(): one for one in self.remembered()}
        ours = str(self.section.existing_node)
        configured = next((name for name, one in known.items() if one.address == ours), "")
        if candidate.configured:
            configured = member.node_name.lower()
        at = now()
        seen: list[RememberedMember] = []
        for node in status.nodes:
            old = known.get(node.name.lower())
            address = str(node.ip) if node.ip is not None else old.address if old is not None else None
            if node.name.lower() == configured:
                address = ours  # the cluster may know it by an address of its own network
            # One that has no certificate yet, or was never seen, cannot be asked.
            if address is not None and (fingerprint := fingerprints.get(node.name)):
                seen.append(
                    RememberedMember(name=node.name, address=address, fingerprint=fingerprint, seen_at=at)
                )
        # The configured one stays, although struck out: by it the others are known to be of this cluster.
        # One that is leaving stays too: struck out, its old system has still to be restarted.
        listed = {node.name.lower() for node in status.nodes}
        kept = (listed | self._leaving()) & set(known) | {configured}
        gone = [one.name for one in self._store.read(members.everyone) if one.name.lower() not in kept]

        def write(db: Db) -> None:
            members.forget(db, gone)
            members.remember(db, seen)

        if gone or any(_is_news(one, known.get(one.name.lower())) for one in seen):
            await self._store.write(write)

    async def _warn(self, changed: Iterable[tuple[Candidate, CertificateChanged]], served_by: Member) -> None:
        """Tell of certificates that were not the pinned ones, each once a day."""
        for candidate, exc in changed:
            key = (candidate.address, exc.actual)
            if now() - self._warned.get(key, datetime.min.replace(tzinfo=now().tzinfo)) < WARN_AGAIN:
                continue
            self._warned[key] = now()
            sentence = str(_outdated(str(candidate), exc) if candidate.configured else exc)
            await self._fleet.note(
                News(
                    event="cluster.certificate_changed",
                    message=f"{sentence}; {served_by.node_name} was asked instead",
                    level=Level.WARNING,
                )
            )


def is_configured(section: ProxmoxSection, one: RememberedMember) -> bool:
    return one.address == str(section.existing_node) or one.fingerprint == section.join_fingerprint


def _is_news(one: RememberedMember, old: RememberedMember | None) -> bool:
    if old is None or one.seen_at - old.seen_at > REMEMBER_AGAIN:
        return True
    return evolve(one, ssh_host_keys=old.ssh_host_keys, seen_at=old.seen_at) != old


def _outdated(member: str, exc: CertificateChanged) -> ClusterFailed:
    return ClusterFailed(
        f"the certificate of {member} is not the configured one: proxmox.join_fingerprint is {exc.expected},"
        f" but it presents {exc.actual}. Certificates are renewed now and then: compare with `pvenode cert"
        f" info` on that node, then change the configuration"
    )


def _nobody(failures: Sequence[ClusterFailed], avoid: Collection[str]) -> ClusterFailed:
    if not failures:
        return ClusterFailed(
            f"no member of the cluster is known besides {', '.join(sorted(avoid))}: the cluster tells of its"
            " other members as soon as one of them is asked, see `provd cluster check`"
        )
    kind = LoginRefused if all(isinstance(exc, LoginRefused) for exc in failures) else ClusterFailed
    return kind("; ".join(dict.fromkeys(str(exc) for exc in failures)))
