"""provd's hands in a cluster of simulated members: real HTTPS, real sshd, a real database."""

import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import trio
from attrs import define

from provd.config import ProxmoxSection, SshSection
from provd.domain.secrets import Secret
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.membership.admin import ClusterAdmin
from provd.orchestrator.membership.link import ClusterLink
from provd.orchestrator.membership.member_keys import MemberKeys
from provd.proxmox.api_token import ApiToken
from provd.remote.keys import KeyPair
from provd.simulator.cluster import Cluster
from provd.simulator.cluster.state import Token
from provd.store import activity
from provd.store.database import Store, open_store
from simulator.cluster_lab import PASSWORD as ROOT
from simulator.member_lab import Members, open_members

PASSWORD = Secret(ROOT)
READS = ApiToken.parse(Secret("provd@pve!reads=6650a1b2-0000-4000-8000-000000000001"))

KILL_OWN_SSHD = """\
#!/bin/sh
p=$$
while [ "${p:-0}" -gt 1 ]; do
    case "$(cat "/proc/$p/comm")" in sshd*) kill -9 "$p"; sleep 10; exit;; esac
    p="$(cut -d ' ' -f 4 "/proc/$p/stat")"
done
"""
"""A program that breaks the connection over which it was started."""


@define
class Lab:
    """`admin` has a key to the cluster, and the link a token that reads."""

    admin: ClusterAdmin
    link: ClusterLink
    members: Members
    store: Store
    fleet: Fleet

    @property
    def cluster(self) -> Cluster:
        return self.members.cluster

    def told(self) -> list[str]:
        return [line.message for line in self.store.read(lambda db: activity.after(db, 0, 100))]

    async def off(self, name: str) -> None:
        await self.members.members[name].power_off()

    def calls(self, name: str) -> list[str]:
        """Programs of the member `name` that only write down that they were called."""
        log = self.members.members[name].root / "var/log/programs.log"
        return log.read_text().splitlines() if log.exists() else []

    def admin_with(self, key: KeyPair | None) -> ClusterAdmin:
        ssh = SshSection(user=getpass.getuser(), port=self.cluster.read().ssh_port)
        return ClusterAdmin(self.link, MemberKeys(self.fleet, ssh.port), ssh, key)


@asynccontextmanager
async def open_admin(directory: Path, size: int = 3) -> AsyncIterator[Lab]:
    """All members run, and have been asked once."""
    with open_store(directory / "provd.db") as store, trio.fail_after(60):
        async with open_members(directory, size) as members:
            cluster = members.cluster
            with cluster.edit() as state:
                state.timings.auth_delay = 0
                state.tokens[READS.name] = Token(
                    secret=READS.secret.reveal(), privs={"/": ["Sys.Audit", "VM.Audit"]}
                )
            fleet = Fleet(store, Bell())
            section = ProxmoxSection(
                existing_node=ip_address(members.members["pve1"].ip),
                join_fingerprint=cluster.fingerprint("pve1"),
                api_port=cluster.read().api_port,
            )
            link = ClusterLink(section, store, fleet, READS, standing=None)
            key = KeyPair.generate("provd's own")
            cluster.authorize(key.public_line)
            ssh = SshSection(user=getpass.getuser(), port=cluster.read().ssh_port)
            admin = ClusterAdmin(link, MemberKeys(fleet, ssh.port), ssh, key)
            await admin.look(None, beside="nobody")
            yield Lab(admin, link, members, store, fleet)
