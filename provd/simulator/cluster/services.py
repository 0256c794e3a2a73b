"""Starting and stopping Proxmox VE's services on a machine, and what its cluster sees of it.

The machine's document says what runs on it, the cluster's which node is online; both change here.
"""

from pathlib import Path

from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.locked import exclusive
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.membership import config_version_of
from provd.simulator.cluster.state import ClusterNode, ClusterState

UNITS = ("corosync", "pve-cluster", "pve-ha-crm", "pve-ha-lrm", "pvedaemon", "pveproxy")


def cluster_of(machine: Machine) -> Cluster:
    return Cluster(Path(machine.read().cluster_dir))


def place_of(machine: Machine, state: ClusterState) -> ClusterNode | None:
    """The machine's entry in its cluster: none if it never joined, or was struck out.

    A machine that was installed again lies where the old one lay, so the place alone says nothing.
    """
    own = machine.read()
    node = state.nodes.get(own.hostname)
    return node if node is not None and own.joined and node.root == str(machine.root) else None


# --- the whole machine ----------------------------------------------------------------------------------


def boot(machine: Machine) -> None:
    """Start what is enabled, as the kernel's first process does."""
    with machine.edit() as own:
        own.failed_units.clear()
        own.stopped_units = [unit for unit in own.disabled_units if unit not in ("corosync", "pve-cluster")]
        own.corosync = False
        in_local_mode, own.local_mode = own.local_mode, False
        disabled = set(own.disabled_units)
    fits = machine.sees_cluster == (place_of(machine, cluster_of(machine).read()) is not None)
    if "pve-cluster" in disabled or in_local_mode or not fits:
        stop_pve_cluster(machine)
    if "pve-cluster" not in disabled:
        start_pve_cluster(machine)
    if "corosync" not in disabled:
        start_corosync(machine)


def halt(machine: Machine) -> None:
    """The machine is off: the others notice, and nothing of its own changes."""
    stop_corosync(machine)


# --- unit by unit ---------------------------------------------------------------------------------------


def start(machine: Machine, unit: str) -> bool:
    """False if it fails. A unit that runs already stays as it is."""
    if unit == "corosync":
        return start_corosync(machine)
    if unit == "pve-cluster":
        start_pve_cluster(machine)
    else:
        with machine.edit() as own:
            own.stopped_units = [one for one in own.stopped_units if one != unit]
    return True


def stop(machine: Machine, unit: str) -> None:
    if unit == "corosync":
        stop_corosync(machine)
    elif unit == "pve-cluster":
        stop_pve_cluster(machine)
    else:
        with machine.edit() as own:
            own.stopped_units = [*(one for one in own.stopped_units if one != unit), unit]


def is_active(machine: Machine, unit: str) -> bool:
    own = machine.read()
    running = {"corosync": own.corosync, "pve-cluster": own.pve_cluster and not own.local_mode}
    return running.get(unit, unit not in own.stopped_units)


def start_corosync(machine: Machine) -> bool:
    """Come online, where key and configuration are those of the others.

    Without corosync.conf nothing starts and nothing fails: the original's unit has it as a condition. One
    of another version than the others' makes corosync exit (corosync, exec/cmap.c), one with another key
    meets nobody.
    """
    conf, key = (machine.path(f"/etc/corosync/{name}") for name in ("corosync.conf", "authkey"))
    if machine.read().corosync or not conf.exists():
        return True
    if not key.exists():
        return _fail_corosync(machine)
    with machine.edit() as own:
        own.corosync = True
        own.failed_units = [unit for unit in own.failed_units if unit != "corosync"]
        hostname = own.hostname
    cluster = cluster_of(machine)
    if key.read_bytes() != (cluster.directory / "authkey").read_bytes():
        return True
    own_version = config_version_of(conf.read_text())
    with cluster.edit() as state:
        node = place_of(machine, state)
        fresh = state.nodes.get(hostname)
        if node is None and fresh is not None and fresh.root is None and not state.faults.udp_blocked:
            node = fresh  # a join that was cut short
        same_version = own_version == state.config_version
        if node is not None and same_version:
            node.online = node.seen = True
    return same_version or _fail_corosync(machine)


def _fail_corosync(machine: Machine) -> bool:
    with machine.edit() as own:
        own.corosync = False
        own.failed_units.append("corosync")
    return False


def stop_corosync(machine: Machine) -> None:
    with machine.edit() as own:
        ran, own.corosync = own.corosync, False
        hostname = own.hostname
    if not ran:
        return
    with cluster_of(machine).edit() as state:
        node = place_of(machine, state)
        fresh = state.nodes.get(hostname)
        if node is None and fresh is not None and fresh.root is None:
            node = fresh
        if node is not None:
            node.online = False


def start_pve_cluster(machine: Machine) -> None:
    """Mount /etc/pve: the cluster's for a member that is still listed, and else the machine's own."""
    if machine.read().pve_cluster:
        return
    cluster = cluster_of(machine)
    in_cluster = (machine.database / "corosync.conf").exists()
    if in_cluster and place_of(machine, cluster.read()) is not None:
        machine.mount_cluster(cluster.pve)
        with cluster.edit():
            pass  # whether it has quorum
    else:
        machine.mount()


def stop_pve_cluster(machine: Machine) -> None:
    if not machine.read().pve_cluster:
        return
    with exclusive(cluster_of(machine).document):
        machine.unmount()


def cut_off(machine: Machine) -> None:
    """What happens on a running member that the others have struck out: corosync is killed from afar.

    It keeps /etc/pve as it last was, without quorum.
    """
    with machine.edit() as own:
        own.corosync = False
    if machine.sees_cluster:
        stop_pve_cluster(machine)
        machine.mount()
