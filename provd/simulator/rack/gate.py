"""A door from the world into the rack's LAN: forwards a listening socket, which it was given, to an address.

    python -m provd.simulator.rack.gate FD ADDRESS PORT

Run inside the LAN's namespace, while the socket was opened outside: so the dashboard can be seen from
the operator's own browser, and nothing of the LAN can be reached but that.
"""

import socket
import sys
from contextlib import suppress

import trio


async def serve(listener: trio.SocketListener, address: str, port: int) -> None:
    async def forward(outside: trio.SocketStream) -> None:
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async with await trio.open_tcp_stream(address, port) as inside, trio.open_nursery() as nursery:
                nursery.start_soon(pump, outside, inside)
                await pump(inside, outside)
                nursery.cancel_scope.cancel()

    await trio.serve_listeners(forward, [listener])


async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for chunk in source:
            await sink.send_all(chunk)
        await sink.send_eof()


def main() -> None:
    fd, address, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    listening = trio.socket.from_stdlib_socket(socket.socket(fileno=fd))
    with suppress(KeyboardInterrupt):
        trio.run(serve, trio.SocketListener(listening), address, port)


if __name__ == "__main__":
    main()
