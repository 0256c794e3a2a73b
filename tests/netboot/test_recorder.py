"""The flight recorder: a bounded memory, and captures that other programs can read."""

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.all import BOOTP, DHCP, IP, UDP, PcapReader, PcapWriter, Raw  # type: ignore[attr-defined]

from provd.domain.hosts import Mac
from provd.netboot import recorder
from provd.netboot.recorder import FlightRecorder

MAC = Mac("52:54:00:00:00:01")
CLIENT, SERVER = ("0.0.0.0", 68), ("255.255.255.255", 67)
PCAPS = Path(__file__).parent / "pcaps"


def keep(flight: FlightRecorder, payload: bytes, mac: Mac = MAC) -> None:
    flight.record(mac, source=CLIENT, target=SERVER, payload=payload)


def read(capture: bytes) -> list[IP]:
    with PcapReader(io.BytesIO(capture)) as packets:  # type: ignore[arg-type]  # its hint forgets files
        return list(packets)


@settings(deadline=None)  # scapy's first dissection of a protocol is slow
@given(
    st.lists(
        st.tuples(
            st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 65_535)),
            st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 65_535)),
            st.binary(max_size=600),
            st.integers(0, 2**32 * 1_000_000_000 - 1),
        ),
        max_size=5,
    )
)
def test_what_was_recorded_is_what_another_reader_finds(
    datagrams: list[tuple[tuple[str, int], tuple[str, int], bytes, int]],
) -> None:
    """Addresses, ports, payload and time to the microsecond, for any datagram; in order."""
    times = iter(at for *_, at in datagrams)
    flight = FlightRecorder(clock=lambda: next(times))
    for source, target, payload, _ in datagrams:
        flight.record(MAC, source=source, target=target, payload=payload)
    found = read(flight.pcap(MAC))
    assert [
        (
            (packet[IP].src, packet[UDP].sport),
            (packet[IP].dst, packet[UDP].dport),
            # As read, before scapy takes it for whatever the port is known for.
            packet.original[28:],
            int(packet.time * 1_000_000),
        )
        for packet in found
    ] == [(source, target, payload, at // 1000) for source, target, payload, at in datagrams]


def test_the_headers_are_those_that_scapy_would_make() -> None:
    """Length and checksum included, so that no reader calls the packets broken."""
    flight = FlightRecorder()
    keep(flight, b"hello")
    made = IP(src="0.0.0.0", dst="255.255.255.255", id=0) / UDP(sport=68, dport=67, chksum=0) / Raw(b"hello")
    assert bytes(read(flight.pcap(MAC))[0]) == bytes(made)


def test_a_real_firmwares_boot_reads_as_dhcp_again() -> None:
    """Payloads of a UEFI machine's boot, recorded and read back, still are its DHCP messages."""
    flight = FlightRecorder()
    with PcapReader(str(PCAPS / "uefi_binl.pcap")) as packets:
        sent = [packet for packet in packets if BOOTP in packet and UDP in packet]
    assert sent
    for packet in sent:
        source, target = (packet[IP].src, packet[UDP].sport), (packet[IP].dst, packet[UDP].dport)
        flight.record(MAC, source=source, target=target, payload=bytes(packet[UDP].payload))
    found = read(flight.pcap(MAC))
    assert [packet[DHCP].options[0] for packet in found] == [packet[DHCP].options[0] for packet in sent]


def test_the_file_is_a_classic_capture_as_scapy_writes_one(tmp_path: Path) -> None:
    """Header and records equal those of scapy's own writer, byte for byte."""
    flight = FlightRecorder(clock=lambda: 1_700_000_000_123_456_000)
    keep(flight, b"hello")
    [packet] = read(flight.pcap(MAC))
    file = tmp_path / "scapy.pcap"
    with PcapWriter(str(file), linktype=101, endianness="<") as writer:
        writer.write(packet)
    ours, theirs = flight.pcap(MAC), file.read_bytes()
    # Scapy announces another snapshot length (octets 16 to 19 of the file header).
    assert (ours[:16], ours[20:]) == (theirs[:16], theirs[20:])


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
def test_tcpdump_reads_it(tmp_path: Path) -> None:
    """The tool of whoever sits at a terminal shows the packets and complains of nothing."""
    flight = FlightRecorder()
    keep(flight, b"hello")
    (tmp_path / "a.pcap").write_bytes(flight.pcap(MAC))
    shown = subprocess.run(
        ["tcpdump", "-nvr", tmp_path / "a.pcap"], capture_output=True, text=True, check=True
    )
    assert "0.0.0.0.68 > 255.255.255.255.67" in shown.stdout
    assert "bad" not in shown.stdout


def test_nobody_heard_is_an_empty_capture() -> None:
    """It opens, and has nothing in it."""
    flight = FlightRecorder()
    assert flight.pcap(MAC) == recorder.FILE_HEADER
    assert (flight.macs(), flight.count(MAC)) == ([], 0)


def test_a_machine_has_so_many_packets() -> None:
    """Beyond that the oldest goes, and the youngest is there."""
    flight = FlightRecorder()
    for number in range(recorder.PACKETS + 5):
        keep(flight, b"%d" % number)
    found = [bytes(packet[UDP].payload) for packet in read(flight.pcap(MAC))]
    assert found == [b"%d" % number for number in range(5, recorder.PACKETS + 5)]
    assert flight.count(MAC) == recorder.PACKETS


def test_a_machine_has_so_many_octets() -> None:
    """Large packets push older ones out before there are too many of them."""
    flight = FlightRecorder()
    keep(flight, b"small")
    for number in range(4):
        keep(flight, bytes([number]) * (recorder.OCTETS // 3))
    found = [bytes(packet[UDP].payload) for packet in read(flight.pcap(MAC))]
    assert [payload[0] for payload in found] == [1, 2, 3]


def test_the_largest_thinkable_datagram_is_kept_alone() -> None:
    """What exceeds a datagram is cut, and what fills the ring does not empty it."""
    flight = FlightRecorder()
    keep(flight, bytes(100))
    keep(flight, bytes(100_000))
    [packet] = read(flight.pcap(MAC))
    assert len(packet[UDP].payload) == recorder.LONGEST_PAYLOAD


def test_made_up_macs_push_out_who_was_silent_longest() -> None:
    """The number of machines is bounded, and whoever speaks stays."""
    flight = FlightRecorder()
    silent = Mac("52:54:00:00:00:02")
    keep(flight, b"x", silent)
    for number in range(recorder.MACHINES):
        keep(flight, b"x", Mac(f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"))
        keep(flight, b"x")
    assert len(flight.macs()) == recorder.MACHINES
    assert flight.macs()[-1] == MAC
    assert silent not in flight.macs()
