"""Members of a simulated cluster that run, each with a real API server and a real sshd."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import define

from provd.simulator.cluster import Cluster, ssh_keys
from provd.simulator.lab import free_port
from provd.simulator.machine.member import Member
from simulator.cluster_lab import PASSWORD, Ended


@define
class Members:
    """`members` are pve1 and so on, at 127.77.0.1 and so on."""

    cluster: Cluster
    members: dict[str, Member]
    key: Path
    nursery: trio.Nursery

    async def ssh(self, who: str, command: str, *, key: Path | None = None) -> Ended:
        """Run a command on the member `who`, or on whatever has that address."""
        known = self.members.get(who)
        port = self.cluster.read().ssh_port
        return await ssh(known.ip if known else who, port, key or self.key, command)

    async def up(self, name: str) -> None:
        with trio.fail_after(20):
            await self.nursery.start(self.members[name].run_until_off)

    def online(self) -> dict[str, bool]:
        return {name: node.online for name, node in self.cluster.read().nodes.items()}


async def ssh(ip: str, port: int, key: Path, command: str) -> Ended:
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR")
    flags = [word for option in options for word in ("-o", option)]
    done = await trio.run_process(
        ["ssh", "-F", "none", "-i", str(key), "-p", str(port), *flags, ip, command],
        stdin=b"",
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return Ended(done.stdout.decode(), done.stderr.decode(), done.returncode)


@asynccontextmanager
async def open_members(directory: Path, count: int, *, profile: str = "pve91") -> AsyncIterator[Members]:
    cluster = Cluster.create(directory / "cluster", ip="127.77.0.1", root_password=PASSWORD, profile=profile)
    for number in range(2, count + 1):
        cluster.add_member(f"pve{number}", f"127.77.0.{number}", root_password=PASSWORD)
    cluster.authorize(ssh_keys.make_key(directory / "operator", "operator"))
    port = free_port()
    members = {
        name: Member(cluster=cluster, name=name, ssh_port=port, say=print) for name in cluster.read().nodes
    }
    async with trio.open_nursery() as nursery:
        lab = Members(cluster, members, directory / "operator", nursery)
        for name in members:
            await lab.up(name)
        yield lab
        nursery.cancel_scope.cancel(reason="the test is over")
