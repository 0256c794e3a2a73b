"""One task that waits for the sockets of all transfers at once, so that no block costs a task switch.

Under Trio a task that waits for its own socket pays some 16 µs for each datagram: one pass of the
scheduler, one timer, one epoll_ctl. At 200 transfers that is five times what dnsmasq needs. Here an
epoll descriptor of our own holds all the sockets, and Trio is asked only when none of them is ready.
What is read from a socket, and why, is not known here.
"""

import select
from collections.abc import Callable
from time import perf_counter
from typing import Self

import trio

Handler = Callable[[float], None]

BATCH = 64
"""Sockets looked after before the clock is read again."""
TURN = 1e-3
"""Seconds until other tasks get their turn, however much there is to do here."""
PATIENCE = 20e-6
"""Seconds to look again before going to sleep: about what going to sleep costs, so that a neighbour who
answers sooner is spared the way through the scheduler."""
SHORT_SLEEP = 200e-6
"""Seconds. Who slept longer has no such neighbours, and goes to sleep at once the next time."""
TICK = 0.05
"""Seconds between two looks at the clock, for all sockets at once: a timer for each, moved with each
datagram, would cost as much as the datagrams."""


class Pump:
    """A context manager: it holds a file descriptor. Handlers get trio's clock, and wait for nothing."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Handler] = {}
        self._tickers: dict[int, Handler] = {}
        self._busy = trio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._epoll.close()

    def watch(self, fd: int, on_readable: Handler, on_tick: Handler) -> None:
        """Call `on_readable` when there is something to read, or an error, and `on_tick` now and then.

        The first reads one datagram; if there are more, it is called again. Raises OSError.
        """
        self._epoll.register(fd, select.EPOLLIN)
        self._readers[fd], self._tickers[fd] = on_readable, on_tick
        self._busy.set()

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed. Not from within a handler."""
        del self._readers[fd], self._tickers[fd]
        self._epoll.unregister(fd)

    async def run(self) -> None:
        """Runs until cancelled. What a handler raises comes out here."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_clock)
            await self._watch_sockets()

    async def _watch_sockets(self) -> None:
        poll, readers = self._epoll.poll, self._readers
        turn_ends = idle_since = patience = 0.0
        while True:
            ready = poll(0, BATCH)
            clock = perf_counter()
            if ready:
                now = trio.current_time()
                for fd, _ in ready:
                    readers[fd](now)
                idle_since = perf_counter()
                if idle_since > turn_ends:
                    await trio.lowlevel.checkpoint()
                    turn_ends = perf_counter() + TURN
            elif clock - idle_since > patience:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                woken = perf_counter()
                patience = PATIENCE if woken - idle_since < SHORT_SLEEP else 0.0
                turn_ends = woken + TURN

    async def _watch_clock(self) -> None:
        while True:
            if not self._tickers:
                self._busy = trio.Event()
                await self._busy.wait()
            await trio.sleep(TICK)
            now = trio.current_time()
            for on_tick in self._tickers.values():
                on_tick(now)
