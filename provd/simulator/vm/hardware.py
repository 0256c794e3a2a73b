"""What this machine is made of, read from /sys as the installer's udev and DMI libraries would.

Property names and forms are udev's (60-persistent-storage.rules, 75-net-description.rules of systemd 252);
those that no filter of an answer would name are left out.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from provd.simulator.machine.hardware import Disk, Hardware, Lease, Nic

SYSFS = Path("/sys")
_DMI = {
    "system": ("product", ("serial", "sku", "uuid", "name")),
    "baseboard": ("board", ("asset_tag", "serial", "name")),
    "chassis": ("chassis", ("serial", "sku", "asset_tag")),
}
_DISKS = re.compile(r"(sd[a-z]+|vd[a-z]+|nvme\d+n\d+)")
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


@frozen(kw_only=True)
class SeenDisk(Disk):
    properties: Mapping[str, str] = field(eq=False)

    @property
    def udev(self) -> dict[str, str]:
        return dict(self.properties)


def see(lease: Lease, default_link: str | None = None, sysfs: Path = SYSFS) -> Hardware:
    """The machine. Links are in the kernel's order, except that the one with the default route is the first.

    Raises ValueError for a machine without a wired link.
    """
    nics = sorted(_nics(sysfs), key=lambda item: (item[1].name != default_link, item[0]))
    return Hardware(
        disks=tuple(_disk(path) for path in sorted((sysfs / "block").iterdir()) if _is_disk(path)),
        nics=tuple(nic for _, nic in nics),
        lease=lease,
        **{group: _dmi(sysfs, prefix, keys) for group, (prefix, keys) in _DMI.items()},
        cpu_model=_cpu_model(),
        cores=os.cpu_count() or 1,
        threads=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def _nics(sysfs: Path) -> list[tuple[int, Nic]]:
    """With the kernel's number of each."""
    return [
        (
            int(_text(link / "ifindex") or 0),
            Nic(
                name=link.name,
                mac=(_text(link / "address") or "").lower(),
                driver=(link / "device/driver").resolve().name,
            ),
        )
        for link in (sysfs / "class/net").iterdir()
        if (link / "device").exists()
    ]


def _is_disk(path: Path) -> bool:
    """A disk that one could install on: no CD, no floppy, nothing without a medium."""
    return _DISKS.fullmatch(path.name) is not None and _text(path / "size") not in (None, "0")


def _disk(path: Path) -> SeenDisk:
    name = path.name
    model = _text(path / "device/model") or ""
    serial = _text(path / "serial") or _text(path / "device/serial") or _page_80(path) or ""
    properties = {"DEVNAME": f"/dev/{name}", "DEVTYPE": "disk", "SUBSYSTEM": "block"}
    slots = _PCI.findall(str(path.resolve()))
    if name.startswith("vd"):
        # virtio-blk has a serial number and nothing besides.
        found = {"ID_SERIAL": serial, "ID_PATH": f"pci-{slots[-1]}" if slots else ""}
    else:
        plain = model.replace(" ", "_")
        found = {"ID_MODEL": plain, "ID_SERIAL_SHORT": serial, "ID_SERIAL": f"{plain}_{serial}".strip("_")}
        if name.startswith("nvme"):
            found |= {
                "ID_WWN": _text(path / "wwid") or "",
                "ID_PATH": f"pci-{slots[-1]}-nvme-1" if slots else "",
            }
        else:
            found |= {
                "ID_BUS": "ata" if _text(path / "device/vendor") == "ATA" else "scsi",
                "ID_TYPE": "disk",
            }
    return SeenDisk(
        name=name,
        size=int(_text(path / "size") or 0) * 512,
        serial=serial,
        model=model,
        properties=properties | {key: value for key, value in found.items() if value},
    )


def _page_80(path: Path) -> str | None:
    """The serial number of a SCSI or ATA disk: SPC-4, unit serial number page, after four bytes of header."""
    try:
        return (path / "device/vpd_pg80").read_bytes()[4:].decode("ascii", "replace").strip()
    except OSError:
        return None


def _dmi(sysfs: Path, prefix: str, keys: tuple[str, ...]) -> dict[str, str]:
    """What the firmware says; a key that it does not have is absent."""
    said = {key: _text(sysfs / f"class/dmi/id/{prefix}_{key}") for key in keys}
    return {key: value for key, value in said.items() if value is not None}


def _cpu_model() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else "unknown"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None
