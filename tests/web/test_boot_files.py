"""Boot files and greetings over HTTP: what firmware is sent, and what is made of who read it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio
from attrs import define, field
from quart_trio import QuartTrio

from provd.domain.architectures import Architecture
from provd.domain.contacts import Contact, Hop
from provd.domain.errors import NotYourTurn
from provd.domain.hosts import Mac
from provd.netboot.boot_files import BootFiles
from provd.netboot.loaders import Loader, Loaders
from provd.netboot.scripts import autoexec_script
from provd.web import boot_files, problems
from provd.web.server import Address, listen, serve

BASE = "http://192.0.2.5:8080"
MAC = Mac.parse("52:54:00:12:34:56")
CONTENT = bytes(range(256)) * 4096 + b"the end"
"""More than the buffers between two sockets hold."""
LARGE = CONTENT * 16


def loader(name: str, architecture: Architecture, content: bytes) -> Loader:
    return Loader(
        name=name,
        path=Path(name),
        architecture=architecture,
        content=content,
        version=None,
        signed=False,
    )


BUILDS = [
    loader("snponly.efi", Architecture.X64, CONTENT),
    loader("large.efi", Architecture.X64, LARGE),
    loader("undionly.kpxe", Architecture.BIOS, b"bios"),
]


@define
class Hall:
    """A daemon's other half: it greets, knows one machine's address, and hears of contacts."""

    greeted: list[tuple[str, str, str]] = field(factory=list)
    contacts: list[Contact] = field(factory=list)
    known: bool = True

    async def hello(self, mac_text: str, address: str, about: str) -> str:
        if mac_text == "nobody":
            raise NotYourTurn("no menu")
        self.greeted.append((mac_text, address, about))
        return "#!ipxe\necho hello\n"

    def mac_of(self, ip: IPv4Address) -> Mac | None:
        return MAC if self.known and ip == IPv4Address("127.0.0.1") else None

    def app(self) -> QuartTrio:
        app = QuartTrio("test", static_folder=None)
        problems.install(app)
        table = Loaders(directory=Path(), by_name={each.name: each for each in BUILDS}, usual={})
        app.register_blueprint(
            boot_files.blueprint(
                BootFiles(table), self, base_url=BASE, mac_of=self.mac_of, heard=self.contacts.append
            )
        )
        return app


@asynccontextmanager
async def served(hall: Hall) -> AsyncIterator[Address]:
    async with trio.open_nursery() as nursery:
        addresses: list[Address] = await nursery.start(serve, hall.app(), [listen("127.0.0.1:0")])
        with trio.fail_after(10):
            yield addresses[0]
        nursery.cancel_scope.cancel()


async def ask(address: Address, method: str, path: str) -> tuple[str, dict[str, str], bytes]:
    """The status line, the headers and the body of one answer."""
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        heard = b"".join([chunk async for chunk in stream])
    head, _, body = heard.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    return status.split(" ", 1)[1].strip(), dict(line.lower().split(": ", 1) for line in headers), body


async def until(condition: Callable[[], bool]) -> None:
    """The server learns that its bytes were taken a moment after they were."""
    while not condition():
        await trio.lowlevel.checkpoint()


async def test_a_build_is_sent_whole_and_whoever_read_it_is_heard() -> None:
    """Every byte, its length and its type; then the machine is known to have its loader."""
    hall = Hall()
    async with served(hall) as address:
        status, headers, body = await ask(address, "GET", "/boot/snponly.efi")
        assert status.startswith("200")
        assert headers["content-type"] == "application/efi"
        assert headers["content-length"] == str(len(CONTENT))
        assert "transfer-encoding" not in headers
        assert body == CONTENT
        await until(lambda: bool(hall.contacts))
    assert hall.contacts == [
        Contact(mac=MAC, hop=Hop.LOADER, message="read snponly.efi by HTTP", address="127.0.0.1")
    ]


async def test_head_tells_the_length_and_is_no_reading() -> None:
    """UEFI asks so before it reads: as GET, without the bytes, and nobody is heard."""
    hall = Hall()
    async with served(hall) as address:
        status, headers, body = await ask(address, "HEAD", "/boot/snponly.efi")
        assert (status[:3], body) == ("200", b"")
        assert headers["content-length"] == str(len(CONTENT))
        assert headers["content-type"] == "application/efi"
        assert (await ask(address, "GET", "/boot/undionly.kpxe"))[2] == b"bios"
        await until(lambda: bool(hall.contacts))
    assert [contact.message for contact in hall.contacts] == ["read undionly.kpxe by HTTP"]


async def test_who_goes_away_in_the_middle_has_read_nothing() -> None:
    """A machine that was switched off while it loaded is not taken for one that has its loader."""
    hall = Hall()
    async with served(hall) as address:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(b"GET /boot/large.efi HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in await stream.receive_some(1000)
        assert (await ask(address, "GET", "/boot/undionly.kpxe"))[2] == b"bios"
        await until(lambda: bool(hall.contacts))
    assert [contact.message for contact in hall.contacts] == ["read undionly.kpxe by HTTP"]


async def test_autoexec_says_that_ipxe_runs() -> None:
    """It is the script for the configured URL, as text, and a later station of the way."""
    hall = Hall()
    async with served(hall) as address:
        _, headers, body = await ask(address, "GET", "/boot/autoexec.ipxe")
        assert body.decode() == autoexec_script(BASE)
        assert headers["content-type"] == "text/plain; charset=utf-8"
        await until(lambda: bool(hall.contacts))
    assert hall.contacts[0].hop is Hop.IPXE


async def test_a_stranger_reads_unheard() -> None:
    """Whose address nobody knows is served like all others."""
    hall = Hall(known=False)
    async with served(hall) as address:
        assert (await ask(address, "GET", "/boot/undionly.kpxe"))[2] == b"bios"
    assert hall.contacts == []


@pytest.mark.parametrize(
    "path",
    [
        "/boot/",
        "/boot/nothing.efi",
        "/boot/../boot_files.py",
        "/boot/%2e%2e/snponly.efi",
        "/boot/etc/passwd",
        "/boot/snponly.efi%00",
        "/ipxe/nobody/hello",
    ],
)
async def test_there_is_nothing_else(path: str) -> None:
    """Everything else is the one answer for machines, without a word of what there is."""
    hall = Hall()
    async with served(hall) as address:
        status, _, body = await ask(address, "GET", path)
        assert status.startswith("404")
        assert b"snponly" not in body
    assert hall.contacts == []


@pytest.mark.parametrize(
    ("query", "about"),
    [
        (
            "uuid=5e1f&serial=S%201&product=Box%20%231&manufacturer=A%20%26%20B",
            "A & B Box #1, serial S 1, UUID 5e1f",
        ),
        ("uuid=&serial=&product=NUC&manufacturer=", "NUC"),
        ("", "a machine"),
        ("product=%0d%0a%1b[31m%E2%80%AEx&other=1", "\\x1b[31m\\u202ex"),
        ("serial=" + "9" * 500, "a machine, serial " + "9" * 59 + "…"),
    ],
)
async def test_a_greeting_becomes_one_line(query: str, about: str) -> None:
    """What a stranger says of itself is short and harmless before anybody sees it."""
    hall = Hall()
    async with served(hall) as address:
        status, headers, body = await ask(address, "GET", f"/ipxe/52-54-00-12-34-56/hello?{query}")
        assert (status[:3], body) == ("200", b"#!ipxe\necho hello\n")
        assert headers["content-type"] == "text/plain; charset=utf-8"
    assert hall.greeted == [("52-54-00-12-34-56", "127.0.0.1", about)]
