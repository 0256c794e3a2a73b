"""`ha-manager`: its status, and maintenance of a node, which no API call can ask for."""

import re
import sys
import time

from provd.simulator.cluster import ha
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.pvecm import DIED, PMXCFS_DOWN
from provd.simulator.cluster.services import cluster_of
from provd.simulator.cluster.status import Partition

USAGE = "USAGE: ha-manager <COMMAND> [ARGS] [OPTIONS]\n"
MAINTENANCE = "ha-manager crm-command node-maintenance"


def ha_manager(machine: Machine, words: list[str]) -> int:
    """Returns the exit status."""
    if not machine.read().pve_cluster:
        sys.stderr.write(PMXCFS_DOWN)
        return 111
    match words:
        case ["status", *_]:
            return _show_status(machine)
        case ["crm-command", "node-maintenance", ("enable" | "disable") as verb, *rest]:
            if len(rest) != 1:
                amount = "not enough" if not rest else "too many"
                return _die(f"400 {amount} arguments\n{MAINTENANCE} {verb} <node>")
            return _set_maintenance(machine, rest[0], enabled=verb == "enable")
        case []:
            return _die(f"ERROR: no command specified\n{USAGE.rstrip()}")
    return _die(f"ERROR: unknown command 'ha-manager {' '.join(words)}'\n{USAGE.rstrip()}")


def _show_status(machine: Machine) -> int:
    for row in ha.status_rows(cluster_of(machine).read(), machine.read().hostname):
        print(f"{row['type']} {row['status']}")
    return 0


def _set_maintenance(machine: Machine, node: str, *, enabled: bool) -> int:
    """Only asks for it: when this ends, the services are still where they were."""
    if re.fullmatch(r"[A-Za-z0-9-]+", node) is None:
        return _die(
            "400 Parameter verification failed.\n"
            "node: invalid format - value does not look like a valid node name\n"
            f"{MAINTENANCE} {'enable' if enabled else 'disable'} <node>"
        )
    cluster = cluster_of(machine)
    state = cluster.read()
    if node not in state.nodes:
        return _die(f"no such cluster node '{node}'")
    if not (machine.read().corosync and Partition(state, machine.read().hostname).quorate):
        return _die("cfs-lock 'domain-ha' error: no quorum!")
    with cluster.edit() as changed:
        set_mode = ha.enter_maintenance if enabled else ha.leave_maintenance
        set_mode(changed, node, time.time())
    return 0


def _die(words: str) -> int:
    sys.stderr.write(f"{words}\n")
    return DIED
