"""Whether the host's name, addresses, links and number are its own."""

from provd.domain.rehearsal import Check
from provd.orchestrator.rehearsal.checks import but, fine, never, no, unknown
from provd.orchestrator.rehearsal.situation import Situation, listed


def name(it: Situation) -> Check:
    if namesakes := [other for other in it.others if it.is_me(other.hostname)]:
        return never("name", f"{len(namesakes) + 1} hosts of provd are called {it.name}.")
    if it.cluster is None:
        return fine("name", f"No other host of provd is called {it.name}.")
    member = it.member
    if member is None:
        return fine("name", f"Neither provd nor the cluster has another {it.name}.")
    listed_as = f"nodeid {member.nodeid}, {member.address or 'address not known'}"
    own = {str(address) for address in (it.host.ip, *it.wanted_addresses) if address is not None}
    theirs = {str(member.address), *member.links.values()}
    if own & theirs:
        return fine("name", f"The cluster's member {member.name} is this host as it is now.", listed_as)
    state = "online" if member.online else "offline"
    if it.host.ip is not None and member.online:
        return unknown(
            "name",
            f"The cluster has a member {member.name} that is online at {member.address or 'another place'}, "
            f"and provd knows {it.name} at {it.host.ip}: that may be another machine.",
            listed_as,
            "If it is another machine, register this one under another name.",
        )
    return but(
        "name",
        f"The cluster's member {member.name}, which is {state}, will be taken for this host as it is now; "
        "provd cannot tell whether it is.",
        listed_as,
        f"Make sure that {it.host.mac} is a NIC of that machine.",
    )


def address(it: Situation) -> Check:
    members = it.rest.nodes if it.rest is not None else ()
    used = {
        text: node.name
        for node in members
        for text in (*([str(node.address)] if node.address is not None else []), *node.links.values())
    }
    wanted = [str(one) for one in it.wanted_addresses]
    evidence = f"{len(used)} addresses of members, {sum(len(one.addresses) for one in it.others)} of hosts"
    if taken := [f"{one} is the address of the member {used[one]}" for one in wanted if one in used]:
        return never(
            "address",
            f"{listed(taken)}: two nodes with one address can stop the whole cluster.",
            evidence,
            "Give the host another address in its options.",
        )
    if len(set(wanted)) < len(wanted):
        return never("address", f"The host's options name an address twice: {listed(wanted)}.")
    theirs = {str(one): other.hostname for other in it.others for one in other.addresses}
    if taken := [f"{one} is the address of the host {theirs[one]}" for one in wanted if one in theirs]:
        return no("address", f"{listed(taken)}.", evidence, "Give one of them another address.")
    last = str(it.host.ip) if it.host.ip is not None else ""
    if not wanted and (owner := used.get(last) or theirs.get(last)):
        return but(
            "address",
            f"Its address comes from DHCP; the last one, {last}, belongs to {owner} now.",
            evidence,
            "Look at the reservations of the DHCP server.",
        )
    if it.host.options.address is not None:
        return fine("address", f"Nobody else that provd knows of has {listed(wanted)}.", evidence)
    return fine("address", "Its address comes from DHCP.", f"last: {last or 'none'}; {evidence}")


def links(it: Situation) -> Check | None:
    """A newcomer must have an address for each link of the cluster, and for no other (pvecm(1))."""
    if it.rest is None or not it.rest.nodes:
        return None
    numbers = sorted({number for node in it.rest.nodes for number in node.links})
    if not numbers:
        return unknown("links", "How many corosync links the cluster has could not be seen.")
    has = 1 + len(it.host.options.links or ())
    evidence = f"links {', '.join(map(str, numbers))}; the host has {has} addresses for them"
    if has < len(numbers):
        return never(
            "links",
            f"The cluster has {len(numbers)} corosync links and the host an address for {has} of them: "
            "the cluster would refuse it.",
            evidence,
            f"Set the option `links` of the host to its {len(numbers) - 1} further addresses.",
        )
    if has > len(numbers):
        return never(
            "links",
            f"The host has addresses for {has} corosync links and the cluster has {len(numbers)}: the "
            "cluster would refuse it.",
            evidence,
            "Take the surplus out of the option `links` of the host.",
        )
    return fine("links", "It has an address for each corosync link of the cluster.", evidence)


def nodeid(it: Situation) -> Check | None:
    wanted = it.host.options.nodeid
    if it.rest is None or wanted is None:
        return None
    if owner := next((node.name for node in it.rest.nodes if node.nodeid == wanted), None):
        return never(
            "nodeid",
            f"It shall be node {wanted}, and that is {owner}.",
            mend="Set the option `nodeid` of the host to a free number, or to none.",
        )
    return fine("nodeid", f"Node id {wanted} is free for it.")
