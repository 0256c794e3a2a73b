"""What travels compressed: pages and longer documents for operators, and nothing else."""

import gzip
from pathlib import Path

import pytest
import trio

from provd.config import load_config
from provd.daemon import open_parts
from provd.domain.lifecycle import State
from provd.web.app import create_app
from provd.web.compression import SMALLEST
from provd.web.parts import Parts
from web.looking import config_in, get, host_in

PACKED = {"Accept-Encoding": "gzip, deflate, br"}


async def many_hosts(parts: Parts) -> None:
    for number in range(1, 31):
        await host_in(parts, State.INSTALLING, f"pve{number}", number)


@pytest.mark.parametrize("path", ["/", "/hosts/1", "/ops/1", "/doctor", "/api/hosts", "/api/activity"])
async def test_pages_and_documents_are_compressed_for_who_can_read_it(parts: Parts, path: str) -> None:
    """The same bytes, a good deal fewer; caches know that there are two, and the length is told."""
    await many_hosts(parts)
    packed = await get(parts, path, **PACKED)
    body = await packed.get_data(as_text=False)
    assert (packed.status_code, packed.headers["Content-Encoding"]) == (200, "gzip")
    assert packed.headers["Content-Length"] == str(len(body))
    whole = gzip.decompress(body)
    assert len(body) < len(whole) / 2
    for accepted in ("", "br", "gzip;q=0"):
        plain = await get(parts, path, **{"Accept-Encoding": accepted})
        assert "Content-Encoding" not in plain.headers
        # Each page says when it was drawn.
        assert abs(len(await plain.get_data(as_text=False)) - len(whole)) < 200
        assert "Accept-Encoding" in plain.headers["Vary"]
    assert "Accept-Encoding" in packed.headers["Vary"]


async def test_what_is_small_stays_as_it_is(parts: Parts) -> None:
    """A document of a few lines, and an error."""
    await host_in(parts, State.INSTALLING)
    for path in ("/api/operations/1", "/api/hosts/99"):
        response = await get(parts, path, **PACKED)
        assert "Content-Encoding" not in response.headers
        assert len(await response.get_data(as_text=False)) <= SMALLEST


async def test_a_page_that_says_that_nothing_is_there_is_left_alone(parts: Parts) -> None:
    """Only what was asked for is worth the work."""
    response = await get(parts, "/hosts/99", **PACKED)
    assert (response.status_code, "Content-Encoding" in response.headers) == (404, False)
    assert "It is not here" in await response.get_data(as_text=True)


async def test_strangers_and_machines_get_plain_bytes(tmp_path: Path) -> None:
    """The sign-in page repeats its link's token beside what the caller chose: it is never compressed."""
    config = load_config(config_in(tmp_path, auth="on"), {"STATE_DIRECTORY": str(tmp_path / "state")})
    async with open_parts(config, {}) as parts:
        host = await host_in(parts, State.PXE_READY)
        for path in (f"/sign-in?token={'x' * 2 * SMALLEST}", f"/ipxe/{host.mac}", "/healthz"):
            response = await get(parts, path, **PACKED)
            assert response.status_code == 200, path
            assert "Content-Encoding" not in response.headers
            assert "Vary" not in response.headers


async def test_the_event_stream_is_left_alone(parts: Parts) -> None:
    """Its frames are for now, and not for when a block is full."""
    with trio.CancelScope() as scope:
        async with create_app(parts).test_client().request("/events", headers=PACKED) as connection:
            await connection.send_complete()
            assert b"retry" in await connection.receive()
            assert "Content-Encoding" not in connection.headers
            # Left normally, quart-trio's test connection waits for ever.
            scope.cancel()


async def test_head_is_answered_as_get(parts: Parts) -> None:
    """With the same headers, and no body."""
    await many_hosts(parts)
    response = await create_app(parts).test_client().head("/", headers=PACKED)
    assert (response.status_code, response.headers["Content-Encoding"]) == (200, "gzip")
