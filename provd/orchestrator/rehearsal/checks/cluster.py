"""Whether the cluster can be asked and told, and what the member that does it is like."""

from datetime import timedelta

from provd.domain.cluster import Survey
from provd.domain.rehearsal import Check
from provd.orchestrator.rehearsal.checks import but, fine, never, no, unknown
from provd.orchestrator.rehearsal.situation import Situation, listed
from provd.proxmox.mode_file import version_of

EXPIRES_SOON = timedelta(days=28)


def reached(it: Situation) -> Check:
    match it.survey:
        case None:
            return fine("cluster", f"{it.name} stands alone: there is no cluster for it to join.")
        case str(reason):
            return unknown(
                "cluster",
                f"The cluster could not be asked: {reason}.",
                "so quorum, guests, HA, replication, Ceph and links were not looked at",
                "See `provd cluster check`; give root's password or an API token.",
            )
        case survey:
            pass
    if survey.cluster is None:
        return never(
            "cluster",
            f"{survey.asked} is in no cluster, so there is none to join.",
            f"Proxmox VE {survey.release}",
            "Create one there: `pvecm create NAME`; or leave out proxmox.existing_node.",
        )
    online = sum(node.online for node in survey.cluster.nodes)
    evidence = f"asked {survey.asked}; {online} of {len(survey.cluster.nodes)} members online"
    if it.is_me(survey.asked.partition(" ")[0]) and len(survey.cluster.nodes) > 1:
        return no(
            "cluster",
            f"Only {it.name} itself answered, and no node can be struck out of a cluster by itself.",
            evidence,
            "Make another member's API reachable: port 8006.",
        )
    return fine("cluster", f"The cluster {survey.cluster.name} was asked.", evidence)


def credentials(it: Situation) -> Check | None:
    if it.survey is None:
        return None
    has = it.credentials
    at_hand = {"root's password": has.password, "API token": has.token, "SSH key": has.ssh_key}
    evidence = ", ".join(f"{name}: {'yes' if there else 'no'}" for name, there in at_hand.items())
    if not has.password and not has.ssh_key:
        needs = "to strike it out and to let it join" if it.member is not None else "to let it join"
        return never(
            "credentials",
            f"root's password of the cluster is needed {needs}, or provd's SSH key.",
            evidence,
            "Type the password, or name a file in credentials.cluster_password_file.",
        )
    if not has.password:
        return fine("credentials", "All that needs a credential is done over SSH, by provd's key.", evidence)
    if has.ssh_key or it.member is None:
        return fine("credentials", "Everything that the steps need is at hand.", evidence)
    return but(
        "credentials",
        "Without the SSH key the old system is not switched off by provd, nothing of it is tidied away "
        "under /etc/pve, and it cannot be drained: restart it into its network boot yourself.",
        evidence,
        "Make a key, put its public line into /etc/pve/priv/authorized_keys, and name its file in "
        "credentials.cluster_ssh_key_file.",
    )


def permissions(it: Situation) -> Check | None:
    if not isinstance(it.survey, Survey):
        return None
    if not it.survey.unseen:
        return fine("permissions", "All that matters about the cluster could be read.")
    return but(
        "permissions",
        f"Not everything could be read: {listed(sorted(it.survey.unseen), 12)}.",
        "; ".join(f"{field}: {why}" for field, why in sorted(it.survey.unseen.items())),
        "Give the API token the role PVEAuditor on / with propagation.",
    )


def certificate(it: Situation) -> Check | None:
    """Of the member that was asked, and will be asked for the join."""
    if not isinstance(it.survey, Survey) or it.cluster is None:
        return None
    name = it.survey.asked.partition(" ")[0]
    found = next((one for one in it.survey.certificates if one.node.lower() == name.lower()), None)
    if found is None or found.not_after is None:
        return but("certificate", f"Until when {name}'s certificate is valid could not be seen.")
    left = found.not_after - it.at
    evidence = f"{found.fingerprint}, until {found.not_after:%Y-%m-%d}"
    if left > EXPIRES_SOON:
        return fine("certificate", f"{name}'s certificate stays as it is for {left.days} days.", evidence)
    when = f"expires in {left.days} days" if left > timedelta() else "has expired"
    return but(
        "certificate",
        f"{name}'s certificate {when}. A renewed one has another fingerprint, which provd must be told.",
        evidence,
        "When it was renewed, set proxmox.join_fingerprint anew.",
    )


def release(it: Situation) -> Check | None:
    """Members of one cluster should be of one major release (pvecm(1))."""
    if not isinstance(it.survey, Survey) or it.cluster is None:
        return None
    theirs = dict(it.survey.releases) or {it.survey.asked.partition(" ")[0]: it.survey.release}
    others = {node: version for node, version in theirs.items() if not it.is_me(node)} or theirs
    evidence = listed([f"{node} {version}" for node, version in sorted(others.items())], 16)
    if not isinstance(it.image, str):
        return but("release", "Which release will be installed is not known.", evidence)
    new, majors = version_of(it.image)[0], {_major(version) for version in others.values()}
    if "releases" in it.survey.unseen or 0 in majors:
        what = f"Not all members told their release, so Proxmox VE {it.image} was not compared."
        return but("release", what, evidence)
    if new < min(majors):
        older = "older"
    elif new > max(majors):
        older = "newer"
    else:
        return fine("release", f"Proxmox VE {it.image} fits the other members.", evidence)
    return but(
        "release",
        f"Proxmox VE {it.image} is {older} than every other member: guests may not move both ways, and a "
        "cluster should not stay so for long.",
        evidence,
        f"Import an image of Proxmox VE {max(majors)} and make it the default.",
    )


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else 0
