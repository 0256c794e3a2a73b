"""Real firmware, from power-on to a member of the cluster, against an unmodified `provd serve`.

OVMF and SeaBIOS in QEMU, in network namespaces that each test makes and removes, beside a DHCP server
that hands out addresses only. What boots is small, and behaves as Proxmox's installer does. Network boot
stands first in the boot order, so each second boot proves the way to the local disk.
"""

import struct
from pathlib import Path

import trio

from firmware.racks import needs_rack, running, with_newer_ipxe
from provd.simulator.rack.machine import Firmware
from provd.simulator.rack.rack import Json, Rack, describe

pytestmark = needs_rack


async def assert_member(rack: Rack, host: Json, operation: Json) -> list[str]:
    """The rebuild is done, the cluster lists the host, and its disk was started over the network."""
    over = await rack.until_over(operation)
    story = await rack.story(host)
    assert over["outcome"] == "done", describe(story)
    assert (await rack.host(host))["state"] == "ready"
    assert rack.cluster.read().nodes[host["hostname"]].online
    told = [line["message"] for line in story]
    assert any("fetched its boot script: local_disk" in message for message in told)
    return told


async def test_two_machines_at_once(tmp_path: Path) -> None:
    """UEFI by PXE and BIOS with iPXE in its ROM, powered on together: both become members."""
    async with running(tmp_path) as rack:
        uefi, bios = rack.add_machine(Firmware.UEFI), rack.add_machine(Firmware.BIOS)
        hosts = [await rack.register(machine) for machine in (uefi, bios)]
        operations = [await rack.rebuild(host) for host in hosts]
        for machine in (uefi, bios):
            await machine.power_on()
        by_uefi = await assert_member(rack, hosts[0], operations[0])
        by_bios = await assert_member(rack, hosts[1], operations[1])

        assert any("read snponly.efi by TFTP" in message for message in by_uefi)
        assert any("read installer.img: " in message for message in by_uefi)
        # The ROM's iPXE is sent to its script at once, and never loads another one.
        assert not any("by TFTP" in message for message in by_bios)
        capture = await rack.client.get(f"/api/hosts/{hosts[0]['id']}/packets.pcap")
        assert struct.unpack_from("<I", capture.content)[0] == 0xA1B2C3D4
        assert bytes.fromhex(uefi.mac.replace(":", "")) in capture.content


async def test_http_boot_and_a_restart_of_provd(tmp_path: Path) -> None:
    """UEFI HTTP boot becomes a member, though provd is restarted while the machine reads its installer.

    The iPXE is Debian 13's: it needs no second DHCP exchange, and takes the ISO as an initrd of its own.
    """
    async with running(tmp_path, with_newer_ipxe) as rack:
        machine = rack.add_machine(Firmware.UEFI_HTTP)
        host = await rack.register(machine)
        operation = await rack.rebuild(host)
        await machine.power_on()
        await rack.until_heard(host, "read the installer's kernel")
        await rack.kill_provd()
        await rack.start_provd()
        told = await assert_member(rack, host, operation)
        assert any("UEFI x64 by HTTP asked for a boot server" in message for message in told)
        assert any("read snponly.efi by HTTP" in message for message in told)
        assert any("read autoexec.ipxe by HTTP" in message for message in told)
        assert any("read proxmox.iso: " in message for message in told)


async def test_power_cuts(tmp_path: Path) -> None:
    """Cut while it loads, the installer is offered again; cut while it installs, never, and why is said."""

    def soon(document: Json) -> None:
        document["deadlines"] = {"installing": "60s"}

    async with running(tmp_path, soon) as rack:
        machine = rack.add_machine(Firmware.BIOS)
        host = await rack.register(machine)
        operation = await rack.rebuild(host)
        await machine.power_on()
        await rack.until_heard(host, "read the installer's kernel")
        await machine.power_off()
        assert (await rack.host(host))["state"] == "pxe_booted"

        await machine.power_on()
        await rack.until_heard(host, "fetched its boot script: installer", times=2)
        await rack.until(host, "installing")
        await machine.power_off()
        await machine.power_on()
        await rack.until_heard(host, "fetched its boot script: local_disk")
        over = await rack.until_over(operation)
        assert over["outcome"] == "failed"
        assert "the installer to report that it is done" in over["detail"]
        assert "its disk may be half written" in over["detail"]
        scripts = [line["message"] for line in await rack.story(host) if "boot script" in line["message"]]
        assert sum("fetched its boot script: installer" in message for message in scripts) == 2


async def test_a_lost_webhook(tmp_path: Path) -> None:
    """provd is away when the installer reports, once and never again: the call home counts as installed."""
    async with running(tmp_path) as rack:
        machine = rack.add_machine(Firmware.BIOS)
        host = await rack.register(machine)
        operation = await rack.rebuild(host)
        await machine.power_on()
        await rack.until_heard(host, "the installer fetched the first-boot script")
        await rack.kill_provd()
        while "/installed?token=" not in machine.console:  # the error names what could not be reached
            await trio.sleep(0.2)
        await rack.start_provd()
        told = await assert_member(rack, host, operation)
        assert not any("its SSH host keys are pinned" in message for message in told)


async def test_arm64_comes_to_its_script(tmp_path: Path) -> None:
    """AAVMF is given the build for its architecture, by the number that it sends."""
    async with running(tmp_path, with_newer_ipxe) as rack:
        machine = rack.add_machine(Firmware.ARM64)
        host = await rack.register(machine)
        await rack.rebuild(host)
        await machine.power_on()
        await rack.until_heard(host, "fetched its boot script: installer")
        told = " ".join(line["message"] for line in await rack.story(host))
        assert "UEFI arm64 asked for a boot server and got ipxe-arm64.efi by TFTP" in told
        assert "read ipxe-arm64.efi by TFTP" in told
        assert "read autoexec.ipxe by TFTP" in told


async def test_a_stranger(tmp_path: Path) -> None:
    """A machine that nobody registered is answered by nobody, and listed."""
    async with running(tmp_path) as rack:
        machine = rack.add_machine(Firmware.UEFI)
        await machine.power_on()
        while True:
            seen = (await rack.call("GET", "/api/sightings"))["sightings"]
            if machine.mac in [one["mac"] for one in seen]:
                break
            await trio.sleep(0.2)
        packets = await rack.client.get(f"/api/sightings/{machine.mac}/packets.pcap")
        assert packets.status_code == 200
        assert rack.machines[0].on
        assert "iPXE" not in machine.console
