"""A preview of the answer file of one host: what its installer would be told, and whether it would obey."""

from quart import Blueprint, Response, jsonify

from provd.domain.hosts import HostId
from provd.orchestrator.planning import plan_or_reason
from provd.orchestrator.rehearsal.draft import draft_answer, is_reported
from provd.proxmox.answer import PINNING_RELEASE
from provd.proxmox.mode_file import version_of
from provd.store import hardware, images
from provd.web.parts import Parts
from provd.web.views import View


def blueprint(parts: Parts) -> Blueprint:
    rooms = Blueprint("answer", __name__)

    @rooms.get("/api/hosts/<id:host_id>/answer")
    async def show_answer(host_id: int) -> Response:
        return jsonify(answer_view(parts, HostId(host_id)))

    return rooms


def answer_view(parts: Parts, host_id: HostId) -> View:
    """`machine` is what its NICs are known by: told by itself (`reported`), or `assumed` from the plan.

    `toml` has a mask where the password's hash stands; it is empty where `problem` says why.
    """
    host = parts.fleet.host(host_id)
    told = parts.store.read(lambda db: hardware.get(db, host_id))
    known = told.hardware if told is not None else None
    image = parts.store.read(images.default)
    # What another web server has is not known: perhaps what was installed from there last.
    if image is not None and not parts.config.proxmox.installer_url:
        release = version_of(image.release)
    else:
        release = known.installer if known is not None else PINNING_RELEASE
    plan = plan_or_reason(parts.config, parts.book.current.get(host.server_type), host)
    if isinstance(plan, str):
        return {"toml": "", "release": "", "machine": "assumed", "wrong": [], "problem": plan}
    draft = draft_answer(host, plan, known, release, parts.config.server.public_url)
    return {
        "toml": draft.masked,
        "release": ".".join(map(str, release)),
        "machine": "reported" if is_reported(host, plan, known) else "assumed",
        "wrong": list(draft.wrong),
        "problem": "" if draft.masked else draft.wrong[0],
    }
