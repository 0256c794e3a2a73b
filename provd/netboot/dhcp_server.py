"""The proxy-DHCP server: reads, has it decided, answers, and tells who was there.

One packet after the other, at once: a firmware waits two to four seconds for a proxy and then goes without.
Behind each packet stands a checkpoint, so a room of machines that powers on together does not hold up the
rest of the daemon. What comes faster than that waits in the kernel's queue, which is bounded; what finds it
full is lost, and asked again by its sender.
"""

import logging
import socket
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network

import trio
from attrs import define, field, frozen

from provd.config import Unknown
from provd.domain.errors import BadPacket
from provd.netboot import interfaces
from provd.netboot.desk import Desk
from provd.netboot.dhcp_packet import NOBODY, MessageType, Request, build, parse
from provd.netboot.dhcp_sockets import Line, Sharing, open_boot_server, open_dhcp
from provd.netboot.neighbours import Neighbours
from provd.netboot.proxy_dhcp import (
    Answer,
    Arrival,
    Directions,
    Door,
    LoopGuard,
    Ports,
    Silence,
    decide,
    looping,
    speaker_of,
)
from provd.netboot.recording import Recorder
from provd.netboot.udp import Datagram

log = logging.getLogger(__name__)

LARGEST_DATAGRAM = 2048
"""Bytes that are read of one: more than a client may send."""
AT_A_TIME = 8
"""Packets between two checkpoints, together well below a millisecond: each checkpoint costs as much as a
quarter of an answer."""
WARN_EVERY = 1.0
"""Seconds. Strangers can cause warnings, and shall not fill the journal with them."""


@frozen(kw_only=True)
class Post:
    """Where provd stands on the network."""

    interface: str
    index: int
    address: IPv4Address
    """It is named to clients on this LAN, also where the interface has more than this one."""


@frozen(kw_only=True)
class Outgoing:
    data: bytes
    source: IPv4Address
    target: tuple[str, int]
    ifindex: int


@define(kw_only=True)
class Responder:
    """From one datagram to the next; without a socket."""

    desk: Desk
    post: Post
    directions: Directions
    unknown: Unknown
    neighbours: Neighbours
    recorder: Recorder
    ports: Ports
    clock: Callable[[], float]
    """Seconds, and never backwards."""
    guard: LoopGuard = field(factory=LoopGuard)
    _quiet_until: float = -1.0

    def respond(self, datagram: Datagram, door: Door, send: Callable[[Outgoing], None]) -> None:
        """Send what there is to say, if anything; then take note of it all, which no firmware waits for."""
        try:
            request = parse(datagram.data)
            if not datagram.whole:
                raise BadPacket("a DHCP packet that was cut off")
        except BadPacket as exc:
            log.debug("%s sent what is no DHCP request: %s", datagram.peer[0], exc)
            return
        arrival = Arrival(door=door, local=self._local(datagram), peer=datagram.peer)
        decision = self._decide(request, arrival)
        answer: Outgoing | None = None
        if isinstance(decision, Answer):
            try:
                data = build(decision.reply)
            except BadPacket as exc:
                decision = Silence(reason=str(exc), warning=True)
            else:
                answer = Outgoing(
                    data=data, source=arrival.local, target=decision.target, ifindex=datagram.ifindex
                )
                send(answer)
        self._remember(request)
        self._record(request, datagram, answer, door)
        if decision.contact is not None:
            self.desk.heard(decision.contact)
        if isinstance(decision, Silence):
            log.debug("%s is left alone: %s", request.mac, decision.reason)
            if decision.warning:
                self.warn(f"{request.mac} is left alone: {decision.reason}")

    def warn(self, message: str) -> None:
        """Log a warning, unless there was one a moment ago."""
        if self.clock() >= self._quiet_until:
            self._quiet_until = self.clock() + WARN_EVERY
            log.warning("%s", message)

    def is_ours(self, ifindex: int) -> bool:
        """Whether a datagram came in by our interface, which may have been made anew under its name."""
        if ifindex == self.post.index:
            return True
        try:
            name = socket.if_indextoname(ifindex)
        except OSError:
            return False
        return name == self.post.interface

    def _local(self, datagram: Datagram) -> IPv4Address:
        """The address that a client or a relay used; ours, where it did not know any."""
        return datagram.local if datagram.target == datagram.local else self.post.address

    def _record(self, request: Request, came: Datagram, answer: Outgoing | None, door: Door) -> None:
        """What a PXE client said and was told; whatever else is on a LAN is nobody's business."""
        if speaker_of(request) is None:
            return
        port = self.ports.dhcp if door is Door.DHCP else self.ports.boot_server
        here = str(came.target), port
        self.recorder.record(request.mac, source=came.peer, target=here, payload=came.data)
        if answer is not None:
            there = str(answer.source), port
            self.recorder.record(request.mac, source=there, target=answer.target, payload=answer.data)

    def _remember(self, request: Request) -> None:
        address = request.requested_address or request.ciaddr
        if request.message_type == MessageType.REQUEST and address != NOBODY:
            self.neighbours.heard(address, request.mac)

    def _decide(self, request: Request, arrival: Arrival) -> Answer | Silence:
        decision = decide(
            request,
            arrival,
            policy_of=self.desk.policy,
            directions=self.directions,
            unknown=self.unknown,
            ports=self.ports,
        )
        # Every round begins with an offer; what is asked on port 4011 belongs to one.
        if isinstance(decision, Silence) or not decision.loads or arrival.door is Door.BOOT_SERVER:
            return decision
        admitted = self.guard.admits(request.mac, request.xid, self.clock())
        return decision if admitted else looping(decision)


async def serve(
    desk: Desk,
    *,
    interface: str,
    subnet: IPv4Network,
    directions: Directions,
    unknown: Unknown,
    neighbours: Neighbours,
    recorder: Recorder,
    ports: Ports,
    task_status: trio.TaskStatus[tuple[Post, Sharing]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer until cancelled; started when both ports are open.

    Raises `ConfigError` where the interface is missing or has no address in `subnet`, or where another
    program has a port.
    """
    found = interfaces.find(interface)
    address = interfaces.address_in(found, subnet).ip
    post = Post(interface=interface, index=found.index, address=address)
    responder = Responder(
        desk=desk,
        post=post,
        directions=directions,
        unknown=unknown,
        neighbours=neighbours,
        recorder=recorder,
        ports=ports,
        clock=trio.current_time,
    )
    line, sharing = await open_dhcp(ports.dhcp)
    with closing(line), closing(await open_boot_server(address, ports.boot_server)) as boot_server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attend, line, Door.DHCP, responder)
            nursery.start_soon(attend, boot_server, Door.BOOT_SERVER, responder)
            task_status.started((post, sharing))


async def attend(line: Line, door: Door, responder: Responder) -> None:
    """Serve one port until cancelled. No datagram ends it, and no answer that cannot be sent."""

    def send(answer: Outgoing) -> None:
        try:
            line.send_nowait(answer.data, answer.target, source=answer.source, ifindex=answer.ifindex)
        except OSError as exc:
            responder.warn(f"{answer.target[0]} could not be answered: {exc.strerror}")

    while True:
        await trio.lowlevel.wait_readable(line)
        for _ in range(AT_A_TIME):
            try:
                datagram = line.receive_nowait(LARGEST_DATAGRAM)
            except BlockingIOError:
                break
            if responder.is_ours(datagram.ifindex):
                responder.respond(datagram, door, send)
