"""The doctor inside the daemon: one examination at a time, not too often, and the last one kept."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import urlsplit

import trio
from attrs import frozen

from provd.config import Config
from provd.doctor.examination import examine, in_thread, own_address
from provd.doctor.findings import Finding
from provd.doctor.storage import Images
from provd.domain.architectures import Architecture
from provd.domain.errors import ConfigError, Conflict, Refused
from provd.netboot.loaders import Loaders, load_loaders
from provd.netboot.router_snippets import BootServer, Snippet, snippets

PAUSE = 10.0
"""Seconds between two examinations: each sends packets to everybody on the LAN."""

USUAL_FILES = {Architecture.BIOS: "undionly.kpxe", Architecture.X64: "snponly.efi"}
"""Where no loader is to be seen, a router's settings still have to name something."""


class TooSoon(Refused):
    """The last examination is hardly over. `seconds` is how long to wait."""

    def __init__(self, seconds: float) -> None:
        self.seconds = int(seconds) + 1
        super().__init__(f"it was looked at a moment ago; the next time may be in {self.seconds} s")


@frozen
class Report:
    at: datetime
    findings: Sequence[Finding]


class Doctor:
    """`loader_url` is the folder of the loaders for UEFI's HTTP boot; empty where there is none."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        *,
        images: Images | None = None,
        loaders: Loaders | None = None,
        loader_url: str = "",
    ) -> None:
        self.last: Report | None = None
        self.busy = False
        self._config = config
        self._environ = environ
        self._images = images
        self._loaders = loaders
        self._loader_url = loader_url
        self._next = -1.0

    async def examine(self) -> Report:
        """Look at everything now. Raises `Conflict` while another does, and `TooSoon`. Safe to cancel."""
        if self.busy:
            raise Conflict("the doctor is at work already; its report will be here in a few seconds")
        if (wait := self._next - trio.current_time()) > 0:
            raise TooSoon(wait)
        self.busy = True
        try:
            findings = await examine(self._config, self._environ, images=self._images, in_daemon=True)
            self.last = Report(datetime.now(UTC), findings)
            return self.last
        finally:
            self.busy = False
            self._next = trio.current_time() + PAUSE

    async def snippets(self) -> Sequence[Snippet]:
        return await in_thread(router_snippets, self._config, self._loaders, self._loader_url)


def router_snippets(
    config: Config, loaders: Loaders | None = None, loader_url: str = ""
) -> Sequence[Snippet]:
    """For this set-up; none where our address on the LAN is not known."""
    address = own_address(config) or literal(urlsplit(config.server.public_url).hostname or "")
    if address is None:
        return ()
    server = BootServer(
        address=address,
        subnet=config.pxe.subnet or IPv4Network(f"{address}/24", strict=False),
        files=files_of(config, loaders),
        script_url=f"{config.server.public_url.rstrip('/')}/ipxe/${{mac:hexhyp}}",
        loader_url=loader_url,
    )
    return snippets(server)


def files_of(config: Config, loaders: Loaders | None) -> Mapping[Architecture, str]:
    try:
        known = loaders or load_loaders(config.pxe.loader_dir, config.pxe.loaders)
    except ConfigError:
        return USUAL_FILES
    return {kind: loader.name for kind, loader in known.usual.items()} or USUAL_FILES


def literal(host: str) -> IPv4Address | None:
    try:
        return IPv4Address(host)
    except ValueError:
        return None
