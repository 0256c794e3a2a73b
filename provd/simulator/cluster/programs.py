"""The programs of a simulated machine, started by the wrappers in its /usr/local/bin."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from provd.simulator.cluster import pvecm
from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.status import Partition, links, membership


def main(program: str, words: list[str]) -> int:
    """Returns the exit status of `program` on the machine whose root is in PROVD_ROOT."""
    return PROGRAMS[program](Machine(Path(os.environ["PROVD_ROOT"])), words)


def systemctl(machine: Machine, words: list[str]) -> int:
    """`is-active`, `is-failed` and starting and stopping corosync; all else succeeds quietly."""
    verb, *units = [word for word in words if not word.startswith("-")] or [""]
    quiet = "-q" in words or "--quiet" in words
    names = [unit.removesuffix(".service") for unit in units]
    if verb == "is-active":
        states = [_active(machine, name) for name in names]
        if not quiet:
            print("\n".join(states))
        return 0 if "active" in states else 3
    if verb in ("stop", "start") and "corosync" in names:
        with machine.edit() as state:
            state.corosync = verb == "start" and machine.path("/etc/corosync/corosync.conf").exists()
    return 0


def _active(machine: Machine, unit: str) -> str:
    state = machine.read()
    running = {"corosync": state.corosync, "pve-cluster": state.pve_cluster}
    if unit in state.failed_units:
        return "failed"
    return "active" if running.get(unit, True) else "inactive"


def quorumtool(machine: Machine, words: list[str]) -> int:
    """`-l`; every other option shows the same list."""
    if not machine.read().corosync:
        sys.stderr.write("Cannot initialize CMAP service\n")
        return 1
    partition = Partition(_cluster(machine).read(), machine.read().hostname)
    sys.stdout.write("\n" + membership(partition, by_address=False))
    return 0


def cfgtool(machine: Machine, words: list[str]) -> int:
    """`-s`; every other option shows the same."""
    if not machine.read().corosync:
        sys.stderr.write("Could not initialize corosync configuration API error 2\n")
        return 1
    sys.stdout.write(links(Partition(_cluster(machine).read(), machine.read().hostname)))
    return 0


def _cluster(machine: Machine) -> Cluster:
    return Cluster(Path(machine.read().cluster_dir))


PROGRAMS: dict[str, Callable[[Machine, list[str]], int]] = {
    "corosync-cfgtool": cfgtool,
    "corosync-quorumtool": quorumtool,
    "pvecm": pvecm.run,
    "systemctl": systemctl,
}
