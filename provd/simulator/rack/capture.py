"""`python -m provd.simulator.rack.capture DIRECTORY`: what firmware and provd say to each other, as pcaps.

One boot of each kind, up to the machine's script, as provd's own flight recorder has it. The DATA and ACK
of TFTP are left out, of which one is like the other. The tests' `netboot/pcaps/provd_*` were made so.
"""

import argparse
import secrets
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from attrs import frozen

from provd.simulator.rack.machine import Firmware
from provd.simulator.rack.rack import Json, open_rack
from provd.simulator.vm.packages import default_cache, newer_ipxe

PATIENCE = 5 * 60.0
"""Seconds for one boot."""
FILE_HEADER, RECORD_HEADER = 24, struct.Struct("<IIII")
UDP_AT, PAYLOAD_AT = 20, 28
"""In a record of the flight recorder, which is a bare IP packet without options."""
DHCP_PORTS = frozenset({67, 68, 4011})
DATA, ACK = 3, 4


@frozen
class Boot:
    firmware: Firmware
    newer: bool = False
    """With Debian 13's iPXE builds instead of this computer's."""
    discovery: str = "offer"
    """The host's own way of being told its boot file."""


BOOTS = {
    "provd_uefi": Boot(Firmware.UEFI),
    "provd_uefi_newer": Boot(Firmware.UEFI, newer=True),
    "provd_uefi_4011": Boot(Firmware.UEFI, newer=True, discovery="boot-server"),
    "provd_uefi_http": Boot(Firmware.UEFI_HTTP, newer=True),
    "provd_bios": Boot(Firmware.BIOS),
    "provd_arm64": Boot(Firmware.ARM64, newer=True),
}


async def capture(boot: Boot, directory: Path, port: int) -> bytes:
    def configure(document: Json) -> None:
        if boot.newer:
            document["pxe"]["loader_dir"] = str(newer_ipxe(default_cache()))

    token = f"provd_{secrets.token_urlsafe(32)}"
    async with open_rack(directory, port=port, token=token, configure=configure) as rack:
        await rack.import_stand_in()
        await rack.start_provd()
        machine = rack.add_machine(boot.firmware)
        host = await rack.register(machine, options={"discovery": boot.discovery})
        await rack.rebuild(host)
        await machine.power_on()
        await rack.until_heard(host, "fetched its boot script: installer")
        answer = await rack.client.get(f"/api/hosts/{host['id']}/packets.pcap")
        return answer.raise_for_status().content


def trimmed(pcap: bytes, wanted: Callable[[bytes], bool]) -> bytes:
    """The capture with those of its records that are wanted."""
    return pcap[:FILE_HEADER] + b"".join(record for record in records(pcap) if wanted(record[16:]))


def records(pcap: bytes) -> Iterator[bytes]:
    at = FILE_HEADER
    while at < len(pcap):
        end = at + RECORD_HEADER.size + RECORD_HEADER.unpack_from(pcap, at)[2]
        yield pcap[at:end]
        at = end


def tells_something(packet: bytes) -> bool:
    """DHCP, or the requests, OACKs and errors of TFTP."""
    if DHCP_PORTS & set(struct.unpack_from("!HH", packet, UDP_AT)):
        return True
    return struct.unpack_from("!H", packet, PAYLOAD_AT)[0] not in (DATA, ACK)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m provd.simulator.rack.capture", description=__doc__)
    parser.add_argument("directory", type=Path, help="where the captures go")
    parser.add_argument("--only", choices=BOOTS, help="one of them")
    parser.add_argument("--port", type=int, default=8088, help="of the daemon's gate, on 127.0.0.1")
    options = parser.parse_args()
    for name in [options.only] if options.only else BOOTS:
        with TemporaryDirectory() as scratch:

            async def bounded(boot: Boot = BOOTS[name], scratch: str = scratch) -> bytes:
                with trio.fail_after(PATIENCE):
                    return await capture(boot, Path(scratch), options.port)

            pcap = trimmed(trio.run(bounded), tells_something)
        (options.directory / f"{name}.pcap").write_bytes(pcap)
        print(f"{name}: {len(list(records(pcap)))} packets, {len(pcap)} bytes", flush=True)


if __name__ == "__main__":
    main()
