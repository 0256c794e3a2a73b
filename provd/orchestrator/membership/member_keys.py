"""By which SSH host keys the members of the cluster are known.

A host that provd installed has told its keys itself. Another member's key is pinned at the first contact:
nothing but a public key is shown there to whoever answers, and what is run there changes files on that
machine alone. A member with another key than the pinned one is refused from then on.
"""

from provd.domain.activity import News
from provd.orchestrator.fleet import Fleet
from provd.remote.ssh import learn_host_key
from provd.store import hosts, members
from provd.store.database import Db
from provd.store.members import RememberedMember


class MemberKeys:
    def __init__(self, fleet: Fleet, port: int) -> None:
        self._fleet = fleet
        self._port = port

    async def of(self, member: RememberedMember) -> tuple[str, ...]:
        """Lines of `.pub` files. Raises `SshFailed` where a first contact fails."""
        if told := self._fleet.store.read(lambda db: _told_by_the_host(db, member)):
            return told
        if member.ssh_host_keys:
            return member.ssh_host_keys
        key = await learn_host_key(member.address, self._port)
        await self._fleet.store.write(lambda db: members.pin_host_keys(db, member.name, [key.line]))
        await self._fleet.note(
            News(
                event="cluster.host_key_pinned",
                message=f"first SSH contact with {member.name}: its host key {key.fingerprint} is pinned; "
                f"`provd cluster forget {member.name}` unpins it",
            )
        )
        return (key.line,)


def _told_by_the_host(db: Db, member: RememberedMember) -> tuple[str, ...]:
    return next(
        (
            hosts.host_keys(db, host.id)
            for host in hosts.everyone(db)
            if str(host.ip) == member.address and host.hostname.lower() == member.name.lower()
        ),
        (),
    )
