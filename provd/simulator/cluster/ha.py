"""High availability: its status, and how services leave a node that goes into maintenance.

Pure. There is no CRM that runs: what one would have done by now is worked out from the time by `settle`,
whenever somebody looks. Texts after PVE::API2::HA::Status and PVE::CLI::ha_manager of PVE 8 and 9.
"""

import time
from typing import Any

from provd.simulator.cluster.state import ClusterNode, ClusterState, HaResource


def enter_maintenance(state: ClusterState, node: str, now: float) -> None:
    if node not in state.ha_maintenance:
        state.ha_maintenance.append(node)
        state.ha_moves_at[node] = now + state.timings.ha_move


def leave_maintenance(state: ClusterState, node: str, now: float) -> None:
    """Services that were moved away for it come back, a moment later."""
    if node in state.ha_maintenance:
        state.ha_maintenance.remove(node)
        state.ha_moves_at[node] = now + state.timings.ha_move


def settle(state: ClusterState, now: float) -> None:
    """Do every move whose time has come. The same state and a later time give the same result."""
    for node, moment in sorted(state.ha_moves_at.items()):
        if moment > now:
            continue
        del state.ha_moves_at[node]
        for resource in state.ha_resources:
            if node in state.ha_maintenance:
                if resource.node == node and (target := _best_target(state, node)) is not None:
                    resource.maintenance_node = resource.maintenance_node or node
                    _move(state, resource, target)
            elif resource.maintenance_node == node and _is_online(state, node):
                resource.maintenance_node = None
                _move(state, resource, node)


def _best_target(state: ClusterState, node: str) -> str | None:
    """The online node with the fewest services."""
    loads = {
        name: sum(resource.node == name for resource in state.ha_resources)
        for name in state.nodes
        if name != node and _is_online(state, name) and name not in state.ha_maintenance
    }
    return min(loads, key=lambda name: (loads[name], name), default=None)


def _is_online(state: ClusterState, name: str) -> bool:
    return name in state.nodes and state.nodes[name].online


def _move(state: ClusterState, resource: HaResource, target: str) -> None:
    resource.node = target
    for guest in state.guests:
        if resource.sid.endswith(f":{guest.vmid}"):
            guest.node = target


# --- what is shown ------------------------------------------------------------------------------------


def status_rows(state: ClusterState, me: str) -> list[dict[str, Any]]:
    """As GET /cluster/ha/status/current lists them, asked at the node `me`."""
    ok = "OK" if state.quorate else f"No quorum on node '{me}'!"
    rows: list[dict[str, Any]] = [
        {"id": "quorum", "type": "quorum", "node": me, "status": ok, "quorate": int(state.quorate)}
    ]
    if state.release.shows_fencing:
        rows.append(
            {
                "id": "fencing",
                "type": "fencing",
                "node": me,
                "status": "armed (CRM watchdog active)",
                "armed-state": "armed",
            }
        )
    if not is_active(state):
        return rows
    now = int(time.time())
    master = next((name for name, node in state.nodes.items() if node.online), me)
    rows.append(
        {
            "id": "master",
            "type": "master",
            "node": master,
            "status": f"{master} (active, {time.ctime(now)})",
            "timestamp": now,
        }
    )
    for name, node in sorted(state.nodes.items()):
        rows.append(
            {
                "id": f"lrm:{name}",
                "type": "lrm",
                "node": name,
                "status": f"{name} ({_lrm_mode(state, name, node)}, {time.ctime(now)})",
                "timestamp": now,
            }
        )
    rows += [_service_row(resource) for resource in state.ha_resources]
    return rows


def manager_status(state: ClusterState) -> dict[str, str]:
    """Node to its condition, as the CRM sees it: maintenance begins before the services have left."""

    def condition(name: str, node: ClusterNode) -> str:
        if name in state.ha_maintenance:
            return "maintenance"
        return "online" if node.online else "unknown"

    return {name: condition(name, node) for name, node in state.nodes.items()} if is_active(state) else {}


def is_active(state: ClusterState) -> bool:
    return bool(state.ha_resources or state.ha_maintenance)


def _lrm_mode(state: ClusterState, name: str, node: ClusterNode) -> str:
    if not node.online:
        return "old timestamp - dead?"
    if name in state.ha_maintenance:
        return "maintenance mode"
    return "active" if any(resource.node == name for resource in state.ha_resources) else "idle"


def _service_row(resource: HaResource) -> dict[str, Any]:
    return {
        "id": f"service:{resource.sid}",
        "type": "service",
        "sid": resource.sid,
        "node": resource.node,
        "state": resource.state,
        "crm_state": resource.state,
        "request_state": resource.state,
        "status": f"{resource.sid} ({resource.node}, {resource.state})",
    }
