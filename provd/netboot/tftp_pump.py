"""One task that waits for the sockets of all transfers at once, so that no block costs a task switch.

Under Trio a task that waits for its own socket pays some 16 µs for each datagram: one pass of the
scheduler, one timer, one epoll_ctl. At 200 transfers that is five times what dnsmasq needs. Here an
epoll descriptor of our own holds all the sockets, and Trio is asked only when none of them is ready.
What is read from a socket, and why, is not known here.
"""

import select
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Self

import trio

BATCH = 64
"""Sockets looked after before the clock is read again."""
TURN = 1e-3
"""Seconds until other tasks get their turn, however much there is to do here."""
PATIENCE = 20e-6
"""Seconds to look again before going to sleep: about what going to sleep costs, so that at worst it
costs twice, and a neighbour who answers sooner is spared the way through the scheduler."""


class Pump:
    """A context manager, for it holds a file descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[float], None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._epoll.close()

    def watch(self, fd: int, handler: Callable[[float], None]) -> None:
        """Call `handler(now)` whenever there is something to read, or an error, at a descriptor.

        It reads one datagram, without waiting; if there are more, it is called again. Raises OSError.
        """
        self._epoll.register(fd, select.EPOLLIN)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed. A handler may do this to itself or to another."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    async def run(self) -> None:
        """Runs until cancelled. What a handler raises comes out here."""
        poll, handlers = self._epoll.poll, self._handlers
        turn_ends = 0.0
        idle_since = 0.0
        while True:
            ready = poll(0, BATCH)
            clock = perf_counter()
            if ready:
                now = trio.current_time()
                for fd, _ in ready:
                    if handler := handlers.get(fd):
                        handler(now)
                idle_since = clock
                if clock > turn_ends:
                    await trio.lowlevel.checkpoint()
                    turn_ends = perf_counter() + TURN
            elif clock - idle_since > PATIENCE:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                idle_since = perf_counter()
                turn_ends = idle_since + TURN
