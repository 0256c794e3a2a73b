"""What a member carries that a rebuild would take away: guests, HA services, jobs, disks of Ceph."""

from collections.abc import Sequence

from provd.domain.cluster import Guest, Survey
from provd.domain.rehearsal import Check
from provd.orchestrator.rehearsal.checks import but, fine, never, no, unknown
from provd.orchestrator.rehearsal.situation import Situation, listed

AUDITOR = "Give the token the role PVEAuditor on / with propagation, or root's password."


def guests(it: Situation) -> Check | None:
    if (survey := _of_member(it)) is None:
        return None
    if survey.guests is None:
        return unknown("guests", "Whether it has guests could not be seen.", it.unseen("guests"), AUDITOR)
    here = [guest for guest in survey.guests if it.is_me(guest.node)]
    if not here:
        return fine("guests", "It has no guests.", f"{len(survey.guests)} guests in the cluster")
    stay = [guest for guest in here if not _moves(it, survey, guest)]
    evidence = listed([_described(guest) for guest in here], 20)
    if not stay:
        return but("guests", f"Its {len(here)} guests are moved away by HA before it is rebuilt.", evidence)
    running = sum(guest.status == "running" for guest in stay)
    return no(
        "guests",
        f"{_count(len(stay), 'guest')} would be lost with its local disks, {running} of them running: "
        f"{listed([_described(guest) for guest in stay])}.",
        evidence,
        "Move or back them up first; what lies on shared storage keeps its disks and loses its place.",
    )


def ha(it: Situation) -> Check | None:
    if (survey := _of_member(it)) is None:
        return None
    if survey.ha_services is None:
        return unknown("ha", "Whether HA uses it could not be seen.", it.unseen("ha_services"), AUDITOR)
    here = [f"{service.sid} ({service.state})" for service in survey.ha_services if it.is_me(service.node)]
    if not here and it.drain and not it.credentials.ssh_key:
        return but("ha", "HA has no service on it, and without the SSH key it is not drained.")
    if not here:
        return fine("ha", "HA has no service on it.", f"{len(survey.ha_services)} services in the cluster")
    count, evidence = _count(len(here), "HA service"), listed(here, 20)
    if not it.drain:
        return no(
            "ha",
            f"It has {count}, which HA would take for lost.",
            evidence,
            "Rebuild it with drain: it goes into maintenance first, and HA moves them away.",
        )
    if it.member is not None and not it.member.online:
        return no("ha", f"It has {count} and is offline: it cannot be drained.", evidence)
    if not it.credentials.ssh_key:
        return no(
            "ha",
            f"It has {count}, and provd has no SSH key to drain it with.",
            evidence,
            f"Set credentials.cluster_ssh_key_file, or run `ha-manager crm-command node-maintenance enable "
            f"{it.name}` on a member and look again when they have moved.",
        )
    if not _shelters(it, survey):
        return no(
            "ha",
            f"It has {count}, and no other member could take them: each is offline, in maintenance or "
            "being rebuilt.",
            evidence,
        )
    return but(
        "ha", f"It has {count}: it goes into HA maintenance first, and waits until they have moved.", evidence
    )


def maintenance(it: Situation) -> Check | None:
    if (survey := _of_member(it)) is None:
        return None
    if survey.ha_maintenance is None:
        return unknown(
            "maintenance",
            "Which members are in HA maintenance could not be seen.",
            it.unseen("ha_maintenance"),
            AUDITOR,
        )
    if any(it.is_me(node) for node in survey.ha_maintenance):
        return but(
            "maintenance",
            "It is in HA maintenance, and will be when it is back: no restart and no rebuild ends that.",
            mend=f"Afterwards: `ha-manager crm-command node-maintenance disable {it.name}` on a member.",
        )
    others = listed(sorted(survey.ha_maintenance)) or "nobody"
    return fine("maintenance", "It is not in HA maintenance.", f"in maintenance: {others}")


def replication(it: Situation) -> Check | None:
    if (survey := _of_member(it)) is None:
        return None
    if survey.replication is None:
        return unknown(
            "replication",
            "Whether storage is replicated from or to it could not be seen.",
            it.unseen("replication"),
            AUDITOR,
        )
    jobs = [
        f"{job.id} ({job.source} to {job.target})"
        for job in survey.replication
        if it.is_me(job.source) or it.is_me(job.target)
    ]
    if not jobs:
        return fine("replication", "No storage is replicated from or to it.")
    return no(
        "replication",
        f"{_count(len(jobs), 'replication job')} would be left that nobody can remove any more: "
        f"{listed(jobs)}.",
        listed(jobs, 20),
        "Remove them first: `pvesr delete JOBID`, and wait until they are gone.",
    )


def ceph(it: Situation) -> Check | None:
    if (survey := _of_member(it)) is None:
        return None
    if survey.ceph_nodes is None:
        return unknown("ceph", "Whether Ceph uses it could not be seen.", it.unseen("ceph_nodes"), AUDITOR)
    nodes = listed(sorted(survey.ceph_nodes)) or "no node"
    if any(it.is_me(node) for node in survey.ceph_nodes):
        return never(
            "ceph",
            "It runs daemons of Ceph: a rebuild would destroy its part of the data, and leave the rest of "
            "Ceph waiting for it.",
            f"Ceph on {nodes}",
            "Take its OSDs, monitor, manager and metadata server out of Ceph first, and wait until Ceph is "
            "healthy.",
        )
    return fine("ceph", "No daemon of Ceph runs on it.", f"Ceph on {nodes}")


def storage(it: Situation) -> Check | None:
    if (survey := _of_member(it)) is None:
        return None
    if survey.storages is None:
        return unknown(
            "storage", "Which storage is restricted to it could not be seen.", it.unseen("storages"), AUDITOR
        )
    pinned = [f"{one.id} ({one.kind})" for one in survey.storages if any(map(it.is_me, one.nodes))]
    evidence = f"{len(survey.storages)} storages in the cluster"
    if not pinned:
        return fine("storage", "No storage is restricted to it.", evidence)
    return but(
        "storage",
        f"The storage {listed(pinned)} is restricted to nodes of which it is one. The definition stays; "
        "whether the new system has what it names is up to you.",
        evidence,
    )


def rules(it: Situation) -> Check | None:
    if (survey := _of_member(it)) is None:
        return None
    if survey.ha_rules is None:
        return unknown("rules", "Which HA rules name it could not be seen.", it.unseen("ha_rules"), AUDITOR)
    naming = [f"{one.kind} {one.id}" for one in survey.ha_rules if any(map(it.is_me, one.nodes))]
    evidence = f"{len(survey.ha_rules)} rules and groups in the cluster"
    if not naming:
        return fine("rules", "No HA rule names it.", evidence)
    what = f"HA names it in {listed(naming)}. That is kept, and holds for it again afterwards."
    return but("rules", what, evidence)


def _of_member(it: Situation) -> Survey | None:
    """The survey, where the host is a member and has something to lose."""
    return it.survey if isinstance(it.survey, Survey) and it.member is not None else None


def _moves(it: Situation, survey: Survey, guest: Guest) -> bool:
    """Whether draining takes it away."""
    if not it.drains or survey.ha_services is None:
        return False
    sid = f"{'ct' if guest.kind == 'lxc' else 'vm'}:{guest.vmid}"
    return any(service.sid == sid and it.is_me(service.node) for service in survey.ha_services)


def _shelters(it: Situation, survey: Survey) -> Sequence[str]:
    """Members that services can move to."""
    closed = {name.lower() for name in (survey.ha_maintenance or frozenset()) | it.away}
    nodes = it.rest.nodes if it.rest is not None else ()
    return [node.name for node in nodes if node.online and node.name.lower() not in closed]


def _described(guest: Guest) -> str:
    state = "template" if guest.template else guest.status
    return f"{guest.vmid} {guest.name} ({state})" if guest.name else f"{guest.vmid} ({state})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
