"""Which disks an answer's `disk-setup` takes, and what the Proxmox installer refuses about it.

Source: the installer 8.2.6 to 9.2.7.
"""

from collections.abc import Callable, Mapping

from provd.simulator.machine.answer_keys import OPTIONS, Table, Version
from provd.simulator.machine.hardware import Disk, Hardware
from provd.simulator.machine.refusal import InstallerRefused
from provd.simulator.machine.udev_filters import all_matches, first_match

RAIDS: Mapping[str, Mapping[str, int]] = {
    "zfs": {"raid0": 1, "raid1": 2, "raid10": 4, "raidz-1": 3, "raidz-2": 4, "raidz-3": 5},
    "btrfs": {"raid0": 1, "raid1": 2, "raid10": 4},
}
"""The fewest disks of each RAID level."""


def check_disk_setup(setup: Table, installer: Version) -> tuple[str | None, float | None]:
    """What is wrong with disk-setup on any machine; gives the RAID level in lower case, and hdsize."""
    filesystem = setup.text("filesystem") or ""
    listed = setup.texts("disk-list")
    if bool(listed) == (setup.map("filter") is not None):
        raise InstallerRefused("disk-setup: exactly one of disk-list and filter must be set")
    if installer >= (9, 0, 5) and len(set(listed)) != len(listed):
        raise InstallerRefused("disk-setup.disk-list: duplicate entry")
    fitting = filesystem if filesystem in RAIDS else "lvm"
    if any(name in setup.values for name in OPTIONS if name != fitting):
        raise InstallerRefused(f"disk-setup: make sure only '{fitting}' options are set")
    options = Table(setup.values.get(fitting, {}), f"disk-setup.{fitting}", OPTIONS[fitting], installer)
    hdsize = options.number("hdsize")
    if fitting == "lvm":
        if len(listed) > 1:
            raise InstallerRefused(f"disk-setup.disk-list: {filesystem} takes one disk only")
        swapsize = options.number("swapsize")
        if installer >= (9, 0, 5) and hdsize is not None and swapsize is not None and swapsize > hdsize / 2:
            raise InstallerRefused("disk-setup.lvm.swapsize: must be at most half of hdsize")
        return None, hdsize
    raid = _raid(options, filesystem, installer)
    if listed:
        _check_disk_count(filesystem, raid, len(listed), even=installer >= (9, 2, 6))
    return raid, hdsize


def _raid(options: Table, filesystem: str, installer: Version) -> str:
    """`raidz-1` or `RAIDZ-1`, never `raidz1` or `Raid1`; lower case since 8.3.3."""
    raid = options.text("raid")
    if raid is None:
        raise InstallerRefused(f"disk-setup.{filesystem}: raid level must be set")
    cases: list[Callable[[str], str]] = [str.upper]
    if installer >= (8, 3, 3):
        cases.append(str.lower)
    for level in RAIDS[filesystem]:
        if any(case(level) == raid for case in cases):
            return level
    raise InstallerRefused(f"disk-setup.{filesystem}.raid: unknown variant `{raid}`")


def _check_disk_count(filesystem: str, raid: str, count: int, *, even: bool) -> None:
    fewest = RAIDS[filesystem][raid]
    if count < fewest:
        raise InstallerRefused(f"disk-setup: {raid} needs at least {fewest} disks, there are {count}")
    if even and raid == "raid10" and count % 2:
        raise InstallerRefused("disk-setup: raid10 needs an even number of disks")


def select_disks(setup: Table, raid: str | None, machine: Hardware) -> tuple[Disk, ...]:
    """The disks to be wiped. Devices are looked at in the string order of their udev index."""
    ordered = [disk for _, disk in sorted(enumerate(machine.disks), key=lambda item: str(item[0]))]
    filters = setup.map("filter")
    if filters is not None and not filters:
        raise InstallerRefused("disk-setup.filter: no filter defined")
    if raid is None:
        if filters is not None:
            disk = first_match(filters, ordered)  # filter-match is not looked at here
        else:
            disk = _ending_with(setup.texts("disk-list")[0], ordered)
        if disk is None:
            raise InstallerRefused("disk-setup: no disk of this machine was matched")
        return (disk,)
    if filters is not None:
        chosen = all_matches(filters, ordered, require_all=setup.text("filter-match") == "all")
    else:  # listed disks that are not there are skipped in silence
        found = (_ending_with(name, ordered) for name in setup.texts("disk-list"))
        chosen = list(dict.fromkeys(disk for disk in found if disk is not None))
    _check_disk_count(setup.text("filesystem") or "", raid, len(chosen), even=True)
    _check_mirror_sizes(raid, chosen)
    return tuple(chosen)


def _ending_with(name: str, disks: list[Disk]) -> Disk | None:
    """The installer compares the *end* of the device path, so `da` is `/dev/sda` (measured, 9.2.7)."""
    return next((disk for disk in disks if disk.device.endswith(name)), None)


def _check_mirror_sizes(raid: str, disks: list[Disk]) -> None:
    """Members of a mirror must be within 10 % of each other."""
    pairs = {
        "raid1": [(disks[0], disk) for disk in disks[1:]],
        "raid10": list(zip(disks[::2], disks[1::2], strict=True)) if raid == "raid10" else [],
    }
    for one, other in pairs.get(raid, []):
        if abs(one.size - other.size) * 10 > one.size:
            raise InstallerRefused("disk-setup: mirrored disks must have the same size, within 10 %")
