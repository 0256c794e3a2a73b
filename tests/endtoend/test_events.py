"""The event stream of the real daemon, on bare sockets: nothing lost, nothing twice, nobody held up."""

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from endtoend.command import provd
from endtoend.event_reader import EventReader, open_reader
from endtoend.world import PATIENCE, World

BROWSERS = 2
TABS = 6
"""As many connections as a browser opens to one server."""
BACKLOG = 50_000
"""Bytes that the daemon must have to keep back, so that a reader counts as stalled."""


async def test_a_rebuild_before_two_browsers_and_a_reader_that_never_reads(world: World) -> None:
    """All twelve hear everything in order, the stalled one holds nobody up, and SIGTERM ends them all."""
    await world.start()
    port = world.lab.ports.daemon
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        stalled = await stack.enter_async_context(open_reader(port, last_id=0, small=True))
        readers = [
            await stack.enter_async_context(open_reader(port, last_id=0)) for _ in range(BROWSERS * TABS)
        ]
        for reader in readers:
            nursery.start_soon(reader.read)
        with trio.fail_after(PATIENCE):
            while len(readers[0].raw) - in_the_kernel(stalled) < BACKLOG:
                await come_and_go(world)
                await readers[0].until_id(ids(world)[-1])
        for reader in readers:
            await reader.until_id(ids(world)[-1])
        assert in_the_kernel(stalled), "the others had to wait until it was given up"

        _, operation = await world.whole_rebuild(world.machine())
        assert operation["outcome"] == "done", await world.story(operation)
        told = ids(world)
        for reader in readers:
            await reader.until_id(told[-1])
            assert reader.ids == told
        assert await world.stop() < 5
        with trio.fail_after(5):
            for reader in readers:
                await reader.ended.wait()


async def come_and_go(world: World) -> None:
    """Some lines of history, as fast as they can be made."""

    async def one(number: int) -> None:
        body = {"mac": f"02:00:00:00:02:{number:02x}", "server_type": "nuc", "hostname": f"{number:h>60}"}
        host = await world.call("POST", "/api/hosts", body, expect=201)
        await world.call("DELETE", f"/api/hosts/{host['id']}", expect=204)

    async with trio.open_nursery() as nursery:
        for number in range(1, 41):
            nursery.start_soon(one, number)


def in_the_kernel(reader: EventReader) -> int:
    """Bytes on their way to a reader, sent and not read; 0 when the connection is gone (proc_pid_net(5))."""
    ours, theirs = (f":{port:04X}" for port in (reader.stream.socket.getsockname()[1], reader.port))
    waiting = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if (local[8:], remote[8:]) in ((ours, theirs), (theirs, ours)):
            waiting += sum(int(queue, 16) for queue in queues.split(":"))
    return waiting


def ids(world: World) -> list[int]:
    return [number for (number,) in world.rows("SELECT id FROM activity ORDER BY id")]
