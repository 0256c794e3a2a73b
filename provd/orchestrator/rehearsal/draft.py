"""The answer that a host would be given, before its machine has asked for it."""

from attrs import evolve, frozen

from provd.domain.errors import CannotInstall
from provd.domain.hardware import Hardware, Link
from provd.domain.hosts import Host
from provd.domain.installation import InstallPlan
from provd.domain.secrets import Secret
from provd.proxmox.answer import build_answer
from provd.proxmox.answer_schema import misfits
from provd.proxmox.reports import Dmi, SystemInfo

MASK = "••••••••"

TOKEN = "made-anew-for-each-operation"  # noqa: S105  # what stands in its place
"""An answer holds its operation's token, and there is no operation yet."""


@frozen(kw_only=True)
class Draft:
    masked: str
    """The TOML for everybody's eyes: made without its secrets. Empty where none can be made."""
    wrong: tuple[str, ...]
    """What of the true one would stop the installer; or why there is none."""


def draft_answer(
    host: Host, plan: InstallPlan, hardware: Hardware | None, release: tuple[int, int], public_url: str
) -> Draft:
    """As it would be sent to the installer of `release`, read by the strict reader."""
    api, machine = f"{public_url}/api/hosts/{host.id}", machine_of(host, plan, hardware, release)

    def built(plan: InstallPlan) -> str:
        return build_answer(
            plan,
            machine,
            boot_mac=host.mac,
            webhook_url=f"{api}/installed?token={TOKEN}",
            first_boot_url=f"{api}/first-boot-script?token={TOKEN}",
        )

    try:
        masked = built(evolve(plan, root_password_hash=Secret(MASK)))
        return Draft(masked=masked, wrong=misfits(built(plan), release))
    except CannotInstall as exc:
        return Draft(masked="", wrong=(str(exc),))


def machine_of(
    host: Host, plan: InstallPlan, hardware: Hardware | None, release: tuple[int, int]
) -> SystemInfo:
    """The machine as it told itself; else one that has what the plan wants."""
    links = hardware.links if hardware is not None and is_reported(host, plan, hardware) else ()
    return SystemInfo(
        release=release,
        product="pve",
        links=links or (Link(plan.management_nic or "eth0", host.mac),),
        dmi=Dmi(uuid="", serial="", product_name=""),
    )


def is_reported(host: Host, plan: InstallPlan, hardware: Hardware | None) -> bool:
    """Whether the machine has told of the NIC that the plan wants."""
    return hardware is not None and hardware.link_of(plan.management_nic, host.mac) is not None
