"""What is missing to rebuild members of the cluster safely: judged from a survey, without asking anybody."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from attrs import frozen

from provd.config import ProxmoxSection
from provd.doctor.findings import Finding, ok, problem, skipped, warning
from provd.domain.cluster import Cluster, Node, Survey

SOON = timedelta(days=28)
"""Before a certificate ends: Proxmox VE renews its own in the last two weeks, ACME's a month before."""


@frozen(kw_only=True)
class Access:
    """What provd may show to the cluster by itself."""

    password: bool
    token: str = ""
    """USER@REALM!ID; empty: there is none."""
    key: bool
    doors: Mapping[str, str] | None = None
    """By member: empty where SSH let us in, else why not. None: nobody knocked."""


def judge(
    section: ProxmoxSection, access: Access, survey: Survey | None, failure: str, now: datetime
) -> list[Finding]:
    """`failure` is why there is no survey; empty where nothing could be asked with."""
    if section.existing_node is None:
        return [skipped("cluster", "proxmox.existing_node is not set: hosts stand alone")]
    return [*judge_access(access), *judge_cluster(section, access, survey, failure, now)]


def judge_cluster(
    section: ProxmoxSection, access: Access, survey: Survey | None, failure: str, now: datetime
) -> Iterator[Finding]:
    if survey is None:
        if failure:
            mend = "Start a member, or correct the keys under proxmox and credentials."
            yield problem("cluster", f"the cluster cannot be asked: {failure}", mend)
        return
    cluster = survey.cluster
    if cluster is None:
        what = f"{survey.asked} is in no cluster"
        mend = (
            "Run `pvecm create NAME` there, or leave proxmox.existing_node and join_fingerprint out: hosts"
            " then stand alone."
        )
        yield problem("cluster", what, mend)
        return
    yield from judge_quorum(cluster)
    yield from judge_members(cluster)
    yield from judge_configured(section, survey, cluster)
    yield from judge_certificates(survey, now)
    yield from judge_releases(survey)
    yield from judge_ha(survey)
    yield from judge_qdevice(cluster)
    yield from judge_sight(survey, access)
    yield from judge_doors(cluster, access)


# --- what provd has -------------------------------------------------------------------------------


def judge_access(access: Access) -> Iterator[Finding]:
    reads = "root's password" if access.password else f"the API token {access.token}" if access.token else ""
    if reads:
        yield ok("access", f"the cluster is looked at with {reads}")
    else:
        yield warning(
            "access",
            "there is neither an API token nor root's password: provd cannot look at the cluster by itself,"
            " and the password is asked for at each rebuild",
            "On a member: pveum user add provd@pve; pveum acl modify / --users provd@pve --roles PVEAuditor;"
            " pveum user token add provd@pve reads --privsep 0; then credentials.cluster_token_file.",
        )
    if not access.key:
        yield warning(
            "SSH key",
            "there is no SSH key: provd cannot put a member into HA maintenance, keep the old system of a"
            " rebuilt member from coming back, or tidy up after it",
            "ssh-keygen -t ed25519 -N '' -C provd -f cluster-key; put cluster-key.pub into"
            " /etc/pve/priv/authorized_keys on a member; then credentials.cluster_ssh_key_file.",
        )


def judge_sight(survey: Survey, access: Access) -> Iterator[Finding]:
    hidden = {field: why for field, why in survey.unseen.items() if field in ("guests", "replication")}
    if hidden:
        yield warning(
            "permissions",
            f"guests and replication jobs are unknown, not none: {next(iter(hidden.values()))}",
            f"On a member: pveum acl modify / --tokens '{access.token or 'provd@pve!reads'}'"
            " --roles PVEAuditor (and the same with --users for its user).",
        )
    others = {field: why for field, why in survey.unseen.items() if field not in hidden}
    for field, why in sorted(others.items()):
        yield skipped("sight", f"{field.replace('_', ' ')} could not be seen: {why}")


def judge_doors(cluster: Cluster, access: Access) -> Iterator[Finding]:
    if not access.key or access.doors is None:
        return
    closed = {name: why for name, why in access.doors.items() if why}
    mend = (
        "The key's public line belongs into /etc/pve/priv/authorized_keys. Where a member was installed anew:"
        " `provd cluster forget NAME` unpins its host key."
    )
    for name, why in sorted(closed.items()):
        yield warning("SSH", f"{name} does not let provd in: {why}", mend)
    if opened := sorted(access.doors.keys() - closed.keys()):
        yield ok("SSH", f"provd's key opens {', '.join(opened)}")
    elif closed:
        yield problem("SSH", "provd's key opens none of the members", mend)


# --- how the cluster stands -----------------------------------------------------------------------


def judge_quorum(cluster: Cluster) -> Iterator[Finding]:
    check, spare = "quorum", cluster.spare_votes()
    there, expected = cluster.votes_without(), cluster.expected_votes
    votes = f"{there} of {expected} votes are there, {cluster.quorum} are needed"
    if not cluster.quorate or spare < 0:
        yield problem(
            check,
            f"the cluster has no quorum: {votes}; nothing in it can be changed",
            "Bring its other members back. `pvecm expected` is for members that are gone for good only.",
        )
    elif len(cluster.nodes) == 1:
        yield warning(
            check,
            "the cluster has a single member, which has no quorum from the start of a join to its end",
            "Leave the member alone while another one joins.",
        )
    elif spare == 0:
        yield warning(
            check,
            f"{votes}: no vote is to spare, and no member can be away",
            "Bring members that are offline back, or add one; a QDevice helps where there are two.",
        )
    else:
        yield ok(check, f"{votes}, {spare} {'is' if spare == 1 else 'are'} to spare")


def judge_members(cluster: Cluster) -> Iterator[Finding]:
    away = [node.name for node in cluster.nodes if not node.online]
    if not away:
        yield ok("members", f"all {len(cluster.nodes)} members of {cluster.name} are online")
    for name in away:
        yield warning(
            "members",
            f"{name} is offline",
            f"Start it; where it is gone for good, remove it: `pvecm delnode {name}`.",
        )


def judge_configured(section: ProxmoxSection, survey: Survey, cluster: Cluster) -> Iterator[Finding]:
    """Whether the configuration still names a member, and its certificate."""
    address, pinned = str(section.existing_node), section.join_fingerprint
    served = {each.node: each.fingerprint for each in survey.certificates}
    node = next((node for node in cluster.nodes if address in addresses(node)), None)
    if node is None and pinned not in served.values():
        yield warning(
            "proxmox.existing_node",
            f"{address} is not a member of {cluster.name} that provd can tell",
            "Name a member that stays, and its fingerprint; until then provd relies on what it remembers.",
        )
    elif node is not None and (now := served.get(node.name)) is not None and now != pinned:
        yield warning(
            "proxmox.join_fingerprint",
            f"the certificate of {node.name} was changed: configured is {pinned}, the cluster says {now}",
            f"Set proxmox.join_fingerprint to {now}.",
        )


def addresses(node: Node) -> set[str]:
    return {*node.links.values(), *([str(node.address)] if node.address is not None else [])}


def judge_certificates(survey: Survey, now: datetime) -> Iterator[Finding]:
    for each in survey.certificates:
        if each.not_after is None or each.not_after - now > SOON:
            continue
        gone = each.not_after <= now
        when = f"{'ended' if gone else 'ends'} on {each.not_after:%Y-%m-%d}"
        yield warning(
            "certificates",
            f"the certificate of {each.node} {when}",
            f"On {each.node}: `pvecm updatecerts --force` or its ACME renewal. Its fingerprint is another one"
            " then; provd learns it from the other members, proxmox.join_fingerprint is yours to change.",
        )


def judge_releases(survey: Survey) -> Iterator[Finding]:
    if len(set(survey.releases.values())) > 1:
        told = ", ".join(f"{name} {release}" for name, release in sorted(survey.releases.items()))
        yield warning("releases", f"the members differ: {told}", "Bring all of them to one release.")


def judge_ha(survey: Survey) -> Iterator[Finding]:
    for name in sorted(survey.ha_maintenance or ()):
        yield warning(
            "HA",
            f"{name} is in maintenance mode: HA starts nothing there, also after a rebuild",
            f"When it is back: ha-manager crm-command node-maintenance disable {name}",
        )
    for service in survey.ha_services or ():
        if service.state in ("error", "fence", "recovery"):
            what = f"the service {service.sid} is in the state {service.state}"
            yield warning("HA", what, "ha-manager status tells more.")


def judge_qdevice(cluster: Cluster) -> Iterator[Finding]:
    if not cluster.qdevice_votes:
        return
    mend = (
        "Take it away before members come or go, and set it up again afterwards: pvecm qdevice remove;"
        " pvecm qdevice setup ADDRESS"
    )
    if cluster.qdevice_online:
        yield warning("QDevice", f"a QDevice has {cluster.qdevice_votes} of the votes", mend)
    else:
        yield warning("QDevice", "there is a QDevice, and it is not connected: its votes are missing", mend)


# --- what became different ------------------------------------------------------------------------


def troubles(survey: Survey, now: datetime) -> Mapping[str, tuple[str, str]]:
    """What is worth a line of history when it begins and when it ends: a key, and both sentences."""
    cluster = survey.cluster
    if cluster is None:
        return {}
    found = {
        f"offline/{node.name}": (
            f"the cluster's member {node.name} is offline",
            f"the cluster's member {node.name} is online again, or not listed any more",
        )
        for node in cluster.nodes
        if not node.online
    }
    if not cluster.quorate:
        found["quorum"] = ("the cluster has lost its quorum", "the cluster has its quorum again")
    for each in survey.certificates:
        if each.not_after is not None and each.not_after - now <= SOON:
            found[f"certificate/{each.node}"] = (
                f"the certificate of {each.node} ends on {each.not_after:%Y-%m-%d}",
                f"the certificate of {each.node} was renewed",
            )
    return found
