"""The page of all hosts: which are shown, and in which order, stands in its address."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast
from urllib.parse import urlencode

from attrs import asdict, evolve, frozen
from quart import Blueprint, Response, request
from werkzeug.datastructures import MultiDict

from provd.store import hosts
from provd.web.host import notes_of
from provd.web.host_views import all_hosts
from provd.web.page import Pages, group
from provd.web.parts import Parts
from provd.web.readiness import readiness_view
from provd.web.views import BLANK_HOST, View, server_type_view, sighting_view

GROUPS = ("failed", "waiting", "working", "registered", "ready")
"""What a host is to somebody who looks at all of them; who needs attention comes first."""

SORTS: Mapping[str, Callable[[View], object]] = {
    "attention": lambda host: (GROUPS.index(group(host)), natural(str(host["hostname"]))),
    "name": lambda host: natural(str(host["hostname"])),
    "state": lambda host: (str(host["state"]), natural(str(host["hostname"]))),
    "since": lambda host: (str(host["state_since"]), natural(str(host["hostname"]))),
    "type": lambda host: (str(host["server_type"]), natural(str(host["hostname"]))),
}
"""`static/filter.js` sorts the same way; one table of cases tests both."""

VIEWS = ("tiles", "table")


@frozen(kw_only=True)
class Choice:
    """What a reader wants to see."""

    show: str = ""
    """One of `GROUPS`; empty: all."""
    q: str = ""
    type: str = ""
    sort: str = "attention"
    view: str = "tiles"

    @classmethod
    def read(cls, args: MultiDict[str, str], remembered_view: str = "") -> "Choice":
        """What is no choice of ours is as if it were not there."""

        def one_of(name: str, words: Sequence[str], otherwise: str) -> str:
            return args[name] if args.get(name) in words else otherwise

        view = remembered_view if remembered_view in VIEWS else VIEWS[0]
        return cls(
            show=one_of("show", GROUPS, ""),
            q=args.get("q", "").strip()[:100],
            type=args.get("type", ""),
            sort=one_of("sort", tuple(SORTS), "attention"),
            view=one_of("view", VIEWS, view),
        )

    def shows(self, host: View) -> bool:
        return (
            (not self.show or group(host) == self.show)
            and (not self.type or host["server_type"] == self.type)
            and all(word in said(host) for word in self.q.lower().split())
        )

    def address(self, show: str) -> str:
        """Of the page with the same choice, but of group `show`; `static/filter.js` writes it alike."""
        usual = asdict(Choice())
        said = asdict(evolve(self, show=show))
        return f"/?{urlencode({key: it for key, it in said.items() if it != usual[key] or key == 'view'})}"

    def ordered(self, everyone: Sequence[View]) -> list[View]:
        return sorted(everyone, key=cast("Callable[[View], str]", SORTS[self.sort]))


def blueprint(parts: Parts, pages: Pages) -> Blueprint:
    rooms = Blueprint("grid", __name__)
    read = parts.store.read

    @rooms.get("/")
    async def show_hosts() -> Response:
        page = pages.open("hosts.html")
        choice = Choice.read(request.args, request.cookies.get("view", ""))
        everyone = choice.ordered(all_hosts(parts))
        found = [group(host) for host in everyone]
        named = {choice.type} - {""}
        heard = [sighting_view(seen) for seen in read(hosts.sightings)]
        return page.draw(
            hosts=everyone,
            shown={host["id"] for host in everyone if choice.shows(host)},
            notes=read(lambda db: notes_of(db, hosts.everyone(db))),
            counts={name: found.count(name) for name in GROUPS},
            choice=choice,
            sorts=tuple(SORTS),
            heard=[seen for seen in heard if not seen["ignored"]],
            ignored=[seen for seen in heard if seen["ignored"]],
            readiness=readiness_view(parts),
            types=[server_type_view(one) for one in parts.book.current.values()],
            type_names=sorted(
                {*parts.book.current, *(str(host["server_type"]) for host in everyone)} | named
            ),
            types_path=parts.config.paths.server_types,
            public_url=parts.config.server.public_url,
            existing_node=parts.config.proxmox.existing_node,
            takes_password=parts.config.proxmox.existing_node is not None
            and parts.passwords.standing is None,
            cluster=parts.cluster_watch.trouble,
            blank_host=BLANK_HOST,
        )

    return rooms


def said(host: View) -> str:
    """What a search looks at."""
    return " ".join(str(host[name] or "") for name in ("hostname", "mac", "ip", "server_type")).lower()


def natural(text: str) -> list[tuple[bool, int, str]]:
    """So that pve2 stands before pve10."""
    words = re.findall(r"[0-9]+|[^0-9]+", text.lower())
    return [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in words]
