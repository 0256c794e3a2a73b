"""The cluster's page and its place in the API. What is asked and what is wrong is decided elsewhere."""

import attrs
from quart import Blueprint, Response, jsonify

from provd.cluster_watch import look_view
from provd.store.departures import Turn
from provd.web.doctor import ORDER
from provd.web.page import Pages
from provd.web.parts import Parts
from provd.web.views import View, rfc3339


def blueprint(parts: Parts, pages: Pages) -> Blueprint:
    rooms = Blueprint("cluster", __name__)
    watch = parts.cluster_watch

    def view() -> dict[str, object]:
        shown = look_view(watch.last, parts.cluster_link.remembered())
        findings = sorted(watch.last.findings, key=lambda one: ORDER.index(one.result)) if watch.last else []
        return shown | {
            "findings": [attrs.asdict(finding) for finding in findings],
            "lock": turn_view(parts.turns.holder()),
            "busy": watch.busy,
        }

    @rooms.get("/api/cluster")
    async def show() -> Response:
        return jsonify(view())

    @rooms.post("/api/cluster")
    async def look() -> Response:
        await watch.look(knock=True)
        return jsonify(view())

    @rooms.get("/cluster")
    async def show_page() -> Response:
        page = pages.open("cluster.html")
        return page.draw(cluster=view(), configured=parts.config.proxmox.existing_node is not None)

    return rooms


def turn_view(turn: Turn | None) -> View | None:
    """Who may change the cluster's members now."""
    if turn is None:
        return None
    return {
        "operation_id": turn.operation_id,
        "hostname": turn.hostname,
        "since": rfc3339(turn.since),
    }
