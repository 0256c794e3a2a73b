"""A Proxmox VE cluster that is a directory: real HTTPS, a real `pvecm`, and faults at the turn of a switch.

The API server is in `provd.simulator.cluster.api`; it is not imported here, because every call of `pvecm`
passes through this file and needs no server.
"""

from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.history import Moment
from provd.simulator.cluster.keys import first_boot_updatecerts
from provd.simulator.cluster.machine import Machine, MachineState, install_pve_tools, stop_pvecm
from provd.simulator.cluster.state import (
    ClusterNode,
    ClusterState,
    Faults,
    Guest,
    HaResource,
    HaRule,
    ReplicationJob,
    Storage,
    Timings,
    Token,
)

__all__ = [
    "Cluster",
    "ClusterNode",
    "ClusterState",
    "Faults",
    "Guest",
    "HaResource",
    "HaRule",
    "Machine",
    "MachineState",
    "Moment",
    "ReplicationJob",
    "Storage",
    "Timings",
    "Token",
    "first_boot_updatecerts",
    "install_pve_tools",
    "stop_pvecm",
]
