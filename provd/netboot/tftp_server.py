"""The TFTP server (RFC 1350): who is served, who is refused, who gets no answer at all.

It gives files and takes none. How a transfer goes on once it has begun is not known here, nor what
files there are.
"""

import logging
import socket
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import trio
from attrs import define, field, frozen

from provd.domain.documents import one_line
from provd.domain.errors import BadPacket
from provd.netboot.tftp_blocks import netascii
from provd.netboot.tftp_chat import Chat
from provd.netboot.tftp_options import Bounds, negotiate
from provd.netboot.tftp_packet import ErrorCode, Request, build_error, parse_request
from provd.netboot.tftp_pump import Pump
from provd.netboot.tftp_socket import open_socket
from provd.netboot.tftp_transfer import Outcome, Read, Transfer, run_transfer
from provd.netboot.udp import Datagram, open_udp, receive

log = logging.getLogger(__name__)

Address = tuple[str, int]
OnPacket = Callable[[Address, Address, bytes], None]
"""Source, target, payload."""

LONGEST_REQUEST = 2048
"""Bytes. RFC 2347 allows 512."""
LONGEST_NAME = 255
MODES = frozenset({"octet", "netascii"})


class BootFiles(Protocol):
    def read(self, name: str) -> bytes | None:
        """The content of a file, at once; None where there is no such file.

        `name` is relative, printable ASCII with single slashes in it, and without `.` or `..`.
        """


@frozen(kw_only=True)
class Limits:
    """How many transfers there may be. Where there are as many, one that never had an answer gives way."""

    transfers: int = 512
    transfers_per_address: int = 32
    """A machine has two at most; those that it left behind by a reset live on for half a minute."""
    bounds: Bounds = field(factory=Bounds)


async def serve(
    files: BootFiles,
    address: str,
    *,
    port: int = 69,
    limits: Limits | None = None,
    on_read: Callable[[Read], None] = lambda _: None,
    on_packet: OnPacket | None = None,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then all transfers end at once. Reports the address it listens on.

    `on_read` is called at the end of each transfer, unless the server itself is being cancelled.
    `on_packet` sees requests, OACKs and errors, not the blocks. Both return at once. Raises OSError
    where the port cannot be had.
    """
    with await open_udp(address, port) as sock, Pump() as pump:
        async with trio.open_nursery() as nursery:
            own: Address = sock.getsockname()
            server = Server(
                files=files,
                limits=limits or Limits(),
                on_read=on_read,
                on_packet=on_packet,
                port=own[1],
                pump=pump,
                nursery=nursery,
            )
            nursery.start_soon(pump.run)
            task_status.started(own)
            while True:
                try:
                    datagram = await receive(sock, LONGEST_REQUEST)
                except OSError as exc:
                    server.chat.say(logging.WARNING, "TFTP requests cannot be read: %s", exc)
                    await trio.sleep(1)
                else:
                    server.take(datagram)


def boot_name(name: str) -> str | None:
    """A client's file name as `BootFiles` knows it; None where no file can have that name.

    Firmware puts slashes in front, and some of it writes them backwards.
    """
    if len(name) > LONGEST_NAME or not name.isascii() or not name.isprintable():
        return None
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts) or None


@define(kw_only=True, eq=False)
class Running:
    transfer: Transfer
    peer: Address
    name: str
    request: bytes
    since: float


@define(kw_only=True, eq=False)
class Server:
    files: BootFiles
    limits: Limits
    on_read: Callable[[Read], None]
    on_packet: OnPacket | None
    port: int
    pump: Pump
    nursery: trio.Nursery
    chat: Chat = field(factory=lambda: Chat(log))
    running: dict[Address, Running] = field(factory=dict)
    per_address: Counter[str] = field(factory=Counter)

    def take(self, datagram: Datagram) -> None:
        """One datagram from anybody. Whatever is in it, the server goes on."""
        if datagram.target != datagram.local or not datagram.whole:
            return  # a broadcast (RFC 1123 §4.2.3.5), or longer than any request
        try:
            request = parse_request(datagram.data)
        except BadPacket as exc:
            self.chat.say(logging.DEBUG, "no answer to %s by TFTP: %s", datagram.peer[0], exc)
            return
        self._record(datagram.peer, (str(datagram.local), self.port), datagram.data)
        if self._is_duplicate(datagram):
            return
        try:
            answer = self._decide(request, datagram.peer[0])
            if isinstance(answer, ErrorCode):
                self._refuse(answer, request, datagram)
            elif answer is not None:
                self._begin(answer, request, datagram)
        except OSError as exc:
            self.chat.say(logging.WARNING, "no answer to %s by TFTP: %s", datagram.peer[0], exc)

    def _is_duplicate(self, datagram: Datagram) -> bool:
        """Whether what a client asks for is on its way. If it asks for something else, that ends here."""
        earlier = self.running.get(datagram.peer)
        if earlier is None:
            return False
        transfer = earlier.transfer
        if earlier.request == datagram.data and transfer.outcome is None and not transfer.stalled:
            return True
        self._release(earlier)
        transfer.end(Outcome.ABORTED, "the client began anew")
        return False

    def _decide(self, request: Request, host: str) -> bytes | ErrorCode | None:
        """The file's content, or what is wrong; None: no answer, for there is no room."""
        if request.write:
            return ErrorCode.ACCESS_VIOLATION
        if request.mode not in MODES:
            return ErrorCode.ILLEGAL_OPERATION
        name = boot_name(request.name)
        content = self.files.read(name) if name else None
        if content is None:
            return ErrorCode.FILE_NOT_FOUND
        if not self._has_room(host):
            self.chat.say(logging.WARNING, "no answer to %s by TFTP: too many transfers", host)
            return None
        return content

    def _has_room(self, host: str) -> bool:
        """Whether one more transfer has a place, be it that of one whose client was never heard.

        Anybody can write a request in another's name, and nobody may lock machines out with such. A real
        client answers within milliseconds, so that the oldest one without an answer is not one.
        """
        if self.per_address[host] >= self.limits.transfers_per_address:
            rivals = [each for each in self.running.values() if each.peer[0] == host]
        elif len(self.running) >= self.limits.transfers:
            rivals = list(self.running.values())
        else:
            return True
        unheard = next((each for each in rivals if not each.transfer.answered), None)
        if unheard is None:
            return False
        self._release(unheard)
        unheard.transfer.end(Outcome.GAVE_UP, "it never answered, and others needed its place")
        return True

    def _refuse(self, code: ErrorCode, request: Request, datagram: Datagram) -> None:
        error = build_error(code)
        with open_socket(datagram.local, datagram.peer) as sock:
            sock.send(error)
            self._record(sock.getsockname(), datagram.peer, error)
        self.chat.say(
            logging.INFO,
            "%s asked by TFTP to %s %r and was refused: %s",
            datagram.peer[0],
            "write" if request.write else "read",
            one_line(request.name),
            code.name.lower().replace("_", " "),
        )

    def _begin(self, content: bytes, request: Request, datagram: Datagram) -> None:
        size: int | None = len(content)
        if request.mode == "netascii":
            content, size = netascii(content), None
        terms = negotiate(request.options, size=size, bounds=self.limits.bounds)
        sock = open_socket(datagram.local, datagram.peer)
        transfer = Transfer(content, terms, sock)
        running = Running(
            transfer=transfer,
            peer=datagram.peer,
            name=boot_name(request.name) or "",
            request=datagram.data,
            since=trio.current_time(),
        )
        self.running[running.peer] = running
        self.per_address[running.peer[0]] += 1
        if transfer.oack:
            self._record(sock.getsockname(), running.peer, transfer.oack)
        # A task that was started runs to its first checkpoint, cancelled or not: the socket has an owner.
        self.nursery.start_soon(self._run, running, sock)

    async def _run(self, running: Running, sock: socket.socket) -> None:
        transfer = running.transfer
        try:
            await run_transfer(transfer, sock, self.pump)
        except OSError as exc:
            transfer.end(Outcome.ABORTED, str(exc.strerror))
        finally:
            self._release(running)
        assert transfer.outcome is not None
        read = Read(
            peer=running.peer[0],
            name=running.name,
            sent=transfer.sent,
            size=len(transfer.content),
            seconds=trio.current_time() - running.since,
            outcome=transfer.outcome,
            reason=transfer.reason,
            retransmissions=transfer.retransmissions,
        )
        self._tell(read)
        self.on_read(read)

    def _release(self, running: Running) -> None:
        """Take a transfer out of the books, unless that has been done."""
        if self.running.get(running.peer) is running:
            del self.running[running.peer]
            host = running.peer[0]
            self.per_address[host] -= 1
            if not self.per_address[host]:
                del self.per_address[host]

    def _record(self, source: Address, target: Address, payload: bytes) -> None:
        if self.on_packet is not None:
            self.on_packet(source, target, payload)

    def _tell(self, read: Read) -> None:
        if read.outcome is Outcome.DONE:
            self.chat.say(
                logging.INFO,
                "%s has read %s by TFTP: %d bytes in %.2f s, %d packets repeated",
                read.peer,
                read.name,
                read.sent,
                read.seconds,
                read.retransmissions,
            )
        elif read.outcome is not Outcome.PROBE:
            self.chat.say(
                logging.INFO,
                "%s has not read %s by TFTP to its end: %s after %d of %d bytes and %.2f s%s",
                read.peer,
                read.name,
                read.outcome,
                read.sent,
                read.size,
                read.seconds,
                f", {read.reason}" if read.reason else "",
            )
