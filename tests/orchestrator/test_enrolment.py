"""Hosts as an operator knows them: registered, configured, removed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from house import quiet_config
from provd.daemon import open_parts
from provd.domain.errors import Invalid
from provd.domain.hosts import Discovery, HostOptions, LocalBoot, Mac
from provd.store import activity
from provd.web.parts import Parts

SERVER_TYPES = """
server_types:
  nuc: {display_name: NUC, boot_disk: /dev/nvme0n1, management_nic: enp2s0, hostname_prefix: nuc}
"""


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with open_parts(quiet_config(tmp_path, server_types=SERVER_TYPES), {}) as parts:
        yield parts


async def test_options_are_replaced_as_a_whole_and_told(parts: Parts) -> None:
    """What was not said again is gone, and the history says who did it."""
    first = HostOptions(mailto="ops@example.org", discovery=Discovery.BOOT_SERVER)
    host = await parts.enrolment.register(Mac("02:00:00:00:00:01"), "nuc", None, first, "a test")
    wishes = HostOptions(local_boot=LocalBoot.SANBOOT, loader="ipxe.efi")
    changed = await parts.enrolment.configure(host.id, wishes, "somebody")
    assert changed.options == parts.fleet.host(host.id).options == wishes
    [line] = parts.store.read(lambda db: activity.latest(db, 1))
    assert (line.event, line.message) == ("host.configured", "options changed by somebody")


async def test_options_that_cannot_be_installed_change_nothing(parts: Parts) -> None:
    """A mirror of one disk is refused, and the host is as it was."""
    host = await parts.enrolment.register(Mac("02:00:00:00:00:01"), "nuc", None, HostOptions(), "a test")
    with pytest.raises(Invalid):
        await parts.enrolment.configure(host.id, HostOptions(filesystem="zfs", raid="raid1"), "somebody")
    assert parts.fleet.host(host.id).options == HostOptions()
