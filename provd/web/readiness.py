"""Whether provd can do what it is for: what is there, what is missing, and where to mend it.

Nothing is asked or tried here, so that a page may look every few seconds: the doctor tries.
"""

from collections.abc import Callable
from enum import StrEnum

from attrs import asdict, frozen
from quart import Blueprint, Response, jsonify

from provd.config import Unknown
from provd.domain.errors import ConfigError
from provd.netboot import interfaces
from provd.store import hosts, images, registrations
from provd.web.parts import Parts
from provd.web.views import View


class Ready(StrEnum):
    OK = "ok"
    TODO = "todo"
    """Somebody has to do something first."""
    PROBLEM = "problem"
    OFF = "off"
    """Not wanted, by the configuration."""


@frozen
class Item:
    name: str
    state: Ready
    what: str
    mend: str = ""
    href: str = ""


def blueprint(parts: Parts) -> Blueprint:
    rooms = Blueprint("readiness", __name__)

    @rooms.get("/api/readiness")
    async def show() -> Response:
        return jsonify(readiness_view(parts))

    return rooms


def readiness_view(parts: Parts) -> View:
    items = [look(parts) for look in LOOKS]
    wanting = [item.name for item in items if item.state in (Ready.TODO, Ready.PROBLEM)]
    return {
        "ready": not wanting,
        "sentence": f"Not yet: {', '.join(wanting)}" if wanting else "Yes",
        "items": [asdict(item) for item in items],
    }


def interface(parts: Parts) -> Item:
    if not parts.config.pxe.enabled:
        return Item("Network", Ready.OFF, "pxe.enabled is false: provd answers neither DHCP nor TFTP.")
    name, subnet = parts.config.pxe.lan
    try:
        found = interfaces.find(name)
        address = interfaces.address_in(found, subnet)
    except (ConfigError, OSError) as exc:
        mend = "Correct pxe.interface or pxe.subnet, or give the interface its address."
        return Item("Network", Ready.PROBLEM, f"{exc}.", mend, "/doctor")
    if not found.up:
        what = f"{name} is switched off or has no carrier."
        return Item("Network", Ready.PROBLEM, what, "Plug its cable in, or switch it on.", "/doctor")
    if parts.boot.address is None or address.ip != parts.boot.address.ip:
        what = f"{name} is {address.ip} now, which it was not when provd was started."
        return Item("Network", Ready.PROBLEM, what, "Restart provd.", "/doctor")
    return Item("Network", Ready.OK, f"provd is {address.ip} on {name}, and answers in {subnet}.")


def ports(parts: Parts) -> Item:
    """They are open: without all of them the daemon does not start, and it ends with any of them."""
    server = parts.config.server
    served = [f"HTTP on {server.listen}", f"images on {server.image_listen}"]
    if parts.config.pxe.enabled:
        served += ["DHCP on 67 and 4011", "TFTP on 69"]
    return Item("Ports", Ready.OK, f"Open: {', '.join(served)}.")


def loaders(parts: Parts) -> Item:
    known = parts.boot.loaders
    if not parts.config.pxe.enabled:
        return Item("iPXE", Ready.OFF, "pxe.enabled is false: provd hands out none.")
    if missing := known.missing():
        return Item("iPXE", Ready.PROBLEM, f"{missing[0]}.", "Then restart provd.", "/doctor")
    return Item("iPXE", Ready.OK, f"There is a build for {', '.join(sorted(known.usual))}.")


def image(parts: Parts) -> Item:
    if elsewhere := parts.config.proxmox.installer_url:
        return Item("Image", Ready.OK, f"The installer comes from {elsewhere}.")
    default = parts.store.read(images.default)
    if default is None:
        return Item("Image", Ready.TODO, "There is nothing to install yet.", "Import an ISO.", "/images")
    return Item("Image", Ready.OK, f"{default.name} will be installed.", href="/images")


def server_types(parts: Parts) -> Item:
    path = parts.config.paths.server_types
    if parts.book.problem:
        return Item("Server types", Ready.PROBLEM, f"{path} cannot be used.", "See the top of the page.")
    if not parts.book.current:
        return Item("Server types", Ready.TODO, "There is none yet.", f"Describe one in {path}.")
    return Item("Server types", Ready.OK, f"Known: {', '.join(sorted(parts.book.current))}.")


def cluster(parts: Parts) -> Item:
    node = parts.config.proxmox.existing_node
    if node is None:
        return Item("Cluster", Ready.OFF, "proxmox.existing_node is not set: hosts stand alone.")
    look = parts.cluster_watch.last
    if look is not None and look.worst is not None:
        return Item("Cluster", Ready.PROBLEM, look.worst.what, look.worst.mend, "/cluster")
    if parts.cluster_token is None and parts.passwords.standing is None:
        what = f"{node} is asked before each rebuild; to watch it in between, provd wants a credential."
        return Item("Cluster", Ready.OK, what, href="/cluster")
    seen = look.survey.cluster if look is not None and look.survey is not None else None
    if seen is None:
        return Item("Cluster", Ready.TODO, f"{node} was not asked yet.", "Look at it.", "/cluster")
    members = f"{len(seen.nodes)} members, and {'has quorum' if seen.quorate else 'no quorum'}"
    return Item("Cluster", Ready.OK, f"{seen.name} has {members}.", href="/cluster")


def inventory(parts: Parts) -> Item:
    url = parts.config.infrastructure.base_url
    if not url:
        return Item("Inventory", Ready.OFF, "infrastructure.base_url is not set.")
    troubles = [one for one in parts.store.read(registrations.everything) if one.last_error]
    if troubles:
        return Item("Inventory", Ready.PROBLEM, f"{url}: {troubles[0].last_error}", "provd tries again.")
    return Item("Inventory", Ready.OK, f"{url} is told of each host that is ready.")


def credentials(parts: Parts) -> Item:
    if parts.config.proxmox.existing_node is None:
        return Item("Credentials", Ready.OK, "New hosts get credentials.root_password_hash.")
    known = [
        name
        for name, there in (
            ("root's password", parts.passwords.standing is not None),
            ("an API token", parts.cluster_token is not None),
            ("an SSH key", parts.cluster_key is not None),
        )
        if there
    ]
    if not known:
        return Item(
            "Credentials",
            Ready.OK,
            "None for the cluster is kept: its root password is asked for at each rebuild.",
            "Name a file in credentials, or let systemd hand one over.",
        )
    return Item("Credentials", Ready.OK, f"For the cluster provd has {', '.join(known)}.")


def machines(parts: Parts) -> Item:
    if known := parts.store.read(hosts.hostnames):
        return Item("Machines", Ready.OK, f"{len(known)} registered.")
    if heard := [seen for seen in parts.store.read(hosts.sightings) if not seen.ignored]:
        return Item("Machines", Ready.TODO, f"{len(heard)} heard, none registered.", "Register one.")
    if parts.config.pxe.unknown is Unknown.IGNORE:
        what = "None is registered, and with pxe.unknown: ignore none is listed by itself."
        return Item("Machines", Ready.TODO, what, "Register one by its MAC.")
    return Item(
        "Machines",
        Ready.TODO,
        "None was heard yet.",
        "Switch one on that boots from the network, and it appears here; or register it by its MAC.",
    )


LOOKS: tuple[Callable[[Parts], Item], ...] = (
    interface,
    ports,
    loaders,
    image,
    server_types,
    cluster,
    inventory,
    credentials,
    machines,
)
