"""How our key leaves a host, and how that is proven."""

from collections.abc import Awaitable, Callable

import trio

from provd.domain.errors import HostKeyMismatch, JoinFailed, SshFailed
from provd.domain.operations import Operation
from provd.orchestrator.door import RECONNECT_SECONDS, Door
from provd.proxmox import temporary_key
from provd.remote.ssh import AuthRefused, Session

Tell = Callable[[str], Awaitable[None]]


async def remove_key(session: Session, door: Door, hostname: str) -> None:
    """Take it out of every file where it can be. Raises `JoinFailed` when it is still in one."""
    body = door.key.body
    await session.run(temporary_key.remove_key_command(body))
    left = (await session.run(temporary_key.find_key_command(body))).stdout.strip()
    if left:
        raise JoinFailed(
            f"{hostname} is ready, but provd's temporary key is still in {', '.join(left.split())}: "
            f"remove the line that contains {body[:24]}… there"
        )


async def prove_locked_out(door: Door, hostname: str, tell: Tell) -> None:
    """Raises `JoinFailed` when the host still lets us in."""
    try:
        async with door.open():
            pass
    except AuthRefused:
        await tell("the temporary key is gone: the host refuses it")
        return
    raise JoinFailed(f"{hostname} is ready, but still lets provd's temporary key in")


async def take_key_away(door: Door, operation: Operation, tell: Tell) -> None:
    """Both, until both are done: a host that restarts is waited for. The caller sets the deadline."""
    while True:
        try:
            async with door.open() as session:
                await remove_key(session, door, operation.hostname)
            await prove_locked_out(door, operation.hostname, tell)
            return
        except AuthRefused:
            return
        except HostKeyMismatch:
            raise
        except SshFailed:
            await trio.sleep(RECONNECT_SECONDS)
