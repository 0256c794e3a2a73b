"""A world for the pages, and how they are looked at: shared by the tests of each."""

from html.parser import HTMLParser
from pathlib import Path

from quart import Response

from provd.domain.activity import Level, News
from provd.domain.hosts import Host, HostId, HostOptions, Mac
from provd.domain.lifecycle import ROAD, SETTLED, Fact, State
from provd.domain.operations import Kind, Operation, Outcome
from provd.orchestrator.fleet import Change
from provd.store import hosts, operations
from provd.web.app import create_app
from provd.web.parts import Parts

HASH = f"$6$salt${'x' * 86}"
EVIL = """<evil onclick="alert(1)">'"&amp;</script><script>alert(2)</script>"""

CONFIG = f"""
server: {{public_url: "http://127.0.0.1:8080", auth: AUTH}}
pxe: {{enabled: false}}
proxmox:
  existing_node: 127.0.0.1
  join_fingerprint: "{":".join(["AA"] * 32)}"
  installer_url: http://127.0.0.1/pve
credentials: {{root_password_hash: "{HASH}"}}
"""
TYPES = """
server_types:
  compute: {display_name: "Small <b>box</b>", boot_disk: /dev/nvme0n1, hostname_prefix: pve}
  mirror: {display_name: Mirror, boot_disk: /dev/sda, hostname_prefix: m, filesystem: zfs, raid: raid1,
           disks: [/dev/sda, /dev/sdb]}
"""

FACTS = {
    State.PXE_READY: Fact.REBUILD_STARTED,
    State.PXE_BOOTED: Fact.SCRIPT_FETCHED,
    State.INSTALLING: Fact.ANSWER_SENT,
    State.INSTALLED: Fact.INSTALL_REPORTED,
    State.FIRST_BOOT: Fact.PHONED_HOME,
    State.JOINING: Fact.JOIN_STARTED,
    State.READY: Fact.COMPLETED,
}
"""How a host comes to each stage of the road."""


# --- a world, and how it is looked at --------------------------------------------------------------


def config_in(folder: Path, auth: str = "off") -> Path:
    (folder / "provisioning.yaml").write_text(CONFIG.replace("AUTH", auth))
    (folder / "server-types.yaml").write_text(TYPES)
    return folder / "provisioning.yaml"


async def register(parts: Parts, name: str, number: int = 1, server_type: str = "compute") -> Host:
    mac = Mac.parse(f"52:54:00:00:00:{number:02x}")
    return await parts.enrolment.register(mac, server_type, name, HostOptions(), "a test")


def end(change: Change, operation: Operation, outcome: Outcome, detail: str = "") -> None:
    if outcome is not Outcome.DONE:
        change.fact(HostId(operation.host_id or 0), Fact.BROKEN_OFF, "given up")
    operations.close(change.db, operation.id, outcome, detail, change.at)


async def host_in(parts: Parts, state: State, name: str = "pve1", number: int = 1) -> Host:
    """A host with a rebuild that nobody carries out: it stands where a test puts it."""
    host = await register(parts, name, number)
    if state is State.REGISTERED:
        return host

    def lead(change: Change) -> Host:
        operation = operations.open_(change.db, host, Kind.REBUILD, "a test", change.at)
        change.fact(host.id, Fact.REBUILD_STARTED, "armed")
        key = operations.SealedKey(public_line=f"ssh-ed25519 AAAAC3Nza{operation.id} provd", sealed=b"sealed")
        operations.keep_key(change.db, operation.id, key)
        for stage in ROAD[1 : ROAD.index(state) + 1 if state in ROAD else 3]:
            change.fact(host.id, FACTS[stage], f"{FACTS[stage]}")
        if state in SETTLED:
            end(change, operation, Outcome.DONE if state is State.READY else Outcome.FAILED, "no luck")
        return hosts.get(change.db, host.id)

    return await parts.fleet.change(lead)


def active(parts: Parts) -> list[Operation]:
    found = parts.store.read(operations.active)
    assert found
    return found


async def note(parts: Parts, message: str, host: Host, level: Level = Level.INFO) -> None:
    await parts.fleet.note(News(event="x", message=message, level=level, host_id=host.id))


async def get(parts: Parts, path: str, **headers: str) -> Response:
    return await create_app(parts).test_client().get(path, headers=headers)


async def html(parts: Parts, path: str) -> str:
    response = await get(parts, path)
    assert response.status_code == 200, await response.get_data(as_text=True)
    return await response.get_data(as_text=True)


class Page(HTMLParser):
    """The elements of a page as a browser would find them, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        """Each with the element that it stands in."""
        self.tiles: list[str] = []
        """The hosts' names, without the blank one."""
        self.inside: list[tuple[str, dict[str, str]]] = []
        self.feed(source)
        self.close()
        assert not self.inside, f"never closed: {self.inside}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "link", "input", "img"):
            self.inside.append(self.elements[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self.inside.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data: str) -> None:
        tag, attributes = self.inside[-1] if self.inside else ("", {})
        self.texts.append((tag, data))
        if attributes.get("data-part") == "hostname":
            self.tiles.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(data for _, data in self.texts).split())

    def all(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def by_id(self, wanted: str) -> dict[str, str]:
        [found] = [attributes for _, attributes in self.elements if attributes.get("id") == wanted]
        return found


async def every_page(parts: Parts) -> dict[str, str]:
    """One of each kind, with a host in every state on the first."""
    for number, state in enumerate(State, start=1):
        await host_in(parts, state, f"pve{number}", number)
    await parts.fleet.sighted(Mac.parse("52:54:00:aa:00:01"), "192.0.2.7", "PXE")
    missing = await get(parts, "/hosts/999")
    return {
        "hosts": await html(parts, "/"),
        "host": await html(parts, "/hosts/2"),
        "operation": await html(parts, "/ops/1"),
        "missing": await missing.get_data(as_text=True),
    }
