"""What QEMU must be told so that the inside of a lab machine works.

Disks, NICs and firmware are for others to choose.
"""

from pathlib import Path

from provd.simulator.vm.shown import PROJECT, PYTHON


def qemu_arguments(
    *, uuid: str, serial: str, root: Path, cluster: Path | None = None, memory_mib: int = 768, cpus: int = 1
) -> list[str]:
    """Arguments for `qemu-system-x86_64`, to be completed with firmware, disk, NIC and console.

    `root` is what the machine sees of this computer. `cluster` is the directory of a simulated cluster
    that the installed system may join; the machine writes into it. `uuid` and `serial` are what the firmware
    says of the machine. A second CPU makes an emulated machine slower, not faster, on a computer with few.
    """
    settings = {"python": str(PYTHON), "project": str(PROJECT)}
    arguments = [
        *("-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", str(cpus), "-m", str(memory_mib)),
        *("-device", "virtio-rng-pci,addr=1c"),
        *("-smbios", f"type=1,manufacturer=provd,product=Lab machine,serial={_quoted(serial)},uuid={uuid}"),
        *_share("hostroot", "1d", str(root), ",readonly=on"),
    ]
    if cluster is not None:
        settings["cluster"] = str(cluster.resolve())
        arguments += _share("cluster", "1e", settings["cluster"])
    for name, value in settings.items():
        arguments += ["-fw_cfg", f"name=opt/provd/{name},string={_quoted(value)}"]
    return arguments


def _share(tag: str, slot: str, directory: str, more: str = "") -> list[str]:
    """A 9p share in a PCI slot of its own, so that none is taken away from the machine's NICs and disks."""
    options = f"id={tag},path={_quoted(directory)},security_model=none,multidevs=remap{more}"
    return [
        *("-fsdev", f"local,{options}"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag},addr={slot}"),
    ]


def _quoted(value: str) -> str:
    """A comma ends a value, two are one."""
    return value.replace(",", ",,")
