"""What a machine is answered when it asks by DHCP who boots it: decided here, packet by packet.

A proxy names the boot file and leaves addresses to the LAN's own DHCP server (PXE 2.1 §2.2). Nothing here
waits, sends, or has a clock. What is on disk, what URLs look like, and what a machine is to boot are
asked of others.

Nobody who is not a PXE client gets a word, and a machine that is left alone is told nothing either:
there is no refusal in this protocol, only silence.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address

from attrs import define, evolve, field, frozen

from provd.config import Unknown
from provd.domain.architectures import FIRMWARES, Firmware, Via, firmware_of
from provd.domain.contacts import Contact, Hop
from provd.domain.hosts import Discovery, Mac
from provd.domain.lifecycle import Boots
from provd.netboot.desk import Policy
from provd.netboot.dhcp_packet import NOBODY, MessageType, Reply, Request

BROADCAST_FLAG = 0x8000
BROADCAST = "255.255.255.255"


class Door(Enum):
    """The two ports of a proxy, by what is asked there."""

    DHCP = 67
    BOOT_SERVER = 4011


ANSWERED: Mapping[tuple[Door, int], MessageType] = {
    (Door.DHCP, MessageType.DISCOVER): MessageType.OFFER,
    (Door.BOOT_SERVER, MessageType.REQUEST): MessageType.ACK,
}
"""All else belongs to the LAN's DHCP server: a second ACK from us would disturb what it has begun."""

VENDOR_CLASSES: Mapping[bytes, Via] = {b"PXEClient": Via.TFTP, b"HTTPClient": Via.HTTP}
"""How option 60 begins. The reply says the same word, or EDK2 throws it away."""

HOPS: Mapping[Door, Hop] = {Door.DHCP: Hop.DISCOVER, Door.BOOT_SERVER: Hop.BOOT_SERVER}
QUESTIONS: Mapping[Door, str] = {Door.DHCP: "a boot server", Door.BOOT_SERVER: "its boot file"}

NO_DISCOVERY = bytes([6, 1, 8, 255])
"""Option 43: discovery control 8, the boot file is the one named here (PXE 2.1 §2.1). With it EDK2 does not
ask on port 4011, and a Supermicro X11SSE-F does not fail with PXE-E18."""
FIRST_PRIORITY = bytes([1, 1, 1])
"""Option 175 for iPXE: before what the LAN's DHCP server may name (iPXE, DHCP_EB_PRIORITY)."""

HTTP, BZIMAGE, EFI = 0x13, 0x18, 0x24
"""Numbers of iPXE's features (iPXE, features.h). Its version, 0xeb, is not to be believed: Debian 13's
build of 1.21.1 says 1.0.0 there, and a rule that went by it would chain for ever."""

RASPBERRY_PI = frozenset({"28:cd:c1", "2c:cf:67", "b8:27:eb", "d8:3a:dd", "dc:a6:32", "e4:5f:01"})
"""How its MACs begin. Its boot ROM calls itself a BIOS PC."""
PC_BIOS = FIRMWARES[0]


@frozen(kw_only=True)
class Arrival:
    door: Door
    local: IPv4Address
    """Our address for this client: it is what the client is told to ask."""
    peer: tuple[str, int]


@frozen(kw_only=True)
class Ports:
    dhcp: int = 67
    boot_server: int = 4011
    client: int = 68


@frozen(kw_only=True)
class Directions:
    """What there is to give, and where."""

    loader_for: Callable[[Firmware, str | None], str | None]
    """The file name of an iPXE build for a firmware, the wanted one if it is named; None: there is none."""
    loader_url: Callable[[IPv4Address, str], str]
    """The URL of such a file, on our address."""
    script_url: Callable[[IPv4Address, Mac], str]
    """The URL of a machine's iPXE script, on our address."""


@frozen(kw_only=True)
class Answer:
    reply: Reply
    target: tuple[str, int]
    contact: Contact
    loads: bool
    """It names an iPXE build: what the loop guard counts. False: it names a script."""


@frozen(kw_only=True)
class Silence:
    reason: str
    """For the log, as the end of "left alone: ..."."""
    contact: Contact | None = None
    """What the operator is told: where a machine asked for what provd is there to give."""
    warning: bool = False
    """Somebody must do something about it."""


@frozen(kw_only=True)
class Speaker:
    """What kind of client a PXE client is."""

    via: Via
    firmware: Firmware | None
    """None: one for which there is no iPXE build."""
    ipxe: bool
    pi_or_pc: bool
    """It says BIOS, which is true of one of the two."""
    name: str
    """How the operator's sentences begin."""


@frozen(kw_only=True)
class Asking:
    """A request that deserves thought: a PXE client's, of a kind that is answered."""

    request: Request
    arrival: Arrival
    answered_with: MessageType
    speaker: Speaker

    @property
    def is_pi(self) -> bool:
        return self.speaker.pi_or_pc and str(self.request.mac)[:8] in RASPBERRY_PI

    def contact(self, outcome: str) -> Contact:
        ipxe, door, ciaddr = self.speaker.ipxe, self.arrival.door, self.request.ciaddr
        question = "its script" if ipxe else QUESTIONS[door]
        return Contact(
            mac=self.request.mac,
            hop=Hop.IPXE if ipxe else HOPS[door],
            message=f"{self.speaker.name} asked for {question} and {outcome}",
            address="" if ciaddr == NOBODY else str(ciaddr),
            firmware="" if self.is_pi else str(self.speaker.firmware or ""),
        )

    def silence(self, reason: str, *, warning: bool = False) -> Silence:
        return Silence(reason=reason, contact=self.contact(f"got no answer: {reason}"), warning=warning)


def decide(
    request: Request,
    arrival: Arrival,
    *,
    policy_of: Callable[[Mac], Policy],
    directions: Directions,
    unknown: Unknown,
    ports: Ports,
) -> Answer | Silence:
    """What to do about one packet. `policy_of` is asked for PXE clients only."""
    speaker = speaker_of(request)
    if speaker is None:
        return Silence(reason="it is no PXE client")
    answered_with = ANSWERED.get((arrival.door, request.message_type))
    if answered_with is None:
        return Silence(reason="it asks a server that hands out addresses")
    if arrival.door is Door.BOOT_SERVER and request.server_id not in (None, arrival.local):
        return Silence(reason=f"it asks {request.server_id}")
    if not request.architectures:
        return Silence(reason="it does not say what firmware it is (option 93)")
    asking = Asking(request=request, arrival=arrival, answered_with=answered_with, speaker=speaker)
    policy = policy_of(request.mac)
    if reason := left_alone(policy, unknown):
        return asking.silence(reason)
    if speaker.ipxe:
        url = directions.script_url(arrival.local, request.mac)
        return _answer(asking, policy, ports, file=url, outcome=f"was sent to {url}", loads=False)
    if speaker.firmware is None:
        return asking.silence("there is no iPXE for it")
    if asking.is_pi:
        return asking.silence("it is a Raspberry Pi, for which there is no iPXE")
    loader = directions.loader_for(speaker.firmware, policy.loader)
    if loader is None:
        wanted = policy.loader or f"an iPXE build for {speaker.firmware}"
        return asking.silence(f"{wanted} is not in pxe.loader_dir", warning=True)
    file = directions.loader_url(arrival.local, loader) if speaker.via is Via.HTTP else loader
    outcome = f"got {loader} by {speaker.via.upper()}"
    return _answer(asking, policy, ports, file=file, outcome=outcome, loads=True)


def left_alone(policy: Policy, unknown: Unknown) -> str:
    """Why a machine gets no answer whatever it asks; nothing where it gets one."""
    if policy.boots is None:
        return "" if unknown is Unknown.MENU else "nobody registered it"
    if policy.boots is Boots.NOTHING:
        return "there is nothing for it to boot"
    if policy.discovery is Discovery.OFF:
        return "its discovery is off"
    return ""


def speaker_of(request: Request) -> Speaker | None:
    """Who asks, as far as the packet tells; None: no PXE client."""
    return _speaker(request.vendor_class, request.architectures, request.user_classes, request.ipxe_features)


@lru_cache(maxsize=256)
def _speaker(
    vendor_class: bytes,
    architectures: tuple[int, ...],
    user_classes: tuple[bytes, ...],
    features: frozenset[int],
) -> Speaker | None:
    """Kept, for a room of machines is of few kinds.

    iPXE tells itself by its name, or by its features: the iPXE in VirtualBox and in some network cards'
    ROMs has no name and lacks what our scripts ask of it, and is given a whole one first.
    """
    via = next((via for word, via in VENDOR_CLASSES.items() if vendor_class.startswith(word)), None)
    if via is None:
        return None
    known = firmware_of(architectures)
    # The number says what it is; how it reads its boot file, it says in option 60.
    firmware = known and Firmware(known.architecture, via)
    name = str(firmware or f"firmware of type {', '.join(map(str, architectures[:4]))}")
    ipxe = b"iPXE" in user_classes or (HTTP in features and (BZIMAGE in features or EFI in features))
    return Speaker(
        via=via,
        firmware=firmware,
        ipxe=ipxe,
        pi_or_pc=known is PC_BIOS,
        name=f"iPXE on {name}" if ipxe else name,
    )


def _answer(asking: Asking, policy: Policy, ports: Ports, *, file: str, outcome: str, loads: bool) -> Answer:
    request, arrival = asking.request, asking.arrival
    offer = arrival.door is Door.DHCP
    # iPXE takes nothing but PXEClient for a proxy's offer, whatever it said itself (iPXE, dhcp.c).
    ipxe = asking.speaker.ipxe
    http = asking.speaker.via is Via.HTTP and not ipxe
    straight = offer and not http and policy.discovery is Discovery.OFFER
    reply = Reply(
        message_type=asking.answered_with,
        xid=request.xid,
        # Without an address of its own to send to, every proxy's offer is a broadcast.
        flags=request.flags | BROADCAST_FLAG if offer else request.flags,
        ciaddr=NOBODY if offer else request.ciaddr,
        giaddr=request.giaddr,
        chaddr=request.chaddr,
        server=arrival.local,
        file=file.encode(),
        vendor_class=b"HTTPClient" if http else b"PXEClient",
        vendor_options=NO_DISCOVERY if straight else b"",
        ipxe_options=FIRST_PRIORITY if ipxe else b"",
        machine_id=request.machine_id,
        relay_agent=request.relay_agent,
        max_size=request.max_size,
    )
    return Answer(
        reply=reply, target=_target(request, arrival, ports), contact=asking.contact(outcome), loads=loads
    )


def _target(request: Request, arrival: Arrival, ports: Ports) -> tuple[str, int]:
    """RFC 2131 §4.1, without the cases that a proxy never has."""
    if arrival.door is Door.BOOT_SERVER:
        return arrival.peer
    if request.giaddr != NOBODY:
        return str(request.giaddr), ports.dhcp
    return BROADCAST, ports.client


@define(kw_only=True)
class LoopGuard:
    """Ends the round of a machine that loads iPXE, is not known as iPXE, and is given iPXE again.

    It goes by numbers alone: no build's features are to be relied on. A repeated packet is not a new
    round, so a client that nobody hears may go on asking.
    """

    rounds: int = 3
    window: float = 60.0
    """Seconds in which a machine may be given a loader `rounds` times."""
    capacity: int = 4096
    """Machines remembered; the one that began longest ago is forgotten first."""
    _given: dict[Mac, list[tuple[float, int]]] = field(factory=dict, init=False)

    def admits(self, mac: Mac, xid: int, now: float) -> bool:
        """Whether `mac` may be given a loader in the transaction `xid`, and count it. `now` is in seconds."""
        given = [(when, known) for when, known in self._given.get(mac, ()) if now - when < self.window]
        if any(known == xid for _, known in given):
            return True
        if len(given) >= self.rounds:
            return False
        if mac not in self._given and len(self._given) >= self.capacity:
            del self._given[next(iter(self._given))]
        self._given[mac] = [*given, (now, xid)]
        return True


def looping(answer: Answer) -> Silence:
    """What becomes of an answer that the loop guard does not admit."""
    reason = "it was given iPXE three times within a minute and is back without having asked for a script"
    message = f"{answer.contact.message.partition(' and got ')[0]} and got no answer: {reason}"
    return Silence(reason=reason, contact=evolve(answer.contact, message=message), warning=True)
