"""Whose wish counts: the host's, else its server type's, else the defaults'."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import evolve

from provd.config import load_config
from provd.domain.errors import Invalid
from provd.domain.hosts import Host, HostId, HostOptions, Mac
from provd.domain.lifecycle import State
from provd.orchestrator.planning import make_plan
from provd.server_types import ServerType

CONFIG = load_config(Path(__file__).parents[2] / "deploy" / "examples" / "provisioning.yaml", {})
NOW = datetime(2026, 11, 22, tzinfo=UTC)
PLAIN = ServerType(
    key="nuc", display_name="NUC", boot_disk="/dev/nvme0n1", management_nic="enp2s0", hostname_prefix="nuc"
)
MIRROR = evolve(PLAIN, filesystem="zfs", raid="raid1", disks=("/dev/nvme0n1", "/dev/nvme1n1"))


def host(**options: object) -> Host:
    return Host(
        id=HostId(1),
        hostname="nuc1",
        mac=Mac("02:00:00:00:00:01"),
        server_type="nuc",
        options=HostOptions(**options),  # type: ignore[arg-type]  # by name, as the tests need them
        state=State.REGISTERED,
        state_since=NOW,
        registered_at=NOW,
    )


def test_the_nearest_word_counts() -> None:
    """Host before type before defaults, field by field."""
    typed = evolve(PLAIN, timezone="Europe/Berlin", keyboard="de")
    plan = make_plan(CONFIG, typed, host(keyboard="fr"))
    assert (plan.keyboard, plan.timezone, plan.country) == ("fr", "Europe/Berlin", CONFIG.install.country)
    assert (plan.disks, plan.management_nic) == (("/dev/nvme0n1",), "enp2s0")


def test_an_inherited_raid_does_not_survive_another_file_system() -> None:
    """A host that wants ext4 on one disk of a mirrored type gets that, without the mirror."""
    plan = make_plan(CONFIG, MIRROR, host(filesystem="ext4", disks=("/dev/nvme0n1",)))
    assert (plan.filesystem, plan.raid) == ("ext4", None)


@pytest.mark.parametrize(
    "options",
    [{"raid": "raid1"}, {"filesystem": "zfs", "raid": "raid1"}, {"disks": ("/dev/sda", "/dev/sdb")}],
)
def test_what_does_not_fit_together_is_refused_early(options: dict[str, object]) -> None:
    """A RAID without its file system, a mirror of one disk, ext4 on two: before any disk is wiped."""
    with pytest.raises(Invalid):
        make_plan(CONFIG, PLAIN, host(**options))
