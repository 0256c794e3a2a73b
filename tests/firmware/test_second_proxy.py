"""Another proxy-DHCP on the LAN, as dnsmasq, FOG or netboot.xyz bring one: who names it, and who wins.

UEFI itself comes to provd, whoever is faster: EDK2 collects offers for four seconds and takes one with
discovery control 8, which is provd's, before one whose sender wants to be asked on port 4011, which is
dnsmasq's (PxeBcDhcp4.c). Debian 13's iPXE goes on with what UEFI has chosen.

iPXE that asks by itself, in a NIC's ROM or Debian 12's as second stage, has no such patience: with an address
and any proxy's offer in hand it goes on (dhcp.c). On a busy computer it was seen to read dnsmasq's file;
provd's priority in option 175 counts only while it still waits. That race is not asserted.
"""

from pathlib import Path

from firmware.racks import needs_rack, running, with_newer_ipxe
from provd.simulator.rack import processes
from provd.simulator.rack.lan import INTERFACE
from provd.simulator.rack.machine import Firmware

pytestmark = needs_rack

ROGUE = "10.77.0.66"


def proxy(directory: Path) -> list[str]:
    """dnsmasq as it is set up beside a router: boot files for UEFI and BIOS, by proxy-DHCP and TFTP."""
    files = directory / "rogue"
    files.mkdir()
    for name in ("rogue.efi", "rogue.0"):
        (files / name).write_bytes(b"not a program")
    return [
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root"),
        "--log-dhcp",
        *(f"--interface={INTERFACE}", "--bind-interfaces", "--log-facility=-"),
        *(f"--pid-file={files}/pid", f"--dhcp-leasefile={files}/leases"),
        f"--dhcp-range={ROGUE},proxy",
        *("--pxe-service=X86-64_EFI,rogue,rogue.efi", "--pxe-service=x86PC,rogue,rogue.0"),
        *("--enable-tftp", f"--tftp-root={files}"),
    ]


async def test_the_doctor_names_it_and_uefi_comes_to_provd(tmp_path: Path) -> None:
    """It answers the machine, and its address is in the doctor's report; nobody reads its boot file."""
    async with running(tmp_path, with_newer_ipxe) as rack:
        machine = rack.add_machine(Firmware.UEFI)
        host = await rack.register(machine)
        namespace = rack.lan.add_computer("rogue", ROGUE)
        log = tmp_path / "rogue.log"
        async with processes.started(rack.lan.inside(namespace, proxy(tmp_path)), log):
            await rack.rebuild(host)
            await machine.power_on()
            report = await rack.call("POST", "/api/doctor")
            await rack.until_heard(host, "fetched its boot script: installer")
            said = log.read_text()

        (finding,) = [one for one in report["findings"] if f"{ROGUE} (" in one["what"]]
        assert finding["result"] == "problem"
        assert "hands out boot files as a proxy-DHCP server" in finding["what"]
        assert not report["healthy"]
        assert f"PXE({INTERFACE}) {machine.mac} proxy" in said
        story = " ".join(line["message"] for line in await rack.story(host))
        assert "read snponly.efi by TFTP" in story
        assert "by HTTP asked" not in story
        assert "sent /" not in said, "somebody read the other's boot file"
