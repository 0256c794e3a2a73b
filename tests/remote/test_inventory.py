"""The inventory over real HTTP: what is sent, what counts as success, and what is tried again."""

import json
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import attrs
import h11
import pytest
import trio
import yaml
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provd.domain.errors import InventoryFailed
from provd.domain.secrets import Secret
from provd.http_client import open_client
from provd.remote.inventory import Registration, RegistrationFailed, register, retry_delay, unregister

CONTRACT = Path(__file__).parents[2] / "deploy" / "inventory-openapi.yaml"
TOKEN = Secret("token-which-nobody-may-see")
GONE = (200, 202, 204, 404, 410)
PVE4 = Registration(
    hardware_id="4c4c4544-0042-3510-8050-b4c04f564433",
    hostname="pve4",
    ip="192.168.1.14",
    mac="52:54:00:12:34:56",
    server_type_id="compute-small",
)


@frozen
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document


@frozen
class Inventory:
    base_url: str
    requests: list[Request]


@asynccontextmanager
async def inventory(
    status: int = 204, body: bytes = b"", headers: tuple[tuple[str, str], ...] = (), raw: bytes | None = None
) -> AsyncIterator[Inventory]:
    """An HTTP server that writes down what it is asked and gives one answer to everything."""
    requests: list[Request] = []

    async def serve(stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        head, content = None, b""
        async with stream:
            while not isinstance(event := http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
                if event is h11.NEED_DATA:
                    http.receive_data(bytes(await stream.receive_some(65536)))
                elif isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    content += event.data
            if head is None:
                return
            fields = {name.decode(): value.decode() for name, value in head.headers}
            requests.append(Request(head.method.decode(), head.target.decode(), fields, content))
            if raw is not None:
                await stream.send_all(raw)
                return
            answer = h11.Response(
                status_code=status,
                reason=b"Because",
                headers=[("Content-Length", str(len(body))), ("Connection", "close"), *headers],
            )
            for part in (answer, h11.Data(data=body), h11.EndOfMessage()):
                await stream.send_all(http.send(part) or b"")

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield Inventory(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/api", requests)
        nursery.cancel_scope.cancel()


async def tell(
    base_url: str, registration: Registration = PVE4, token: Secret | None = TOKEN
) -> RegistrationFailed | None:
    """One attempt: None, or why it failed."""
    failed = None
    with trio.fail_after(10):
        async with open_client(fingerprint="") as client:  # spares loading the system's authorities
            try:
                await register(client, base_url, token, registration)
            except RegistrationFailed as exc:
                failed = exc
    assert failed is None or isinstance(failed, InventoryFailed)
    assert TOKEN.reveal() not in str(failed)
    return failed


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_success(status: int) -> None:
    """Each status of success is one, and the request is the one the contract describes."""
    async with inventory(status) as server:
        assert await tell(server.base_url) is None
    [request] = server.requests
    assert (request.method, request.target) == ("PUT", f"/api/servers/{PVE4.hardware_id}")
    assert request.headers["authorization"] == f"Bearer {TOKEN.reveal()}"
    assert request.headers["content-type"] == "application/json"
    assert request.document == attrs.asdict(PVE4, filter=lambda field, _: field.name != "hardware_id")


def test_the_contract_names_the_same_fields() -> None:
    """The written contract requires exactly the fields that are sent, and knows the path."""
    contract = yaml.safe_load(CONTRACT.read_text())
    server = contract["components"]["schemas"]["Server"]
    sent = {field.name for field in attrs.fields(Registration)} - {"hardware_id"}
    assert set(server["required"]) == set(server["properties"]) == sent
    assert set(contract["paths"]) == {"/servers/{hardware_id}"}
    methods = contract["paths"]["/servers/{hardware_id}"]
    assert set(methods) == {"put", "delete"}
    assert {"200", "201", "204"} <= set(methods["put"]["responses"])
    assert {*map(str, GONE), "default"} == set(methods["delete"]["responses"])


@pytest.mark.parametrize("token", [None, Secret("")])
async def test_without_a_token_none_is_sent(token: Secret | None) -> None:
    """An inventory without authentication is not sent an empty one."""
    async with inventory() as server:
        assert await tell(server.base_url + "/", token=token) is None
    assert "authorization" not in server.requests[0].headers
    assert server.requests[0].target.startswith("/api/servers/")


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (400, True),
        (401, True),
        (403, True),
        (404, True),
        (409, True),
        (422, True),
        (408, False),
        (429, False),
        (500, False),
        (502, False),
        (503, False),
        (202, False),
        (299, False),
        (304, False),
    ],
)
async def test_refusals(status: int, permanent: bool) -> None:
    """What the request is to blame for is permanent; every other answer is not."""
    body = b"" if status == 304 else b"line one\n\x1b[31mline two " + TOKEN.reveal().encode()
    async with inventory(status, body) as server:
        failed = await tell(server.base_url)
    assert failed is not None
    assert failed.permanent is permanent
    assert f"answered {status} Because" in str(failed)
    assert str(failed).isprintable()
    assert status == 304 or "line two ***" in str(failed)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is reported with its target; the target does not get the token."""
    async with inventory() as other, inventory(status, headers=(("Location", other.base_url),)) as server:
        failed = await tell(server.base_url)
    assert other.requests == []
    assert failed is not None
    assert not failed.permanent
    assert f"{status} Because (not followed) {other.base_url}" in str(failed)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x00\xff" * 50, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"HTTP/1.1 99999 No\r\n\r\n"],
)
async def test_garbage_is_tried_again(raw: bytes) -> None:
    """An answer that is no HTTP proves nothing, and is not permanent."""
    async with inventory(raw=raw) as server:
        failed = await tell(server.base_url)
    assert failed is not None
    assert not failed.permanent
    assert "cannot be reached: " in str(failed)


async def test_nobody_there_is_tried_again() -> None:
    """An inventory that is down is named with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failed = await tell(f"http://127.0.0.1:{port}")
    assert failed is not None
    assert not failed.permanent
    assert str(failed) == f"the inventory at http://127.0.0.1:{port} cannot be reached: Connection refused"


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "größe", "\x7f", "a\r\nX-Evil: 1"])
async def test_a_token_that_fits_no_header(token: str) -> None:
    """Nothing is sent, and the error does not show the token."""
    async with inventory() as server:
        failed = await tell(server.base_url, token=Secret(token))
    assert server.requests == []
    assert failed is not None
    assert failed.permanent
    assert token not in str(failed)


@pytest.mark.parametrize("base_url", ["http://[", "http://127.0.0.1:99999", "ftp://127.0.0.1", "127.0.0.1"])
async def test_an_address_that_is_none(base_url: str) -> None:
    """A base URL that cannot be used is a failed registration like every other."""
    assert await tell(base_url) is not None


@pytest.mark.parametrize("hardware_id", ["", ".", "..", "...", " . ", "a\nb", "a\x00", "\ud800", "\u202e"])
async def test_a_hardware_id_that_fits_no_path(hardware_id: str) -> None:
    """What would mean another path, or cannot be written, is refused before anything is sent."""
    async with inventory() as server:
        failed = await tell(server.base_url, attrs.evolve(PVE4, hardware_id=hardware_id))
    assert server.requests == []
    assert failed is not None
    assert failed.permanent


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(min_size=1, max_size=40)
    | st.sampled_from(["../../admin", "a/b?c#d", "%2e%2e", "a%2Fb", "ü", "..;"])
)
async def test_any_hardware_id_is_one_segment(hardware_id: str) -> None:
    """Whatever a machine calls itself ends as the last segment of the path and nowhere else, or nowhere."""
    async with inventory() as server:
        failed = await tell(server.base_url, attrs.evolve(PVE4, hardware_id=hardware_id))
    if failed is not None:
        assert failed.permanent
        assert server.requests == []
    else:
        *before, last = server.requests[0].target.split("/")
        assert before == ["", "api", "servers"]
        assert unquote(last) == hardware_id
        assert not set(last) & set("?#")


@settings(max_examples=20, deadline=None)
@given(st.text(max_size=20))
async def test_any_text_survives_the_body(text: str) -> None:
    """Every character of a value arrives, whatever it is."""
    async with inventory() as server:
        assert await tell(server.base_url, attrs.evolve(PVE4, server_type_id=text)) is None
    assert server.requests[0].document["server_type_id"] == text


def test_delays_double_up_to_a_quarter_of_an_hour() -> None:
    """5 s after the first failure, twice as long after each further one, 15 minutes at most."""
    assert [retry_delay(n) for n in range(1, 11)] == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]


@given(st.integers())
def test_any_number_of_attempts_has_a_delay(attempts: int) -> None:
    """The delay is bounded on both sides and never shrinks."""
    assert 5 <= retry_delay(attempts) <= retry_delay(attempts + 1) <= 900
    assert math.isfinite(retry_delay(attempts))


# --- taking it back -------------------------------------------------------------------------------


async def untell(base_url: str, hardware_id: str = PVE4.hardware_id) -> RegistrationFailed | None:
    """One attempt to take an entry away: None, or why it failed."""
    failed = None
    with trio.fail_after(10):
        async with open_client(fingerprint="") as client:
            try:
                await unregister(client, base_url, TOKEN, hardware_id)
            except RegistrationFailed as exc:
                failed = exc
    assert TOKEN.reveal() not in str(failed)
    return failed


@pytest.mark.parametrize("status", GONE)
async def test_an_entry_is_taken_away(status: int) -> None:
    """One that is not there, or not any more, is as good; the request has no body, and the token."""
    async with inventory(status) as server:
        assert await untell(server.base_url) is None
    [request] = server.requests
    assert (request.method, request.target) == ("DELETE", f"/api/servers/{PVE4.hardware_id}")
    assert request.headers["authorization"] == f"Bearer {TOKEN.reveal()}"
    assert "content-type" not in request.headers
    assert request.body == b""


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (400, True),
        (401, True),
        (403, True),
        (405, True),
        (409, True),
        (429, False),
        (500, False),
        (302, False),
    ],
)
async def test_an_entry_that_stays(status: int, permanent: bool) -> None:
    """An inventory that knows no DELETE, or does not want to, says so; what it says is in the sentence."""
    async with inventory(status, b"because of " + TOKEN.reveal().encode()) as server:
        failed = await untell(server.base_url)
    assert failed is not None
    assert failed.permanent is permanent
    assert f"answered {status} Because because of ***" in str(failed)


async def test_an_inventory_that_is_down_takes_nothing_away() -> None:
    """Tried again, it may."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failed = await untell(f"http://127.0.0.1:{port}")
    assert failed is not None
    assert not failed.permanent


@pytest.mark.parametrize("hardware_id", ["", ".", "..", "a\nb"])
async def test_no_other_path_is_deleted(hardware_id: str) -> None:
    """What cannot be one segment of a path is not asked for at all, least of all the whole collection."""
    async with inventory() as server:
        failed = await untell(server.base_url, hardware_id)
    assert server.requests == []
    assert failed is not None
    assert failed.permanent


async def test_a_segment_stays_one() -> None:
    """Slashes and question marks are part of the name."""
    async with inventory() as server:
        assert await untell(server.base_url, "a/../b?c#d") is None
    assert server.requests[0].target == "/api/servers/a%2F..%2Fb%3Fc%23d"
