"""A rebuild, looked at before anything is wiped: one question after the other, as an operator would ask.

A function over values: the same situation always gives the same answer, and nothing is touched. What
could not be seen is unknown, and unknown is never fine.
"""

from collections.abc import Callable

from provd.domain.rehearsal import Check, Rehearsal
from provd.orchestrator.rehearsal.checks import burden, cluster, identity, installation, quorum
from provd.orchestrator.rehearsal.situation import Situation

LOOKS: tuple[Callable[[Situation], Check | None], ...] = (
    installation.free,
    # Is it this machine, and what is lost?
    installation.disks,
    identity.name,
    burden.guests,
    burden.ha,
    burden.maintenance,
    burden.replication,
    burden.ceph,
    burden.storage,
    burden.rules,
    # Does the cluster bear it?
    cluster.reached,
    cluster.credentials,
    cluster.permissions,
    quorum.leaving,
    quorum.qdevice,
    # Can it be installed?
    installation.image,
    installation.memory_size,
    installation.plan,
    installation.answer,
    installation.nic,
    # Can it come back?
    quorum.joining,
    identity.address,
    identity.links,
    identity.nodeid,
    cluster.release,
    cluster.certificate,
)


def rehearse(it: Situation) -> Rehearsal:
    checks = [check for look in LOOKS if (check := look(it)) is not None]
    return Rehearsal(host_id=it.host.id, hostname=it.name, at=it.at, checks=tuple(checks))
