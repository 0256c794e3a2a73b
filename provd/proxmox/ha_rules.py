"""Taking a node out of what names it for HA services (pve-ha-manager 4.0: groups, 5.0: rules)."""

from provd.domain.cluster import HaRule
from provd.domain.errors import ClusterFailed
from provd.proxmox.cluster import Member
from provd.proxmox.envelope import read_envelope


async def forget_node(member: Member, rule: HaRule, node: str) -> str:
    """Take `node` out of the rule, or the rule away that names nobody else; what it was, as a sentence."""
    path = f"/cluster/ha/{rule.kind}s/{rule.id}"
    left = rule.written_without(node)
    form = {"nodes": left} | ({"type": "node-affinity"} if rule.kind == "rule" else {})
    response = await member.send("PUT", path, form) if left else await member.send("DELETE", path)
    try:
        read_envelope(response, f"{member.name}{path}")
    except ClusterFailed as exc:
        raise ClusterFailed(f"the HA {rule.kind} {rule.id} still names {node}: {exc}") from exc
    done = "names it no more" if left else "was removed, since it named nobody else"
    return f"the HA {rule.kind} {rule.id} (nodes: {rule.written}) {done}"
