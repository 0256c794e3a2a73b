"""Another proxy-DHCP on the LAN, as dnsmasq, FOG or netboot.xyz bring one: who names it, and who wins.

provd wins against dnsmasq. Why, their clients' sources tell. UEFI (EDK2, PxeBcDhcp4.c) takes an offer with
discovery control 8, which is provd's, before one whose sender wants to be asked on port 4011, which is
dnsmasq's. iPXE (dhcp.c), in a ROM or started by UEFI, takes the offer with the highest priority in option
175, where provd has one and dnsmasq none. Against a proxy that sends what provd sends, such as another provd,
neither rule helps.
"""

from contextlib import AsyncExitStack
from pathlib import Path

from firmware.racks import needs_rack, running
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


async def test_the_doctor_names_it_and_machines_still_come_to_provd(tmp_path: Path) -> None:
    """It answers both; its address is in the doctor's report; both read provd's boot files and script."""
    async with running(tmp_path) as rack, AsyncExitStack() as stack:
        uefi, bios = rack.add_machine(Firmware.UEFI), rack.add_machine(Firmware.BIOS)
        hosts = [await rack.register(machine) for machine in (uefi, bios)]
        namespace = rack.lan.add_computer("rogue", ROGUE)
        log = tmp_path / "rogue.log"
        await stack.enter_async_context(processes.started(rack.lan.inside(namespace, proxy(tmp_path)), log))
        for host, machine in zip(hosts, (uefi, bios), strict=True):
            await rack.rebuild(host)
            await machine.power_on()
        report = await rack.call("POST", "/api/doctor")
        for host in hosts:
            await rack.until_heard(host, "fetched its boot script: installer")
        said = log.read_text()

        (finding,) = [one for one in report["findings"] if f"{ROGUE} (" in one["what"]]
        assert finding["result"] == "problem"
        assert "hands out boot files as a proxy-DHCP server" in finding["what"]
        assert not report["healthy"]
        for machine in (uefi, bios):
            assert f"PXE({INTERFACE}) {machine.mac} proxy" in said
        story = " ".join(line["message"] for line in await rack.story(hosts[0]))
        assert "read snponly.efi by TFTP" in story
        assert "sent /" not in said, "somebody read the other's boot file"
