"""A machine's way to its operating system, as the host's page and the API show it.

The stations it passed, the next one with its time, the packets behind them as a capture, and the button
that switches it on. Nothing is decided here, and nothing of it is a secret: whoever is on the LAN hears
the same packets.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from attrs import evolve
from quart import Blueprint, Response, g, jsonify

from provd.domain.contacts import Hop
from provd.domain.errors import NotFound
from provd.domain.hosts import Host, HostId, Mac
from provd.domain.lifecycle import BOOTS, SETTLED, Boots, State
from provd.domain.operations import Outcome
from provd.netboot.recorder import FlightRecorder
from provd.orchestrator.attempt import PLACE, Attempt, Goal, Stop, last_attempt
from provd.orchestrator.downloads import Progress
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.trail import ORDER, Heard, Missing, PresentBoot, Station, Trail
from provd.orchestrator.waking import Waker
from provd.store.database import now
from provd.web.views import View, operation_view, rfc3339

CAPTURE = "application/vnd.tcpdump.pcap"
"""The IANA media type of a pcap file."""

TITLES: Mapping[Stop, str] = {
    Hop.DISCOVER: "DHCP",
    Hop.BOOT_SERVER: "port 4011",
    Hop.LOADER: "iPXE read",
    Hop.IPXE: "iPXE runs",
    Hop.SCRIPT: "script",
    Hop.KERNEL: "kernel",
    Hop.INITRD: "initrd and ISO",
    Hop.ANSWER: "answer",
    Hop.FIRST_BOOT_SCRIPT: "first-boot script",
    Hop.REPORT: "installed",
    Hop.PHONE_HOME: "call home",
    Goal.JOIN: "joining",
    Goal.READY: "ready",
}

REST: tuple[Stop, ...] = (Hop.REPORT, Hop.PHONE_HOME, Goal.READY)
"""What comes after the installer has its answer. Who joins a cluster passes that, too."""

SAME = timedelta(seconds=5)
"""A contact is written down a moment after it was heard."""

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
        host = fleet.host(HostId(host_id))
        attempt = fleet.store.read(lambda db: last_attempt(db, host.id))
        return jsonify(trail_view(host, trail, recorder, waker, attempt))

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


def trail_view(
    host: Host, trail: Trail, recorder: FlightRecorder, waker: Waker, attempt: Attempt | None
) -> View:
    """`attempt`: the last to build it."""
    last, boot = trail.last_of(host.mac), trail.boot_of(host.mac)
    if last is not None and host.state is State.PXE_READY and last.at < host.state_since:
        boot = None  # what it did before it was to be installed is no step of that
    installs = BOOTS[host.state] is Boots.INSTALLER
    missing = boot.missing if boot is not None and installs else None
    if attempt is None or (installs and boot is not None):
        found = stations(boot, trail.road if installs else ())
        found += [station(stop, "ahead") for stop in REST] if installs else []
    else:
        found = way(attempt, boot, trail.road, waits=host.state in SETTLED)
    return {
        "host_id": host.id,
        "mac": str(host.mac),
        "operation": operation_view(attempt.operation) if attempt is not None else None,
        "stations": found,
        "missing": {"message": missing.sentence, "at": rfc3339(missing.at)} if missing else None,
        "last": heard_view(last) if last is not None else None,
        "contacts": [heard_view(heard) for heard in trail.trail_of(host.mac)],
        "packets": recorder.count(host.mac),
        "can_wake": waker.can_wake,
    }


def way(attempt: Attempt, boot: PresentBoot | None, road: tuple[Hop, ...], *, waits: bool) -> list[View]:
    """The whole of an attempt, by what history tells. `boot` may know how often something was heard.

    `waits`: its host stands where it stood, and nothing is expected of its machine yet.
    """
    operation, heard = attempt.operation, boot.stations if boot is not None else {}
    found = []
    for stop in sorted(attempt.passed, key=PLACE.__getitem__):
        here = operation.active and PLACE[stop] == attempt.reached
        counted = _counted(attempt.passed[stop], heard.get(stop) if isinstance(stop, Hop) else None)
        found.append(station(stop, "here" if here else "done", counted))
    if operation.outcome is Outcome.DONE:
        return found
    ahead = [stop for stop in (*road, *REST) if PLACE[stop] > attempt.reached]
    following = "missing" if not operation.active else "ahead" if waits else "expected"
    for stop in ahead:
        first = stop is ahead[0]
        found.append(
            station(stop, following if first else "ahead", message=operation.detail if first else "")
        )
    return found


def _counted(told: Station, heard: Station | None) -> Station:
    """History leaves out what is repeated at once; the trail counts it, where it speaks of the same boot."""
    if heard is None or heard.first - told.last > SAME or told.first - heard.last > SAME:
        return told
    return evolve(told, first=heard.first, last=heard.last, times=max(told.times, heard.times))


def stations(boot: PresentBoot | None, road: tuple[Hop, ...]) -> list[View]:
    """What `boot` passed, and what of `road` lies ahead of it. Without a boot all of `road` does."""
    passed = boot.stations if boot is not None else {}
    reached = ORDER[boot.latest] if boot is not None else -1
    ahead = [hop for hop in road if ORDER[hop] > reached and hop not in passed]
    watch, missing = (boot.watch, boot.missing) if boot is not None else (None, None)
    awaited = watch.expectation.next if watch else missing.next if missing else ()
    following = next((hop for hop in ahead if hop in awaited), None)
    found: list[View] = []
    for hop in Hop:
        if hop in passed:
            here = boot is not None and boot.latest is hop
            found.append(station(hop, "here" if here else "done", passed[hop]))
        elif hop in ahead:
            place = "ahead" if hop is not following else "expected" if watch else "missing"
            due_at = watch.due_at if watch and place == "expected" else None
            found.append(station(hop, place, message=_why(place, missing), due_at=due_at))
    return found


def station(
    stop: Stop,
    place: str,
    passed: Station | None = None,
    *,
    message: str = "",
    due_at: datetime | None = None,
) -> View:
    """`place`: `done`, `here`, `expected` (next, by `expected_by` if that is known), `missing`, `ahead`."""
    return {
        "hop": stop,
        "title": TITLES[stop],
        "place": place,
        "at": rfc3339(passed.last) if passed else None,
        "times": passed.times if passed else 0,
        "message": passed.message if passed else message,
        "expected_by": rfc3339(due_at) if due_at else None,
    }


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
