"""What names nodes for HA services: rules since PVE 9.0, groups before (pve-ha-manager 5.0, 4.0)."""

from attrs import frozen

from provd.domain.cluster import HaRule
from provd.domain.errors import ClusterFailed
from provd.proxmox.cluster import Member
from provd.proxmox.envelope import parse, read_envelope, rows

NOT_IMPLEMENTED = 501


@frozen(kw_only=True)
class RuleRow:
    """A row of `/cluster/ha/rules`; those of type resource-affinity name no nodes."""

    rule: str
    type: str = ""
    nodes: str = ""


@frozen(kw_only=True)
class GroupRow:
    """A row of `/cluster/ha/groups`."""

    group: str
    nodes: str = ""


async def read_rules(member: Member) -> tuple[HaRule, ...]:
    """Rules, or on a release that has none, groups. Raises `ClusterFailed`."""
    response = await member.send("GET", "/cluster/ha/rules")
    if response.status_code == NOT_IMPLEMENTED:
        asked = f"{member.name}/cluster/ha/groups"
        groups = [parse(GroupRow, row, asked) for row in rows(await member.get("/cluster/ha/groups"), asked)]
        return tuple(HaRule(id=row.group, kind="group", nodes=listed(row.nodes)) for row in groups)
    asked = f"{member.name}/cluster/ha/rules"
    found = [parse(RuleRow, row, asked) for row in rows(read_envelope(response, asked), asked)]
    return tuple(
        HaRule(id=row.rule, kind="rule", nodes=listed(row.nodes))
        for row in found
        if row.type == "node-affinity"
    )


async def change_rule(member: Member, rule: HaRule, node: str) -> str:
    """Take `node` out of the rule, or the rule away that names nobody else; what it was, as a sentence."""
    path = f"/cluster/ha/{rule.kind}s/{rule.id}"
    left = rule.without(node)
    form = {"nodes": ",".join(left)} | ({"type": "node-affinity"} if rule.kind == "rule" else {})
    response = await member.send("PUT", path, form) if left else await member.send("DELETE", path)
    try:
        read_envelope(response, f"{member.name}{path}")
    except ClusterFailed as exc:
        raise ClusterFailed(f"the HA {rule.kind} {rule.id} still names {node}: {exc}") from exc
    done = "names it no more" if left else "was removed, since it named nobody else"
    return f"the HA {rule.kind} {rule.id} (nodes: {','.join(rule.nodes)}) {done}"


def listed(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())
