"""Whether the cluster keeps its majority while a member goes, is away, and comes again."""

from provd.domain.cluster import Cluster, Node, Survey
from provd.domain.rehearsal import Check
from provd.orchestrator.rehearsal.checks import but, fine, never, no, unknown
from provd.orchestrator.rehearsal.situation import Situation, listed


def leaving(it: Situation) -> Check | None:
    """Whether the others keep their majority while it is away and not yet struck out."""
    cluster, member = it.cluster, it.member
    if cluster is None or member is None:
        return None
    votes = _votes(cluster, cluster.votes_without({it.name}))
    if len(cluster.nodes) == 1:
        return never(
            "quorum",
            f"{it.name} is the whole cluster: with it, the cluster and its configuration would be gone.",
            votes,
            "Let another node join first, or take the host out of the cluster: option `cluster: none`.",
        )
    if not cluster.quorate:
        return never(
            "quorum",
            "The cluster has no quorum: nobody can be struck out of it, and nobody can join it.",
            votes,
            "Bring members back until `pvecm status` says Quorate: Yes.",
        )
    spare = cluster.spare_votes({it.name})
    if spare < 0:
        return _without_majority(it, cluster, member, votes)
    if waits_for := _waits_for(it, cluster.spare_votes({it.name, *it.others_away}) >= 0):
        return but("quorum", f"It waits for {waits_for} before it goes away.", votes)
    if spare == 0:
        return but(
            "quorum",
            "The others just keep their majority while it is away: if one more of them fails meanwhile, the "
            "cluster stands still.",
            votes,
        )
    return fine("quorum", f"The others keep their majority while it is away, with {spare} to spare.", votes)


def _without_majority(it: Situation, cluster: Cluster, member: Node, votes: str) -> Check:
    others = [node for node in cluster.nodes if node is not member]
    offline = [node.name for node in others if not node.online]
    if offline:
        return never(
            "quorum",
            f"Without it the others have no majority, because {listed(offline)} "
            f"{'is' if len(offline) == 1 else 'are'} offline: no guest could be started, nobody struck out.",
            votes,
            f"Bring {listed(offline)} back first.",
        )
    if cluster.struck(it.name).spare_votes() < 0:
        return never(
            "quorum",
            "Without it the others have no majority, not even when it is struck out: the QDevice is offline.",
            votes,
            "Bring the QDevice back, or remove it: `pvecm qdevice remove`.",
        )
    stay = listed([node.name for node in others])
    standstill = (
        f"Without its vote {stay} {'has' if len(others) == 1 else 'have'} no majority: /etc/pve would be "
        "read-only there, and a node with HA services restarts itself after a minute"
    )
    if it.keep_entry:
        return never(
            "quorum",
            f"{standstill}; it keeps its entry, so its vote stays expected as long as it is away.",
            votes,
            "Rebuild it without keeping its entry.",
        )
    if it.credentials.ssh_key and not it.others_away:
        return but(
            "quorum",
            f"{standstill}. So provd disarms {it.name} over SSH and strikes it out while it still runs; if "
            f"it is off before that, {stay} is told to do without its vote (`pvecm expected`).",
            votes,
        )
    if it.credentials.ssh_key:
        what = f"It waits for {_rebuild_of_others(it)} before it goes away. {standstill}."
        return but("quorum", what, votes)
    return never(
        "quorum",
        f"{standstill}. Only over SSH can provd keep that from happening.",
        votes,
        "Set credentials.cluster_ssh_key_file, or add a vote: another node or a QDevice. Or strike it out by "
        f"hand while both run, `pvecm delnode {it.name}` on {others[0].name}, and rebuild it at once.",
    )


def joining(it: Situation) -> Check | None:
    """Whether the others keep their majority between its entry and its first vote."""
    rest, member = it.rest, it.member
    if it.cluster is None or rest is None or not rest.nodes:
        return None
    newcomer = member.votes if member is not None else 1
    needed = (rest.expected_votes + newcomer) // 2 + 1
    there = rest.votes_without()
    votes = f"{there} of {rest.expected_votes + newcomer} votes are there while it joins, quorum {needed}"
    if member is None and not it.cluster.quorate:
        return never(
            "joining",
            "The cluster has no quorum, so nobody can join it.",
            votes,
            "Bring members back until `pvecm status` says Quorate: Yes.",
        )
    if member is not None and it.keep_entry:
        return fine("joining", "It keeps its entry: its vote is expected all the time, and nothing changes.")
    if rest.survives_newcomer(newcomer):
        if waits_for := _waits_for(it, rest.survives_newcomer(newcomer, it.others_away)):
            return but("joining", f"It waits for {waits_for} before it joins.", votes)
        return fine("joining", "The others keep their majority while it joins.", votes)
    if len(rest.nodes) == 1 and rest.nodes[0].online and not rest.qdevice_votes:
        return but(
            "joining",
            f"{rest.nodes[0].name} is alone then: from the entry of {it.name} until that votes, some seconds "
            "when all goes well, it has no majority and its /etc/pve is read-only.",
            votes,
        )
    offline = [node.name for node in rest.nodes if not node.online]
    return never(
        "joining",
        f"While it joins the others would have no majority: {listed(offline) or 'a vote'} is missing.",
        votes,
        f"Bring {listed(offline) or 'more members'} back first, or strike out who does not come back: "
        "`pvecm delnode NAME`.",
    )


def qdevice(it: Situation) -> Check | None:
    if it.cluster is None or not isinstance(it.survey, Survey):
        return None
    if "qdevice_votes" in it.survey.unseen:
        return unknown(
            "qdevice", "Whether the cluster has a QDevice could not be seen.", it.unseen("qdevice_votes")
        )
    if not it.cluster.qdevice_votes:
        return fine("qdevice", "The cluster has no QDevice.")
    return no(
        "qdevice",
        "The cluster has a QDevice, which must be away while members go and come.",
        f"{it.cluster.qdevice_votes} of {it.cluster.expected_votes} votes are its",
        "`pvecm qdevice remove` on a member first, and `pvecm qdevice setup` again afterwards.",
    )


def _votes(cluster: Cluster, there: int) -> str:
    return f"{there} of {cluster.expected_votes} votes stay, quorum {cluster.quorum}"


def _waits_for(it: Situation, fits: bool) -> str:
    """Whose return opens the way, when it is other operations of provd only that stand in it."""
    return "" if fits else _rebuild_of_others(it)


def _rebuild_of_others(it: Situation) -> str:
    return f"the rebuild of {listed(sorted(it.others_away))}"
