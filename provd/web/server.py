"""Skeleton: final signatures, body follows."""

import socket
from collections.abc import Sequence

import trio
from hypercorn.typing import ASGIFramework


def listen(address: str) -> socket.socket:
    """A listening socket for "0.0.0.0:8080" or "[::]:8080"; raises ConfigError."""
    raise NotImplementedError


async def serve(
    app: ASGIFramework,
    sockets: Sequence[socket.socket],
    *,
    task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; owns the sockets; started() gets the (host, port) of each. No lifespan events."""
    raise NotImplementedError
