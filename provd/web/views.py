"""What the world is shown of each thing: allow lists, field by field, so that no secret slips in.

The API sends these as JSON, the event stream carries them, and the pages draw from them.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import attrs

from provd.domain.activity import Activity
from provd.domain.hosts import Host, Sighting
from provd.domain.lifecycle import State
from provd.domain.operations import Operation
from provd.netboot.vendors import vendor_of
from provd.orchestrator.pace import Usual
from provd.orchestrator.waits import WAITS
from provd.server_types import ServerType
from provd.store.convert import options_to_json

View = Mapping[str, object]

BLANK_HOST: View = {
    "id": "",
    "hostname": "",
    "mac": "",
    "server_type": "",
    "state": State.REGISTERED,
    "state_since": "",
    "ip": None,
    "inventory_pending": False,
    "operation_id": None,
    "expected": None,
    "expected_by": None,
    "attention": None,
    "usual": None,
    "builds": (),
}
"""What a script fills in: shapes to clone are drawn from these."""
BLANK_OPERATION: View = {
    "id": "",
    "kind": "",
    "outcome": "",
    "started_at": "",
    "finished_at": "",
    "started_by": "",
    "detail": "",
}


def host_view(
    host: Host,
    operation: Operation | None,
    *,
    due: datetime | None,
    attention: str | None,
    usual: Usual | None,
    builds: Sequence[Operation],
) -> View:
    """`operation` is the active one, `due` when the host must have left its state; `builds`: newest last."""
    wait = WAITS.get(host.state)
    return {
        "id": host.id,
        "hostname": host.hostname,
        "mac": str(host.mac),
        "server_type": host.server_type,
        "options": json.loads(options_to_json(host.options)),
        "state": host.state,
        "state_since": rfc3339(host.state_since),
        "registered_at": rfc3339(host.registered_at),
        "ip": str(host.ip) if host.ip else None,
        "hardware_id": host.hardware_id,
        "memory_mib": host.memory_mib,
        "inventory_pending": host.inventory_pending,
        "retry_until": rfc3339(host.retry_until) if host.retry_until else None,
        "operation_id": operation.id if operation else None,
        "expected": wait.expected if wait else None,
        "expected_by": rfc3339(due) if due else None,
        "attention": attention,
        "usual": attrs.asdict(usual) if usual else None,
        "builds": [build_view(one) for one in builds],
    }


def build_view(operation: Operation) -> View:
    """An operation as one tick among others."""
    return {
        "id": operation.id,
        "kind": operation.kind,
        "outcome": operation.outcome,
        "started_at": rfc3339(operation.started_at),
        "finished_at": rfc3339(operation.finished_at) if operation.finished_at else None,
    }


def operation_view(operation: Operation) -> View:
    return {
        "id": operation.id,
        "host_id": operation.host_id,
        "hostname": operation.hostname,
        "kind": operation.kind,
        "started_by": operation.started_by,
        "started_at": rfc3339(operation.started_at),
        "active": operation.active,
        "outcome": operation.outcome,
        "detail": operation.detail,
        "finished_at": rfc3339(operation.finished_at) if operation.finished_at else None,
    }


def activity_view(activity: Activity) -> View:
    return {
        "id": activity.id,
        "at": rfc3339(activity.at),
        "event": activity.event,
        "level": activity.level,
        "message": activity.message,
        "host_id": activity.host_id,
        "hostname": activity.hostname,
        "operation_id": activity.operation_id,
        "before": activity.before,
        "after": activity.after,
    }


def sighting_view(sighting: Sighting) -> View:
    return {
        "mac": str(sighting.mac),
        "address": sighting.address,
        "via": sighting.via,
        "first_seen": rfc3339(sighting.first_seen),
        "last_seen": rfc3339(sighting.last_seen),
        "times": sighting.times,
        "vendor": vendor_of(sighting.mac),
        "firmware": sighting.firmware,
        "ignored": sighting.ignored,
    }


def server_type_view(server_type: ServerType) -> View:
    return {
        "key": server_type.key,
        "display_name": server_type.display_name,
        "boot_disk": server_type.boot_disk,
        "management_nic": server_type.management_nic,
        "gpu": server_type.gpu,
        "hostname_prefix": server_type.hostname_prefix,
    }


def rfc3339(at: datetime) -> str:
    """RFC 3339, UTC."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
