"""Whether the machine can be installed: image, memory, plan, answer, disks, NIC."""

from provd.domain.rehearsal import Check
from provd.orchestrator.rehearsal.checks import but, fine, never, no
from provd.orchestrator.rehearsal.draft import draft_answer
from provd.orchestrator.rehearsal.situation import Elsewhere, Situation, listed
from provd.proxmox import memory
from provd.proxmox.answer import PINNING_RELEASE
from provd.proxmox.mode_file import version_of

NEVER_SEEN = "has not been installed by provd yet"


def free(it: Situation) -> Check | None:
    return never("host", f"{it.busy}.") if it.busy is not None else None


def image(it: Situation) -> Check:
    match it.image:
        case None:
            return never(
                "image",
                "There is nothing to install yet.",
                mend="Import Proxmox VE's ISO: `provd image import FILE.iso`, or on the page Images.",
            )
        case Elsewhere(url):
            return but(
                "image", "The installer comes from another web server, which provd did not look at.", url
            )
        case release:
            return fine("image", f"Proxmox VE {release} will be installed.")


def memory_size(it: Situation) -> Check:
    release = it.image if isinstance(it.image, str) else _last_release(it)
    needed = memory.memory_needed(release)
    has = it.host.memory_mib
    if has is not None:
        evidence = f"{has} MiB; the installer of {release} needs {needed} MiB"
        if memory.fits(release, has):
            return fine("memory", "It has enough memory for the installer.", evidence)
        return no(
            "memory",
            f"It has too little memory: the installer of {release}, loaded over the network, would stop.",
            evidence,
            "Put more memory in, or install it from a USB stick.",
        )
    if it.hardware is not None and needed <= memory.memory_needed(_dotted(it.hardware.installer)):
        return fine(
            "memory",
            "An installer that needs as much memory has run on it.",
            f"{_dotted(it.hardware.installer)}, when it was installed last",
        )
    return but(
        "memory",
        f"How much memory it has is not known; the installer of {release} needs {needed} MiB.",
        f"{it.name} {NEVER_SEEN}" if it.hardware is None else "",
    )


def plan(it: Situation) -> Check:
    if isinstance(it.plan, str):
        return never("plan", f"It cannot be installed as it is configured: {it.plan}.")
    return fine(
        "plan",
        f"It becomes {it.plan.fqdn}, on {' '.join(filter(None, [it.plan.filesystem, it.plan.raid]))}.",
        f"disks {', '.join(it.plan.disks)}; "
        + (f"address {it.plan.address.cidr}" if it.plan.address is not None else "address from DHCP"),
    )


def answer(it: Situation) -> Check | None:
    """The whole answer as it would be sent, read by the strict reader."""
    if isinstance(it.plan, str):
        return None
    release = version_of(it.image if isinstance(it.image, str) else _last_release(it))
    wrong = draft_answer(it.host, it.plan, it.hardware, release, it.public_url).wrong
    for_release = f"for the installer of {_dotted(release)}"
    if wrong:
        return never("answer", f"The answer would stop the installer: {listed(wrong, 3)}.", for_release)
    return fine("answer", "The answer for the installer is whole and has only what it knows.", for_release)


def disks(it: Situation) -> Check | None:
    if isinstance(it.plan, str):
        return None
    wanted = it.plan.disks
    known = it.hardware.disks if it.hardware is not None else None
    if known is None:
        return but(
            "disks",
            f"{listed(wanted)} will be erased. Whether the machine has that is seen when it asks for its "
            "answer, before anything is wiped.",
            f"{it.name} {NEVER_SEEN}: its disks are not known",
        )
    evidence = f"told when it was installed last: {listed([disk.described for disk in known], 12) or 'none'}"
    erased = {name: [disk for disk in known if disk.is_called(name)] for name in wanted}
    if missing := [name for name, found in erased.items() if not found]:
        return no(
            "disks",
            f"The machine had no {listed(missing)} when it was installed last.",
            evidence,
            "Correct the disks in the host's options or its server type; if the disks were changed since, "
            "go on all the same.",
        )
    if double := [name for name, found in erased.items() if len(found) > 1]:
        return no("disks", f"{listed(double)} means more than one disk of the machine.", evidence)
    named = listed([disk.described for (disk,) in erased.values()], 12)
    kept = [disk.device for disk in known if not any(disk in found for found in erased.values())]
    return fine(
        "disks", f"{named} will be erased" + (f"; {listed(kept)} is left alone." if kept else "."), evidence
    )


def nic(it: Situation) -> Check | None:
    if isinstance(it.plan, str):
        return None
    wanted = it.plan.management_nic or f"the NIC {it.host.mac}"
    if it.hardware is None:
        return but(
            "nic",
            f"It shall be managed through {wanted}, which provd has not seen.",
            f"{it.name} {NEVER_SEEN}",
        )
    evidence = "told last: " + listed([f"{link.name} ({link.mac})" for link in it.hardware.links], 12)
    link = it.hardware.link_of(it.plan.management_nic, it.host.mac)
    if link is None:
        return no(
            "nic",
            f"It shall be managed through {wanted}, and had no such NIC when it was installed last.",
            evidence,
            "Correct management_nic in its server type, or register it anew with the NIC that it has.",
        )
    return fine("nic", f"It is managed through {link.name} ({link.mac}).", evidence)


def _last_release(it: Situation) -> str:
    return _dotted(it.hardware.installer if it.hardware is not None else PINNING_RELEASE)


def _dotted(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))
