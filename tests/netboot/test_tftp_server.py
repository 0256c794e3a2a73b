"""The whole server over real sockets on loopback. Where only clocks matter, trio's jumps."""

import gc
import hashlib
import logging
import os
import random
import select
import socket
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from netboot.tftp_lab import (
    ACK,
    DATA,
    ERROR,
    FILES,
    OACK,
    WRQ,
    Client,
    Server,
    ack,
    error,
    open_server,
    request,
)
from provd.netboot.tftp_chat import LINES, LINES_PERIOD
from provd.netboot.tftp_options import Bounds
from provd.netboot.tftp_server import Limits, boot_name
from provd.netboot.tftp_transfer import Outcome

PCAPS = Path(__file__).parent / "pcaps"
PATIENCE = 20.0
MALFORMED = [
    b"",
    b"\0",
    b"\0\1",
    b"\0\1x",
    b"\0\0a\0octet\0",
    b"\0\7a\0octet\0",
    b"\xff\xff",
    ack(0),
    ack(1)[:3],
    struct.pack("!HH", DATA, 1) + b"data",
    struct.pack("!H", OACK) + b"blksize\x00512\0",
    error(0, "no"),
    b"\0\1loader.efi\0octet",
    b"\0\1loader.efi\0octet\0blksize\0",
    b"\0\1loader.efi\0octet\0blksize\x00512",
    b"\0\1loader.efi\0octet\0\0\0",
    request("a" * 3000),
]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def quiet(server: Server, client: Client) -> None:
    """Asserts that everything said so far got no answer: the next question is the first to get one."""
    assert client.waiting() == []
    await client.ask("nowhere")
    with trio.fail_after(PATIENCE):
        packet = await client.receive()
    assert (packet.opcode, packet.block) == (ERROR, 1)
    assert client.waiting() == []
    client.peer = None


async def test_plain_transfer() -> None:
    """Without options DATA comes at once, by a port that is not the server's, in blocks of 512."""
    async with open_server() as server, Client(server.address) as client:
        await client.ask("exact")
        with trio.fail_after(PATIENCE):
            content = b""
            for block in (1, 2, 3):
                packet = await client.receive()
                assert (packet.opcode, packet.block) == (DATA, block)
                assert packet.peer != server.address
                content += packet.data
                await client.send(ack(block))
            (read,) = await server.wait_reads(1)
        assert content == FILES["exact"]
        assert (read.peer, read.name, read.outcome) == ("127.0.0.1", "exact", Outcome.DONE)
        assert (read.sent, read.size, read.retransmissions, read.reason) == (1024, 1024, 0, "")


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("window", [0, 1, 4, 64])
@pytest.mark.parametrize("blksize", [0, 512, 1468])
async def test_terms(name: str, window: int, blksize: int) -> None:
    """Every file arrives on any terms."""
    wanted = {"windowsize": window, "blksize": blksize, "tsize": 0}
    options = {key: value for key, value in wanted.items() if value or (key == "tsize" and window)}
    async with open_server() as server, Client(server.address) as client:
        with trio.fail_after(PATIENCE):
            assert await client.fetch(name, **options) == FILES[name]
            (read,) = await server.wait_reads(1)
        assert read.outcome is Outcome.DONE


async def test_oack() -> None:
    """An OACK names what was asked and granted, as it was spelled, and nothing else."""
    async with open_server() as server, Client(server.address) as client:
        with trio.fail_after(PATIENCE):
            await client.ask("loader.efi", BLKSIZE=65464, tsize=0, magic=1, timeout=0, windowsize=9999)
            packet = await client.receive()
        assert packet.options == {"BLKSIZE": "1468", "tsize": "100001", "windowsize": "64"}
        await client.send(error(8))


async def test_no_oack_for_nothing() -> None:
    """Where no option can be granted there is no OACK."""
    async with open_server() as server, Client(server.address) as client:
        with trio.fail_after(PATIENCE):
            await client.ask("small", blksize=7, magic=1)
            assert (await client.receive()).opcode == DATA
            await client.send(ack(1))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (request("nowhere"), 1),
        (request("nowhere", options={"tsize": 0, "blksize": 1468}), 1),
        (request(""), 1),
        (request("/"), 1),
        (request(".."), 1),
        (request("../small"), 1),
        (request("a/../../small"), 1),
        (request("..\\small"), 1),
        (request("%2e%2e/small"), 1),
        (request("small/"), None),
        (request("/small"), None),
        (request("//small"), None),
        (request("\\small"), None),
        (request(".\\small"), None),
        (request("sm\u00e4ll"), 1),
        (request("small\x1b"), 1),
        (request("a" * 1900), 1),
        (request("small", "OCTET"), None),
        (request("small", "Octet"), None),
        (request("small", "mail"), 4),
        (request("small", "x"), 4),
        (struct.pack("!H", WRQ) + b"new\0octet\0", 2),
        (struct.pack("!H", WRQ) + b"small\0octet\0", 2),
    ],
)
async def test_refusals(data: bytes, code: int | None) -> None:
    """What cannot be had is refused with the RFC's number, and no OACK comes before that."""
    async with open_server() as server, Client(server.address) as client:
        with trio.fail_after(PATIENCE):
            await client.send(data)
            packet = await client.receive()
            if code is None:
                assert (packet.opcode, packet.data) == (DATA, FILES["small"])
                await client.send(ack(1))
            else:
                assert (packet.opcode, packet.block) == (ERROR, code)
                assert packet.data.endswith(b"\0")
        assert "new" not in server.files.asked


@given(st.text(max_size=300) | st.lists(st.sampled_from(["..", ".", "/", "\\", "a", ""])).map("".join))
def test_names(name: str) -> None:
    """Whatever a client calls a file, only a plain relative path is looked up."""
    found = boot_name(name)
    if found is not None:
        assert found.isascii()
        assert found.isprintable()
        assert "\\" not in found
        assert all(part not in ("", ".", "..") for part in found.split("/"))


async def test_netascii() -> None:
    """A text is converted, and its size is not told."""
    async with open_server() as server, Client(server.address) as client:
        with trio.fail_after(PATIENCE):
            await client.ask("small", "NetASCII", tsize=0, blksize=1000)
            packet = await client.receive()
            assert packet.options == {"blksize": "1000"}
            await client.send(ack(0))
            packet = await client.receive()
            assert packet.data == FILES["small"].replace(b"\n", b"\r\n")
            await client.send(ack(1))


@pytest.mark.parametrize("data", MALFORMED)
async def test_silence(data: bytes) -> None:
    """What is no request gets no answer, and the server goes on."""
    async with open_server() as server, Client(server.address) as client:
        await client.send(data)
        with trio.fail_after(PATIENCE):
            await quiet(server, client)
        assert server.reads == []


async def test_strangers_do_not_disturb() -> None:
    """Who is not the transfer's client cannot move, end or feed it, nor does he get an answer."""
    async with (
        open_server() as server,
        Client(server.address) as client,
        Client(server.address) as stranger,
    ):
        with trio.fail_after(PATIENCE):
            await client.ask("exact")
            first = await client.receive()
            for data in (ack(1), error(0), b"x"):
                await stranger.send(data, first.peer)
            assert client.waiting() == []
            await client.send(ack(1))
            assert (await client.receive()).block == 2
            await client.send(ack(2))
            assert (await client.receive()).block == 3
            await client.send(ack(3))
            (read,) = await server.wait_reads(1)
        assert read.outcome is Outcome.DONE
        assert stranger.waiting() == []


async def test_same_request_twice() -> None:
    """A request that comes twice begins one transfer."""
    async with open_server() as server, Client(server.address) as client:
        with trio.fail_after(PATIENCE):
            await client.ask("small")
            await client.ask("small")
            await client.receive()
            await client.ask("small")
            await client.send(ack(1))
            await server.wait_reads(1)
            client.peer = None
            await quiet(server, client)
        assert len(server.reads) == 1


async def test_other_request_from_the_same_port() -> None:
    """A client that asks for something else has given the first up."""
    async with open_server() as server, Client(server.address) as client:
        with trio.fail_after(PATIENCE):
            await client.ask("loader.efi")
            first = await client.receive()
            await client.ask("small")
            second = await client.receive()
            assert second.data == FILES["small"]
            assert second.peer != first.peer
            await client.send(ack(1))
            reads = await server.wait_reads(2)
        assert {read.name: read.outcome for read in reads} == {
            "loader.efi": Outcome.ABORTED,
            "small": Outcome.DONE,
        }


async def test_what_was_given_up_does_not_count() -> None:
    """A client that changes its mind again and again never comes to the limit of its address."""
    async with (
        open_server(limits=Limits(transfers_per_address=2)) as server,
        Client(server.address) as client,
        Client(server.address) as other,
    ):
        with trio.fail_after(PATIENCE):
            for number in range(10):
                await client.ask("loader.efi", blksize=512 + number)
                assert (await client.receive()).options == {"blksize": str(512 + number)}
            assert await other.fetch("small") == FILES["small"]


async def test_machine_that_starts_over(autojump_clock: MockClock) -> None:
    """The same request from the same port, when its transfer has stalled, begins a new one: a reset ROM."""
    async with open_server() as server, Client(server.address) as client:
        await client.ask("loader.efi")
        await client.receive()
        await client.send(ack(1))
        second = await client.receive()
        await trio.sleep(5)
        client.waiting()
        await client.ask("loader.efi")
        fresh = await client.receive()
        assert (fresh.opcode, fresh.block) == (DATA, 1)
        assert fresh.peer != second.peer
        (read,) = await server.wait_reads(1)
        assert read.outcome is Outcome.ABORTED


async def test_silent_client(autojump_clock: MockClock) -> None:
    """Who never answers gets six packets in 31 seconds, and then the transfer is over."""
    begun = trio.current_time()
    async with open_server() as server, Client(server.address) as client:
        await client.ask("loader.efi")
        (read,) = await server.wait_reads(1)
        assert [packet.block for packet in client.waiting()] == [1] * 6
    assert read.outcome is Outcome.GAVE_UP
    assert read.retransmissions == 5
    assert read.seconds == pytest.approx(31, abs=0.5)
    assert trio.current_time() - begun == pytest.approx(31, abs=0.5)


async def test_lost_oack(autojump_clock: MockClock) -> None:
    """An OACK that is not answered comes again, and then the file."""
    async with open_server() as server, Client(server.address) as client:
        await client.ask("small", tsize=0)
        first = await client.receive()
        again = await client.receive()
        assert (first.opcode, again) == (OACK, first)
        await client.send(ack(0))
        assert (await client.receive()).data == FILES["small"]
        await client.send(ack(1))
        (read,) = await server.wait_reads(1)
        assert (read.outcome, read.retransmissions) == (Outcome.DONE, 1)


async def test_quick_reminder(autojump_clock: MockClock) -> None:
    """After some blocks a lost one is missed in a fifth of a second, not in the first's whole one."""
    async with open_server() as server, Client(server.address) as client:
        await client.ask("loader.efi")
        for block in range(1, 10):
            await client.receive()
            await client.send(ack(block))
        await client.receive()
        lost = trio.current_time()
        assert (await client.receive()).block == 10
        assert trio.current_time() - lost == pytest.approx(0.2, abs=0.11)


async def test_deadline(autojump_clock: MockClock) -> None:
    """No transfer takes more than ten minutes, however patient its client wants us to be."""
    async with open_server() as server, Client(server.address) as client:
        await client.ask("loader.efi", timeout=255)
        (read,) = await server.wait_reads(1)
        assert read.outcome is Outcome.ABORTED
        assert read.seconds == pytest.approx(600, abs=0.1)


async def test_client_goes_away(autojump_clock: MockClock) -> None:
    """When the network says that nobody listens there any more, the transfer ends at once."""
    begun = trio.current_time()
    async with open_server() as server:
        async with Client(server.address) as client:
            await client.ask("loader.efi", windowsize=4)
            await client.receive()
            await client.send(ack(0))
            await client.receive()
            sent_by, server_side = client.address, client.peer
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dying:
            dying.bind(sent_by)
            assert server_side is not None
            dying.sendto(ack(4), server_side)
        (read,) = await server.wait_reads(1)
    assert read.outcome is Outcome.ABORTED
    assert "closed" in read.reason
    assert trio.current_time() - begun < 1.5


async def test_size_probe_of_ovmf(autojump_clock: MockClock) -> None:
    """OVMF's own requests: it asks for the size, says ERROR 8, asks again from the next port and reads."""
    probe, read_it, autoexec = tftp_requests(PCAPS / "uefi_43.pcap")
    async with open_server() as server:
        server.files.files["snponly.efi"] = FILES["loader.efi"]
        async with Client(server.address) as client:
            await client.send(probe)
            packet = await client.receive()
            assert packet.options == {"tsize": "100001", "blksize": "1468", "windowsize": "4"}
            await client.send(error(8, "User aborted the transfer"))
            (read,) = await server.wait_reads(1)
            assert (read.outcome, read.sent, read.retransmissions) == (Outcome.PROBE, 0, 0)
            assert client.waiting() == []
        async with Client(server.address) as client:
            await client.send(read_it)
            assert (await client.receive()).options == {"blksize": "1468", "windowsize": "4"}
            await client.send(ack(0))
            content = b""
            while len(content) < 100_001:
                for _ in range(4):
                    packet = await client.receive()
                    content += packet.data
                    if len(packet.data) < 1468:
                        break
                await client.send(ack(packet.block))
            assert content == FILES["loader.efi"]
            reads = await server.wait_reads(2)
            assert reads[1].outcome is Outcome.DONE
        async with Client(server.address) as client:
            await client.send(autoexec)
            assert (await client.receive()).block == 1


def tftp_requests(path: Path) -> list[bytes]:
    """The payloads to port 69 of a capture of Ethernet frames (pcap, little-endian)."""
    data, found, offset = path.read_bytes(), [], 24
    while offset < len(data):
        (length,) = struct.unpack_from("<I", data, offset + 8)
        frame = data[offset + 16 : offset + 16 + length]
        offset += 16 + length
        if frame[12:14] == b"\x08\x00" and frame[23] == 17:
            udp = frame[14 + 4 * (frame[14] & 15) :]
            target, size = struct.unpack_from("!HH", udp, 2)
            if target == 69:
                found.append(udp[8:size])
    return found


async def test_answers_from_the_asked_address() -> None:
    """A server at several addresses answers from the one that the client used, errors too."""
    async with open_server("0.0.0.0") as server:
        for host in ("127.0.0.1", "127.0.0.9", "127.3.2.1"):
            async with Client((host, server.address[1])) as client:
                with trio.fail_after(PATIENCE):
                    await client.ask("nowhere")
                    assert (await client.receive()).peer[0] == host
                    await client.ask("small", tsize=0)
                    assert (await client.receive()).peer[0] == host
                    await client.send(ack(0))
                    assert (await client.receive()).peer[0] == host
                    await client.send(ack(1))


@pytest.mark.parametrize(
    ("limits", "hosts", "late"),
    [
        (Limits(transfers=3), ("127.0.0.1", "127.0.0.2", "127.0.0.3"), "127.0.0.4"),
        (Limits(transfers_per_address=2), ("127.0.0.1", "127.0.0.1", "127.0.0.2"), "127.0.0.1"),
    ],
    ids=["together", "of-one-address"],
)
async def test_too_many_transfers(limits: Limits, hosts: tuple[str, str, str], late: str) -> None:
    """Beyond a limit of clients that read, a request gets no answer; when there is room again, it does."""
    async with (
        open_server(limits=limits) as server,
        Client(server.address, hosts[0]) as first,
        Client(server.address, hosts[1]) as second,
        Client(server.address, hosts[2]) as third,
        Client(server.address, late) as last,
    ):
        with trio.fail_after(PATIENCE):
            for client in (first, second, third):
                await client.ask("loader.efi")
                await client.receive()
                await client.send(ack(1))
                await client.receive()
            await last.ask("loader.efi")
            await quiet(server, last)
            await first.send(error(0))
            await server.wait_reads(1)
            await last.ask("loader.efi")
            assert (await last.receive()).opcode == DATA


@pytest.mark.parametrize("options", [{}, {"tsize": 0, "windowsize": 4}], ids=["plain", "with-options"])
@pytest.mark.parametrize(
    ("limits", "forged", "real"),
    [
        (Limits(transfers=3), ("127.0.0.2", "127.0.0.3"), ("127.0.0.4", "127.0.0.5")),
        (Limits(transfers_per_address=3), ("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")),
    ],
    ids=["together", "of-one-address"],
)
async def test_forged_requests_lock_nobody_out(
    limits: Limits, forged: tuple[str, str], real: tuple[str, str], options: dict[str, int]
) -> None:
    """When there is no room, the transfers that nobody ever answered give way, the oldest of them first."""
    async with (
        open_server(limits=limits) as server,
        Client(server.address) as reader,
        Client(server.address, forged[0]) as older,
        Client(server.address, forged[1]) as younger,
        Client(server.address, real[0]) as one,
        Client(server.address, real[1]) as two,
    ):
        with trio.fail_after(PATIENCE):
            await reader.ask("loader.efi", **options)
            first = await reader.receive()
            await reader.send(ack(0 if first.opcode == OACK else 1))
            await reader.receive()
            for client in (older, younger):
                await client.ask("loader.efi", **options)
                await client.receive()
            for number, (client, given_up) in enumerate(((one, older), (two, younger)), 1):
                await client.ask("loader.efi", **options)
                first = await client.receive()
                await client.send(ack(0 if first.opcode == OACK else 1))
                await client.receive()
                reads = await server.wait_reads(number)
                assert (reads[-1].outcome, reads[-1].peer) == (Outcome.GAVE_UP, given_up.address[0])
            await reader.send(error(0))
            reads = await server.wait_reads(3)
            assert (reads[-1].outcome, reads[-1].peer) == (Outcome.ABORTED, reader.address[0])


async def test_replaced_file() -> None:
    """A transfer keeps the bytes that it began with."""
    async with open_server() as server, Client(server.address) as client, Client(server.address) as later:
        with trio.fail_after(PATIENCE):
            await client.ask("exact")
            content = (await client.receive()).data
            server.files.files["exact"] = b"new"
            for block in (1, 2, 3):
                await client.send(ack(block))
                if block < 3:
                    content += (await client.receive()).data
            assert content == FILES["exact"]
            assert await later.fetch("exact") == b"new"


async def test_record() -> None:
    """Requests, OACKs and errors are shown with their addresses; blocks and ACKs are not."""
    async with open_server() as server, Client(server.address) as client:
        with trio.fail_after(PATIENCE):
            await client.fetch("exact", tsize=0)
            await client.ask("nowhere")
            await client.receive()
        assert [payload[:2] for _, _, payload in server.packets] == [b"\0\1", b"\0\6", b"\0\1", b"\0\5"]
        asked, granted = server.packets[0], server.packets[1]
        assert asked[:2] == (client.address, server.address)
        assert granted[1] == client.address
        assert granted[0] != server.address


async def test_cancellation() -> None:
    """When the server is cancelled no socket stays open, in the middle of whatever."""
    gc.collect()
    before = open_files()
    async with Client(("", 0)) as one, Client(("", 0)) as two:
        async with open_server() as server:
            begun = open_files()
            for client in (one, two):
                client.server = server.address
                await client.ask("loader.efi", windowsize=4)
                with trio.fail_after(PATIENCE):
                    await client.receive()
            assert open_files() == begun + 2
        assert server.reads == []
    assert open_files() == before


async def test_port_in_use() -> None:
    """A port that cannot be had is an OSError for whoever starts the server."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.RaisesGroup(OSError, flatten_subgroups=True):
            async with open_server(port=taken.getsockname()[1]):
                pass


class Counter(logging.Filter):
    """Of log lines, which end here: pytest would keep them all, and that looks like memory that is lost."""

    lines = 0

    def filter(self, record: logging.LogRecord) -> bool:
        self.lines += 1
        return False


@pytest.fixture
def log_lines() -> Iterator[Counter]:
    counter, logger = Counter(), logging.getLogger("provd.netboot.tftp_server")
    before = logger.level
    logger.addFilter(counter)
    logger.setLevel(logging.DEBUG)
    yield counter
    logger.removeFilter(counter)
    logger.setLevel(before)


async def test_ten_thousand_malformed_datagrams(log_lines: Counter) -> None:
    """They leave no task, no memory and no descriptor behind, and few lines in the log."""
    chance = random.Random(3)
    seeds = [*MALFORMED, request("loader.efi", "mail"), struct.pack("!H", WRQ) + b"x\0octet\0"]

    async def flood(client: Client, count: int) -> None:
        for index in range(count):
            data = bytearray(chance.choice(seeds))
            if data and chance.random() < 0.5:
                data[chance.randrange(len(data))] = chance.randrange(256)
            if data[:2] == b"\0\1" and b"loader" in data:
                data[1] = 9
            await client.send(bytes(data), client.server)
            if index % 50 == 49:
                # Not faster than they are read, or the kernel drops them unseen.
                await trio.testing.wait_all_tasks_blocked()
                client.waiting()

    async with open_server() as server, Client(server.address) as client:

        def forget() -> int:
            """Bytes in use by the server, without what this test writes down of it."""
            server.packets.clear()
            server.files.asked.clear()
            gc.collect()
            ours = [tracemalloc.Filter(True, f"*/{name}/*") for name in ("provd", "tftpy", "trio")]
            statistics = tracemalloc.take_snapshot().filter_traces(ours).statistics("filename")
            return sum(each.size for each in statistics)

        await flood(client, 500)
        tasks = trio.lowlevel.current_statistics().tasks_living
        files = open_files()
        tracemalloc.start()
        try:
            await flood(client, 1000)
            memory = forget()
            begun, said = trio.current_time(), log_lines.lines
            await flood(client, 8500)
            periods = (trio.current_time() - begun) // LINES_PERIOD + 2
            lines = log_lines.lines - said
            grown = forget() - memory
        finally:
            tracemalloc.stop()
        assert grown < 20_000
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert open_files() == files
        assert lines <= periods * (LINES + 1)
        with trio.fail_after(PATIENCE):
            assert await client.fetch("loader.efi", blksize=1468) == FILES["loader.efi"]


async def test_two_hundred_clients() -> None:
    """200 clients read a mebibyte each at the same time, and all have the same bytes."""
    content = random.Random(11).randbytes(1 << 20)
    limits = Limits(transfers=200, transfers_per_address=200, bounds=Bounds())
    async with open_server(limits=limits) as server:
        server.files.files["big"] = content
        with trio.fail_after(120):
            digests = await trio.to_thread.run_sync(read_many, server.address, 200, abandon_on_cancel=True)
            reads = await server.wait_reads(200)
    assert digests == [hashlib.sha256(content).digest()] * 200
    assert {(read.outcome, read.sent) for read in reads} == {(Outcome.DONE, 1 << 20)}


def read_many(server: tuple[str, int], count: int) -> list[bytes]:
    """The digests of what so many readers of "big" got, all in one loop."""
    ready = select.epoll()
    readers = {}
    for _ in range(count):
        reader = read_in_windows(server)
        sock = next(reader)
        assert isinstance(sock, socket.socket)
        readers[sock.fileno()] = reader
        ready.register(sock, select.EPOLLIN)
    digests = []
    while readers:
        found = ready.poll(30)
        assert found, "the server fell silent"
        for fd, _ in found:
            result = next(readers[fd])
            if isinstance(result, bytes):
                del readers[fd]
                digests.append(result)
    ready.close()
    return digests


def read_in_windows(server: tuple[str, int]) -> Iterator[socket.socket | bytes | None]:
    """Yields its socket, then after each datagram, and the digest at the end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.sendto(request("big", options={"blksize": 1468, "windowsize": 16}), server)
        yield sock
        _, peer = sock.recvfrom(2000)
        sock.connect(peer)
        sock.send(ack(0))
        digest, blocks, unacknowledged, length = hashlib.sha256(), 0, 0, 1468
        while length == 1468:
            yield None
            data = sock.recv(2000)
            block = struct.unpack_from("!HH", data)[1]
            if block == blocks + 1:
                digest.update(data[4:])
                blocks, unacknowledged, length = block, unacknowledged + 1, len(data) - 4
            if block != blocks or unacknowledged == 16 or length < 1468:
                unacknowledged = 0
                sock.send(struct.pack("!HH", ACK, blocks))
        yield digest.digest()
