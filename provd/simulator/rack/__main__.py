"""`python -m provd.simulator.rack DIRECTORY`: a rebuild by real firmware, for people and for scripts.

Imports a small stand-in for Proxmox's ISO, registers one machine, starts its rebuild and switches it on.
"""

import argparse
import os
import secrets
import shutil
import signal
import sys
import time
from pathlib import Path

import httpx
import trio

from provd.simulator.rack.machine import Firmware
from provd.simulator.rack.rack import Rack, open_rack

WHOLE = (Firmware.UEFI, Firmware.UEFI_HTTP, Firmware.BIOS)
"""Those whose machines come all the way."""
DEADLINE_SECONDS = 15 * 60.0
"""For one rebuild. In software emulation on two old cores it takes about three minutes."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/try --vm", description=__doc__)
    parser.add_argument("directory", type=Path, help="where everything is kept")
    parser.add_argument("--port", type=int, default=8080, help="of the dashboard, on 127.0.0.1")
    parser.add_argument("--firmware", type=Firmware, choices=WHOLE, default=Firmware.UEFI)
    parser.add_argument("--once", action="store_true", help="end when the host is ready, or has failed")
    options = parser.parse_args()
    options.directory = options.directory.resolve()
    options.directory.mkdir(parents=True, exist_ok=True)
    status = 1
    try:
        status = trio.run(show, options)
    except* (RuntimeError, OSError, httpx.HTTPError) as group:
        say(f"stopped: {group.exceptions[0]}")
    return status


async def show(options: argparse.Namespace) -> int:
    """Returns the exit status. SIGTERM and SIGINT end everything that was started."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            status = 130

            async def interrupted() -> None:
                async for _ in signals:
                    say("ends everything")
                    nursery.cancel_scope.cancel(reason="interrupted")
                    return

            nursery.start_soon(interrupted)
            token = os.environ.get("PROVD_API_TOKEN") or f"provd_{secrets.token_urlsafe(32)}"
            async with open_rack(options.directory, port=options.port, token=token) as rack:
                status = await one_rebuild(rack, options.firmware)
                if not options.once:
                    say("the rack stays on: look at the dashboard, rebuild it again; Ctrl-C ends everything")
                    await trio.sleep_forever()
            nursery.cancel_scope.cancel(reason="done")
    return status


async def one_rebuild(rack: Rack, firmware: Firmware) -> int:
    say("imports a stand-in for Proxmox's ISO")
    await rack.import_stand_in()
    await rack.start_provd()
    link = (await rack.provd("sign-in")).split()[0]
    path = link.partition("://")[2].partition("/")[2]
    say(f"the dashboard (this link signs you in, once): {rack.gate_url}/{path}")
    machine = rack.add_machine(firmware)
    host = await rack.register(machine)
    operation = await rack.rebuild(host)
    say(f"{host['hostname']} ({machine.mac}, {firmware}) is switched on: {machine.directory}/console.log")
    await machine.power_on()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, rack, host)
        with trio.move_on_after(DEADLINE_SECONDS) as patience:
            operation = await rack.until_over(operation)
        nursery.cancel_scope.cancel(reason="over")
    if patience.cancelled_caught:
        say(f"not ready after {DEADLINE_SECONDS / 60:.0f} minutes; the machine said last:")
    elif operation["outcome"] == "done":
        say(f"{host['hostname']} is ready")
        return 0
    else:
        say(f"{operation['outcome']}: {operation['detail']}; the machine said last:")
    print(machine.console[-3000:], file=sys.stderr)
    return 1


async def follow(rack: Rack, host: dict[str, object]) -> None:
    """Print the host's activity as it comes."""
    seen = 0
    while True:
        for line in await rack.story(host):
            if line["id"] > seen:
                seen = line["id"]
                say(line["message"])
        await trio.sleep(1)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


if __name__ == "__main__":
    shutil.which("qemu-system-x86_64") or sys.exit(
        "qemu-system-x86_64 is missing: apt install qemu-system-x86 ovmf"
    )
    sys.exit(main())
