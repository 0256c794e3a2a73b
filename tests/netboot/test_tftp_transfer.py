"""One transfer against a client's bare socket, with a clock that is a number: nothing here waits."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.tftp_lab import ACK, DATA, ERROR, OACK, Packet, ack, error, parse
from provd.netboot.tftp_options import Terms
from provd.netboot.tftp_socket import open_socket
from provd.netboot.tftp_transfer import Outcome, Transfer

LOCALHOST = IPv4Address("127.0.0.1")
SO_NO_CHECK = 11
OPTIONS = (("tsize", "0"),)
ROUND_TRIP = 0.01


class Wire:
    """A transfer and its client. Loopback delivers before the write returns."""

    def __init__(self, content: bytes, terms: Terms) -> None:
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.client.bind(("127.0.0.1", 0))
        self.sock = open_socket(LOCALHOST, self.client.getsockname())
        self.client.connect(self.sock.getsockname())
        self.transfer = Transfer(content, terms, self.sock)
        self.now = 1000.0
        self.transfer.start(self.now)

    def heard(self) -> list[Packet]:
        """What the transfer has sent since the last call."""
        found = []
        while True:
            try:
                found.append(parse(self.client.recv(65_536)))
            except BlockingIOError:
                return found

    def blocks(self) -> list[int]:
        packets = self.heard()
        assert all(packet.opcode == DATA for packet in packets)
        return [packet.block for packet in packets]

    def say(self, data: bytes, after: float = ROUND_TRIP) -> None:
        """Whatever the answer takes, the clock ticks once before it."""
        self.now += after
        self.transfer.tick(self.now)
        self.client.send(data)
        self.transfer.receive(self.now)

    def wait(self) -> float:
        """Until something is repeated; the seconds that took."""
        seconds = self.transfer.due - self.now
        self.now = self.transfer.due
        self.transfer.tick(self.now)
        return seconds

    def read(self) -> bytes:
        """The rest of the file, as a client does who misses nothing."""
        content = b""
        while self.transfer.outcome is None:
            packets = self.heard()
            content += b"".join(packet.data for packet in packets if packet.opcode == DATA)
            self.say(ack(packets[-1].block if packets[-1].opcode == DATA else 0))
        return content


@contextmanager
def wire(content: bytes | int, terms: Terms | None = None) -> Iterator[Wire]:
    data = content if isinstance(content, bytes) else bytes(n % 251 for n in range(content))
    found = Wire(data, terms or Terms())
    with found.client, found.sock:
        yield found


@pytest.mark.parametrize(
    ("size", "lengths"),
    [(0, [0]), (1, [1]), (511, [511]), (512, [512, 0]), (513, [512, 1]), (1024, [512, 512, 0])],
)
def test_last_block(size: int, lengths: list[int]) -> None:
    """A block that is not full ends the file; where none is left over, an empty one (RFC 1350 §6)."""
    with wire(size) as each:
        seen = []
        while each.transfer.outcome is None:
            (packet,) = each.heard()
            seen.append(len(packet.data))
            assert packet.block == len(seen)
            each.say(ack(packet.block))
        assert seen == lengths
        assert each.transfer.outcome is Outcome.DONE
        assert each.transfer.sent == size
        assert each.heard() == []


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=3000),
    blksize=st.sampled_from([8, 100, 512, 1468]),
    window=st.integers(1, 64),
    oack=st.booleans(),
)
def test_all_bytes_arrive(content: bytes, blksize: int, window: int, oack: bool) -> None:
    """A client that misses nothing has exactly the file, whatever the terms, and nothing went out twice."""
    terms = Terms(blksize=blksize, windowsize=window, answer=OPTIONS if oack else ())
    with wire(content, terms) as each:
        assert each.read() == content
        assert each.transfer.outcome is Outcome.DONE
        assert each.transfer.retransmissions == 0


def test_duplicate_acks_cause_nothing() -> None:
    """With each ACK doubled there is one DATA for each block: see RFC 1123 §4.2.3.1."""
    with wire(20 * 512) as each:
        sent = each.blocks()
        while each.transfer.outcome is None:
            newest = sent[-1]
            each.say(ack(newest))
            each.say(ack(newest))
            each.say(ack(newest - 1))
            sent += each.blocks()
        assert sent == list(range(1, 22))


def test_padded_ack() -> None:
    """An ACK counts with junk behind it too, as short Ethernet frames may bring it along."""
    with wire(5000, Terms(windowsize=2)) as each:
        each.blocks()
        each.say(ack(2) + bytes(14))
        assert each.blocks() == [3, 4]
        each.say(ack(3) + bytes(14))
        assert each.blocks() == [4, 5]


def test_doubled_acks_of_windows() -> None:
    """A duplicate that the network made is not taken for a report of a gap."""
    with wire(39 * 512, Terms(windowsize=4)) as each:
        sent = each.blocks()
        while each.transfer.outcome is None:
            newest = sent[-1]
            each.say(ack(newest))
            each.say(ack(newest), after=0.0001)
            sent += each.blocks()
        assert sent == list(range(1, 41))


def test_patience_doubles() -> None:
    """A silent client is reminded after 1, 2, 4, 8 and 8 seconds, and given up 8 seconds later."""
    with wire(5000) as each:
        assert each.blocks() == [1]
        waits = []
        while each.transfer.outcome is None:
            waits.append(each.wait())
            assert each.blocks() == ([1] if each.transfer.outcome is None else [])
        assert waits == [1, 2, 4, 8, 8, 8]
        assert each.transfer.outcome is Outcome.GAVE_UP
        assert each.transfer.retransmissions == 5


def test_asked_patience() -> None:
    """Who asks for a timeout is reminded after that first, however long it is (RFC 2349)."""
    with wire(5000, Terms(timeout=20, answer=(("timeout", "20"),))) as each:
        assert [each.wait() for _ in range(3)] == [20, 20, 20]
    with wire(5000, Terms(timeout=3, answer=(("timeout", "3"),))) as each:
        assert [each.wait() for _ in range(3)] == [3, 6, 8]


def test_patience_is_learned() -> None:
    """A client nearby is reminded after a fifth of a second, one far away after some round trips."""
    with wire(50_000) as each:
        for block in range(1, 20):
            each.say(ack(block), after=0.001)
        assert each.wait() == pytest.approx(0.2)
        assert each.wait() == pytest.approx(0.4)
    with wire(50_000) as each:
        for block in range(1, 40):
            each.say(ack(block), after=0.5)
        assert 0.5 < each.wait() < 1.0


def test_way_is_not_learned_from_what_was_repeated() -> None:
    """Patience stays long until an answer belongs to one packet without doubt (Karn's algorithm)."""
    with wire(50_000) as each:
        for block in range(1, 10):
            each.say(ack(block), after=0.001)
        each.wait()
        each.wait()
        each.say(ack(10), after=0.001)
        assert each.transfer.due - each.now == pytest.approx(0.8)
        each.say(ack(11), after=0.001)
        assert each.transfer.due - each.now == pytest.approx(0.2)


def test_each_answer_is_a_new_beginning() -> None:
    """Six tries are meant for one window, not for the file."""
    with wire(512 * 20) as each:
        for block in range(1, 20):
            for _ in range(5):
                each.wait()
            each.say(ack(block))
            assert each.transfer.outcome is None


def test_lost_data() -> None:
    """What was lost comes again, with the same content."""
    with wire(2000) as each:
        lost = each.heard()
        each.wait()
        assert each.heard() == lost
        each.say(ack(1))
        assert each.blocks() == [2]


def test_lost_last_ack() -> None:
    """The last block is repeated some times, then the client counts as gone, with everything sent."""
    with wire(100) as each:
        while each.transfer.outcome is None:
            each.wait()
        assert each.blocks() == [1] * 6
        assert each.transfer.outcome is Outcome.GAVE_UP
        assert each.transfer.sent == 100


def test_oack_comes_first() -> None:
    """After an OACK nothing is sent until it is acknowledged as block 0; if it is lost it comes again."""
    with wire(2000, Terms(answer=OPTIONS)) as each:
        (first,) = each.heard()
        assert first.opcode == OACK
        each.say(ack(1))
        each.say(ack(7))
        assert each.heard() == []
        each.wait()
        assert each.heard() == [first]
        each.say(ack(0))
        assert each.blocks() == [1]
        each.say(ack(0))
        assert each.blocks() == []


@pytest.mark.parametrize("code", [0, 8])
def test_probe(code: int) -> None:
    """An ERROR right after the OACK is how firmware asks for a size."""
    with wire(2000, Terms(answer=OPTIONS)) as each:
        each.heard()
        each.say(error(code, "Aborted"))
        assert each.transfer.outcome is Outcome.PROBE
        assert each.heard() == []


def test_error_later() -> None:
    """An ERROR in the middle ends it without a reply; its words are fit for a log line."""
    with wire(2000, Terms(answer=OPTIONS)) as each:
        each.say(ack(0))
        each.heard()
        each.say(error(3, "disk\nfull\x1b[2J"))
        assert each.transfer.outcome is Outcome.ABORTED
        assert "disk" in each.transfer.reason
        assert each.transfer.reason.isprintable()
        each.say(ack(1))
        assert each.heard() == []


def test_nothing_follows_the_end() -> None:
    """An ACK that was on its way when a transfer ended brings no block any more."""
    with wire(50_000, Terms(windowsize=4)) as each:
        each.heard()
        each.transfer.end(Outcome.ABORTED, "the client began anew")
        each.say(ack(4))
        each.say(ack(2))
        each.say(b"")
        each.wait()
        assert each.heard() == []


def test_window() -> None:
    """A window's blocks are sent at once, then nothing until its last one is."""
    with wire(512 * 9 + 1, Terms(windowsize=4)) as each:
        assert each.blocks() == [1, 2, 3, 4]
        each.say(ack(4))
        assert each.blocks() == [5, 6, 7, 8]
        each.say(ack(8))
        assert each.blocks() == [9, 10]
        each.say(ack(10))
        assert each.transfer.outcome is Outcome.DONE


def test_ack_inside_the_window() -> None:
    """It goes on behind the block that the client has (RFC 7440 §4)."""
    with wire(512 * 20, Terms(windowsize=4)) as each:
        each.blocks()
        each.say(ack(2))
        assert each.blocks() == [3, 4, 5, 6]
        assert each.transfer.retransmissions == 2
        each.say(ack(2), after=0.0)
        assert each.blocks() == []


def test_timeout_of_a_window() -> None:
    """All that is not acknowledged comes again."""
    with wire(512 * 20, Terms(windowsize=4)) as each:
        each.blocks()
        each.say(ack(4))
        each.blocks()
        each.wait()
        assert each.blocks() == [5, 6, 7, 8]
        assert each.transfer.retransmissions == 4


def test_gap_report() -> None:
    """Who lost the window's first block and says so gets it again, once, before any timer runs out."""
    with wire(512 * 20, Terms(windowsize=4)) as each:
        each.blocks()
        each.say(ack(4))
        each.blocks()
        each.say(ack(4))
        assert each.blocks() == [5, 6, 7, 8]
        each.say(ack(4))
        each.say(ack(4))
        assert each.blocks() == []
        each.say(ack(8))
        assert each.blocks() == [9, 10, 11, 12]


@pytest.mark.parametrize("window", [1, 7])
def test_roll_over(window: int) -> None:
    """After block 65535 comes block 0, in the middle of a window too."""
    with wire(bytes(8 * 65_540), Terms(blksize=8, windowsize=window)) as each:
        count = 0
        while each.transfer.outcome is None:
            packets = each.heard()
            assert packets
            for packet in packets:
                count += 1
                assert packet.block == count & 0xFFFF
            each.say(ack(count))
        assert count == 65_541
        assert each.transfer.retransmissions == 0


def test_segments_are_the_same_datagrams() -> None:
    """What the kernel cuts is on the wire what single writes would have put there."""
    seen = []
    for cut in (True, False):
        with wire(512 * 30 + 7, Terms(windowsize=16)) as each:
            each.heard()
            if not cut:
                each.sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
            each.say(ack(14))
            seen.append(each.heard())
            each.say(ack(30))
            seen[-1] += each.heard()
    assert seen[0] == seen[1]
    assert [packet.block for packet in seen[0]] == [*range(15, 31), 31]


def test_where_the_kernel_cannot_cut() -> None:
    """A network card that cannot do it costs nothing but speed."""
    with wire(512 * 30, Terms(windowsize=8)) as each:
        each.blocks()
        # The kernel refuses to cut what has no checksum, with the error for a block above the MTU.
        each.sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        each.say(ack(8))
        assert each.blocks() == list(range(9, 17))
        each.say(ack(16))
        assert each.blocks() == list(range(17, 25))
        assert each.transfer.outcome is None


@pytest.mark.parametrize("blksize", [33_000, 65_464])
def test_blocks_too_large_to_cut(blksize: int) -> None:
    """Blocks of which two do not fit into one write are written one by one."""
    with wire(blksize * 3, Terms(blksize=blksize, windowsize=2)) as each:
        assert each.blocks() == [1, 2]


def test_closed_port() -> None:
    """A client whose port is closed gets nothing more."""
    with wire(5000) as each:
        each.client.close()
        each.wait()
        each.transfer.receive(each.now)
        assert each.transfer.outcome is Outcome.ABORTED


def test_last_words_count() -> None:
    """A client that acknowledged everything and then closed its port has been served, though the kernel
    tells of the port first."""
    with wire(100) as each:
        each.client.send(ack(1))
        each.client.close()
        each.wait()
        each.transfer.receive(each.now)
        assert each.transfer.outcome is Outcome.DONE


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40) | st.integers(0, 65_535).map(ack), max_size=10), st.integers(1, 8))
def test_any_answers(answers: list[bytes], window: int) -> None:
    """Whatever a client says, nothing is raised, and it gets nothing outside of the file's blocks."""
    with wire(512 * 12, Terms(windowsize=window)) as each:
        seen = each.blocks()
        for data in answers:
            each.say(data)
            seen += each.blocks()
        assert set(seen) <= set(range(1, 14))
        refused = any(data[:2] == bytes((0, ERROR)) and len(data) >= 4 for data in answers)
        finished = any(data[:2] == bytes((0, ACK)) and len(data) >= 4 for data in answers)
        assert each.transfer.outcome in {
            None,
            *((Outcome.ABORTED,) if refused else ()),
            *((Outcome.DONE,) if finished else ()),
        }
