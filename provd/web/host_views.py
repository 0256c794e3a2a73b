"""A host as the API and the pages show it: what the database says, and what is known beside it."""

from collections.abc import Iterable, Sequence

from provd.domain.hosts import Discovery, Host, HostId
from provd.domain.lifecycle import State
from provd.domain.operations import Operation
from provd.orchestrator.lateness import IN_TIME, Evidence, Lateness, judge
from provd.store import hosts, operations
from provd.store.database import now
from provd.web.parts import Parts
from provd.web.views import View, host_view, rfc3339

BUILDS = 8
"""Operations of a host that are shown as a strip."""


def all_hosts(parts: Parts, wanted: Iterable[HostId] | None = None) -> list[View]:
    """Every host, or those of `wanted` that there are: a handful of queries however many it be."""
    busy = {one.host_id: one for one in parts.store.read(operations.active)}
    builds = parts.store.read(lambda db: operations.builds(db, BUILDS))
    keep = set(wanted) if wanted is not None else None
    return [
        _view(parts, host, busy.get(host.id), builds.get(host.id, ()))
        for host in parts.store.read(hosts.everyone)
        if keep is None or host.id in keep
    ]


def one_host(parts: Parts, host: Host) -> View:
    operation = parts.store.read(lambda db: operations.active_on(db, host.id))
    builds = parts.store.read(lambda db: operations.latest(db, BUILDS, host_id=host.id))
    return _view(parts, host, operation, builds[::-1])


def lateness_of(parts: Parts, host: Host, operation: Operation | None) -> Lateness:
    allowed = parts.waits.seconds_allowed(host, host.state)
    if operation is None or allowed is None:
        return IN_TIME
    turn = parts.turns.holder()
    return judge(
        Evidence(
            state=host.state,
            since=host.state_since,
            now=now(),
            usual=parts.pace.usual(host, operation),
            allowed=allowed,
            boot=parts.trail.boot_of(host.mac),
            last=parts.trail.last_of(host.mac),
            downloading=any(one.host_id == host.id for one in parts.downloads.current()),
            hears_dhcp=parts.config.pxe.enabled,
            own_images=not parts.config.proxmox.installer_url,
            left_alone=host.options.discovery is Discovery.OFF,
            public_url=parts.config.server.public_url,
            other_turn=turn if turn is not None and turn.operation_id != operation.id else None,
            cluster_trouble=parts.cluster_watch.trouble,
        )
    )


def lateness_view(lateness: Lateness) -> View:
    return {
        "late": lateness.late,
        "reasons": [
            {"at": rfc3339(one.at) if one.at else None, "sentence": one.sentence} for one in lateness.reasons
        ],
    }


def lacks_password(parts: Parts, host: Host, operation: Operation | None) -> bool:
    """Whether an operation will wait for the cluster's root password until somebody gives it."""
    return (
        operation is not None
        and parts.entering.needs_password(host)
        and parts.passwords.of(operation.id) is None
    )


def _view(parts: Parts, host: Host, operation: Operation | None, builds: Sequence[Operation]) -> View:
    return host_view(
        host,
        operation,
        due=parts.waits.due(host),
        attention=_attention(parts, host, operation),
        usual=parts.pace.usual(host, operation),
        builds=builds,
    )


def _attention(parts: Parts, host: Host, operation: Operation | None) -> str | None:
    """Why it waits for a human; None: it does not."""
    if host.state is State.FAILED:
        return "failed"
    if lacks_password(parts, host, operation):
        return "password"
    return "late" if lateness_of(parts, host, operation).late else None
