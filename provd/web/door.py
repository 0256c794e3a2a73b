"""The door of a TCP server: how many are let in, and how many of them from one address.

What is said behind the door is not known here. Both of provd's HTTP servers have one of these.
"""

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import trio

SILENCE_MILLISECONDS = 30_000
"""Bytes that the other side has not acknowledged for so long end a connection."""


class Places:
    """`most` connections at a time, of which `most_from_one` may come from one address."""

    def __init__(self, most: int, most_from_one: int) -> None:
        self._free = trio.Semaphore(most)
        self._most_from_one = most_from_one
        self._from: Counter[str] = Counter()

    async def take(self) -> None:
        await self._free.acquire()

    def give_back(self) -> None:
        self._free.release()

    @contextmanager
    def counted(self, address: str) -> Iterator[bool]:
        """Whether whoever comes from `address` may stay; counted as long as the block lasts."""
        self._from[address] += 1
        try:
            yield self._from[address] <= self._most_from_one
        finally:
            self._from[address] -= 1
            if not self._from[address]:
                del self._from[address]


class Door(trio.abc.Listener[trio.SocketStream]):
    """Lets in as many as there are places. The others wait in the kernel's queue, and are not refused.

    Whoever serves a connection gives its place back.
    """

    def __init__(self, listener: trio.SocketListener, places: Places) -> None:
        self._listener = listener
        self._places = places

    async def accept(self) -> trio.SocketStream:
        await self._places.take()
        try:
            return await self._listener.accept()
        except BaseException:
            self._places.give_back()
            raise

    async def aclose(self) -> None:
        await self._listener.aclose()


@contextmanager
def open_doors(sockets: Sequence[socket.socket], places: Places) -> Iterator[list[Door]]:
    """A door for each listening socket; the sockets are closed at the end."""
    with ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(closing(sock))
            sock.setblocking(False)
            # Accepted sockets inherit these on Linux. The last one ends a connection to a machine that
            # was switched off: the kernel would otherwise go on sending to it for a quarter of an hour.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MILLISECONDS)
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]
        yield [Door(listener, places) for listener in listeners]
