"""What may be bound to a node beside its guests: HA rules or groups, Ceph's daemons, storages.

After PVE::API2::HA::Rules, ::Groups, PVE::API2::Cluster::Ceph and PVE::API2::Storage::Config of PVE 8 and 9.
"""

from typing import Any

from provd.simulator.cluster.options import boolean, integer, text
from provd.simulator.cluster.request import Request
from provd.simulator.cluster.state import ClusterState, HaRule
from provd.simulator.cluster.tickets import ApiError

NO_CEPH = "binary not installed: /usr/bin/ceph-mon"
NODE_AFFINITY = "node-affinity"


def rules(request: Request) -> Any:
    _only_with_rules(request)
    return [_rule_row(number, rule) for number, rule in enumerate(request.state.ha_rules, 1)]


def change_rule(request: Request) -> None:
    """Its nodes and resources; what is not given stays."""
    _only_with_rules(request)
    optional = dict.fromkeys(("nodes", "resources", "comment", "digest", "affinity", "delete"), text)
    values = request.checked(
        {"type": text}, optional | {"strict": boolean, "disable": boolean, "order": integer}
    )
    with request.view.cluster.edit() as state:
        rule = _find(state, request.arguments["rule"])
        if rule.type != values["type"]:
            raise ApiError(400, f"rule '{rule.rule}' has type '{rule.type}', not '{values['type']}'")
        if "nodes" in values:
            rule.nodes = str(values["nodes"]).split(",")
        if "resources" in values:
            rule.resources = str(values["resources"]).split(",")
        rule.strict = bool(values.get("strict", rule.strict))


def delete_rule(request: Request) -> None:
    _only_with_rules(request)
    with request.view.cluster.edit() as state:
        state.ha_rules.remove(_find(state, request.arguments["rule"]))


def groups(request: Request) -> Any:
    _only_with_groups(request, "index groups")
    return [
        {
            "group": rule.rule,
            "type": "group",
            "nodes": ",".join(rule.nodes),
            "restricted": int(rule.strict),
            "nofailback": 0,
        }
        for rule in request.state.ha_rules
        if rule.type == NODE_AFFINITY
    ]


def change_group(request: Request) -> None:
    _only_with_groups(request, "update group")
    optional = dict.fromkeys(("nodes", "comment", "digest", "delete"), text)
    values = request.checked({}, optional | {"restricted": boolean, "nofailback": boolean})
    with request.view.cluster.edit() as state:
        group = _find(state, request.arguments["group"], "group")
        if "nodes" in values:
            group.nodes = str(values["nodes"]).split(",")
        group.strict = bool(values.get("restricted", group.strict))


def delete_group(request: Request) -> None:
    _only_with_groups(request, "delete group")
    with request.view.cluster.edit() as state:
        state.ha_rules.remove(_find(state, request.arguments["group"], "group"))


def ceph_metadata(request: Request) -> Any:
    """One monitor, manager and OSD on every node that has Ceph."""
    nodes = request.state.ceph_nodes
    if not nodes:
        raise ApiError(500, NO_CEPH)
    version = {"str": "19.2.3", "parts": ["19", "2", "3"]}

    def daemons() -> dict[str, Any]:
        return {f"{name}@{name}": {"name": name, "hostname": name} for name in nodes}

    return {
        "mon": daemons(),
        "mgr": daemons(),
        "mds": {},
        "osd": [{"id": number, "hostname": name} for number, name in enumerate(nodes)],
        "node": {name: {"version": version, "buildcommit": "c92aebb2"} for name in nodes},
    }


def storages(request: Request) -> Any:
    """One that the caller may not see is left out, without a word."""
    return [
        {
            "storage": one.storage,
            "type": one.type,
            "content": one.content,
            "digest": "0" * 40,
            **({"nodes": ",".join(one.nodes)} if one.nodes else {}),
            **({"shared": 1} if one.shared else {}),
        }
        for one in request.state.storages
        if request.caller.may("Datastore.Audit", f"/storage/{one.storage}")
    ]


def _rule_row(order: int, rule: HaRule) -> dict[str, Any]:
    own = (
        {"nodes": ",".join(rule.nodes), "strict": int(rule.strict)}
        if rule.type == NODE_AFFINITY
        else {"affinity": "positive"}
    )
    return {
        "rule": rule.rule,
        "type": rule.type,
        "resources": ",".join(rule.resources),
        "order": order,
        "digest": "0" * 40,
        **own,
    }


def _find(state: ClusterState, name: str, kind: str = "rule") -> HaRule:
    found = next((rule for rule in state.ha_rules if rule.rule == name), None)
    if found is None:
        raise ApiError(500, f"no such ha {kind} '{name}'")
    return found


def _only_with_rules(request: Request) -> None:
    if not request.state.release.has_ha_rules:
        path = f"/cluster/ha/rules/{request.arguments.get('rule', '')}".rstrip("/")
        raise ApiError(501, f"Method '{request.method} {path}' not implemented")


def _only_with_groups(request: Request, what: str) -> None:
    if request.state.release.has_ha_rules:
        raise ApiError(500, f"cannot {what}: ha groups have been migrated to rules")
