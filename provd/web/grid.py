"""The page of all hosts."""

import re

from quart import Blueprint, Response, request

from provd.store import activity, hosts
from provd.web.host import note_of
from provd.web.host_views import all_hosts
from provd.web.page import RECENT, Pages, group
from provd.web.parts import Parts
from provd.web.views import BLANK_HOST, View, activity_view, server_type_view, sighting_view

GROUPS = ("failed", "working", "registered", "ready")
"""What a host is to somebody who looks at all of them; who needs attention comes first."""


def blueprint(parts: Parts, pages: Pages) -> Blueprint:
    rooms = Blueprint("grid", __name__)
    read = parts.store.read

    @rooms.get("/")
    async def show_hosts() -> Response:
        page = pages.open("hosts.html")
        everyone = sorted(all_hosts(parts), key=_order)
        notes = read(lambda db: {host.id: note_of(db, host) for host in hosts.everyone(db)})
        found = [group(host["state"]) for host in everyone]
        show = request.args.get("show", "")
        return page.draw(
            hosts=everyone,
            notes=notes,
            counts={name: found.count(name) for name in GROUPS},
            show=show if show in GROUPS else "",
            sightings=[sighting_view(seen) for seen in read(hosts.sightings)],
            lines=[activity_view(line) for line in read(lambda db: activity.latest(db, RECENT))],
            keep=RECENT,
            types=[server_type_view(one) for one in parts.book.current.values()],
            types_path=parts.config.paths.server_types,
            pxe_enabled=parts.config.pxe.enabled,
            public_url=parts.config.server.public_url,
            cluster=cluster_trouble(parts),
            blank_host=BLANK_HOST,
        )

    return rooms


def cluster_trouble(parts: Parts) -> str:
    """What is wrong with the cluster, in one sentence; empty where nothing is, or nobody looked."""
    look = parts.cluster_watch.last
    return look.worst.what if look is not None and look.worst is not None else ""


def _order(host: View) -> tuple[int, list[tuple[bool, int, str]]]:
    """Who needs attention first; then by name, with pve2 before pve10."""
    words = re.findall(r"[0-9]+|[^0-9]+", str(host["hostname"]).lower())
    name = [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in words]
    return GROUPS.index(group(host["state"])), name
