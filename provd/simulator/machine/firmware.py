"""A machine's firmware with iPXE in it: asks the network what to boot, and does what it is told."""

from collections.abc import Callable
from functools import partial

from provd.simulator.machine.hardware import Hardware
from provd.simulator.machine.ipxe import Boots, FetchFailed, run_script
from provd.simulator.machine.refusal import InstallerRefused
from provd.simulator.machine.requests import request

IPXE = "1.21.1+git20250501.dad20602+dfsg-1"
"""The version that Debian 13 has."""

_DOWNLOAD_AT_MOST = 4 << 30


async def network_boot(
    public_url: str, mac: str, hardware: Hardware, ip: str, say: Callable[[str], None]
) -> Boots | None:
    """What the script under `/ipxe/{mac}` wants booted; None for the machine's own disk."""
    url = f"{public_url}/ipxe/{mac.replace(':', '-')}"
    fetch = partial(_fetch, ip)
    try:
        script = (await fetch(url)).decode("utf-8", "replace")
    except FetchFailed as failure:
        say(f"iPXE: {url}: {failure}; boots its own disk")
        return None
    settings = {
        **dict.fromkeys(("mac", "net0/mac", "netX/mac"), mac),
        **dict.fromkeys(("ip", "net0/ip"), ip),
        "platform": "efi",
        "buildarch": "x86_64",
        "version": IPXE,
        "uuid": hardware.system.get("uuid", ""),
        "serial": hardware.system.get("serial", ""),
        "product": hardware.system.get("name", ""),
    }
    run = await run_script(script, base=url, settings=settings, fetch=fetch)
    for line in run.echoed:
        say(f"iPXE: {line}")
    if isinstance(run.outcome, Boots):
        return run.outcome
    say(f"iPXE: {run.outcome.reason}; boots its own disk")
    return None


async def _fetch(ip: str, url: str) -> bytes:
    try:
        reply = await request(
            "GET", url, source_ip=ip, headers={"user-agent": f"iPXE/{IPXE}"}, at_most=_DOWNLOAD_AT_MOST
        )
    except InstallerRefused as failure:
        raise FetchFailed(str(failure)) from failure
    if reply.status != 200:
        raise FetchFailed(f"status {reply.status}")
    return reply.body
