"""Wake-on-LAN: asks a network card that has standby power to switch its machine on. Nobody answers.

A magic packet can do no harm: a machine that is on ignores it, and so does one whose firmware or card
has Wake-on-LAN switched off. Nothing here learns which it was.
"""

from ipaddress import IPv4Address

import trio

from provd.domain.errors import OutsideFailed
from provd.domain.hosts import Mac

PORT = 9
"""Discard, by custom: a card looks for the pattern anywhere in a frame."""
TIMES = 3
GAP_SECONDS = 0.1
"""A broadcast is never repeated by the network, and switches drop some while a link comes up."""

EVERYBODY = IPv4Address("255.255.255.255")


class WakeFailed(OutsideFailed):
    """The wake-up packet could not be sent. That one was received can never be known."""


def build_magic_packet(mac: Mac) -> bytes:
    """Six octets of ones, then the address sixteen times (AMD, Magic Packet Technology, 1995)."""
    return b"\xff" * 6 + bytes.fromhex(mac.text.replace(":", "")) * 16


async def wake(mac: Mac, *, broadcast: IPv4Address, source: IPv4Address, port: int = PORT) -> None:
    """Send it three times, to the LAN's broadcast address and to 255.255.255.255. Raises `WakeFailed`.

    `source` is our own address on that LAN. A socket that is bound to it sends 255.255.255.255 out of
    its interface alone (Linux, `ip_route_output_key`); otherwise it would go out by the default route.
    """
    packet = build_magic_packet(mac)
    try:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
            socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_BROADCAST, 1)
            await socket.bind((str(source), 0))
            for number in range(TIMES):
                await trio.sleep(GAP_SECONDS if number else 0)
                for target in {broadcast, EVERYBODY}:
                    await socket.sendto(packet, (str(target), port))
    except OSError as exc:
        raise WakeFailed(
            f"a wake-up packet for {mac} could not be sent from {source}: {exc.strerror or exc}"
        ) from exc
