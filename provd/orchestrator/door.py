"""How to get into a host that provd installed."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from attrs import frozen

from provd.domain.errors import HostKeyMismatch, SshFailed
from provd.domain.hosts import IPAddress
from provd.remote.keys import KeyPair
from provd.remote.ssh import AuthRefused, Session, connect

log = logging.getLogger("provd.door")

RECONNECT_SECONDS = 2.0


@frozen(kw_only=True)
class Door:
    """A host's address, our key, and the host keys that it must show."""

    address: IPAddress
    port: int
    user: str
    key: KeyPair
    host_keys: tuple[str, ...]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """Knock until somebody answers; the caller's deadline ends it. A wrong key ends it at once."""
        async with AsyncExitStack() as stack:
            while True:
                knock = connect(str(self.address), self.port, self.user, self.key, self.host_keys)
                try:
                    session = await stack.enter_async_context(knock)
                    break
                except (AuthRefused, HostKeyMismatch):
                    raise
                except SshFailed as exc:
                    log.debug("no SSH yet: %s", exc)
                    await trio.sleep(RECONNECT_SECONDS)
            yield session
