"""The answer that a host would be given, before its machine has asked for it."""

import tomllib

import tomli_w
from attrs import frozen

from provd.domain.errors import CannotInstall
from provd.domain.hardware import Hardware, Link
from provd.domain.hosts import Host
from provd.domain.installation import InstallPlan
from provd.proxmox.answer import build_answer
from provd.proxmox.answer_schema import misfits
from provd.proxmox.reports import Dmi, SystemInfo

MASK = "••••••••"

TOKEN = "made-anew-for-each-operation"  # noqa: S105  # what stands in its place
"""An answer holds its operation's token, and there is no operation yet."""


@frozen(kw_only=True)
class Draft:
    text: str
    """The whole TOML, the password's hash included; empty where none can be made."""
    wrong: tuple[str, ...]
    """What would stop the installer; or why there is no text."""

    @property
    def masked(self) -> str:
        """The same for everybody's eyes."""
        if not self.text:
            return ""
        document = tomllib.loads(self.text)
        document["global"]["root-password-hashed"] = MASK
        return tomli_w.dumps(document)


def draft_answer(
    host: Host, plan: InstallPlan, hardware: Hardware | None, release: tuple[int, int], public_url: str
) -> Draft:
    """As it would be sent to the installer of `release`, read by the strict reader."""
    api = f"{public_url}/api/hosts/{host.id}"
    try:
        text = build_answer(
            plan,
            machine_of(host, plan, hardware, release),
            boot_mac=host.mac,
            webhook_url=f"{api}/installed?token={TOKEN}",
            first_boot_url=f"{api}/first-boot-script?token={TOKEN}",
        )
    except CannotInstall as exc:
        return Draft(text="", wrong=(str(exc),))
    return Draft(text=text, wrong=misfits(text, release))


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
