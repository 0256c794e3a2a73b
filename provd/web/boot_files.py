"""Boot files by HTTP, for firmware and iPXE, and the greeting of a machine that nobody registered.

What files there are, and what a greeting is good for, is known elsewhere. Whoever asks for a file that
there is not gets the one answer that every machine gets for whatever it may not have.
"""

from collections.abc import AsyncIterator, Callable
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Protocol

from quart import Blueprint, Response, request

from provd.domain.contacts import Contact
from provd.domain.documents import one_line
from provd.domain.errors import NotYourTurn
from provd.domain.hosts import Mac
from provd.netboot.boot_files import BootFile, BootFiles, ContentType

CHUNK = 64 * 1024
LONGEST_WORD = 60
"""Characters of what a machine says about itself, each."""


class Greeter(Protocol):
    async def hello(self, mac_text: str, address: str, about: str) -> str:
        """The iPXE script for a machine that says hello. Raises `NotYourTurn`."""


def blueprint(
    files: BootFiles,
    greeter: Greeter,
    *,
    base_url: str,
    mac_of: Callable[[IPv4Address], Mac | None],
    heard: Callable[[Contact], None],
) -> Blueprint:
    """`base_url` is how machines reach this server; `mac_of` and `heard` return at once."""
    machines = Blueprint("boot_files", __name__)

    # UEFI's HTTP boot asks with HEAD first, and wants to know the length.
    @machines.route("/boot/<path:name>", methods=["GET", "HEAD"])
    async def boot_file(name: str) -> Response:
        file = files.find(name, base_url=base_url)
        if file is None:
            raise NotYourTurn("there is no boot file of that name")
        was_read = partial(tell, name, file, request.remote_addr)
        body = b"" if request.method == "HEAD" else in_chunks(file.content, was_read)
        response = Response(body, content_type=file.content_type)
        response.content_length = len(file.content)
        return response

    def tell(name: str, file: BootFile, peer: str | None) -> None:
        try:
            address = ip_address(peer or "")
        except ValueError:
            return
        mac = mac_of(address) if isinstance(address, IPv4Address) else None
        if mac is not None:
            message = f"read {one_line(name, LONGEST_WORD)} by HTTP"
            heard(Contact(mac=mac, hop=file.hop, message=message, address=str(address)))

    @machines.get("/ipxe/<mac>/hello")
    async def hello(mac: str) -> Response:
        script = await greeter.hello(mac, request.remote_addr or "", about_itself())
        return Response(script, content_type=ContentType.SCRIPT)

    return machines


async def in_chunks(content: bytes, then: Callable[[], None]) -> AsyncIterator[bytes]:
    """`then` is called when the last chunk has been taken: whoever goes away before has read nothing."""
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]
    then()


def about_itself() -> str:
    """What the menu's query says of the machine, in one line; the words are a stranger's."""
    said = {
        key: one_line(" ".join(request.args.get(key, "").split()), LONGEST_WORD)
        for key in ("manufacturer", "product", "serial", "uuid")
    }
    name = " ".join(filter(None, (said["manufacturer"], said["product"])))
    marks = [f"{word} {said[key]}" for word, key in (("serial", "serial"), ("UUID", "uuid")) if said[key]]
    return ", ".join([name or "a machine", *marks])
