"""server-types.yaml: the kinds of machine there are. Read anew whenever the file changes.

A bad edit changes nothing: the types that were good stay in force, and `problem` says what is wrong.
"""

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from types import MappingProxyType

import trio
from attrs import field, frozen
from watchfiles import awatch
from watchfiles.main import FileChange

from provd.config import deadline_overrides
from provd.domain import installation
from provd.domain.errors import ConfigError, Invalid
from provd.domain.hosts import parse_hostname
from provd.domain.lifecycle import State
from provd.yaml_document import Document, KeyPath, clip, read_by
from provd.yaml_values import boolean, listed, of_text

log = logging.getLogger(__name__)

SETTLED_AFTER_MS = 50
"""A file is looked at when nothing has happened to it for so long: editors write in several steps."""
LOOK_UP_MS = 500
"""How often the watcher's thread looks up; a change that `reload` made is told then at the latest."""


def type_key(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise Invalid(f"{clip(text)!r} is not a key for a server type: letters, digits and . _ -")
    return text


def hostname_prefix(text: str) -> str:
    """What a counted host name begins with: `gpu-` makes gpu-1, gpu-2 and so on."""
    try:
        return parse_hostname(f"{text}1000").removesuffix("1000")
    except Invalid as exc:
        raise Invalid(f"{clip(text)!r} cannot begin a host name like {clip(text)}1") from exc


@frozen(kw_only=True)
class ServerType:
    """One kind of machine. None and empty mean: as `install` in provisioning.yaml says."""

    key: str = field(metadata=read_by(of_text(type_key)))
    """What it is called in the API; the key of its mapping in the file, not a key inside it."""
    display_name: str = field(metadata=read_by(of_text(str)))
    boot_disk: str = field(metadata=read_by(of_text(installation.parse_disk)))
    management_nic: str | None = field(default=None, metadata=read_by(of_text(installation.parse_nic_name)))
    gpu: bool = field(default=False, metadata=read_by(boolean))
    hostname_prefix: str = field(metadata=read_by(of_text(hostname_prefix)))

    disks: tuple[str, ...] = field(default=(), metadata=read_by(listed(of_text(installation.parse_disk))))
    """All disks of a RAID, the boot disk among them; empty: the boot disk alone."""
    filesystem: str | None = field(default=None, metadata=read_by(of_text(installation.parse_filesystem)))
    raid: str | None = field(default=None, metadata=read_by(of_text(installation.parse_raid)))
    timezone: str | None = field(default=None, metadata=read_by(of_text(installation.parse_timezone)))
    keyboard: str | None = field(default=None, metadata=read_by(of_text(installation.parse_keyboard)))
    country: str | None = field(default=None, metadata=read_by(of_text(installation.parse_country)))
    mailto: str | None = field(default=None, metadata=read_by(of_text(installation.parse_mailto)))
    domain: str | None = field(default=None, metadata=read_by(of_text(installation.parse_domain)))
    deadlines: Mapping[State, float] = field(
        default=MappingProxyType({}), metadata=read_by(deadline_overrides)
    )
    """Seconds, for the states whose deadline differs from provisioning.yaml's."""

    def misfits(self) -> Iterator[tuple[KeyPath, str]]:
        """Whether the disks suffice is judged with a host's whole plan; here, what can never be right."""
        if self.disks and self.boot_disk not in self.disks:
            yield ("disks",), f"must have the boot disk {self.boot_disk} among them: all of them are wiped"
        if self.filesystem and self.raid and self.raid not in installation.RAIDS[self.filesystem]:
            yield ("raid",), f"is not a RAID level of {self.filesystem}"


@frozen
class ServerTypesFile:
    server_types: Mapping[str, ServerType]


def load_server_types(path: Path) -> Mapping[str, ServerType]:
    """Read server-types.yaml. Raises `ConfigError` with a line for every problem."""
    document = Document(path)
    types = document.values.get("server_types")
    if not isinstance(types, dict):
        raise document.broken(
            document.line(("server_types",)), "server_types: must be a mapping of types by their keys"
        )
    for key, settings in types.items():
        if isinstance(settings, dict):
            if "key" in settings:
                document.refuse(("server_types", key, "key"), "is not a key that provd knows")
            settings["key"] = key
    return MappingProxyType(dict(document.structure(ServerTypesFile).server_types))


class ServerTypeBook:
    """The server types in force, and what is wrong with the file if it cannot be used now."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError`: there must be good types once before a bad file can be survived."""
        self.path = path
        self.current = load_server_types(path)
        self.problem: str | None = None

    def reload(self) -> bool:
        """Read the file now. Returns whether it is good; if not, the types stay as they were."""
        try:
            self.current = load_server_types(self.path)
        except ConfigError as exc:
            self.problem = str(exc)
        else:
            self.problem = None
        return self.problem is None

    async def watch(
        self,
        on_change: Callable[[], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Reload whenever the file changes, and call `on_change` when types or problem became others.

        Runs until cancelled, which is quick. A `reload` by somebody else is told too. Where the
        system has no watch to give (inotify(7), limits), a warning says so and `reload` remains.
        """
        told = (self.current, self.problem)
        stop = trio.Event()

        async def stop_thread() -> None:
            # awatch cannot be cancelled before its thread ends; this makes the thread end.
            try:
                await trio.sleep_forever()
            finally:
                stop.set()

        async with trio.open_nursery() as nursery, aclosing(self.looks(stop)) as looks:
            nursery.start_soon(stop_thread)
            task_status.started()
            try:
                await anext(looks, None)
            except OSError as exc:
                log.warning("edits of %s are not noticed, send SIGHUP after one: %s", self.path, exc)
                await trio.sleep_forever()
            self.reload()  # what was edited before the watch stood
            while True:
                if told != (self.current, self.problem):
                    told = (self.current, self.problem)
                    await on_change()
                if await anext(looks, None):
                    self.reload()
                await trio.lowlevel.checkpoint()  # awatch ends quietly when its thread is stopped

    def looks(self, stop: trio.Event) -> AsyncGenerator[set[FileChange], None]:
        """An endless row of looks, each at what happened to the file since the one before.

        Directories are watched, not the file: editors and `os.replace` put a new file in its place.
        """
        files = {self.path.absolute(), self.path.resolve()}
        names = {file.name for file in files}
        return awatch(
            *{file.parent for file in files},
            watch_filter=lambda _, touched: Path(touched).name in names,
            step=SETTLED_AFTER_MS,
            stop_event=stop,
            rust_timeout=LOOK_UP_MS,
            yield_on_timeout=True,
            recursive=False,
        )
