"""How the cluster stands: looked at every few minutes, kept in memory, and told where it became different."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import attrs
import trio
from attrs import frozen

from provd.config import ProxmoxSection, SshSection
from provd.credentials import ClusterCredentials
from provd.doctor.cluster import Access, judge, troubles
from provd.doctor.findings import Finding, Result, healthy
from provd.domain.activity import Level, News
from provd.domain.cluster import Cluster, Survey
from provd.domain.errors import ClusterFailed, Conflict, SshFailed
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.membership.link import ClusterLink
from provd.orchestrator.membership.member_keys import MemberKeys
from provd.remote.keys import KeyPair
from provd.remote.ssh import connect
from provd.store.database import now, timestamp
from provd.store.members import RememberedMember

SOON, EVERY = 3.0, 300.0
"""Seconds until the first look, and between two."""

LOOKING = 90.0
"""Seconds that a look may take: a member that hangs is given 30, and there are others."""

KNOCKING = 15.0
"""Seconds that a member's SSH may take."""

UNREACHABLE = "unreachable"


@frozen(kw_only=True)
class Look:
    at: datetime
    survey: Survey | None
    failure: str
    """Why there is no survey; empty where there is nothing to ask with, or nobody."""
    findings: Sequence[Finding]

    @property
    def worst(self) -> Finding | None:
        """What a page about something else should say of the cluster."""
        return next((one for one in self.findings if one.result is Result.PROBLEM), None)


class ClusterWatch:
    def __init__(
        self,
        section: ProxmoxSection,
        ssh: SshSection,
        credentials: ClusterCredentials,
        link: ClusterLink,
        keys: MemberKeys,
        fleet: Fleet,
    ) -> None:
        self.last: Look | None = None
        self.busy = False
        self._section = section
        self._ssh = ssh
        self._credentials = credentials
        self._link = link
        self._keys = keys
        self._fleet = fleet
        self._doors: Mapping[str, str] | None = None
        self._told: Mapping[str, tuple[str, str]] = {}

    @property
    def trouble(self) -> str:
        """What is wrong by the last look, in one sentence; empty where nothing is, or nobody looked."""
        return self.last.worst.what if self.last is not None and self.last.worst is not None else ""

    async def serve(self) -> None:
        """Look now and then, until cancelled. Nothing to do without a cluster, or a way to ask it."""
        if self._section.existing_node is None or not (self._credentials.token or self._credentials.password):
            return
        await trio.sleep(SOON)
        while True:
            if not self.busy:
                await self.look()
            await trio.sleep(EVERY)

    async def look(self, *, knock: bool = False) -> Look:
        """`examine`, and tell in the history what became different."""
        look = await self.examine(knock=knock)
        await self._tell(look)
        return look

    async def examine(self, *, knock: bool = False) -> Look:
        """Ask the cluster now, and with `knock` every member's SSH too. Raises `Conflict` while another does.

        Safe to cancel.
        """
        if self.busy:
            raise Conflict("the cluster is being looked at already; the outcome will be here in a moment")
        self.busy = True
        try:
            survey, failure = await self._survey()
            if knock and survey is not None and survey.cluster is not None:
                self._doors = await self._knock(survey.cluster)
            access = Access(
                password=self._credentials.password is not None,
                token=self._credentials.token.name if self._credentials.token else "",
                key=self._credentials.key is not None,
                doors=self._doors,
            )
            at = now()
            findings = judge(self._section, access, survey, failure, at)
            self.last = Look(at=at, survey=survey, failure=failure, findings=findings)
            return self.last
        finally:
            self.busy = False

    async def _survey(self) -> tuple[Survey | None, str]:
        if self._section.existing_node is None or not (self._credentials.token or self._credentials.password):
            return None, ""
        with trio.move_on_after(LOOKING):
            try:
                return await self._link.survey(), ""
            except ClusterFailed as exc:
                return None, str(exc)
        return None, f"it did not answer within {LOOKING:.0f} s"

    async def _tell(self, look: Look) -> None:
        """One line for each trouble that began or ended since the last look."""
        if look.survey is not None:
            found = dict(troubles(look.survey, look.at))
        else:  # nobody knows how the rest stands
            found = dict(self._told)
            if look.failure:
                began_now = f"the cluster cannot be asked: {look.failure}"
                found[UNREACHABLE] = (began_now, "the cluster can be asked again")
        began = [found[key][0] for key in found if key not in self._told]
        ended = [self._told[key][1] for key in self._told if key not in found]
        self._told = found
        for message, level in [(one, Level.WARNING) for one in began] + [(one, Level.INFO) for one in ended]:
            await self._fleet.note(News(event="cluster.changed", message=message, level=level))

    async def _knock(self, cluster: Cluster) -> Mapping[str, str] | None:
        """Which member that is online lets us in over SSH, and why another one does not."""
        key = self._credentials.key
        if key is None:
            return None
        online = {node.name.lower() for node in cluster.nodes if node.online}
        doors: dict[str, str] = {}

        async def try_door(member: RememberedMember) -> None:
            doors[member.name] = f"no answer within {KNOCKING:.0f} s"
            with trio.move_on_after(KNOCKING):
                doors[member.name] = await self._try_door(member, key)

        async with trio.open_nursery() as nursery:
            for member in self._link.remembered():
                if member.name.lower() in online:
                    nursery.start_soon(try_door, member)
        return doors

    async def _try_door(self, member: RememberedMember, key: KeyPair) -> str:
        """Why it does not open; empty where it does."""
        try:
            host_keys = await self._keys.of(member)
            way = connect(member.address, self._ssh.port, self._ssh.user, key, host_keys)
            async with way as session:
                done = await session.run("true")
        except SshFailed as exc:
            return str(exc)
        return "" if done.exit_status == 0 else f"`true` ended with {done.exit_status}"


def look_view(look: Look | None, remembered: Sequence[RememberedMember]) -> dict[str, object]:
    """What the API and `provd cluster check --json` show; None in a field: it could not be seen."""
    survey = look.survey if look is not None else None
    cluster = survey.cluster if survey is not None else None
    return {
        "asked_at": timestamp(look.at) if look is not None else None,
        "asked": survey.asked if survey is not None else None,
        "failure": look.failure if look is not None else "",
        "healthy": healthy(look.findings) if look is not None else None,
        "name": cluster.name if cluster is not None else None,
        "quorate": cluster.quorate if cluster is not None else None,
        "votes": cluster.votes_without() if cluster is not None else None,
        "expected_votes": cluster.expected_votes if cluster is not None else None,
        "quorum": cluster.quorum if cluster is not None else None,
        "spare_votes": cluster.spare_votes() if cluster is not None else None,
        "qdevice_votes": cluster.qdevice_votes if cluster is not None else None,
        "ha_services": _count(survey.ha_services if survey is not None else None),
        "members": members_view(survey) if survey is not None else [],
        "remembered": [
            {"name": one.name, "address": one.address, "seen_at": timestamp(one.seen_at)}
            for one in remembered
        ],
        "findings": [attrs.asdict(finding) for finding in look.findings] if look is not None else [],
    }


def members_view(survey: Survey) -> list[dict[str, object]]:
    certificates = {one.node: one for one in survey.certificates}
    return [
        {
            "name": node.name,
            "nodeid": node.nodeid,
            "address": str(node.address) if node.address is not None else None,
            "votes": node.votes,
            "online": node.online,
            "release": survey.releases.get(node.name),
            "maintenance": node.name in survey.ha_maintenance if survey.ha_maintenance is not None else None,
            "fingerprint": known.fingerprint if (known := certificates.get(node.name)) else None,
            "certificate_ends": timestamp(known.not_after) if known and known.not_after else None,
        }
        for node in (survey.cluster.nodes if survey.cluster is not None else ())
    ]


def _count(things: Sequence[object] | None) -> int | None:
    return len(things) if things is not None else None
