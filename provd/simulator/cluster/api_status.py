"""What can be seen: members, machines, guests, high availability, certificates, tasks."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from provd.simulator.cluster import certificates, ha, leaves
from provd.simulator.cluster.request import Request, fail_parameters
from provd.simulator.cluster.state import PROFILES, ClusterNode, Guest
from provd.simulator.cluster.tasks import Upid, exit_status
from provd.simulator.cluster.tickets import ApiError


def version(request: Request) -> Any:
    """Of this node, or of the one in the path."""
    node = request.state.nodes[request.arguments.get("node", request.view.node)]
    release = PROFILES[node.profile or request.state.profile]
    return {"version": release.version, "release": release.release, "repoid": release.repoid}


def cluster_status(request: Request) -> Any:
    """Integers for booleans. Newest node first: the order means nothing, and nobody shall rely on it."""
    state = request.state
    rows: list[dict[str, Any]] = []
    if state.name is not None:
        rows.append(
            {
                "type": "cluster",
                "id": "cluster",
                "name": state.name,
                "nodes": len(state.nodes),
                "version": state.config_version,
                "quorate": int(state.quorate),
            }
        )
    for name, node in reversed(state.nodes.items()):
        rows.append(
            {
                "type": "node",
                "id": f"node/{name}",
                "name": name,
                "nodeid": node.nodeid,
                **({"ip": node.ring0_addr} if node.seen else {}),
                "local": int(name == request.view.node),
                "online": int(node.online),
                "level": "",
            }
        )
    return rows


def nodes(request: Request) -> Any:
    return [_node_row(request, name, node) for name, node in request.state.nodes.items()]


def resources(request: Request) -> Any:
    """A guest that the caller may not see is left out, without a word."""
    wanted = request.parameters.get("type")
    rows: list[dict[str, Any]] = []
    if wanted in (None, "vm"):
        rows += [_guest_row(request, guest) for guest in _visible_guests(request)]
    if wanted in (None, "node"):
        rows += [_node_row(request, name, node) for name, node in request.state.nodes.items()]
    return rows


def guests_of_node(request: Request) -> Any:
    kind = request.arguments["kind"]
    return [
        {"vmid": guest.vmid, "name": guest.name, "status": guest.status}
        for guest in _visible_guests(request)
        if guest.node == request.arguments["node"] and guest.type == kind
    ]


def replication(request: Request) -> Any:
    return [
        {"id": job.id, "guest": job.guest, "source": job.source, "target": job.target, "type": "local"}
        for job in request.state.replication
        if request.caller.may("VM.Audit", f"/vms/{job.guest}")
    ]


def ha_current(request: Request) -> Any:
    return ha.status_rows(request.state, request.view.node)


def ha_resources(request: Request) -> Any:
    return [
        {
            "sid": resource.sid,
            "type": "vm" if resource.sid.startswith("vm:") else "ct",
            "state": resource.state,
        }
        for resource in request.state.ha_resources
    ]


def ha_manager(request: Request) -> Any:
    return {
        "manager_status": {"node_status": ha.manager_status(request.state)},
        "quorum": {"node": request.view.node, "quorate": int(request.state.quorate)},
    }


def certificate_info(request: Request) -> Any:
    directory = request.view.pve / "nodes" / request.arguments["node"]
    files = [request.view.pve / "pve-root-ca.pem", directory / "pve-ssl.pem", directory / "pveproxy-ssl.pem"]
    return [certificates.describe(file) for file in files if file.exists()]


def task_status(request: Request) -> Any:
    upid, log = _task(request)
    result = exit_status(log, upid)
    ended = {"status": "running"} if result is None else {"status": "stopped", "exitstatus": result}
    return {
        "upid": str(upid),
        "node": upid.node,
        "pid": upid.pid,
        "pstart": upid.pstart,
        "starttime": upid.starttime,
        "type": upid.type,
        "id": upid.id,
        "user": upid.user,
        **ended,
    }


def task_log(request: Request) -> Any:
    _, log = _task(request)
    start, limit = (_number(request, name, default) for name, default in (("start", 0), ("limit", 50)))
    lines = log.read_text(errors="replace").splitlines()
    return [{"n": n, "t": line} for n, line in enumerate(lines, 1)][start : start + limit if limit else None]


def _task(request: Request) -> tuple[Upid, Path]:
    """Raise `ApiError` for a task that is not there, or is none of the caller's business."""
    upid = Upid.parse(request.arguments["upid"])
    node = request.arguments["node"]
    if upid is None or upid.node != node:
        fail_parameters({"upid": "unable to parse worker upid"})
    if request.caller.user != upid.user and not request.caller.may("Sys.Audit", f"/nodes/{node}"):
        raise ApiError(403, f"Permission check failed (/nodes/{node}, Sys.Audit)")
    view = request.view
    root = str(view.machine.root) if node == view.node else view.state.nodes[node].root
    if root is None or not upid.file(Path(root)).exists():
        fail_parameters({"upid": "no such task"})
    return upid, upid.file(Path(root))


def _number(request: Request, name: str, default: int) -> int:
    text = request.parameters.get(name, str(default))
    if re.fullmatch(r"[0-9]{1,9}", text) is None:
        fail_parameters({name: f"type check ('integer') failed - got '{text}'"})
    return int(text)


def _node_row(request: Request, name: str, node: ClusterNode) -> dict[str, Any]:
    row: dict[str, Any] = {
        "node": name,
        "id": f"node/{name}",
        "type": "node",
        "status": "online" if node.online else "offline",
        "level": "",
    }
    with suppress(FileNotFoundError):  # a node that is only being added has none yet
        row["ssl_fingerprint"] = leaves.served_fingerprint(request.view.pve, name)
    if node.online and request.caller.may("Sys.Audit", f"/nodes/{name}"):
        row |= {"cpu": 0.01, "maxcpu": 8, "mem": 2 << 30, "maxmem": 32 << 30, "disk": 4 << 30}
        row |= {"maxdisk": 90 << 30, "uptime": 86400}
    return row


def _visible_guests(request: Request) -> list[Guest]:
    return [guest for guest in request.state.guests if request.caller.may("VM.Audit", f"/vms/{guest.vmid}")]


def _guest_row(request: Request, guest: Guest) -> dict[str, Any]:
    node = request.state.nodes.get(guest.node)
    managed = next((r.state for r in request.state.ha_resources if r.sid.endswith(f":{guest.vmid}")), None)
    return {
        "id": f"{guest.type}/{guest.vmid}",
        "type": guest.type,
        "vmid": guest.vmid,
        "node": guest.node,
        "name": guest.name or f"guest{guest.vmid}",
        "status": guest.status if node is not None and node.online else "unknown",
        "template": int(guest.template),
        **({"hastate": managed} if managed else {}),
    }
