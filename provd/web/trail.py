"""A machine's way to its operating system, as the host's page and the API show it.

The stations it passed, the next one with its time, the packets behind them as a capture, and the button
that switches it on. Nothing is decided here, and nothing of it is a secret: whoever is on the LAN hears
the same packets.
"""

from quart import Blueprint, Response, g, jsonify

from provd.domain.contacts import Hop
from provd.domain.errors import NotFound
from provd.domain.hosts import Host, HostId, Mac
from provd.domain.lifecycle import BOOTS, Boots, State
from provd.netboot.recorder import FlightRecorder
from provd.orchestrator.downloads import Progress
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.trail import ORDER, Heard, Missing, PresentBoot, Trail
from provd.orchestrator.waking import Waker
from provd.store.database import now
from provd.web.views import View, rfc3339

CAPTURE = "application/vnd.tcpdump.pcap"
"""The IANA media type of a pcap file."""

TITLES = {
    Hop.DISCOVER: "DHCP",
    Hop.BOOT_SERVER: "port 4011",
    Hop.LOADER: "iPXE read",
    Hop.IPXE: "iPXE runs",
    Hop.SCRIPT: "script",
    Hop.KERNEL: "kernel",
    Hop.INITRD: "initrd and ISO",
    Hop.ANSWER: "answer",
    Hop.FIRST_BOOT_SCRIPT: "first-boot script",
    Hop.REPORT: "report",
    Hop.PHONE_HOME: "call home",
}

BLANK_STATION: View = {
    "hop": "",
    "title": "",
    "place": "ahead",
    "at": None,
    "times": 0,
    "message": "",
    "expected_by": None,
}
"""What a script fills in: the shape to clone is drawn from this."""


def blueprint(*, fleet: Fleet, trail: Trail, recorder: FlightRecorder, waker: Waker) -> Blueprint:
    trails = Blueprint("trail", __name__, url_prefix="/api")

    @trails.get("/hosts/<id:host_id>/trail")
    async def show_trail(host_id: int) -> Response:
        return jsonify(trail_view(fleet.host(HostId(host_id)), trail, recorder, waker))

    @trails.get("/hosts/<id:host_id>/packets.pcap")
    async def host_packets(host_id: int) -> Response:
        host = fleet.host(HostId(host_id))
        return _capture(recorder, host.mac, host.hostname)

    @trails.get("/sightings/<mac>/packets.pcap")
    async def stranger_packets(mac: str) -> Response:
        known = Mac.parse(mac)
        return _capture(recorder, known, str(known).replace(":", "-"))

    @trails.post("/hosts/<id:host_id>/wake")
    async def wake(host_id: int) -> Response:
        said = await waker.wake(HostId(host_id), g.actor)
        response = jsonify({"message": said})
        response.status_code = 202
        return response

    return trails


def trail_view(host: Host, trail: Trail, recorder: FlightRecorder, waker: Waker) -> View:
    last, boot = trail.last_of(host.mac), trail.boot_of(host.mac)
    if last is not None and host.state is State.PXE_READY and last.at < host.state_since:
        boot = None  # what it did before it was to be installed is no step of that
    installs = BOOTS[host.state] is Boots.INSTALLER
    missing = boot.missing if boot is not None and installs else None
    return {
        "host_id": host.id,
        "mac": str(host.mac),
        "stations": stations(boot, trail.road if installs else ()),
        "missing": {"message": missing.sentence, "at": rfc3339(missing.at)} if missing else None,
        "last": heard_view(last) if last is not None else None,
        "contacts": [heard_view(heard) for heard in trail.trail_of(host.mac)],
        "packets": recorder.count(host.mac),
        "can_wake": waker.can_wake,
    }


def stations(boot: PresentBoot | None, road: tuple[Hop, ...]) -> list[View]:
    """What `boot` passed, and what of `road` lies ahead of it. Without a boot all of `road` does.

    `place` is `done`, `here`, `expected` (the next, by `expected_by`), `missing`, or `ahead`.
    """
    passed = boot.stations if boot is not None else {}
    reached = ORDER[boot.latest] if boot is not None else -1
    ahead = [hop for hop in road if ORDER[hop] > reached and hop not in passed]
    watch, missing = (boot.watch, boot.missing) if boot is not None else (None, None)
    awaited = watch.expectation.next if watch else missing.next if missing else ()
    following = next((hop for hop in ahead if hop in awaited), None)
    found: list[View] = []
    for hop in Hop:
        station = passed.get(hop)
        if station is not None:
            place = "here" if boot is not None and boot.latest is hop else "done"
        elif hop in ahead:
            place = "ahead" if hop is not following else "expected" if watch else "missing"
        else:
            continue
        found.append(
            {
                "hop": hop,
                "title": TITLES[hop],
                "place": place,
                "at": rfc3339(station.last) if station else None,
                "times": station.times if station else 0,
                "message": station.message if station else _why(place, missing),
                "expected_by": rfc3339(watch.due_at) if watch and place == "expected" else None,
            }
        )
    return found


def _why(place: str, missing: Missing | None) -> str:
    return missing.sentence if missing is not None and place == "missing" else ""


def heard_view(heard: Heard) -> View:
    return {
        "at": rfc3339(heard.at),
        "hop": heard.contact.hop,
        "message": heard.contact.message,
        "address": heard.contact.address or None,
    }


def progress_view(progress: Progress) -> View:
    """How far a download is; `eta` is seconds, None while nothing moves."""
    left = progress.seconds_left
    return {
        "host_id": progress.host_id,
        "name": progress.name,
        "sent": progress.sent,
        "total": progress.total,
        "rate": round(progress.rate),
        "eta": round(left) if left is not None else None,
    }


def _capture(recorder: FlightRecorder, mac: Mac, name: str) -> Response:
    if not recorder.count(mac):
        raise NotFound(f"no packets of {name} are on record since provd started")
    response = Response(recorder.pcap(mac), content_type=CAPTURE)
    file_name = f"{name}-{now():%Y%m%dT%H%M%SZ}.pcap"
    response.headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return response
