"""The table of paths, and the way of a call through it: who, to where, may he, then the answer."""

import inspect
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from provd.simulator.cluster import api_access, api_config, api_resources, api_status
from provd.simulator.cluster.request import Request, Tasks, View
from provd.simulator.cluster.tickets import ROOT, ApiError, Caller, authenticate, token_in

BASE = "/api2/json"
NODE = "/nodes/{node}"


@frozen
class Route:
    method: str
    pattern: re.Pattern[str]
    access: str  # "world", "any", "root" (by ticket, not by token), or a privilege on /
    answer: Callable[[Request], Any]


def route(method: str, path: str, access: str, answer: Callable[[Request], Any]) -> Route:
    return Route(method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), access, answer)


ROUTES = (
    route("GET", "/version", "any", api_status.version),
    route("GET", "/access/domains", "world", api_access.domains),
    route("GET", "/access/ticket", "world", api_access.no_ticket),
    route("POST", "/access/ticket", "world", api_access.create_ticket),
    route("GET", "/access/permissions", "any", api_access.permissions),
    route("GET", "/cluster/status", "Sys.Audit", api_status.cluster_status),
    route("GET", "/cluster/resources", "any", api_status.resources),
    route("GET", "/cluster/replication", "any", api_status.replication),
    route("GET", "/cluster/ha/status/current", "Sys.Audit", api_status.ha_current),
    route("GET", "/cluster/ha/status/manager_status", "Sys.Audit", api_status.ha_manager),
    route("GET", "/cluster/ha/resources", "Sys.Audit", api_status.ha_resources),
    route("GET", "/cluster/ha/rules", "Sys.Audit", api_resources.rules),
    route("PUT", "/cluster/ha/rules/{rule}", "Sys.Console", api_resources.change_rule),
    route("DELETE", "/cluster/ha/rules/{rule}", "Sys.Console", api_resources.delete_rule),
    route("GET", "/cluster/ha/groups", "Sys.Audit", api_resources.groups),
    route("PUT", "/cluster/ha/groups/{group}", "Sys.Console", api_resources.change_group),
    route("DELETE", "/cluster/ha/groups/{group}", "Sys.Console", api_resources.delete_group),
    route("GET", "/cluster/ceph/metadata", "Sys.Audit", api_resources.ceph_metadata),
    route("GET", "/storage", "any", api_resources.storages),
    route("GET", "/cluster/config", "Sys.Audit", api_config.index),
    route("POST", "/cluster/config", "root", api_config.create),
    route("GET", "/cluster/config/apiversion", "Sys.Audit", api_config.apiversion),
    route("GET", "/cluster/config/nodes", "Sys.Audit", api_config.nodes),
    route("GET", "/cluster/config/totem", "Sys.Audit", api_config.totem),
    route("GET", "/cluster/config/qdevice", "Sys.Audit", api_config.qdevice),
    route("GET", "/cluster/config/join", "Sys.Audit", api_config.join_info),
    route("POST", "/cluster/config/join", "root", api_config.join),
    route("POST", "/cluster/config/nodes/{node}", "root", api_config.add),
    route("DELETE", "/cluster/config/nodes/{node}", "root", api_config.delete),
    route("GET", "/nodes", "any", api_status.nodes),
    route("GET", f"{NODE}/version", "any", api_status.version),
    route("GET", f"{NODE}/certificates/info", "any", api_status.certificate_info),
    route("GET", f"{NODE}/tasks/{{upid}}/status", "any", api_status.task_status),
    route("GET", f"{NODE}/tasks/{{upid}}/log", "any", api_status.task_log),
    route("GET", f"{NODE}/(?P<kind>qemu|lxc)", "any", api_status.guests_of_node),
)


async def answer(
    view: View,
    tasks: Tasks,
    *,
    method: str,
    path: str,
    headers: Mapping[str, str],
    parameters: Mapping[str, str],
) -> Any:
    """The `data` of a successful answer; raise `ApiError` for every other. Header names are lower case."""
    if not path.startswith(f"{BASE}/"):
        raise ApiError(501, "no such uri")
    path = path.removeprefix(BASE).rstrip("/")
    found = next(((r, m) for r in ROUTES if r.method == method and (m := r.pattern.fullmatch(path))), None)
    if found and found[0].access == "world":
        if token_in(headers) is not None:
            raise ApiError(
                403,
                f"Permission check failed (URI '{path}' not available with API token, need proper ticket.\n)",
            )
        caller = Caller("", {})
    else:
        caller = authenticate(view.state, view.authority, method, headers)
    if found is None:
        raise ApiError(501, f"Method '{method} {path}' not implemented")
    entry, arguments = found
    _check_access(entry.access, caller)
    if entry.pattern.pattern.startswith("/nodes/"):
        _check_way(view, arguments["node"])
    request = Request(
        view=view,
        caller=caller,
        tasks=tasks,
        parameters=parameters,
        arguments=arguments.groupdict(),
        method=method,
    )
    data = entry.answer(request)
    return await data if inspect.isawaitable(data) else data


def _check_access(access: str, caller: Caller) -> None:
    if access == "root" and caller.user != ROOT:
        raise ApiError(403, "Permission check failed (user != root@pam)")
    if "." in access and not caller.may(access):
        raise ApiError(403, f"Permission check failed (/, {access})")


def _check_way(view: View, name: str) -> None:
    """A call about another node is passed on to it, by a proxy that has its own ways to fail."""
    state = view.state
    node = state.nodes.get(name)
    if node is None:
        raise ApiError(
            500,
            f"hostname lookup '{name}' failed - failed to get address info for: {name}:"
            " Name or service not known",
        )
    if name == view.node:
        return
    if name in state.faults.peer_down:
        raise ApiError(595, "Connection refused")
    if not node.online:
        raise ApiError(595, "No route to host")
    if time.time() - node.cert_changed_at < state.timings.cert_cache:
        raise ApiError(596, "tls_process_server_certificate: certificate verify failed")
