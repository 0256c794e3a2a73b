"""An inventory service on a real socket, which holds provd to `deploy/inventory-openapi.yaml`.

It can be down, say no, talk nonsense and come back, as the test tells it.
"""

import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h11
import trio
import yaml
from attrs import define, field, frozen

from endtoend.world import PATIENCE, Json, World

CONTRACT = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "inventory-openapi.yaml").read_text())
TYPE_ID = "compute-small"
TOKEN = 'inventory/token+"with=marks'
"""Its marks look different in JSON, HTML and a URL."""


@frozen
class Told:
    hardware_id: str
    server: Json
    authorization: str


@define(eq=False)
class Inventory:
    port: int
    answer: Callable[[str], bytes] = lambda authorization: (
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    )
    """Bytes as they go out, for what came in as `Authorization`."""
    told: list[Told] = field(factory=list)
    may_answer: trio.Event = field(factory=trio.Event)
    """Set from the beginning; a test may put another one here to keep provd waiting."""
    _more: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.may_answer.set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_tcp, self._receive, self.port, host="127.0.0.1"))
            yield
            nursery.cancel_scope.cancel()

    async def asked(self, times: int) -> None:
        """Until so many requests have come in."""
        with trio.fail_after(PATIENCE):
            while len(self.told) < times:
                await self._more.wait()

    async def _receive(self, stream: trio.SocketStream) -> None:
        http, request, body = h11.Connection(h11.SERVER), None, b""
        async with stream:
            while not isinstance(event := http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    http.receive_data(bytes(await stream.receive_some(65536)))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
            assert request is not None
            told = read(request, body)
            self.told.append(told)
            self._more.set()
            self._more = trio.Event()
            await self.may_answer.wait()
            await stream.send_all(self.answer(told.authorization))


def new_inventory() -> Inventory:
    """One that is down, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return Inventory(free.getsockname()[1])


def plain(status: str, body: str) -> bytes:
    """An answer, e.g. of "401 Unauthorized"."""
    content = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content


def read(request: h11.Request, body: bytes) -> Told:
    """What a request says; it must be one that the contract describes."""
    fields = {name.decode(): value.decode() for name, value in request.headers}
    prefix, _, segment = request.target.decode().rpartition("/")
    assert (request.method, prefix) == (b"PUT", "/api/v1/servers")
    assert fields["content-type"] == "application/json"
    server = json.loads(body)
    schema: dict[str, Any] = CONTRACT["components"]["schemas"]["Server"]
    assert set(server) == set(schema["required"]) == set(schema["properties"])
    for name, rule in schema["properties"].items():
        assert re.search(rule.get("pattern", "."), server[name]), f"{name}: {server[name]}"
    return Told(unquote(segment), server, fields.get("authorization", ""))


def use_inventory(world: World, inventory: Inventory, **types: str) -> None:
    """Write it into the configuration, before the daemon starts; `types` is the map of server types."""
    token = world.lab.directory / "inventory-token"
    token.touch(mode=0o600)
    token.write_text(TOKEN + "\n")

    def change(document: Json) -> None:
        document["infrastructure"] = {"base_url": inventory.base_url, "server_type_map": types}
        document["credentials"]["infrastructure_token_file"] = str(token)

    world.configure(change)
