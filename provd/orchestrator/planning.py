"""What one host's installation shall be: its own wishes, else its server type's, else the defaults'."""

from attrs import evolve

from provd.config import Config
from provd.domain.errors import Invalid
from provd.domain.hosts import Host
from provd.domain.installation import InstallPlan, check_plan
from provd.server_types import ServerType


def make_plan(config: Config, server_type: ServerType, host: Host) -> InstallPlan:
    """Raises `Invalid` when the three do not fit together, e.g. a mirror of one disk."""
    layers = (host.options, server_type, config.install)
    plan = InstallPlan(
        hostname=host.hostname,
        domain=_first("domain", *layers),
        country=_first("country", *layers),
        keyboard=_first("keyboard", *layers),
        timezone=_first("timezone", *layers),
        mailto=_first("mailto", *layers),
        filesystem=_first("filesystem", *layers),
        raid=_first_or_none("raid", *layers),
        disks=_first_or_none("disks", host.options, server_type) or (server_type.boot_disk,),
        management_nic=server_type.management_nic,
        address=host.options.address,
        root_password_hash=config.credentials.root_password_hash,
        root_ssh_keys=config.credentials.root_ssh_keys,
    )
    if plan.filesystem in ("ext4", "xfs") and host.options.raid is None:
        plan = evolve(plan, raid=None)  # what was inherited was meant for another file system
    check_plan(plan)
    return plan


def plan_or_reason(config: Config, server_type: ServerType | None, host: Host) -> InstallPlan | str:
    """Why there is none: `server_type` is None where the host's own is not known any more."""
    if server_type is None:
        return f"server-types.yaml has no type {host.server_type!r} any more"
    try:
        return make_plan(config, server_type, host)
    except Invalid as exc:
        return str(exc)


def _first(name: str, *layers: object) -> str:
    value: str | None = _first_or_none(name, *layers)
    if value is None:
        raise Invalid(f"neither the host, its server type nor the defaults say its {name}", name)
    return value


def _first_or_none(name: str, *layers: object):  # type: ignore[no-untyped-def]  # as typed as its fields
    return next((value for layer in layers if (value := getattr(layer, name, None))), None)
