"""provd's proxy-DHCP server as a program, for a namespace: every machine is registered and to be installed.

It writes one JSON document per line: how it listens, or why it cannot, then each contact that its desk hears.
"""

import argparse
import json
from ipaddress import IPv4Network

import trio
from attrs import frozen

from provd.config import Unknown
from provd.domain.contacts import Contact
from provd.domain.errors import ConfigError
from provd.domain.hosts import Mac
from provd.domain.lifecycle import Boots
from provd.netboot.desk import Policy
from provd.netboot.dhcp_server import serve
from provd.netboot.neighbours import Neighbours
from provd.netboot.proxy_dhcp import Directions, Ports

INSTALL = Policy(boots=Boots.INSTALLER)
DIRECTIONS = Directions(
    loader_for=lambda firmware, wanted: wanted or f"{firmware.architecture}.efi",
    loader_url=lambda address, name: f"http://{address}:8081/loaders/{name}",
    script_url=lambda address, mac: f"http://{address}:8080/ipxe/{str(mac).replace(':', '-')}",
)


def say(**fields: str) -> None:
    print(json.dumps(fields), flush=True)


@frozen
class Desk:
    quiet: bool

    def policy(self, mac: Mac) -> Policy:
        return INSTALL

    def heard(self, contact: Contact) -> None:
        if not self.quiet:
            say(mac=str(contact.mac), hop=contact.hop, message=contact.message)


class NoRecorder:
    def record(self, mac: Mac, *, source: tuple[str, int], target: tuple[str, int], payload: bytes) -> None:
        pass


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--interface", required=True)
    parser.add_argument("--subnet", type=IPv4Network, required=True)
    parser.add_argument("--quiet", action="store_true", help="say nothing of contacts")
    arguments = parser.parse_args()
    async with trio.open_nursery() as nursery:
        start = nursery.start
        try:
            post, sharing = await start(serve_here, arguments.interface, arguments.subnet, arguments.quiet)
        except ConfigError as exc:
            say(refused=str(exc))
        else:
            say(address=str(post.address), sharing=sharing.name)


async def serve_here(
    interface: str, subnet: IPv4Network, quiet: bool, task_status: trio.TaskStatus[object]
) -> None:
    await serve(
        Desk(quiet),
        interface=interface,
        subnet=subnet,
        directions=DIRECTIONS,
        unknown=Unknown.LOG,
        neighbours=Neighbours(),
        recorder=NoRecorder(),
        ports=Ports(),
        task_status=task_status,
    )


if __name__ == "__main__":
    trio.run(main)
