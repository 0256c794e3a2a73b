"""A rack for the tests here, with provd running in it and an image; skipped where there can be none."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from provd.simulator.lab import free_port
from provd.simulator.rack.machine import FILES
from provd.simulator.rack.rack import Json, Rack, open_rack
from provd.simulator.vm.packages import CannotFetch, default_cache, newer_ipxe

TOKEN = "provd_" + "f" * 43
PATIENCE = 12 * 60.0
"""Seconds for a whole rebuild in software emulation, with other tests beside it."""


def missing() -> list[str]:
    """What this machine lacks for the tests here."""
    programs = ("ip", "qemu-system-x86_64", "qemu-system-aarch64", "dnsmasq", "xorriso", "sshd", "busybox")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacks = [program for program in programs if shutil.which(program, path=path) is None]
    files = [file for pair in FILES.values() for file in pair] + [Path("/usr/lib/ipxe/snponly.efi")]
    return lacks + [str(file) for file in files if not file.exists()] + ["root"] * (os.geteuid() != 0)


needs_rack = pytest.mark.skipif(bool(missing()), reason=f"missing: {', '.join(missing())}")


@asynccontextmanager
async def running(directory: Path, configure: Callable[[Json], None] = lambda _: None) -> AsyncIterator[Rack]:
    """A rack with provd and an image; when a test fails, pytest shows what everybody said."""
    with trio.fail_after(PATIENCE):
        async with open_rack(directory, port=free_port(), token=TOKEN, configure=configure) as rack:
            try:
                await rack.import_stand_in()
                await rack.start_provd()
                yield rack
            finally:
                print(rack.log.read_text()[-20_000:] if rack.log.exists() else "provd was not started")
                for machine in rack.machines:
                    print(f"--- {machine.name}\n{machine.console[-4000:]}")


def with_newer_ipxe(document: Json) -> None:
    """Debian 13's iPXE, whatever Debian this is: with autoexec.ipxe, two initrds on UEFI, and for arm64."""
    try:
        document["pxe"]["loader_dir"] = str(newer_ipxe(default_cache()))
    except CannotFetch as exc:
        pytest.skip(str(exc))
