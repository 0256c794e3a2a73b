"""The programs of a simulated machine, started by the wrappers in its /usr/local/bin."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from provd.simulator.cluster import pvecm, services
from provd.simulator.cluster.ha_manager import ha_manager
from provd.simulator.cluster.locked import exclusive
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.services import cluster_of
from provd.simulator.cluster.status import Partition, links, membership, quorum_information
from provd.simulator.cluster.systemctl import systemctl


def main(program: str, words: list[str]) -> int:
    """Returns the exit status of `program` on the machine whose root is in PROVD_ROOT."""
    return PROGRAMS[program](Machine(Path(os.environ["PROVD_ROOT"])), words)


def quorumtool(machine: Machine, words: list[str]) -> int:
    """`-s` with the whole status; every other option shows the list of members."""
    if not machine.read().corosync:
        sys.stderr.write("Cannot initialize CMAP service\n")
        return 1
    partition = Partition(cluster_of(machine).read(), machine.read().hostname)
    if not any(word.startswith("-") and "s" in word for word in words):
        sys.stdout.write("\n" + membership(partition, by_address=False))
        return 0
    sys.stdout.write(quorum_information(partition) + membership(partition, by_address="-i" in words))
    return 0 if partition.quorate else 2


def cfgtool(machine: Machine, words: list[str]) -> int:
    """`-s`; every other option shows the same."""
    if not machine.read().corosync:
        sys.stderr.write("Could not initialize corosync configuration API error 2\n")
        return 1
    sys.stdout.write(links(Partition(cluster_of(machine).read(), machine.read().hostname)))
    return 0


def pmxcfs(machine: Machine, words: list[str]) -> int:
    """`-l` is local mode: /etc/pve is this machine's alone, and can be written without quorum."""
    if machine.read().pve_cluster:
        sys.stderr.write("[main] crit: unable to acquire pmxcfs lock: Resource temporarily unavailable\n")
        return 255
    if "-l" not in words and "--local" not in words:
        services.start_pve_cluster(machine)
        return 0
    if (machine.database / "corosync.conf").exists():
        sys.stderr.write("[main] notice: forcing local mode (although corosync.conf exists)\n")
    machine.mount(local_mode=True)
    return 0


def killall(machine: Machine, words: list[str]) -> int:
    return _end(machine, words, "{name}: no process found\n")


def pkill(machine: Machine, words: list[str]) -> int:
    return _end(machine, words, "")


def _end(machine: Machine, words: list[str], nobody: str) -> int:
    """End the machine's own pmxcfs or corosync; no other process is known, and none is touched.

    Signal 0 only asks whether there is one.
    """
    ended = False
    only_asks = "-0" in words
    for name in (word for word in words if not word.startswith("-")):
        own = machine.read()
        running = {"pmxcfs": own.pve_cluster, "corosync": own.corosync}.get(name, False)
        ended |= running
        if not running:
            sys.stderr.write(nobody.format(name=name))
        elif only_asks:
            continue
        elif name == "pmxcfs":
            with exclusive(cluster_of(machine).document):
                machine.unmount()
        else:
            services.stop_corosync(machine)
    return 0 if ended else 1


PROGRAMS: dict[str, Callable[[Machine, list[str]], int]] = {
    "corosync-cfgtool": cfgtool,
    "corosync-quorumtool": quorumtool,
    "ha-manager": ha_manager,
    "killall": killall,
    "pkill": pkill,
    "pmxcfs": pmxcfs,
    "pvecm": pvecm.run,
    "systemctl": systemctl,
}
