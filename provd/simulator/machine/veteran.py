"""A bare machine that is a member of the cluster already, as most machines are that somebody rebuilds."""

import subprocess

from provd.simulator.cluster.cluster import Cluster
from provd.simulator.machine.answer_rules import check_document
from provd.simulator.machine.machine import Machine
from provd.simulator.machine.programs import install_programs
from provd.simulator.machine.root_directory import build_root


def make_veteran(machine: Machine, hostname: str, *, root_password: str = "secret") -> None:
    """Write the system of a member of long standing to the disk of a machine that is off.

    The cluster lists it as offline until the machine runs.
    """
    assert machine.hardware is not None
    order = check_document(_answer(machine, hostname), machine.release, machine.hardware)
    build_root(machine.root, order, leaked=(), first_boot=None)
    Cluster.open(machine.cluster_dir).add_member(
        hostname, machine.ip, root_password=root_password, online=False, root=machine.root
    )
    install_programs(machine.root)
    for name, line in (("curlrc", "interface"), ("wgetrc", "bind_address")):
        (machine.root / f"root/.{name}").write_text(f"{line} = {machine.ip}\n")
    subprocess.run([machine.root / "usr/local/bin/update-grub"], check=True, stdin=subprocess.DEVNULL)
    machine.write_boot_loader(order)


def _answer(machine: Machine, hostname: str) -> dict[str, object]:
    """What it was installed with, once."""
    assert machine.hardware is not None
    return {
        "global": {
            "country": "us",
            "keyboard": "en-us",
            "timezone": "UTC",
            "fqdn": f"{hostname}.home.arpa",
            "mailto": "root@home.arpa",
            "root-password": "an-old-password",
        },
        "network": {"source": "from-dhcp"},
        "disk-setup": {"filesystem": "ext4", "disk-list": [machine.hardware.disks[0].name]},
    }
