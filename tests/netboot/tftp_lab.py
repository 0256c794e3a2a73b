"""A TFTP server with a few files, a client that says what the test wants, and a bad network between them.

The client is written from the RFCs with `struct` alone, so that it does not share provd's mistakes.
"""

import random
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import define, field, frozen

from provd.netboot.tftp_server import Limits, serve
from provd.netboot.tftp_transfer import Read

RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)
Address = tuple[str, int]
FILES = {
    "empty": b"",
    "small": b"#!ipxe\nexit 1\n",
    "exact": bytes(range(256)) * 4,
    "loader.efi": random.Random(7).randbytes(100_001),
}


@define
class Files:
    """Records what it was asked for."""

    files: dict[str, bytes] = field(factory=lambda: dict(FILES))
    asked: list[str] = field(factory=list)

    def read(self, name: str) -> bytes | None:
        self.asked.append(name)
        return self.files.get(name)


@define
class Server:
    address: Address
    files: Files
    reads: list[Read]
    packets: list[tuple[Address, Address, bytes]]
    ended: trio.Event = field(factory=trio.Event)

    async def wait_reads(self, count: int) -> list[Read]:
        """Until that many transfers have ended."""
        while len(self.reads) < count:
            await self.ended.wait()
        return self.reads

    def note(self, read: Read) -> None:
        self.reads.append(read)
        self.ended.set()
        self.ended = trio.Event()


@asynccontextmanager
async def open_server(
    address: str = "127.0.0.1", *, port: int = 0, limits: Limits | None = None
) -> AsyncIterator[Server]:
    server = Server(address=("", 0), files=Files(), reads=[], packets=[])
    async with trio.open_nursery() as nursery:
        server.address = await nursery.start(
            partial(
                serve,
                server.files,
                address,
                port=port,
                limits=limits,
                on_read=server.note,
                on_packet=lambda *packet: server.packets.append(packet),
            )
        )
        yield server
        nursery.cancel_scope.cancel()


def request(name: str, mode: str = "octet", options: Mapping[str, object] | None = None) -> bytes:
    words = [name, mode]
    for key, value in (options or {}).items():
        words += [key, str(value)]
    return struct.pack("!H", RRQ) + b"".join(word.encode("utf-8") + b"\0" for word in words)


def ack(block: int) -> bytes:
    return struct.pack("!HH", ACK, block & 0xFFFF)


def error(code: int, text: str = "") -> bytes:
    return struct.pack("!HH", ERROR, code) + text.encode() + b"\0"


@frozen
class Packet:
    opcode: int
    block: int
    """Or the error's code."""
    data: bytes
    """Behind the block number; of an OACK all behind the opcode."""
    peer: Address

    @property
    def options(self) -> dict[str, str]:
        assert self.opcode == OACK, self
        words = self.data.split(b"\0")
        assert words.pop() == b""
        return {key.decode(): value.decode() for key, value in zip(words[::2], words[1::2], strict=True)}


def parse(data: bytes, peer: Address = ("", 0)) -> Packet:
    opcode, block = struct.unpack_from("!HH", data)
    return Packet(opcode, block, data[2:] if opcode == OACK else data[4:], peer)


class Client:
    """One UDP port."""

    def __init__(self, server: Address, host: str = "127.0.0.1") -> None:
        self.server = server
        self.host = host
        self.peer: Address | None = None
        """Who answered last."""
        self._sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    async def __aenter__(self) -> "Client":
        await self._sock.bind((self.host, 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()

    @property
    def address(self) -> Address:
        host, port = self._sock.getsockname()
        return host, port

    async def send(self, data: bytes, to: Address | None = None) -> None:
        await self._sock.sendto(data, to or self.peer or self.server)

    async def ask(self, name: str, mode: str = "octet", **options: object) -> None:
        await self.send(request(name, mode, options), self.server)

    async def receive(self) -> Packet:
        data, peer = await self._sock.recvfrom(65_536)
        packet = parse(data, peer)
        self.peer = peer
        return packet

    def waiting(self) -> list[Packet]:
        """What has arrived and was not received."""
        found: list[Packet] = []
        while True:
            try:
                data = self._sock._sock.recv(65_536, socket.MSG_DONTWAIT)  # type: ignore[attr-defined]
            except BlockingIOError:
                return found
            found.append(parse(data))

    async def fetch(self, name: str, mode: str = "octet", *, again: float = 1.0, **options: object) -> bytes:
        """The file, as a client of RFC 1350 with the options that were granted reads it (RFC 7440).

        After `again` seconds without news it repeats what it said last.
        """
        last, to = request(name, mode, options), self.server
        window, blksize, content, blocks, unacknowledged = 1, 512, b"", 0, 0
        while True:
            await self.send(last, to)
            advanced = False
            while not advanced:
                packet = None
                with trio.move_on_after(again):
                    packet = await self.receive()
                if packet is None:
                    if blocks:
                        last, unacknowledged = ack(blocks), 0
                    break
                to = packet.peer
                if packet.opcode == ERROR:
                    raise FileNotFoundError(packet.data)
                if packet.opcode == OACK:
                    window = int(packet.options.get("windowsize", 1))
                    blksize = int(packet.options.get("blksize", 512))
                    last, advanced = ack(0), blocks == 0
                elif packet.block == (blocks + 1) & 0xFFFF:
                    content += packet.data
                    blocks, unacknowledged = blocks + 1, unacknowledged + 1
                    if len(packet.data) < blksize:
                        await self.send(ack(blocks), to)
                        return content
                    if unacknowledged == window:
                        last, unacknowledged, advanced = ack(blocks), 0, True
                elif window > 1:
                    # Something before it is missing, or was said twice: tell what is here, like EDK2.
                    last, unacknowledged, advanced = ack(blocks), 0, True


@frozen(kw_only=True)
class Weather:
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """The part of the datagrams that come `late`."""
    delay: float = 0.0
    """Seconds each way."""
    late: float = 0.003


@asynccontextmanager
async def bad_network(server: Address, weather: Weather, seed: int = 1) -> AsyncIterator[Address]:
    """Where one client finds the server through a network that has this weather."""
    chance = random.Random(seed)
    front = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    back = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ends: dict[trio.socket.SocketType, Address] = {back: server}

    async def deliver(data: bytes, out: trio.socket.SocketType, seconds: float) -> None:
        await trio.sleep(seconds)
        await out.sendto(data, ends[out])

    async def carry(inward: trio.socket.SocketType, out: trio.socket.SocketType) -> None:
        while True:
            data, peer = await inward.recvfrom(65_536)
            ends[inward] = peer
            for _ in range(2 if chance.random() < weather.duplication else 1):
                if chance.random() >= weather.loss:
                    late = weather.late if chance.random() < weather.reordering else 0.0
                    if weather.delay + late:
                        nursery.start_soon(deliver, data, out, weather.delay + late)
                    else:
                        await out.sendto(data, ends[out])

    with front, back:
        await front.bind(("127.0.0.1", 0))
        await back.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry, front, back)
            nursery.start_soon(carry, back, front)
            yield front.getsockname()
            nursery.cancel_scope.cancel()
