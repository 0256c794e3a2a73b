"""provisioning.yaml as frozen values, or a `ConfigError` that names file, line, key and reason.

Each service is handed its section, never the whole. Secrets are named here and read from files or
from systemd's credentials. Nothing is reloaded: a change takes effect at the next start.
"""

import difflib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
import cattrs
import yaml
from attrs import evolve, field, frozen
from cattrs.errors import AttributeValidationNote, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from provd.domain import installation
from provd.domain.documents import one_line
from provd.domain.errors import ConfigError, Invalid
from provd.domain.hosts import IPAddress
from provd.domain.lifecycle import State
from provd.domain.secrets import Secret

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

LARGEST_FILE = 256 * 1024
LARGEST_CREDENTIAL = 4096
DEEPEST_NESTING = 8
"""Levels. The deepest key of ours is at the fourth."""


# --- a YAML file as plain values, with the line of every key --------------------------------------


@frozen
class Problem:
    """What is wrong with one key, and where in the file it stands."""

    line: int
    path: KeyPath
    reason: str

    def show(self, source: Path) -> str:
        names = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        key = f"{clip(names.removeprefix('.'))}: " if self.path else ""
        return f"{source}:{self.line}: {key}{self.reason}"


class Misfits(Exception):
    """What a reader of a whole mapping or list found wrong inside it: relative paths and reasons."""

    def __init__(self, *found: tuple[KeyPath, str]) -> None:
        super().__init__(*found)
        self.found = found


class Document:
    """The top-level mapping of a YAML file. Every bad byte of it is a `ConfigError`."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.lines: dict[KeyPath, int] = {(): 1}
        self.values: dict[str, object] = {}
        node = self.compose(self.read())
        if not isinstance(node, yaml.MappingNode):
            raise self.broken(1, "must hold a mapping of keys at its top level")
        self.values = self.mapping(node, ())

    def broken(self, line: int, reason: str) -> ConfigError:
        """The error for a file that cannot be looked into any further."""
        return ConfigError(Problem(line, (), reason).show(self.source))

    def read(self) -> str:
        try:
            data = read_file(self.source, LARGEST_FILE)
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{self.source}: cannot be read: {why(exc)}") from exc
        try:
            return data.decode()
        except UnicodeDecodeError as exc:
            raise self.broken(1 + data.count(b"\n", 0, exc.start), "is not UTF-8 text") from exc

    def compose(self, text: str) -> yaml.Node | None:
        try:
            return yaml.compose(text, Loader=PlainLoader)
        except NotPlain as exc:
            raise self.broken(exc.line, exc.reason) from exc
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            # Not str(exc): that quotes the line, which may hold a hash.
            reason = exc.problem or "is not YAML"
            if "tag handle" in reason:  # quotes the word
                reason = "text that begins with ! must stand in quotes"
            raise self.broken(mark.line + 1 if mark else 1, reason) from exc
        except yaml.reader.ReaderError as exc:
            line = 1 + text.count("\n", 0, exc.position)
            raise self.broken(line, "holds a character that YAML does not allow") from exc
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as exc:
            # PyYAML lets these out of escapes and directives with absurd numbers.
            raise self.broken(1, "is not YAML") from exc

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(line, path, "has a key that is not plain text"))
                continue
            key = key_node.value
            here = (*path, key)
            if key in values:
                first = f"is given twice (first on line {self.lines[here]})"
                self.problems.append(Problem(line, here, first))
                continue
            self.lines[here] = line
            values[key] = self.value(value_node, here)
        return values

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = list(enumerate(node.value))
            self.lines.update({(*path, number): item.start_mark.line + 1 for number, item in items})
            return [self.value(item, (*path, number)) for number, item in items]
        return scalar(node)

    def line(self, path: KeyPath) -> int:
        """Of the key, or of the nearest one around it that stands in the file."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def structure(self, cls: type[T]) -> T:
        """Raise one `ConfigError` with a line for every problem."""
        try:
            result = CONVERTER.structure(self.values, cls)
        except (cattrs.BaseValidationError, Invalid, Misfits) as exc:
            found = [Problem(self.line(path), path, reason) for path, reason in misfits(exc, ())]
            raise self.refused(found) from exc
        if self.problems:
            raise self.refused([])
        return result

    def refuse(self, path: KeyPath, reason: str) -> None:
        """Note a problem that `structure` shall raise with the others."""
        self.problems.append(Problem(self.line(path), path, reason))

    def refused(self, found: Iterable[Problem]) -> ConfigError:
        problems = sorted({*self.problems, *found}, key=lambda problem: (problem.line, str(problem.path)))
        return ConfigError("\n".join(problem.show(self.source) for problem in problems))


class PlainLoader(yaml.SafeLoader):
    """YAML without its dangerous and surprising half: no aliases, anchors or tags, and not too deep.

    libyaml's loader recurses in C and can be crashed by nesting; this one stops where we say.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor is not None:  # an alias has one too
            raise NotPlain(event, "YAML anchors and aliases are not used here")
        if getattr(event, "tag", None) is not None:
            raise NotPlain(event, "YAML tags are not used here")
        if self.depth > DEEPEST_NESTING:
            raise NotPlain(event, "is nested too deep")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class NotPlain(yaml.YAMLError):
    """YAML that could be read and is not wanted."""

    def __init__(self, event: yaml.Event, reason: str) -> None:
        super().__init__(reason)
        self.line = event.start_mark.line + 1 if event.start_mark else 1
        self.reason = reason


def scalar(node: yaml.Node) -> object:
    """Plain decimal numbers, booleans and null; all else that YAML 1.1 sees in a word stays text.

    So `12:30` is no sexagesimal number here, `0755` no octal one and `2026-01-01` no date.
    """
    text = str(node.value)
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "null":
            return None
        case "bool":
            return text.lower() in ("yes", "true", "on")
        case "int" if re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,17})", text):
            return int(text)
        case "float" if re.fullmatch(r"[-+]?[0-9]{1,17}\.[0-9]{1,17}", text):
            return float(text)
    return text


def read_file(path: Path, limit: int, *, private: bool = False) -> bytes:
    """At most `limit` bytes of a regular file; `OSError` or `ValueError` says why not.

    `private` refuses a file that others than its owner may read.
    """
    # O_NONBLOCK: opening a FIFO must not wait for its other end.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if private and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError("others than its owner may use it; run chmod 600 on it")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    return data


def why(exc: OSError | ValueError) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)


# --- plain values as frozen sections --------------------------------------------------------------


def read_by(parse: Callable[[object], object]) -> dict[str, object]:
    """Metadata of a field: `parse` makes its value from the file's, or raises `Invalid` or `Misfits`."""
    return {"parse": parse}


NOT_A_KEY = {"not_a_key": True}
"""Metadata of a field that the program fills in, not the file."""

CONVERTER = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)


@CONVERTER.register_structure_hook_factory(attrs.has)
def section_hook(cls: type[Any], converter: cattrs.Converter) -> Callable[[object, object], Any]:
    """A section refuses unknown keys, takes an empty value for "not given", and may check itself.

    A class says what is wrong between its fields in `misfits()`, as relative paths and reasons.
    """
    fields = attrs.fields_dict(cls)
    structure = make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=True,
        **{name: override_for(attribute) for name, attribute in fields.items()},
    )

    def hook(value: object, _: object) -> Any:
        if not isinstance(value, dict):
            raise Invalid("must be a mapping of keys")
        result = structure({k: v for k, v in value.items() if v is not None or k not in fields}, cls)
        if found := tuple(result.misfits()) if hasattr(cls, "misfits") else ():
            raise Misfits(*found)
        return result

    return hook


def override_for(attribute: "attrs.Attribute[Any]") -> Any:
    if "not_a_key" in attribute.metadata:
        return override(omit=True)
    parse = attribute.metadata.get("parse")
    return override(struct_hook=(lambda value, _: parse(value)) if parse else None)


def misfits(exc: Exception, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """The leaves of a cattrs error as key paths and reasons; anything unforeseen is a bug and is raised."""
    match exc:
        case cattrs.BaseValidationError():
            for inner in exc.exceptions:
                yield from misfits(inner, (*path, *noted(inner)))
        case cattrs.ForbiddenExtraKeysError():
            known = [a.name for a in attrs.fields(exc.cl) if "not_a_key" not in a.metadata]
            for key in exc.extra_fields:
                close = difflib.get_close_matches(key[:64], known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
                yield (*path, key), f"is not a key that provd knows; {hint}"
        case KeyError():
            yield path, "is missing"
        case Misfits():
            yield from (((*path, *inner), reason) for inner, reason in exc.found)
        case Invalid():
            yield path, str(exc)
        case _:
            raise exc


def noted(exc: Exception) -> KeyPath:
    """The key that cattrs noted on an error."""
    for note in getattr(exc, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (note.name,)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()


# --- single values ---------------------------------------------------------------------------------


def clip(text: str) -> str:
    """A piece of the file, fit for a message."""
    return one_line(text, 80)


def text(value: object) -> str:
    """Text that fits on one line. YAML's `no`, `on` and 42 are not text without quotes."""
    if isinstance(value, bool | int | float):
        kind = "a YAML boolean" if isinstance(value, bool) else "a number"
        raise Invalid(f"is {kind} where text is meant; put it in quotes")
    if not isinstance(value, str):
        raise Invalid("must be text")
    if not value or not value.isprintable():
        raise Invalid("must be one line of printable text")
    return value


def of_text(parse: Callable[[str], T]) -> Callable[[object], T]:
    return lambda value: parse(text(value))


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Invalid("must be true or false")
    return value


def on_or_off(value: object) -> bool:
    if value in ("on", "off"):
        return value == "on"
    if not isinstance(value, bool):
        raise Invalid("must be on or off")
    return value


def listed(parse: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    """A list whose items are read by `parse`, each with its own line in an error."""

    def parse_list(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Invalid("must be a list")
        items, found = [], []
        for number, item in enumerate(value):
            try:
                items.append(parse(item))
            except Invalid as exc:
                found.append(((number,), str(exc)))
        if found:
            raise Misfits(*found)
        return tuple(items)

    return parse_list


def port(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise Invalid("must be a port number from 1 to 65535")
    return value


def path(value: object) -> Path:
    return Path(text(value))


WEB_URL = re.compile(
    r"https?://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(/[A-Za-z0-9!$&'()*+,;=:@._~-]*)*)"
)


def web_url(value: object) -> str:
    """An http or https URL, without a trailing slash, query, fragment or password."""
    url = text(value)
    match = WEB_URL.fullmatch(url)
    if not match or int(match["port"] or 80) > 65535 or not is_destination(match["host"]):
        raise Invalid(f"{clip(url)!r} is not an http or https URL like http://192.168.1.100:8080")
    return url.rstrip("/")


def is_destination(host: str) -> bool:
    """Whether a URL's host can be connected to: a name, or the address of something."""
    if not host.startswith("[") and not re.fullmatch("[0-9.]+", host):
        return True
    try:
        return not ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def public_url(value: object) -> str:
    url = web_url(value)
    if urlsplit(url).path:
        raise Invalid("must be a URL without a path: provd serves at the root")
    return url


def web_url_or_nothing(value: object) -> str:
    return "" if value == "" else web_url(value)


def listen_address(value: object) -> str:
    address = text(value)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", address)
    try:
        good = match and ip_address(match[1] or match[2]).version == (6 if match[1] else 4)
    except ValueError:
        good = False
    if not match or not good or int(match[3]) > 65535:
        raise Invalid(f"{clip(address)!r} is not an address and port like 0.0.0.0:8080 or [::]:8080")
    return address


def host_header(value: object) -> str:
    name = text(value).lower()
    if not re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(:[0-9]{1,5})?", name):
        raise Invalid(f"{clip(name)!r} is not a host name with or without a port")
    return name


def subnet(value: object) -> IPv4Network:
    cidr = text(value)
    try:
        network = IPv4Network(cidr, strict=False)
    except ValueError as exc:
        raise Invalid(f"{clip(cidr)!r} is not an IPv4 network like 192.168.1.0/24") from exc
    if cidr != str(network):
        raise Invalid(f"must be written as network and prefix length: {network}")
    return network


def address(value: object) -> IPAddress:
    written = text(value)
    try:
        ip = ip_address(written)
    except ValueError as exc:
        raise Invalid(f"{clip(written)!r} is not an IP address") from exc
    if ip.is_unspecified or ip.is_multicast or "%" in written:
        raise Invalid(f"{clip(written)!r} is not the address of one machine")
    return ip


def fingerprint(value: object) -> str:
    digits = text(value).upper()
    pairs = digits.split(":") if ":" in digits else re.findall("..?", digits)
    if len(pairs) != 32 or not all(re.fullmatch("[0-9A-F]{2}", pair) for pair in pairs):
        raise Invalid(
            "must be a SHA-256 fingerprint: 32 pairs of hex digits, as `pvenode cert info` shows it"
        )
    return ":".join(pairs)


def interface_name(value: object) -> str:
    """Of a link on this machine, be it a bridge or a VLAN (`dev_valid_name` in Linux's net/core/dev.c)."""
    name = text(value)
    if not re.fullmatch(r"[^\s/:]{1,15}", name) or name in (".", ".."):
        raise Invalid(f"{clip(name)!r} is not the name of a network interface, like eno1 or br0")
    return name


def user_name(value: object) -> str:
    name = text(value)
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", name):
        raise Invalid(f"{clip(name)!r} is not a user name")
    return name


def type_map(value: object) -> Mapping[str, str]:
    """Local server type to the inventory's id, which may be written as a number."""
    if not isinstance(value, dict):
        raise Invalid("must be a mapping of server types to the inventory's ids")
    wrong = [key for key, item in value.items() if isinstance(item, bool) or not isinstance(item, str | int)]
    if wrong:
        raise Misfits(*(((key,), "must be the inventory's id: text or a whole number") for key in wrong))
    return MappingProxyType({key: text(str(item)) for key, item in value.items()})


UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
LONGEST_DEADLINE = 7 * 24 * 3600


def duration(value: object) -> float:
    """`90s`, `30m`, `2h` or a number of seconds, as seconds."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh]?)", str(value))
    seconds = float(match[1]) * UNITS[match[2]] if match and not isinstance(value, bool) else 0
    if not 0 < seconds <= LONGEST_DEADLINE:
        raise Invalid("must be a duration like 90s, 30m or 2h, at most a week")
    return seconds


def show_duration(seconds: float) -> str:
    unit = next(unit for unit in ("h", "m", "s") if seconds % UNITS[unit] == 0 or unit == "s")
    return f"{seconds / UNITS[unit]:g}{unit}"


# --- the sections ----------------------------------------------------------------------------------


@frozen(kw_only=True)
class ServerSection:
    public_url: str = field(metadata=read_by(public_url))
    listen: str = field(default="0.0.0.0:8080", metadata=read_by(listen_address))
    auth: bool = field(default=True, metadata=read_by(on_or_off))
    allowed_hosts: tuple[str, ...] = field(default=(), metadata=read_by(listed(host_header)))

    @property
    def listen_host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def listen_port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def host_headers(self) -> frozenset[str]:
        """Every value of `Host:` to be believed, in lower case; others are DNS rebinding.

        A name without a port in `allowed_hosts` counts with the port of `listen` and of `public_url` too.
        """
        public = urlsplit(self.public_url.lower())
        public_port = public.port or {"http": 80, "https": 443}[public.scheme]
        names = {(public.netloc.removesuffix(f":{public.port}"), public_port)}
        names |= {(name, self.listen_port) for name in ("localhost", "127.0.0.1", "[::1]")}
        without_port = {name for name in self.allowed_hosts if ":" not in name.rpartition("]")[2]}
        names |= {(name, port) for name in without_port for port in (public_port, self.listen_port)}
        # Clients leave out the port that a scheme implies (RFC 9110 §7.2).
        portless = {name for name, port in names if port in (80, 443)}
        return frozenset({f"{name}:{port}" for name, port in names} | portless | set(self.allowed_hosts))


@frozen(kw_only=True)
class PxeSection:
    enabled: bool = field(default=True, metadata=read_by(boolean))
    interface: str | None = field(default=None, metadata=read_by(interface_name))
    subnet: IPv4Network | None = field(default=None, metadata=read_by(subnet))

    def misfits(self) -> Iterator[tuple[KeyPath, str]]:
        for name in ("interface", "subnet"):
            if self.enabled and getattr(self, name) is None:
                yield (name,), "is missing; pxe.enabled: false is the way to do without"


@frozen(kw_only=True)
class ProxmoxSection:
    existing_node: IPAddress = field(metadata=read_by(address))
    join_fingerprint: str = field(metadata=read_by(fingerprint))
    """SHA-256 of the API certificate: 32 upper-case pairs with colons."""
    installer_url: str = field(default="", metadata=read_by(web_url_or_nothing))
    """Where vmlinuz, initrd.img and proxmox.iso lie. `load_config` fills in provd's own images."""
    api_port: int = field(default=8006, metadata=read_by(port))


@frozen(kw_only=True)
class CredentialsSection:
    root_password_hash: Secret = field(metadata=read_by(of_text(installation.parse_root_password_hash)))
    cluster_password_file: Path | None = field(default=None, metadata=read_by(path))
    infrastructure_token_file: Path | None = field(default=None, metadata=read_by(path))
    root_ssh_keys: tuple[str, ...] = field(
        default=(), metadata=read_by(listed(of_text(installation.parse_ssh_public_key)))
    )


@frozen(kw_only=True)
class InfrastructureSection:
    base_url: str = field(default="", metadata=read_by(web_url_or_nothing))
    """Empty: there is no inventory service."""
    server_type_map: Mapping[str, str] = field(default=MappingProxyType({}), metadata=read_by(type_map))


@frozen(kw_only=True)
class InstallSection:
    """What a host gets where neither it nor its server type says otherwise."""

    domain: str = field(default="home.arpa", metadata=read_by(of_text(installation.parse_domain)))
    country: str = field(default="us", metadata=read_by(of_text(installation.parse_country)))
    keyboard: str = field(default="en-us", metadata=read_by(of_text(installation.parse_keyboard)))
    timezone: str = field(default="UTC", metadata=read_by(of_text(installation.parse_timezone)))
    mailto: str = field(default="root@localhost", metadata=read_by(of_text(installation.parse_mailto)))
    filesystem: str = field(default="ext4", metadata=read_by(of_text(installation.parse_filesystem)))
    raid: str | None = field(default=None, metadata=read_by(of_text(installation.parse_raid)))


@frozen(kw_only=True)
class SshSection:
    user: str = field(default="root", metadata=read_by(user_name))
    port: int = field(default=22, metadata=read_by(port))


@frozen(kw_only=True)
class PathsSection:
    """Relative paths in the file are relative to the file; here they are resolved."""

    state_dir: Path = field(default=Path("/var/lib/provd"), metadata=read_by(path))
    server_types: Path = field(default=Path("server-types.yaml"), metadata=read_by(path))


@frozen(kw_only=True)
class Deadlines:
    """Seconds that a host may stay in each state before its operation fails.

    Generous: a server's firmware may take ten minutes to come to its network boot, and an
    installation onto slow disks half an hour. A deadline is there to end what is dead, not what is slow.
    """

    pxe_ready: float = field(default=30 * 60.0, metadata=read_by(duration))
    """Someone may have to walk to the machine and switch it on."""
    pxe_booted: float = field(default=15 * 60.0, metadata=read_by(duration))
    """The installer's image is fetched and unpacked."""
    installing: float = field(default=45 * 60.0, metadata=read_by(duration))
    installed: float = field(default=20 * 60.0, metadata=read_by(duration))
    first_boot: float = field(default=15 * 60.0, metadata=read_by(duration))
    joining: float = field(default=15 * 60.0, metadata=read_by(duration))

    def of(self, state: State) -> float:
        """Raises `KeyError` for a state that nobody waits in."""
        return float(attrs.asdict(self)[state])


DEADLINE_STATES = tuple(State(attribute.name) for attribute in attrs.fields(Deadlines))


def deadline_overrides(value: object) -> Mapping[State, float]:
    """Single deadlines, by state, each read like those of the `deadlines` section."""
    if not isinstance(value, dict):
        raise Invalid("must be a mapping of states to durations")
    overrides, found = {}, []
    for key, item in value.items():
        try:
            if key not in DEADLINE_STATES:
                raise Invalid(f"is not a state with a deadline; known here: {', '.join(DEADLINE_STATES)}")
            overrides[State(key)] = duration(item)
        except Invalid as exc:
            found.append(((key,), str(exc)))
    if found:
        raise Misfits(*found)
    return MappingProxyType(overrides)


@frozen(kw_only=True)
class Config:
    server: ServerSection
    pxe: PxeSection = field(factory=PxeSection)
    proxmox: ProxmoxSection
    credentials: CredentialsSection
    infrastructure: InfrastructureSection = field(factory=InfrastructureSection)
    install: InstallSection = field(factory=InstallSection)
    ssh: SshSection = field(factory=SshSection)
    paths: PathsSection = field(factory=PathsSection)
    deadlines: Deadlines = field(factory=Deadlines)
    source: Path = field(default=Path(), metadata=NOT_A_KEY)

    @property
    def installer_url(self) -> str:
        return self.proxmox.installer_url or f"{self.server.public_url}/images/installer"

    def misfits(self) -> Iterator[tuple[KeyPath, str]]:
        # A file without a pxe section takes the default, which checks nothing by itself.
        yield from ((("pxe", *inner), reason) for inner, reason in self.pxe.misfits())


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read provisioning.yaml. Raises `ConfigError` with a line for every problem.

    $STATE_DIRECTORY, which systemd sets (systemd.exec(5)), beats the default state directory but
    not the file.
    """
    document = Document(path)
    config = document.structure(Config)
    here = path.absolute().parent
    state_dir = config.paths.state_dir
    if environ.get("STATE_DIRECTORY") and ("paths", "state_dir") not in document.lines:
        state_dir = Path(environ["STATE_DIRECTORY"].partition(":")[0])
    paths = PathsSection(state_dir=here / state_dir, server_types=here / config.paths.server_types)
    files = ("cluster_password_file", "infrastructure_token_file")
    credentials = evolve(
        config.credentials,
        **{name: here / file for name in files if (file := getattr(config.credentials, name))},
    )
    proxmox = evolve(config.proxmox, installer_url=config.installer_url)
    return evolve(config, paths=paths, credentials=credentials, proxmox=proxmox, source=path)


def read_credential(file: Path | None, name: str, credentials_dir: Path | None) -> Secret | None:
    """The secret in `file`, else systemd's credential of that name, else None.

    One trailing line break is not part of it. Raises `ConfigError` for a file that is named and
    missing, and for any that is unreadable, empty, of more than one line, or, unless systemd made it,
    open to others than its owner.
    """
    explicit = file is not None
    if file is None:
        if credentials_dir is None or not os.path.lexists(credentials_dir / name):
            return None
        file = credentials_dir / name
    try:
        content = read_file(file, LARGEST_CREDENTIAL, private=explicit).decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{file}: the {name} in it is not UTF-8 text") from exc
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file}: the {name} in it cannot be read: {why(exc)}") from exc
    content = content.removesuffix("\n").removesuffix("\r")
    if not content or not content.isprintable():
        raise ConfigError(f"{file}: the {name} in it must be one line of printable text")
    return Secret(content)


def describe(config: Config) -> str:
    """The effective configuration as YAML, secrets as ***."""
    sections = {
        name: attrs.asdict(section, value_serializer=show_value)
        for name, section in attrs.asdict(config, recurse=False).items()
        if attrs.has(type(section))
    }
    sections["server"]["auth"] = "on" if config.server.auth else "off"
    sections["deadlines"] = {
        state.value: show_duration(config.deadlines.of(state)) for state in DEADLINE_STATES
    }
    return f"# {config.source}\n" + yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=110)


def show_value(_: object, __: object, value: object) -> object:
    match value:
        case Secret():
            return "***"
        case Path() | IPv4Network() | IPv4Address() | IPv6Address():
            return str(value)
        case tuple():
            return list(value)
        case Mapping():
            return dict(value)
    return value
