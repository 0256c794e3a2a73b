"""The boot trail: told once, missed once, bounded whatever comes; on a real database and Trio's clock."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define, field

from provd.domain.activity import Activity, Level, News
from provd.domain.contacts import Contact, Hop
from provd.domain.errors import StoreError
from provd.domain.hosts import Host, HostId, HostOptions, Mac
from provd.domain.lifecycle import Fact
from provd.domain.operations import Kind, Outcome
from provd.orchestrator import trail as trails
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.trail import Trail
from provd.store import activity, hosts, operations
from provd.store.database import Store, now, open_store

MAC, STRANGER = Mac("52:54:00:00:00:01"), Mac("52:54:00:00:00:99")


@define
class Ground:
    """A fleet with one host, its trail being served."""

    store: Store
    fleet: Fleet
    trail: Trail
    host: Host
    downloading: set[HostId] = field(factory=set)

    def hear(
        self, *hops: Hop, mac: Mac = MAC, message: str = "", address: str = "", firmware: str = ""
    ) -> None:
        for hop in hops:
            said = message or f"was at {hop}"
            self.trail.heard(Contact(mac=mac, hop=hop, message=said, address=address, firmware=firmware))

    async def written(self) -> None:
        """Until the trail has nothing to do; worker threads included."""
        while True:
            await trio.testing.wait_all_tasks_blocked(0.001)
            if not self.trail._waiting and not self.store._turn.borrowed_tokens:
                return
            async with self.store._turn:  # behind whoever writes now; a write that fails rings no bell
                pass

    def lines(self, event: str = "boot.") -> list[Activity]:
        lines = self.store.read(lambda db: activity.after(db, 0, 10_000))
        return [line for line in lines if line.event.startswith(event)]

    def told(self) -> list[str]:
        return [line.event.removeprefix("boot.") for line in self.lines()]

    async def arm(self, *facts: Fact) -> None:
        """A rebuild that nobody carries out."""

        def begin(change: Change) -> None:
            operations.open_(change.db, self.host, Kind.REBUILD, "a test", change.at)
            for fact in (Fact.REBUILD_STARTED, *facts):
                change.fact(self.host.id, fact, "a test")

        await self.fleet.change(begin)

    async def end(self) -> None:
        def close(change: Change) -> None:
            operation = operations.active_on(change.db, self.host.id)
            assert operation is not None
            change.fact(self.host.id, Fact.BROKEN_OFF, "a test")
            operations.close(change.db, operation.id, Outcome.CANCELLED, "", change.at)

        await self.fleet.change(close)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "provd.db") as store:
        yield store


@pytest.fixture
async def ground(store: Store, nursery: trio.Nursery) -> Ground:
    fleet = Fleet(store, Bell())
    host = await store.write(lambda db: hosts.register(db, "pve1", MAC, "nuc", HostOptions(), now()))
    downloading: set[HostId] = set()
    trail = Trail(
        fleet,
        public_url="http://provd:8080",
        installer_url="http://provd:8081/images",
        own_images=True,
        downloading=downloading.__contains__,
    )
    nursery.start_soon(trail.serve)
    return Ground(store, fleet, trail, host, downloading)


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Stands still unless a test moves it: the store's threads need real time."""
    return trio.testing.MockClock()


pytestmark = pytest.mark.usefixtures("clock")


# --- told once ---


async def test_each_hop_is_one_line_of_its_host(ground: Ground) -> None:
    """In order, with the sentence of whoever heard it; a rebuild's lines belong to the operation."""
    await ground.arm()
    ground.hear(Hop.DISCOVER, Hop.BOOT_SERVER, Hop.LOADER, Hop.IPXE, message="asked for something")
    await ground.written()
    assert ground.told() == ["discover", "boot_server", "loader", "ipxe"]
    [operation] = ground.store.read(operations.active)
    assert {(line.host_id, line.operation_id, line.message) for line in ground.lines()} == {
        (ground.host.id, operation.id, "asked for something")
    }


async def test_what_is_repeated_is_told_once_a_minute(ground: Ground, clock: trio.testing.MockClock) -> None:
    """Firmware asks four times; that is one line, and one more when it goes on after a minute."""
    for _ in range(4):
        ground.hear(Hop.DISCOVER)
        clock.jump(14)
    await ground.written()
    assert ground.told() == ["discover"]
    clock.jump(10)
    ground.hear(Hop.DISCOVER)
    await ground.written()
    assert ground.told() == ["discover", "discover"]
    boot = ground.trail.boot_of(MAC)
    assert boot is not None
    assert boot.stations[Hop.DISCOVER].times == 5


async def test_what_is_repeated_after_something_else_is_told_again(ground: Ground) -> None:
    """A second boot within a minute is no repetition."""
    ground.hear(Hop.DISCOVER, Hop.LOADER, Hop.DISCOVER)
    await ground.written()
    assert ground.told() == ["discover", "loader", "discover"]


async def test_the_same_hop_with_other_news_is_told(ground: Ground) -> None:
    """A download that broke off stands where it stood, and that is no repetition."""
    ground.hear(Hop.KERNEL, message="read the kernel")
    ground.hear(Hop.KERNEL, Hop.KERNEL, message="the connection was lost after 37 % of proxmox.iso")
    await ground.written()
    assert ground.told() == ["kernel", "kernel"]


async def test_what_moves_a_host_is_told_where_it_does(ground: Ground) -> None:
    """The trail knows of the script and the answer, and leaves the line to the state's own."""
    ground.hear(Hop.SCRIPT, Hop.KERNEL, Hop.ANSWER)
    await ground.written()
    assert ground.told() == ["kernel"]
    boot = ground.trail.boot_of(MAC)
    assert boot is not None
    assert list(boot.stations) == [Hop.SCRIPT, Hop.KERNEL, Hop.ANSWER]


async def test_a_stranger_is_a_sighting_by_its_last_hop(ground: Ground) -> None:
    """It is told as a new face once, with what it did last and the address it had last."""
    ground.hear(Hop.DISCOVER, mac=STRANGER)
    await ground.written()
    ground.hear(Hop.LOADER, mac=STRANGER, message="read snponly.efi\nand more", address="192.0.2.7")
    ground.hear(Hop.IPXE, mac=STRANGER)
    await ground.written()
    [seen] = ground.store.read(hosts.sightings)
    assert (seen.mac, seen.address, seen.via, seen.times) == (STRANGER, "192.0.2.7", "was at ipxe", 3)
    assert len(ground.lines("machine.sighted")) == 1
    assert ground.trail.trail_of(STRANGER)[1].contact.message == r"read snponly.efi\nand more"
    assert [one.contact.hop for one in ground.trail.trail_of(STRANGER)] == [
        Hop.DISCOVER,
        Hop.LOADER,
        Hop.IPXE,
    ]


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ([(Hop.DISCOVER, "BIOS"), (Hop.LOADER, "")], "BIOS"),
        ([(Hop.DISCOVER, "UEFI x64 by HTTP"), (Hop.IPXE, "UEFI x64"), (Hop.IPXE, "")], "UEFI x64 by HTTP"),
        ([(Hop.IPXE, "BIOS")], "BIOS"),
        ([(Hop.DISCOVER, "BIOS"), (Hop.IPXE, "BIOS"), (Hop.DISCOVER, "UEFI x64")], "UEFI x64"),
        ([(Hop.DISCOVER, ""), (Hop.IPXE, "")], ""),
    ],
)
async def test_a_stranger_is_listed_by_its_firmwares_own_word(
    ground: Ground, said: list[tuple[Hop, str]], known: str
) -> None:
    """Until its next boot; iPXE is believed where nothing else was heard, as of one in a card's ROM."""
    for hop, firmware in said:
        ground.hear(hop, mac=STRANGER, firmware=firmware)
        await ground.written()
    [seen] = ground.store.read(hosts.sightings)
    assert seen.firmware == known


async def test_a_host_that_was_removed_is_a_stranger(ground: Ground) -> None:
    """It may go between hearing and writing, and nothing breaks; from then on it is a sighting."""
    ground.hear(Hop.DISCOVER)
    await ground.store.write(lambda db: hosts.remove(db, ground.host.id))
    ground.hear(Hop.LOADER)
    await ground.written()
    [seen] = ground.store.read(hosts.sightings)
    assert seen.mac == MAC


async def test_what_cannot_be_written_stops_nothing(ground: Ground) -> None:
    """On a full disk the boot servers go on; what comes after it is told again."""
    # No more pages than there are, and the free space inside them used up.
    await ground.store.write(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())
    for size in (400, 40, 4):
        with suppress(StoreError):
            while True:
                await ground.fleet.note(News(event="filler", message="x" * size))
    ground.hear(Hop.DISCOVER, message="x" * 400)
    ground.hear(Hop.DISCOVER, mac=STRANGER, message="x" * 190)
    await ground.written()
    await ground.store.write(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
    ground.hear(Hop.LOADER)
    await ground.written()
    assert ground.told() == ["loader"]


# --- bounded ---


async def test_made_up_macs_cost_bounded_memory_and_history(
    ground: Ground, clock: trio.testing.MockClock
) -> None:
    """Of ten thousand strangers sixty are written down; the rest is counted, and said in one line."""
    ground.hear(Hop.DISCOVER)
    count = 10_000
    for number in range(count):
        ground.hear(Hop.DISCOVER, mac=Mac(f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"))
    assert len(ground.trail._machines) == trails.MACHINES
    assert len(ground.trail._waiting) <= trails.WAITING
    assert ground.trail.trail_of(MAC), "a registered host is not forgotten for strangers"
    await ground.written()
    assert len(ground.store.read(hosts.sightings)) == trails.STRANGER_LINES
    assert ground.trail.lost == count - trails.STRANGER_LINES
    clock.jump(61)
    await ground.written()
    [line] = ground.lines("boot.flood")
    assert line.message.startswith(f"{count - trails.STRANGER_LINES} contacts")


async def test_a_flood_in_a_hosts_name_is_cut_and_does_not_silence_others(ground: Ground) -> None:
    """Two hops in turns are news each time: so many lines a minute, and another host has its own."""
    other = Mac("52:54:00:00:00:02")
    await ground.store.write(lambda db: hosts.register(db, "pve2", other, "nuc", HostOptions(), now()))
    for _ in range(500):
        ground.hear(Hop.DISCOVER, Hop.LOADER)
    ground.hear(Hop.DISCOVER, mac=other)
    await ground.written()
    assert len([line for line in ground.lines() if line.hostname == "pve1"]) == trails.HOST_LINES
    assert len([line for line in ground.lines() if line.hostname == "pve2"]) == 1
    assert ground.trail.lost == 1000 - trails.HOST_LINES
    assert len(ground.trail.trail_of(MAC)) == trails.CONTACTS


# --- missed once ---

ROAD = [Hop.DISCOVER, Hop.BOOT_SERVER, Hop.LOADER, Hop.IPXE, Hop.SCRIPT, Hop.KERNEL, Hop.INITRD]


@pytest.mark.parametrize("hop", ROAD)
async def test_silence_after_a_hop_is_said_once(
    ground: Ground, clock: trio.testing.MockClock, hop: Hop
) -> None:
    """After its time, not before; as a warning of the operation; and never again in this boot."""
    await ground.arm()
    ground.hear(*ROAD[: ROAD.index(hop) + 1])
    await ground.written()
    boot = ground.trail.boot_of(MAC)
    assert boot is not None
    assert boot.watch is not None
    seconds = boot.watch.expectation.seconds
    clock.jump(seconds - 1)
    await ground.written()
    assert ground.lines("boot.missing_hop") == []
    clock.jump(2)
    await ground.written()
    [line] = ground.lines("boot.missing_hop")
    assert (line.level, line.host_id, line.operation_id is not None) == (Level.WARNING, ground.host.id, True)
    assert line.message == boot.watch.expectation.sentence
    boot = ground.trail.boot_of(MAC)
    assert boot is not None
    assert boot.missing is not None
    assert (boot.missing.after, boot.watch) == (hop, None)
    for _ in range(3):
        ground.hear(hop)
        clock.jump(250)
        await ground.written()
    assert len(ground.lines("boot.missing_hop")) == 1


async def test_the_next_hop_in_time_is_no_silence(ground: Ground, clock: trio.testing.MockClock) -> None:
    """A boot whose hops come one second before their time is never complained of."""
    await ground.arm()
    for hop in ROAD:
        ground.hear(hop)
        await ground.written()
        boot = ground.trail.boot_of(MAC)
        assert boot is not None
        assert boot.watch is not None
        clock.jump(boot.watch.expectation.seconds - 1)
        await ground.written()
    ground.hear(Hop.ANSWER)
    clock.jump(10_000)
    await ground.written()
    assert ground.lines("boot.missing_hop") == []


async def test_asking_again_is_no_excuse(ground: Ground, clock: trio.testing.MockClock) -> None:
    """A firmware that repeats its question all the time is stuck since it asked first."""
    await ground.arm()
    for _ in range(4):
        ground.hear(Hop.DISCOVER)
        await ground.written()
        clock.jump(8)
    await ground.written()
    assert len(ground.lines("boot.missing_hop")) == 1


async def test_the_next_boot_is_watched_anew(ground: Ground, clock: trio.testing.MockClock) -> None:
    """Stuck at the same place after a restart: said again; heard beyond it: not shown as missing."""
    await ground.arm()
    for _ in range(2):
        ground.hear(Hop.DISCOVER, Hop.LOADER)
        await ground.written()
        clock.jump(61)
        await ground.written()
    assert len(ground.lines("boot.missing_hop")) == 2
    ground.hear(Hop.IPXE)
    boot = ground.trail.boot_of(MAC)
    assert boot is not None
    assert (boot.missing, boot.latest) == (None, Hop.IPXE)


async def test_whoever_is_not_to_be_installed_is_not_watched(
    ground: Ground, clock: trio.testing.MockClock
) -> None:
    """A host at rest, one with its answer, a stranger: their silence means nothing here."""
    ground.hear(Hop.DISCOVER)
    ground.hear(Hop.DISCOVER, mac=STRANGER)
    await ground.written()
    clock.jump(1000)
    await ground.arm(Fact.SCRIPT_FETCHED, Fact.ANSWER_SENT)
    ground.hear(Hop.DISCOVER)
    await ground.written()
    clock.jump(1000)
    await ground.written()
    assert ground.lines("boot.missing_hop") == []


async def test_a_cancelled_rebuild_misses_nothing(ground: Ground, clock: trio.testing.MockClock) -> None:
    """Its operation ended while the next hop was being waited for."""
    await ground.arm()
    ground.hear(Hop.LOADER)
    await ground.written()
    await ground.end()
    clock.jump(1000)
    await ground.written()
    assert ground.lines("boot.missing_hop") == []


async def test_a_running_download_is_waited_for(ground: Ground, clock: trio.testing.MockClock) -> None:
    """A slow link is no silence; a download that broke off is."""
    await ground.arm(Fact.SCRIPT_FETCHED)
    ground.downloading.add(ground.host.id)
    ground.hear(Hop.KERNEL)
    await ground.written()
    for _ in range(5):
        clock.jump(121)
        await ground.written()
    assert ground.lines("boot.missing_hop") == []
    ground.downloading.clear()
    clock.jump(121)
    await ground.written()
    assert len(ground.lines("boot.missing_hop")) == 1
