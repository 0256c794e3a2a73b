"""The sub-commands of `pvecm` other than `add`, and what is refused before any of them starts."""

import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

from provd.simulator.cluster import keys
from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.locked import exclusive, replace_file
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.membership import (
    JOIN_API_VERSION,
    LOCK_WAITING,
    NO_CONFIG,
    AddRequest,
    Refused,
    add_node,
    check_ready,
    delete_node,
    find_node,
    lock_failure,
)
from provd.simulator.cluster.options import Call, Usage, parse
from provd.simulator.cluster.services import cut_off
from provd.simulator.cluster.status import Partition, cluster_information, membership, quorum_information

DIED = 255  # Perl's die() where errno says nothing
PMXCFS_DOWN = (
    "".join(f"ipcc_send_rec[{number}] failed: Connection refused\n" for number in (1, 2, 3))
    + "Unable to load access control list: Connection refused\n"
)


def run(machine: Machine, words: list[str]) -> int:
    """Returns the exit status."""
    if not machine.read().pve_cluster:
        sys.stderr.write(PMXCFS_DOWN)
        return 111  # ECONNREFUSED
    try:
        call = parse(words)
    except Usage as problem:
        sys.stderr.write(str(problem))
        return DIED
    cluster = Cluster(Path(machine.read().cluster_dir))
    if call.command == "add":
        if Path(os.getcwd()).is_relative_to(machine.pve) or Path(os.getcwd()).is_relative_to(cluster.pve):
            return _die(
                "Navigate out of /etc/pve before running 'pvecm add', for example by running 'cd'.", DIED
            )
        from provd.simulator.cluster.join import run_add  # and with it the HTTPS client

        return run_add(machine, cluster, call)
    return COMMANDS[call.command](machine, cluster, call)


def apiver(machine: Machine, cluster: Cluster, call: Call) -> int:
    print(JOIN_API_VERSION)
    return 0


def show_status(machine: Machine, cluster: Cluster, call: Call) -> int:
    if not (machine.pve / "corosync.conf").exists():
        return _die(NO_CONFIG, 2)  # ENOENT
    state = cluster.read()
    partition = Partition(state, machine.read().hostname)
    sys.stdout.write(cluster_information(state))
    if not machine.read().corosync:
        sys.stdout.flush()
        return _die("Cannot initialize CMAP service", 1)
    sys.stdout.write(quorum_information(partition) + membership(partition, by_address=True))
    return 0 if partition.quorate else 2


def show_nodes(machine: Machine, cluster: Cluster, call: Call) -> int:
    if not (machine.pve / "corosync.conf").exists():
        return _die(NO_CONFIG, 2)
    if not machine.read().corosync:
        return _die("Cannot initialize CMAP service", 1)
    partition = Partition(cluster.read(), machine.read().hostname)
    sys.stdout.write("\n" + membership(partition, by_address=False))
    return 0


def set_expected(machine: Machine, cluster: Cluster, call: Call) -> int:
    wanted = call.arguments[0]
    if not wanted.isdecimal() or int(wanted) < 1 or not machine.read().corosync:
        return _die("Unable to set expected votes: CS_ERR_INVALID_PARAM", 1)
    with cluster.edit() as state:
        state.expected_votes = int(wanted)
    return 0


def addnode(machine: Machine, cluster: Cluster, call: Call) -> int:
    request = AddRequest(
        name=call.arguments[0],
        apiversion=call.number("apiversion") or 0,
        links=call.links,
        new_node_ip=call.text("new_node_ip"),
        nodeid=call.number("nodeid"),
        votes=call.number("votes"),
        force=call.flag("force"),
    )
    try:
        check_ready(cluster.read(), request.apiversion)
        _wait_for_lock(cluster)
        with cluster.edit() as state:
            if add_node(state, request):
                print(f"forcing overwrite of configured node '{request.name}'")
    except Refused as refusal:
        return _die(str(refusal), DIED)
    return 0


def delnode(machine: Machine, cluster: Cluster, call: Call) -> int:
    me = machine.read().hostname
    try:
        check_ready(cluster.read())
        _wait_for_lock(cluster)
        with cluster.edit() as state:
            name = find_node(state, me, call.arguments[0])
            victim = delete_node(state, name)
    except Refused as refusal:
        return _die(str(refusal), DIED)
    print(f"Killing node {victim.nodeid}")
    if not victim.online:
        sys.stderr.write("Could not kill node (error = CS_ERR_NOT_EXIST)\n")
    elif victim.root:
        cut_off(Machine(Path(victim.root)))
    return 0


def updatecerts(machine: Machine, cluster: Cluster, call: Call) -> int:
    me = machine.read()
    state = cluster.read()
    deadline = time.monotonic() + state.timings.quorum_wait
    clustered = (machine.pve / "corosync.conf").exists() and not me.local_mode
    while clustered and not (me.corosync and Partition(state, me.hostname).quorate):
        if time.monotonic() > deadline:
            return _die(
                "got timeout when trying to ensure cluster certificates and base file hierarchy is set up"
                " - no quorum (yet) or hung pmxcfs?",
                DIED,
            )
        print("waiting for pmxcfs mount to appear and get quorate...", flush=True)
        time.sleep(state.timings.quorum_wait / 16)  # 5 s of 80
        state = cluster.read()
    say = (lambda line: None) if call.flag("silent") else print
    say("(re)generate node files")
    if call.flag("force") or not (machine.pve / "nodes" / me.hostname / "pve-ssl.pem").exists():
        from provd.simulator.cluster import certificates

        say("generate new node certificate")
        if not (machine.pve / "pve-root-ca.pem").exists():
            certificates.create_authority(machine.pve)
            replace_file(machine.pve / "priv" / "authkey.key", secrets.token_bytes(32), 0o600)
        certificates.issue_leaf(machine.pve, me.hostname, me.ip)
    known_hosts = " and known hosts" if state.release.merges_known_hosts else ""
    say(f"merge authorized SSH keys{known_hosts}")
    keys.create_root_key(machine)
    with exclusive(cluster.document):  # the file may be that of all members
        keys.take_over_keys(machine)
        keys.merge_keys(machine)
    if call.flag("unmerge-known-hosts"):
        say("unmerge SSH known hosts")
        (machine.pve / "priv" / "known_hosts").unlink(missing_ok=True)
    return 0


COMMANDS: dict[str, Callable[[Machine, Cluster, Call], int]] = {
    "addnode": addnode,
    "apiver": apiver,
    "delnode": delnode,
    "expected": set_expected,
    "nodes": show_nodes,
    "status": show_status,
    "updatecerts": updatecerts,
}


def _wait_for_lock(cluster: Cluster) -> None:
    """Raise `Refused` if the lock on corosync.conf does not come free in time."""
    state = cluster.read()
    deadline = time.monotonic() + state.timings.lock_wait
    said = -1.0
    while state.cfs_lock_busy(time.time()):
        if time.monotonic() > deadline:
            raise Refused(lock_failure(state))
        if len(state.nodes) > 1 and time.monotonic() - said > 1:
            said = time.monotonic()
            sys.stderr.write(f"{LOCK_WAITING}\n")
        time.sleep(0.02)
        state = cluster.read()


def _die(words: str, status: int) -> int:
    sys.stderr.write(f"{words}\n")
    return status
