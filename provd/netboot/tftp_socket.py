"""The socket of one transfer, as boot ROMs like it, and as it costs least. No packet is known here."""

import socket
from ipaddress import IPv4Address

from provd.netboot.udp import IP_MTU_DISCOVER, IP_PMTUDISC_DONT

UDP_SEGMENT = 103
"""udp(7); Python's socket module does not have it."""


def open_socket(local: IPv4Address, peer: tuple[str, int]) -> socket.socket:
    """A UDP socket between one of our addresses, at a new port, and a client's. The caller closes it.

    Connected: the kernel keeps strangers away (RFC 1350 §4) and tells when the client's port is closed.
    No DF bit, which some boot ROMs do not accept. Raises OSError.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xC0)
        sock.bind((str(local), 0))
        sock.connect(peer)
    except OSError:
        sock.close()
        raise
    return sock


def segment(sock: socket.socket, size: int) -> bool:
    """Have the kernel cut what is written there into datagrams of `size` bytes (udp(7), Linux 4.18).

    A window then costs little more than a block. 0: no more of that. False where the kernel cannot.
    """
    try:
        sock.setsockopt(socket.SOL_UDP, UDP_SEGMENT, size)
    except OSError:
        return False
    return True
