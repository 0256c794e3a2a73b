"""The trail as the API and the host's page have it: stations in order, captures, and the wake-up button."""

import io
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import g
from quart_trio import QuartTrio
from scapy.all import UDP, PcapReader  # type: ignore[attr-defined]

from provd.domain.contacts import Contact, Hop
from provd.domain.hosts import Host, HostId, HostOptions, Mac, OperationId
from provd.domain.lifecycle import Fact
from provd.domain.operations import Kind, Outcome
from provd.netboot.recorder import FlightRecorder
from provd.orchestrator.attempt import last_attempt
from provd.orchestrator.bell import Bell
from provd.orchestrator.downloads import Progress
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.trail import Trail
from provd.orchestrator.waking import Lan, Waker
from provd.remote.wake import TIMES, build_magic_packet
from provd.store import activity, hosts, operations
from provd.store.database import Store, now, open_store
from provd.web import gate, page, problems
from provd.web.app import IdConverter
from provd.web.gate import Plane
from provd.web.trail import BLANK_STATION, blueprint, progress_view, trail_view

MAC, STRANGER = Mac("52:54:00:00:00:01"), Mac("52:54:00:00:00:99")
REST = ["report", "phone_home", "ready"]
"""What provd hears of on its web server alone, whatever else it serves."""
EVIL = "<script>alert('1')</script>"


class World:
    """A fleet with one host, its trail and its recorder; an application with nothing else in it."""

    def __init__(self, store: Store, lan: Lan | None = None, **more: Any) -> None:
        self.store = store
        self.fleet = Fleet(store, Bell())
        urls = {"public_url": "http://provd:8080", "installer_url": "http://provd:8081"}
        self.trail = Trail(self.fleet, **(urls | {"own_images": True} | more))
        self.recorder = FlightRecorder()
        self.waker = Waker(self.fleet, lan)
        self.app = QuartTrio("test")
        self.app.url_map.converters["id"] = IdConverter
        problems.install(self.app)

        @self.app.before_request
        async def someone() -> None:
            g.actor = "a test"

        self.app.register_blueprint(
            blueprint(fleet=self.fleet, trail=self.trail, recorder=self.recorder, waker=self.waker)
        )

    async def host(self, *facts: Fact) -> Host:
        def make(change: Change) -> Host:
            host = hosts.register(change.db, "pve1", MAC, "nuc", HostOptions(), change.at)
            if facts:
                operations.open_(change.db, host, Kind.REBUILD, "a test", change.at)
            for fact in facts:
                change.fact(host.id, fact, "a test")
            return hosts.get(change.db, host.id)

        return await self.fleet.change(make)

    def hear(self, *hops: Hop, message: str = "was there", address: str = "") -> None:
        for hop in hops:
            self.trail.heard(Contact(mac=MAC, hop=hop, message=message, address=address))

    async def stations(self) -> dict[str, str]:
        found = await (await self.app.test_client().get("/api/hosts/1/trail")).get_json()
        return {station["hop"]: station["place"] for station in found["stations"]}

    def view(self, host: Host) -> Mapping[str, Any]:
        attempt = self.store.read(lambda db: last_attempt(db, host.id))
        return trail_view(host, self.trail, self.recorder, self.waker, attempt)

    def messages(self) -> list[str]:
        return [line.message for line in self.store.read(lambda db: activity.after(db, 0, 100))]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "provd.db") as store:
        yield store


# --- the stations ---


async def test_what_lies_ahead_of_an_installation_is_shown_before_it_begins(store: Store) -> None:
    """The whole road, without the stations that not every machine passes."""
    world = World(store)
    await world.host(Fact.REBUILD_STARTED)
    road = ["loader", "ipxe", "script", "kernel", "initrd", "answer", *REST]
    assert await world.stations() == {"discover": "expected"} | dict.fromkeys(road, "ahead")


async def test_a_boot_in_progress_has_a_past_a_present_and_a_next(store: Store) -> None:
    """What was skipped is left out, the next one says by when it is expected."""
    world = World(store)
    await world.host(Fact.REBUILD_STARTED)
    world.hear(Hop.DISCOVER, Hop.BOOT_SERVER, Hop.IPXE, address="192.0.2.9")
    assert await world.stations() == {
        "discover": "done",
        "boot_server": "done",
        "ipxe": "here",
        "script": "expected",
        "kernel": "ahead",
        "initrd": "ahead",
        "answer": "ahead",
    } | dict.fromkeys(REST, "ahead")
    found = await (await world.app.test_client().get("/api/hosts/1/trail")).get_json()
    expected = {station["hop"]: station for station in found["stations"]}["script"]
    ahead = datetime.fromisoformat(expected["expected_by"]) - now()
    assert timedelta(seconds=50) < ahead <= timedelta(seconds=60)
    assert (found["last"]["hop"], found["last"]["address"]) == ("ipxe", "192.0.2.9")
    assert [contact["hop"] for contact in found["contacts"]] == ["discover", "boot_server", "ipxe"]


async def test_the_missing_hop_is_marked_and_explained(store: Store) -> None:
    """After DHCP it is the loader that is missing, though port 4011 may come between."""
    world = World(store)
    host = await world.host(Fact.REBUILD_STARTED)
    world.hear(Hop.DISCOVER)
    assert (await world.stations())["loader"] == "expected"
    await world.trail._miss(MAC)
    assert (await world.stations())["loader"] == "missing"
    view: Any = world.view(host)
    assert "PXE-E18" in view["missing"]["message"]
    assert view["stations"][1]["message"] == view["missing"]["message"]


@pytest.mark.parametrize(
    ("more", "road"),
    [
        ({"pxe": False, "own_images": False}, ["script", "answer"]),
        ({"pxe": False}, ["script", "kernel", "initrd", "answer"]),
        ({"own_images": False}, ["discover", "loader", "ipxe", "script", "answer"]),
    ],
)
async def test_what_provd_cannot_hear_is_not_shown_as_ahead(
    store: Store, more: dict[str, Any], road: list[str]
) -> None:
    """Another DHCP server, another web server: their part of the road is theirs."""
    world = World(store, **more)
    await world.host(Fact.REBUILD_STARTED)
    assert list(await world.stations()) == [*road, *REST]


async def test_a_machine_that_is_not_installed_has_only_a_past(store: Store) -> None:
    """A boot from its own disk ends where it is not heard any more, and nothing is expected."""
    world = World(store)
    await world.host()
    assert await world.stations() == {}
    world.hear(Hop.DISCOVER, Hop.LOADER, Hop.SCRIPT)
    assert await world.stations() == {"discover": "done", "loader": "done", "script": "here"}


async def test_a_boot_before_the_rebuild_is_no_part_of_it(store: Store) -> None:
    """The machine had booted its disk; then it is armed, and its road begins at the beginning."""
    world = World(store)
    host = await world.host()
    world.hear(Hop.DISCOVER, Hop.LOADER, Hop.SCRIPT)

    def arm(change: Change) -> None:
        operations.open_(change.db, host, Kind.REBUILD, "a test", change.at)
        change.fact(host.id, Fact.REBUILD_STARTED, "a test")
        hosts.set_state(
            change.db, host.id, hosts.get(change.db, host.id).state, change.at + timedelta(seconds=1)
        )

    await world.fleet.change(arm)
    found = await world.stations()
    assert found.pop("discover") == "expected"
    assert set(found.values()) == {"ahead"}


async def finish(world: World, outcome: Outcome, detail: str = "") -> None:
    def close(change: Change) -> None:
        [operation] = operations.active(change.db)
        if outcome is not Outcome.DONE:
            change.fact(HostId(1), Fact.BROKEN_OFF, detail)
        operations.close(change.db, operation.id, outcome, detail, change.at)

    await world.fleet.change(close)


async def tell(world: World, *facts: Fact) -> None:
    for fact in facts:
        await world.fleet.change(lambda change, fact=fact: change.fact(HostId(1), fact, f"told {fact}"))


WHOLE = (Fact.SCRIPT_FETCHED, Fact.ANSWER_SENT, Fact.INSTALL_REPORTED, Fact.PHONED_HOME)


async def test_an_attempt_is_told_from_its_first_packet_to_ready(store: Store) -> None:
    """However often the machine has booted its own disk since, and though the trail itself knows nothing."""
    world = World(store)
    host = await world.host(Fact.REBUILD_STARTED)
    await tell(world, *WHOLE, Fact.JOIN_STARTED)
    assert await world.stations() == {
        **dict.fromkeys(["script", "answer", "report", "phone_home"], "done"),
        "join": "here",
        "ready": "expected",
    }
    await tell(world, Fact.COMPLETED)
    await finish(world, Outcome.DONE)
    world.hear(Hop.DISCOVER, Hop.LOADER, Hop.SCRIPT)
    view = world.view(world.fleet.host(host.id))
    stations = {station["hop"]: station for station in view["stations"]}
    assert list(stations) == ["script", "answer", "report", "phone_home", "join", "ready"]
    assert {station["place"] for station in stations.values()} == {"done"}
    assert stations["ready"]["message"] == "told completed"
    assert view["operation"]["id"] == 1
    assert view["last"]["hop"] == "script", "heard last is what it does now"


async def test_an_attempt_that_came_to_nothing_says_where(store: Store) -> None:
    """The station that was never reached is missing, with the words of whoever gave up."""
    world = World(store)
    await world.host(Fact.REBUILD_STARTED)
    await tell(world, Fact.SCRIPT_FETCHED, Fact.ANSWER_SENT)
    await finish(world, Outcome.FAILED, "waited in vain")
    found = await (await world.app.test_client().get("/api/hosts/1/trail")).get_json()
    stations = {station["hop"]: station for station in found["stations"]}
    assert (stations["report"]["place"], stations["report"]["message"]) == ("missing", "waited in vain")
    assert [stations[hop]["place"] for hop in ("phone_home", "ready")] == ["ahead", "ahead"]


async def test_a_restart_of_the_daemon_forgets_no_station(store: Store) -> None:
    """What was written down of a boot in progress is still passed, and the next is expected."""
    world = World(store)
    await world.host(Fact.REBUILD_STARTED)
    await tell(world, Fact.SCRIPT_FETCHED)
    assert await world.stations() == {
        "script": "here",
        "kernel": "expected",
        **dict.fromkeys(["initrd", "answer", *REST], "ahead"),
    }


async def test_what_was_heard_often_is_counted(store: Store) -> None:
    """History leaves out what is repeated at once; the trail knows how often it was."""
    world = World(store)
    await world.host(Fact.REBUILD_STARTED)
    await tell(world, Fact.SCRIPT_FETCHED, Fact.ANSWER_SENT)
    world.hear(*[Hop.SCRIPT] * 3)
    found = await (await world.app.test_client().get("/api/hosts/1/trail")).get_json()
    assert {station["hop"]: station["times"] for station in found["stations"]}["script"] == 3


async def test_a_member_that_waits_to_leave_is_expected_nowhere(store: Store) -> None:
    """Its rebuild has begun, and its machine has nothing to do yet."""
    world = World(store)
    host = await world.host()
    await world.fleet.change(
        lambda change: operations.open_(change.db, host, Kind.REBUILD, "a test", change.at)
    )
    assert set((await world.stations()).values()) == {"ahead"}


# --- the page ---


async def test_the_fragment_shows_what_the_api_says_and_escapes_it(store: Store) -> None:
    """Strict and escaped: whatever a machine managed to get into a message is text."""
    world = World(store)
    host = await world.host(Fact.REBUILD_STARTED)
    template = page.environment().get_template("trail.html")
    stamp = f"{now().isoformat(timespec='milliseconds')}"

    def draw() -> str:
        view = world.view(host)
        return template.render(trail=view, blank_station=BLANK_STATION, now=stamp)

    empty = draw()
    assert empty.count("data-hop=") == 11, "ten stations, and the blank one"
    world.hear(Hop.DISCOVER, message=EVIL, address=EVIL)
    world.recorder.record(MAC, source=("0.0.0.0", 68), target=("192.0.2.1", 67), payload=b"x")
    drawn = draw()
    assert EVIL not in drawn
    assert drawn.count("&lt;script&gt;") == 3, "the message twice, and the address"
    assert 'data-place="expected"' in drawn
    assert "left</span>" in drawn
    assert "style=" not in drawn


# --- captures ---


async def test_a_hosts_packets_are_a_capture_to_download(store: Store) -> None:
    """With the media type of pcap, a name that says whose it is, and the packets in it."""
    world = World(store)
    await world.host()
    world.recorder.record(MAC, source=("0.0.0.0", 68), target=("255.255.255.255", 67), payload=b"hello")
    response = await world.app.test_client().get("/api/hosts/1/packets.pcap")
    assert response.status_code == 200
    assert response.content_type == "application/vnd.tcpdump.pcap"
    disposition = response.headers["Content-Disposition"]
    assert disposition.startswith('attachment; filename="pve1-')
    assert disposition.endswith('Z.pcap"')
    capture = io.BytesIO(await response.get_data(as_text=False))
    with PcapReader(capture) as packets:  # type: ignore[arg-type]  # its hint forgets files
        assert [bytes(packet[UDP].payload) for packet in packets] == [b"hello"]


@pytest.mark.parametrize("written", [str(STRANGER), str(STRANGER).upper().replace(":", "-")])
async def test_a_strangers_packets_are_had_by_its_mac(store: Store, written: str) -> None:
    """However the MAC is written; the file's name has no colons, which Windows does not allow."""
    world = World(store)
    world.recorder.record(STRANGER, source=("0.0.0.0", 68), target=("192.0.2.1", 67), payload=b"x")
    response = await world.app.test_client().get(f"/api/sightings/{written}/packets.pcap")
    assert response.status_code == 200
    assert 'filename="52-54-00-00-00-99-' in response.headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/hosts/1/packets.pcap", 404),
        ("/api/hosts/2/packets.pcap", 404),
        ("/api/hosts/2/trail", 404),
        (f"/api/sightings/{STRANGER}/packets.pcap", 404),
        ("/api/sightings/nobody/packets.pcap", 422),
    ],
)
async def test_what_is_not_there_is_a_problem(store: Store, path: str, status: int) -> None:
    """No host, no packets, no MAC: a problem document that says which."""
    world = World(store)
    await world.host()
    response = await world.app.test_client().get(path)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")


def test_all_of_it_is_for_operators() -> None:
    """The gate's table has these paths in the operators' plane already."""
    for rule in (
        "/api/hosts/<id:host_id>/trail",
        "/api/hosts/<id:host_id>/packets.pcap",
        "/api/sightings/<mac>/packets.pcap",
        "/api/sightings/<mac>/ignore",
        "/api/hosts/<id:host_id>/wake",
    ):
        route = gate.class_of(rule)
        assert route is not None
        assert route.plane is Plane.OPERATOR


# --- waking ---


async def heard_by_a_sleeper(use: Callable[[Lan], Any]) -> list[bytes]:
    """What a card on the LAN gets while `use` happens, once for each of the two addresses."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sleeper:
        await sleeper.bind(("127.255.255.255", 0))
        port = sleeper.getsockname()[1]
        lan = Lan(address=IPv4Address("127.0.0.1"), broadcast=IPv4Address("127.255.255.255"), port=port)
        await use(lan)
        with trio.fail_after(5):
            return [await sleeper.recv(2048) for _ in range(TIMES)]


async def test_the_button_wakes_the_machine(store: Store) -> None:
    """The packet has the host's MAC in it, and who asked for it is in the activity."""

    async def press(lan: Lan) -> None:
        world = World(store, lan)
        await world.host()
        response = await world.app.test_client().post("/api/hosts/1/wake", json={})
        assert response.status_code == 202
        said = (await response.get_json())["message"]
        assert said == "sent a wake-up packet; if it stays off, power it on and choose network boot"
        assert world.messages() == [f"a test {said}"]

    assert await heard_by_a_sleeper(press) == [build_magic_packet(MAC)] * TIMES


async def test_a_rebuild_wakes_the_machine(store: Store) -> None:
    """Where the LAN is known."""

    async def rebuild(lan: Lan) -> None:
        world = World(store, lan)
        host = await world.host()
        await world.waker.rebuild_started(host.id)
        assert world.messages()[0].startswith("sent a wake-up packet")

    assert await heard_by_a_sleeper(rebuild) == [build_magic_packet(MAC)] * TIMES


async def test_without_a_lan_a_human_is_asked(store: Store) -> None:
    """The button is refused with the reason; a rebuild says what is to be done, and goes on."""
    world = World(store)
    host = await world.host()
    response = await world.app.test_client().post("/api/hosts/1/wake", json={})
    assert response.status_code == 409
    assert "pxe.enabled is false" in (await response.get_json())["detail"]
    await world.waker.rebuild_started(host.id)
    assert world.messages() == ["please power it on and choose network boot"]


async def test_a_packet_that_cannot_be_sent_ends_no_rebuild(store: Store) -> None:
    """A rebuild warns and goes on; the button is answered with the reason."""
    nowhere = Lan(address=IPv4Address("192.0.2.1"), broadcast=IPv4Address("192.0.2.255"))
    world = World(store, nowhere)
    host = await world.host()
    await world.waker.rebuild_started(host.id)
    [message] = world.messages()
    assert "could not be sent from 192.0.2.1" in message
    assert message.endswith("please power it on and choose network boot")
    assert (await world.app.test_client().post("/api/hosts/1/wake", json={})).status_code == 502


# --- downloads ---


@pytest.mark.parametrize(("rate", "eta"), [(0.0, None), (50_000_000.4, 18)])
def test_a_download_is_shown_with_its_rate_and_what_is_left(rate: float, eta: int | None) -> None:
    """Whole bytes per second and whole seconds; nothing is promised while nothing moves."""
    progress = Progress(
        host_id=HostId(1),
        operation_id=OperationId(2),
        name="proxmox.iso",
        address="192.0.2.9",
        sent=100_000_000,
        total=1_000_000_000,
        rate=rate,
        since=datetime(2026, 5, 1, tzinfo=UTC),
        complete=False,
    )
    assert progress_view(progress) == {
        "host_id": 1,
        "name": "proxmox.iso",
        "sent": 100_000_000,
        "total": 1_000_000_000,
        "rate": round(rate),
        "eta": eta,
    }
