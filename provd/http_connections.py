"""The connections under our HTTP client: closed also when their TLS handshake is cancelled.

httpcore 1.0 closes a connection whose handshake failed, and leaves one whose handshake was cancelled to the
garbage collector, which may take its time: a member of the cluster that hangs would be held on to.
The `timeout` parameters are httpcore's.
"""

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import trio
from attrs import frozen

CLOSE_SECONDS = 1.0


@frozen(eq=False)
class Connection(httpcore.AsyncNetworkStream):
    inner: httpcore.AsyncNetworkStream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self.inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self.inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self.inner.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await self.inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


class Connections(httpcore.TrioBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return Connection(await super().connect_tcp(host, port, timeout, local_address, socket_options))
