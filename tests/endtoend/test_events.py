"""The event stream of the real daemon, on bare sockets: nothing lost, nothing twice, nobody held up."""

from contextlib import AsyncExitStack
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


@pytest.mark.parametrize("end", ["SIGTERM", "kill -9"])
async def test_a_reader_comes_back_after_a_restart(world: World, end: str) -> None:
    """With the id that it saw last it gets what it missed: no event is lost and none comes twice."""
    await world.start()
    machine = world.machine(pace=0.1)
    host = await world.register(machine)
    operation = await world.rebuild(host)
    world.power_on(machine)
    heard = [0]
    for state in ("installing", "joining"):
        async with open_reader(world.lab.ports.daemon, last_id=heard[-1]) as reader:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.read)
                await reader.until(f'"after":"{state}"')
                await (world.stop() if end == "SIGTERM" else world.kill())
            heard += reader.ids
        # What it saw is on disk, and there may be more that it did not see.
        assert heard[1:] == ids(world)[: len(heard) - 1]
        await world.start()
    async with open_reader(world.lab.ports.daemon, last_id=heard[-1]) as reader:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.read)
            await reader.until('"event":"operation.done"')
            await reader.stream.send_eof()
        heard += reader.ids
    assert (await world.operation(operation))["outcome"] == "done", await world.story(operation)
    assert heard[1:] == ids(world)
    assert heard == sorted(set(heard))


async def test_an_id_that_was_never_given_means_reset(world: World) -> None:
    """One event says "load the page again" and names the newest id; from there it goes on."""
    await world.start()
    await come_and_go(world)
    newest = ids(world)[-1]
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        readers = [
            await stack.enter_async_context(open_reader(world.lab.ports.daemon, last_id=last_id))
            for last_id in (newest + 1, "10" * 30, -1, "newest")
        ]
        for reader in readers:
            nursery.start_soon(reader.read)
            await reader.until("event: reset")
        await world.register(world.machine())
        for reader in readers:
            await reader.until_id(newest + 1)
            reset, after = reader.events
            assert (reset.kind, reset.id, reset.data) == ("reset", newest, {"newest": newest})
            assert (after.kind, after.id) == ("activity", newest + 1)
        nursery.cancel_scope.cancel()


async def test_a_revoked_reader_is_ended_and_the_others_hear_the_heart_beat(world: World) -> None:
    """Nothing that happens after the revocation is told to it; without events it goes with the next beat."""
    await world.start()
    port = world.lab.ports.daemon
    tokens = [
        (await provd("token", "create", name, config=world.lab.configuration)).out.strip() for name in "ab"
    ]
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        busy, quiet = [
            await stack.enter_async_context(open_reader(port, headers={"Authorization": f"Bearer {token}"}))
            for token in tokens
        ]
        good = await stack.enter_async_context(open_reader(port))
        for reader in (busy, quiet, good):
            nursery.start_soon(reader.read)
            await reader.until("retry:")
        assert (await provd("token", "revoke", "a", config=world.lab.configuration)).status == 0
        await world.register(world.machine())
        for reader in (quiet, good):
            await reader.until("host.registered")
        with trio.fail_after(5):
            await busy.ended.wait()
        assert busy.ids == []
        assert (await provd("token", "revoke", "b", config=world.lab.configuration)).status == 0
        await good.until("event: beat")
        with trio.fail_after(5):
            await quiet.ended.wait()
        assert len(quiet.ids) == 1
        nursery.cancel_scope.cancel()


async def test_a_stranger_hears_nothing(world: World) -> None:
    """401 without a token, with a wrong one and with one of a machine's shape; a session will do."""
    await world.start()
    port = world.lab.ports.daemon
    for headers in ({}, {"Authorization": "Bearer provd_" + "x" * 43}, {"Cookie": "provd_session=x"}):
        async with open_reader(port, headers=headers) as reader:
            assert reader.status == 401
    link = (await provd("sign-in", config=world.lab.configuration)).out.strip()
    async with httpx.AsyncClient(
        trust_env=False, headers={"Origin": link.partition("/sign-in")[0]}
    ) as browser:
        await browser.post(link.partition("?")[0], data={"token": link.partition("token=")[2]})
        cookie = f"provd_session={browser.cookies['provd_session']}"
    async with open_reader(port, headers={"Cookie": cookie}) as reader:
        assert reader.status == 200
