"""What stands beside a host's history on its page: what would be installed, and what machine it is.

Pairs of a name and some words each, in the order in which they are read.
"""

from collections.abc import Sequence

from provd.domain.hardware import Hardware
from provd.domain.hosts import Host
from provd.domain.installation import InstallPlan
from provd.store.hardware import Reported
from provd.store.registrations import Pending
from provd.web.views import View, rfc3339

Pairs = Sequence[tuple[str, str]]


def installation(plan: InstallPlan | str) -> Pairs:
    """What a rebuild would make of the host; nothing where it cannot be planned."""
    if isinstance(plan, str):
        return ()
    address = plan.address
    return (
        ("Disks", ", ".join(plan.disks)),
        ("File system", " ".join(filter(None, [plan.filesystem, plan.raid]))),
        ("Name", plan.fqdn),
        ("Address", f"{address.cidr} via {address.gateway}, DNS {address.dns}" if address else "from DHCP"),
        ("Management NIC", plan.management_nic or "the one that it boots from"),
        ("Time zone", plan.timezone),
        ("Keyboard", plan.keyboard),
        ("Country", plan.country),
        ("Mail to", plan.mailto),
    )


def erased(plan: InstallPlan | str, machine: Hardware | None) -> Sequence[str]:
    """The disks that a rebuild wipes, with model and serial number where they are known."""
    if isinstance(plan, str):
        return ()
    return [machine.describe_disk(name) if machine is not None else name for name in plan.disks]


def machine_view(host: Host, reported: Reported | None) -> View | None:
    if reported is None:
        return None
    known = reported.hardware
    return {
        "product": known.product or "A machine",
        "reported_at": rfc3339(reported.at),
        "disks": [
            (disk.device, ", ".join(filter(None, [disk.model, disk.serial and f"serial {disk.serial}"])))
            for disk in known.disks or ()
        ],
        "links": [
            (link.name, f"{link.mac}, registered here" if link.mac == host.mac else str(link.mac))
            for link in known.links
        ],
    }


def inventory(host: Host, pending: Pending | None) -> str:
    if not host.inventory_pending:
        return "nothing to tell"
    if pending is None or not pending.last_error:
        return "not told yet"
    return f"not told yet; tried {pending.attempts}×: {pending.last_error}"
