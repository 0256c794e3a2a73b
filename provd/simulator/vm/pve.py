"""Proxmox VE on a lab machine: pve-cluster and its tools, over a cluster's directory on the host.

Imported late, because it takes long; the network and sshd do not wait for it.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.keys import first_boot_updatecerts
from provd.simulator.cluster.machine import Machine, install_pve_tools
from provd.simulator.machine.programs import install_programs
from provd.simulator.vm.lan import use_lan
from provd.simulator.vm.places import BUSYBOX, FRESH, WHOLE

_SHOWN = ("etc", "root", "run", "usr", "var")


def start(system: Path, cluster_dir: Path | None, *, hostname: str, ip: str) -> None:
    """Start pve-cluster, and pveproxy's first act, `pvecm updatecerts`. `system` is `/`."""
    root = system if cluster_dir is None else shared_root(system, cluster_dir)
    fresh = system / FRESH
    if fresh.exists():
        install_programs(system)
        install_pve_tools(root, cluster_dir=cluster_dir or system / "nonexistent", hostname=hostname, ip=ip)
        use_lan(root)
        os.sync()
        fresh.unlink()
    elif cluster_dir is not None:
        tell_cluster(system, cluster_dir, online=True)
    first_boot_updatecerts(root)


def shared_root(system: Path, cluster_dir: Path) -> Path:
    """A name for this machine's `/` that the cluster's other members may look into without harm.

    The simulated members work on one another's files. On the host, where the cluster's API runs, they find a
    directory with the machine's state, and links that lead nowhere; in here these lead to the rest of `/`.
    """
    identity = (system / "sys/class/dmi/id/product_uuid").read_text().strip().lower()
    root = cluster_dir / "machines" / identity
    root.mkdir(parents=True, exist_ok=True)
    if not WHOLE.exists():
        WHOLE.mkdir()
        subprocess.run([BUSYBOX, "mount", "-o", "rbind", system, WHOLE], check=True)
    for name in _SHOWN:
        if not (root / name).is_symlink():
            (root / name).symlink_to(WHOLE / name)
    return root


def tell_cluster(system: Path, cluster_dir: Path, *, online: bool) -> None:
    """A member's corosync comes and goes with the machine; a machine that never joined has none."""
    root = shared_root(system, cluster_dir)
    with suppress(FileNotFoundError):
        if not Machine(root).read().joined:
            return
        with Cluster.open(cluster_dir).edit() as state:
            for node in state.nodes.values():
                if node.root == str(root):
                    node.online = online
