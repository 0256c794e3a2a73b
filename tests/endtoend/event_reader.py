"""One browser's connection to `/events`, on a bare socket: what arrived in which order, and when it ended."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import trio
from attrs import define, field, frozen

from endtoend.world import PATIENCE, TOKEN


@frozen
class Event:
    id: int
    kind: str
    data: dict[str, Any]


@define(eq=False, kw_only=True)
class EventReader:
    stream: trio.SocketStream
    port: int
    status: int
    http: h11.Connection
    raw: bytearray = field(factory=bytearray)
    """The body so far."""
    ended: trio.Event = field(factory=trio.Event)
    _more: trio.Event = field(factory=trio.Event)

    @property
    def events(self) -> list[Event]:
        """The whole frames so far that have an id; beats and the reconnection time have none."""
        frames = self.raw.decode().split("\n\n")[:-1]
        fields = [dict(line.split(": ", 1) for line in frame.splitlines()) for frame in frames]
        return [
            Event(int(each["id"]), each["event"], json.loads(each["data"])) for each in fields if "id" in each
        ]

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.events]

    async def read(self) -> None:
        """Take what comes, until the daemon ends it or dies."""
        try:
            while not isinstance(event := self.http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
                if event is h11.NEED_DATA:
                    self.http.receive_data(bytes(await self.stream.receive_some(65536)))
                elif isinstance(event, h11.Data):
                    self.raw += event.data
                    self._more.set()
                    self._more = trio.Event()
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            pass  # killed in the middle of a chunk
        finally:
            self.ended.set()
            self._more.set()

    async def more(self) -> None:
        """Until something arrives that was not there when this was called, or it has ended."""
        if not self.ended.is_set():
            await self._more.wait()

    async def until(self, words: str) -> None:
        """Until `words` have arrived."""
        with trio.fail_after(PATIENCE):
            while words.encode() not in self.raw:
                assert not self.ended.is_set(), f"ended before {words!r}"
                await self.more()

    async def until_id(self, number: int) -> None:
        with trio.fail_after(PATIENCE):
            while not self.ids or self.ids[-1] < number:
                assert not self.ended.is_set(), f"ended before event {number}"
                await self.more()


@asynccontextmanager
async def open_reader(
    port: int, *, last_id: object = None, small: bool = False, headers: dict[str, str] | None = None
) -> AsyncIterator[EventReader]:
    """Connect, and return when the head of the answer is there.

    Without `headers` the test's API token is shown. `small`: the kernel takes as little as it can on
    behalf of a reader that does not read.
    """
    sock = trio.socket.socket()
    if small:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        # The sender's buffer grows with the size of a segment, and on loopback those have 64 KiB.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    await sock.connect(("127.0.0.1", port))
    async with trio.SocketStream(sock) as stream:
        http = h11.Connection(h11.CLIENT)
        fields = {"Authorization": f"Bearer {TOKEN}"} if headers is None else headers
        resume = {} if last_id is None else {"Last-Event-ID": str(last_id)}
        head = {"Host": f"127.0.0.1:{port}", "Accept": "text/event-stream", **fields, **resume}
        request = h11.Request(method="GET", target="/events", headers=list(head.items()))
        await stream.send_all((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        with trio.fail_after(PATIENCE):
            while not isinstance(response := http.next_event(), h11.Response):
                assert response is h11.NEED_DATA, response
                http.receive_data(bytes(await stream.receive_some(256)))
        yield EventReader(stream=stream, port=port, status=response.status_code, http=http)
