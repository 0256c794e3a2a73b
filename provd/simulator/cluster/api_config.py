"""/cluster/config: corosync's configuration, and how nodes enter and leave it.

Texts and order after PVE::API2::ClusterConfig of pve-cluster 8.1 to 9.1.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import trio

from provd.simulator.cluster import leaves
from provd.simulator.cluster.locked import replace_file
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.membership import (
    JOIN_API_VERSION,
    AddRequest,
    Refused,
    add_node,
    check_ready,
    corosync_conf,
    delete_node,
    find_node,
    link_numbers,
    lock_failure,
)
from provd.simulator.cluster.options import (
    LINKS,
    SHARED,
    fingerprint,
    integer,
    ip,
    link_address,
    node_name,
    text,
)
from provd.simulator.cluster.request import Request, fail_parameters
from provd.simulator.cluster.services import cut_off
from provd.simulator.cluster.state import ClusterNode, ClusterState
from provd.simulator.cluster.tasks import Upid, process_start
from provd.simulator.cluster.tickets import ApiError


def index(request: Request) -> Any:
    return [{"name": name} for name in ("nodes", "totem", "join", "qdevice", "apiversion")]


def apiversion(request: Request) -> Any:
    return JOIN_API_VERSION


def nodes(request: Request) -> Any:
    """All values are strings, as they are read from corosync.conf."""
    if request.state.name is None:
        return []
    return [{"node": name, **_entry(name, node)} for name, node in sorted(request.state.nodes.items())]


def totem(request: Request) -> Any:
    return _totem(request.state) if request.state.name is not None else {}


def qdevice(request: Request) -> Any:
    return request.state.qdevice


def join_info(request: Request) -> Any:
    state = request.state
    preferred = request.parameters.get("node", request.view.node)
    if state.name is None:
        raise ApiError(424, "node is not in a cluster, no join info available!")
    if preferred not in state.nodes:
        raise ApiError(500, f"unknown node '{preferred}'")
    entries = []
    for name, node in sorted(state.nodes.items()):
        try:
            served = leaves.served_fingerprint(request.view.pve, name)
        except FileNotFoundError:
            raise ApiError(500, f"'/etc/pve/nodes/{name}/pve-ssl.pem' does not exist!") from None
        entries.append({**_entry(name, node), "pve_addr": node.ring0_addr, "pve_fp": served})
    digest = hashlib.sha1(corosync_conf(state).encode(), usedforsecurity=False).hexdigest()
    return {
        "config_digest": digest,
        "preferred_node": preferred,
        "nodelist": entries,
        "totem": _totem(state),
    }


async def add(request: Request) -> Any:
    """What the newcomer's `pvecm add` calls; the answer makes it a member, so only root's ticket will do."""
    values = request.checked({}, {"apiversion": integer, "new_node_ip": ip, **SHARED})
    name = request.arguments["node"]
    try:
        node_name(name)
    except ValueError as problem:
        fail_parameters({"node": str(problem)})
    numbers = {name: int(values[name]) for name in ("nodeid", "votes") if name in values}
    wanted = AddRequest(
        name=name,
        apiversion=int(values.get("apiversion", 0)),
        links={
            key.removeprefix("link"): link_address(str(value))
            for key, value in values.items()
            if key in LINKS
        },
        new_node_ip=str(values["new_node_ip"]) if "new_node_ip" in values else None,
        nodeid=numbers.get("nodeid"),
        votes=numbers.get("votes"),
        force=bool(values.get("force", False)),
    )
    cluster = request.view.cluster
    try:
        check_ready(request.state, wanted.apiversion)
        await _wait_for_lock(request)
        with cluster.edit() as state:
            add_node(state, wanted)
    except Refused as refusal:
        raise ApiError(500, str(refusal), refusal.errors or None) from refusal
    return {
        "corosync_authkey": (cluster.directory / "authkey").read_bytes().decode("latin-1"),
        "corosync_conf": corosync_conf(state),
        "warnings": state.faults.addnode_warnings,
    }


async def delete(request: Request) -> None:
    cluster = request.view.cluster
    try:
        check_ready(request.state)
        await _wait_for_lock(request)
        with cluster.edit() as state:
            victim = delete_node(state, find_node(state, request.view.node, request.arguments["node"]))
    except Refused as refusal:
        raise ApiError(500, str(refusal)) from refusal
    if victim.online and victim.root:
        cut_off(Machine(Path(victim.root)))


async def join(request: Request) -> str:
    """Start this node's own `pvecm add`. Always a UPID: whether it works, only the task tells."""
    required = {"hostname": text, "fingerprint": fingerprint, "password": text}
    values = request.checked(required, SHARED)
    words = ["add", str(values["hostname"])]
    for name, value in values.items():
        if name not in ("hostname", "password"):
            words += [f"--{name}", str(int(value)) if isinstance(value, bool) else str(value)]
    return str(await request.tasks.start_join(request.view.machine, words, str(values["password"])))


def create(request: Request) -> str:
    """Found a cluster of one. Simulated for members made by `Cluster.create(name=None)`."""
    values = request.checked(
        {"clustername": text}, {name: SHARED[name] for name in ("nodeid", "votes", *LINKS)}
    )
    view = request.view
    if view.state.name is not None:
        raise ApiError(500, "cluster config '/etc/pve/corosync.conf' already exists")
    if view.pve != view.cluster.pve:
        raise ApiError(
            500, "this simulated machine has no cluster directory of its own to found a cluster in"
        )
    with view.cluster.edit() as state:
        state.name = str(values["clustername"])
        state.config_version = 1
        state.nodes[view.node].nodeid = int(values.get("nodeid", 1))
    with view.machine.edit() as machine:
        machine.corosync = True
    pid = os.getpid()
    upid = Upid(
        node=view.node, pid=pid, pstart=process_start(pid), starttime=int(time.time()), type="clustercreate"
    )
    log = upid.file(view.machine.root)
    log.parent.mkdir(parents=True, exist_ok=True)
    replace_file(log, b"Corosync Cluster Engine Authentication key generator.\nTASK OK\n")
    return str(upid)


async def _wait_for_lock(request: Request) -> None:
    state = request.state
    with trio.move_on_after(state.timings.lock_wait):
        while state.cfs_lock_busy(time.time()):
            await trio.sleep(0.02)  # the holder may be another process, which cannot wake us
            state = request.view.cluster.read()
        return
    raise Refused(lock_failure(state))


def _entry(name: str, node: ClusterNode) -> dict[str, str]:
    addresses = {f"ring{number}_addr": address for number, address in sorted(node.links.items())}
    return {"name": name, "nodeid": str(node.nodeid), "quorum_votes": str(node.votes), **addresses}


def _totem(state: ClusterState) -> dict[str, Any]:
    return {
        "cluster_name": state.name,
        "config_version": str(state.config_version),
        "interface": {number: {"linknumber": number} for number in link_numbers(state)},
        "ip_version": "ipv4-6",
        "link_mode": "passive",
        "secauth": "on",
        "version": "2",
    }
