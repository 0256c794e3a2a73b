"""The boot trail: how far each machine came, told as it happens, and said when the next hop is missing.

Packets come as fast as strangers like to send them, and history is written one transaction at a time.
So `heard` only takes note, in memory and within bounds, and one task writes. What is repeated is told
once; what there is too much of is counted, and that is said.

The trail itself is in memory alone: it answers "what is this machine doing", and a restart of the
daemon begins it anew. What was told is in the activity.
"""

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import trio
from attrs import Factory, define, evolve, frozen

from provd.domain.activity import Level, News
from provd.domain.contacts import Contact, Hop
from provd.domain.documents import one_line
from provd.domain.errors import StoreError
from provd.domain.hosts import Discovery, Host, HostId, Mac
from provd.domain.lifecycle import BOOTS, Boots
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import MESSAGE_LIMIT, Fleet
from provd.orchestrator.missing_hop import Expectation, Setting, expected_after
from provd.store import hosts, operations
from provd.store.database import now

log = logging.getLogger("provd.trail")

REPEATED_SECONDS = 60.0
"""The same again within this time is not told again, unless something else came between."""
NEW_BOOT_SECONDS = 300.0
"""Whoever is heard at a first hop again after a longer silence was switched on again."""

MACHINES = 512
CONTACTS = 64
"""Of each machine."""
WAITING = 256
"""Contacts that are not written down yet."""
HOST_LINES = 40
"""A minute. A boot has about ten: a host that restarts all the time is told, a flood in its name is not."""
STRANGER_LINES = 60
"""A minute, of all unregistered machines together: whoever makes up MACs must not write the history."""

BEGINNINGS = frozenset({Hop.DISCOVER, Hop.BOOT_SERVER, Hop.LOADER, Hop.IPXE, Hop.SCRIPT})
"""Where a boot can be heard first. What comes later repeats within one boot: iPXE tries again."""

TOLD_ELSEWHERE = frozenset({Hop.SCRIPT, Hop.ANSWER, Hop.REPORT, Hop.PHONE_HOME})
"""These move a host, and are told in the transaction that does (`orchestrator/boot.py`)."""

ORDER = {hop: place for place, hop in enumerate(Hop)}


@frozen(kw_only=True)
class Heard:
    contact: Contact
    at: datetime


@frozen(kw_only=True)
class Station:
    """A hop as it was passed in one boot."""

    message: str
    first: datetime
    last: datetime
    times: int = 1


@frozen(kw_only=True)
class Missing:
    """What should have come after a hop, and did not."""

    after: Hop
    next: tuple[Hop, ...]
    sentence: str
    at: datetime


@frozen(kw_only=True)
class Watch:
    """Something has to be heard of a machine before `due`, on Trio's clock."""

    after: Hop
    expectation: Expectation
    since: datetime
    due: float

    @property
    def due_at(self) -> datetime:
        return self.since + timedelta(seconds=self.expectation.seconds)


@define
class Boot:
    """From one switching-on to the next, as far as it was heard. `Hop` bounds its size."""

    stations: dict[Hop, Station] = Factory(dict)
    latest: Hop | None = None
    missing: dict[Hop, Missing] = Factory(dict)
    """By the hop after which nothing came: said once, and kept though something came later."""
    firmware: str = ""
    """By its own word, else by iPXE's, which does not know whether it was fetched by HTTP."""


@frozen(kw_only=True)
class PresentBoot:
    """A machine's boot as it stands now, for whoever looks."""

    stations: Mapping[Hop, Station]
    latest: Hop
    watch: Watch | None
    missing: Missing | None


@define
class Budget:
    """So many in a minute."""

    size: int
    since: float = -math.inf
    spent: int = 0

    def take(self, at: float) -> bool:
        if at - self.since >= 60.0:
            self.since, self.spent = at, 0
        self.spent += 1
        return self.spent <= self.size


@define
class Machine:
    registered: bool = False
    boot: Boot = Factory(Boot)
    contacts: deque[Heard] = Factory(lambda: deque(maxlen=CONTACTS))
    last: Heard | None = None
    address: str = ""
    heard_at: float = -math.inf
    told_at: float = -math.inf
    watch: Watch | None = None
    budget: Budget = Factory(lambda: Budget(HOST_LINES))

    def note(self, heard: Heard, at: float) -> bool:
        """Whether it is worth telling."""
        hop = heard.contact.hop
        if hop in BEGINNINGS and (at - self.heard_at > NEW_BOOT_SECONDS or self._lies_before_latest(hop)):
            self.boot, self.watch = Boot(), None
        same = self.boot.latest is hop and self.last is not None and self.last.contact == heard.contact
        told = same and at - self.told_at < REPEATED_SECONDS
        before = self.boot.stations.get(hop, Station(message="", first=heard.at, last=heard.at, times=0))
        self.boot.stations[hop] = evolve(
            before, message=heard.contact.message, last=heard.at, times=before.times + 1
        )
        self.boot.latest, self.last, self.heard_at = hop, heard, at
        self.address = heard.contact.address or self.address
        if heard.contact.firmware and (hop is not Hop.IPXE or not self.boot.firmware):
            self.boot.firmware = heard.contact.firmware
        if not told:
            self.told_at = at
            self.contacts.append(heard)
        return not told

    def _lies_before_latest(self, hop: Hop) -> bool:
        return self.boot.latest is not None and ORDER[hop] < ORDER[self.boot.latest]


class Trail:
    """`heard` from anywhere in the loop, `serve` in one task, the rest for whoever looks."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        public_url: str,
        installer_url: str,
        own_images: bool,
        pxe: bool = True,
        downloading: Callable[[HostId], bool] = lambda host_id: False,
    ) -> None:
        """`own_images`: provd itself serves kernel, initrd and ISO. `pxe`: it answers DHCP and TFTP.

        `downloading`: whether a host fetches one of those images at this moment.
        """
        self.road: tuple[Hop, ...] = (
            *((Hop.DISCOVER, Hop.LOADER, Hop.IPXE) if pxe else ()),
            Hop.SCRIPT,
            *((Hop.KERNEL, Hop.INITRD) if own_images else ()),
            Hop.ANSWER,
        )
        """What an installation passes on its way, as far as it can be heard and has to be."""
        self._fleet = fleet
        self._public_url = public_url
        self._installer_url = installer_url
        self._own_images = own_images
        self._downloading = downloading
        self._machines: OrderedDict[Mac, Machine] = OrderedDict()
        self._strangers = Budget(STRANGER_LINES)
        self._waiting: deque[Contact] = deque()
        self._work = Bell()
        self._lost_due = math.inf
        self._lost_told = 0
        self.lost = 0
        """Contacts that were not written down because there were too many."""

    def heard(self, contact: Contact) -> None:
        """Take note. Waits for nothing, and needs no more memory however often it is called."""
        contact = evolve(contact, message=one_line(contact.message, MESSAGE_LIMIT))
        at, heard = trio.current_time(), Heard(contact=contact, at=now())
        host = self._host_of(contact.mac)
        machine = self._machine(contact.mac, registered=host is not None)
        worth_telling = machine.note(heard, at)
        self._expect(machine, host, heard, at)
        if worth_telling and contact.hop not in TOLD_ELSEWHERE:
            budget = machine.budget if host is not None else self._strangers
            if budget.take(at) and len(self._waiting) < WAITING:
                self._waiting.append(contact)
            else:
                self.lost += 1
                self._lost_due = min(self._lost_due, at + 60.0)
        self._work.ring()

    async def serve(self) -> None:
        """Write down what was heard and what is missing. Runs until it is cancelled."""
        while True:
            ring = self._work.next()
            due, late = min(
                ((machine.watch.due, mac) for mac, machine in self._machines.items() if machine.watch),
                default=(math.inf, None),
            )
            if self._waiting:
                await self._tell(self._waiting.popleft())
            elif late is not None and due <= trio.current_time():
                await self._miss(late)
            elif self._lost_due <= trio.current_time():
                await self._tell_lost()
            else:
                with trio.move_on_at(min(due, self._lost_due)):
                    await ring.wait()

    # --- for whoever looks ---

    def trail_of(self, mac: Mac) -> list[Heard]:
        """What was told of a machine, registered or not, the oldest first."""
        machine = self._machines.get(mac)
        return list(machine.contacts) if machine else []

    def last_of(self, mac: Mac) -> Heard | None:
        """Its last contact, told or not."""
        machine = self._machines.get(mac)
        return machine.last if machine else None

    def boot_of(self, mac: Mac) -> PresentBoot | None:
        machine = self._machines.get(mac)
        if machine is None or machine.boot.latest is None:
            return None
        return PresentBoot(
            stations=dict(machine.boot.stations),
            latest=machine.boot.latest,
            watch=machine.watch,
            missing=machine.boot.missing.get(machine.boot.latest),
        )

    # --- taking note ---

    def _host_of(self, mac: Mac) -> Host | None:
        found = self._fleet.store.read(lambda db: hosts.find_by_mac(db, [mac]))
        return found[0] if found else None

    def _machine(self, mac: Mac, *, registered: bool) -> Machine:
        """Known or new. Those silent longest are forgotten, strangers before hosts."""
        machine = self._machines.setdefault(mac, Machine())
        machine.registered = registered
        self._machines.move_to_end(mac)
        if len(self._machines) > MACHINES:
            oldest = next(iter(self._machines))
            del self._machines[next((m for m, one in self._machines.items() if not one.registered), oldest)]
        return machine

    def _expect(self, machine: Machine, host: Host | None, heard: Heard, at: float) -> None:
        """Watch for what must follow, when the host is being installed."""
        before, machine.watch = machine.watch, None
        hop = heard.contact.hop
        if host is None or not self._is_offered_installer(host) or hop in machine.boot.missing:
            return
        expectation = expected_after(hop, self._setting(host))
        if expectation is None:
            return
        if before is not None and before.after is hop and expectation.from_first:
            machine.watch = before
        else:
            machine.watch = Watch(
                after=hop, expectation=expectation, since=heard.at, due=at + expectation.seconds
            )

    def _is_offered_installer(self, host: Host) -> bool:
        return (
            BOOTS[host.state] is Boots.INSTALLER
            and self._fleet.store.read(lambda db: operations.active_on(db, host.id)) is not None
        )

    def _setting(self, host: Host) -> Setting:
        return Setting(
            public_url=self._public_url,
            installer_url=self._installer_url,
            own_images=self._own_images,
            discovery=host.options.discovery or Discovery.OFFER,
            loader=host.options.loader,
            memory_mib=host.memory_mib,
        )

    # --- writing down ---

    async def _tell(self, contact: Contact) -> None:
        host = self._host_of(contact.mac)
        if host is not None:
            await self._write(News(event=f"boot.{contact.hop}", message=contact.message, host_id=host.id))
            return
        machine = self._machines.get(contact.mac, Machine())
        try:
            await self._fleet.sighted(
                contact.mac,
                machine.address or "an unknown address",
                contact.message,
                machine.boot.firmware or contact.firmware,
            )
        except StoreError as exc:
            log.warning("an unknown machine could not be written down: %s", exc)

    async def _miss(self, mac: Mac) -> None:
        """Nothing came in time: say so, unless nobody waits any more or a file is on its way."""
        machine = self._machines[mac]
        watch, machine.watch = machine.watch, None
        host = self._host_of(mac)
        if watch is None or host is None or not self._is_offered_installer(host):
            return
        if self._downloading(host.id):
            machine.watch = evolve(watch, due=trio.current_time() + watch.expectation.seconds, since=now())
            return
        sentence = watch.expectation.sentence
        machine.boot.missing[watch.after] = Missing(
            after=watch.after, next=watch.expectation.next, sentence=sentence, at=now()
        )
        await self._write(
            News(event="boot.missing_hop", message=sentence, level=Level.WARNING, host_id=host.id)
        )

    async def _tell_lost(self) -> None:
        count, self._lost_told, self._lost_due = self.lost - self._lost_told, self.lost, math.inf
        await self._write(
            News(
                event="boot.flood",
                message=f"{count} contacts of booting machines within a minute were not written down: "
                "somebody on the LAN sends more than machines do",
                level=Level.WARNING,
            )
        )

    async def _write(self, news: News) -> None:
        """What cannot be written, to a full disk say, does not stop the boot servers."""
        try:
            await self._fleet.note(news)
        except StoreError as exc:
            log.warning("this could not be written down (%s): %s", exc, news.message)
