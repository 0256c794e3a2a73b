"""provisioning.yaml as frozen values, or a `ConfigError` that names file, line, key and reason.

Each service is handed its section, never the whole. Secrets are named here and read from files or
from systemd's credentials. Nothing is reloaded: a change takes effect at the next start.
"""

import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import attrs
import yaml
from attrs import evolve, field, frozen

from provd.domain import installation
from provd.domain.architectures import Architecture
from provd.domain.errors import ConfigError, Invalid
from provd.domain.hosts import IPAddress, one_of
from provd.domain.lifecycle import State
from provd.domain.secrets import Secret
from provd.yaml_document import NOT_A_KEY, Document, KeyPath, Misfits, read_by, read_file, why
from provd.yaml_values import (
    address,
    boolean,
    duration,
    fingerprint,
    host_header,
    interface_name,
    listed,
    listen_address,
    loader_map,
    of_text,
    on_or_off,
    path,
    port,
    public_url,
    show_duration,
    subnet,
    type_map,
    user_name,
    web_url_or_nothing,
)

LARGEST_CREDENTIAL = 4096


@frozen(kw_only=True)
class ServerSection:
    public_url: str = field(metadata=read_by(public_url))
    listen: str = field(default="0.0.0.0:8080", metadata=read_by(listen_address))
    auth: bool = field(default=True, metadata=read_by(on_or_off))
    allowed_hosts: tuple[str, ...] = field(default=(), metadata=read_by(listed(host_header)))
    image_listen: str = field(default="0.0.0.0:8081", metadata=read_by(listen_address))
    """Where kernel, initrd and ISO are served, on a listener of its own."""
    image_url: str = field(default="", metadata=read_by(web_url_or_nothing))
    """How machines reach `image_listen`. Empty: by `public_url`'s host, in plain HTTP."""

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


class Unknown(StrEnum):
    """What a machine that nobody registered gets when it asks the network what to boot."""

    IGNORE = "ignore"
    """Silence. It is not even remembered."""
    LOG = "log"
    """Silence, and it is listed as seen."""
    MENU = "menu"
    """A menu on its screen that tells what it is, lets it be listed, and boots its disk by itself."""


@frozen(kw_only=True)
class PxeSection:
    enabled: bool = field(default=True, metadata=read_by(boolean))
    interface: str | None = field(default=None, metadata=read_by(interface_name))
    subnet: IPv4Network | None = field(default=None, metadata=read_by(subnet))
    unknown: Unknown = field(default=Unknown.LOG, metadata=read_by(of_text(one_of(Unknown))))
    loader_dir: Path = field(default=Path("/usr/lib/ipxe"), metadata=read_by(path))
    """Where the iPXE builds lie; Debian's package `ipxe` puts them there."""
    loaders: Mapping[Architecture, str] = field(default=MappingProxyType({}), metadata=read_by(loader_map))
    """File names in `loader_dir`, by architecture, where the usual one is not wanted."""

    @property
    def lan(self) -> tuple[str, IPv4Network]:
        """Interface and subnet, which are there where `enabled` is true."""
        assert self.interface is not None, "misfits() told it"
        assert self.subnet is not None, "misfits() told it"
        return self.interface, self.subnet

    def misfits(self) -> Iterator[tuple[KeyPath, str]]:
        for name in ("interface", "subnet"):
            if self.enabled and getattr(self, name) is None:
                yield (name,), "is missing; pxe.enabled: false is the way to do without"


@frozen(kw_only=True)
class ProxmoxSection:
    existing_node: IPAddress | None = field(default=None, metadata=read_by(address))
    """None: there is no cluster, and hosts stand alone."""
    join_fingerprint: str = field(default="", metadata=read_by(fingerprint))
    """SHA-256 of the API certificate: 32 upper-case pairs with colons."""
    drain: bool = field(default=False, metadata=read_by(boolean))
    """Whether a member goes into HA maintenance before it is rebuilt, unless the rebuild says otherwise."""
    installer_url: str = field(default="", metadata=read_by(web_url_or_nothing))
    """Where vmlinuz, initrd.img and proxmox.iso lie on another web server. Empty: provd's own images."""
    api_port: int = field(default=8006, metadata=read_by(port))

    def misfits(self) -> Iterator[tuple[KeyPath, str]]:
        if self.existing_node is not None and not self.join_fingerprint:
            yield ("join_fingerprint",), "is missing: without it no member can be told from an impostor"
        if self.existing_node is None and self.join_fingerprint:
            yield ("existing_node",), "is missing; leave join_fingerprint out too where there is no cluster"


@frozen(kw_only=True)
class CredentialsSection:
    root_password_hash: Secret = field(metadata=read_by(of_text(installation.parse_root_password_hash)))
    cluster_password_file: Path | None = field(default=None, metadata=read_by(path))
    cluster_token_file: Path | None = field(default=None, metadata=read_by(path))
    """An API token, USER@REALM!ID=SECRET, to read with; needs Sys.Audit and VM.Audit on /."""
    cluster_ssh_key_file: Path | None = field(default=None, metadata=read_by(path))
    """An ed25519 key of provd's own that root's authorized_keys in the cluster has."""
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

    @property
    def images_dir(self) -> Path:
        return self.state_dir / "images"


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
    proxmox: ProxmoxSection = field(factory=ProxmoxSection)
    credentials: CredentialsSection
    infrastructure: InfrastructureSection = field(factory=InfrastructureSection)
    install: InstallSection = field(factory=InstallSection)
    ssh: SshSection = field(factory=SshSection)
    paths: PathsSection = field(factory=PathsSection)
    deadlines: Deadlines = field(factory=Deadlines)
    source: Path = field(default=Path(), metadata=NOT_A_KEY)

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
    files = (
        "cluster_password_file",
        "cluster_token_file",
        "cluster_ssh_key_file",
        "infrastructure_token_file",
    )
    credentials = evolve(
        config.credentials,
        **{name: here / file for name in files if (file := getattr(config.credentials, name))},
    )
    server = evolve(config.server, image_url=config.server.image_url or image_url(config.server))
    return evolve(config, server=server, paths=paths, credentials=credentials, source=path)


def image_url(server: ServerSection) -> str:
    """The public URL's host and the image listener's port. Plain HTTP: no iPXE of Debian trusts our CA."""
    host = urlsplit(server.public_url).hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{server.image_listen.rpartition(':')[2]}"


def read_credential(
    file: Path | None, name: str, credentials_dir: Path | None, *, lines: bool = False
) -> Secret | None:
    """The secret in `file`, else systemd's credential of that name, else None.

    One trailing line break is not part of it. Raises `ConfigError` for a file that is named and
    missing, and for any that is unreadable, empty, of more than one line unless it may have `lines`,
    or, unless systemd made it, open to others than its owner.
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
    printable = all(line.isprintable() for line in content.splitlines()) if lines else content.isprintable()
    if not content or not printable:
        raise ConfigError(f"{file}: the {name} in it must be {'' if lines else 'one line of '}printable text")
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
            return {str(key): item for key, item in value.items()}
        case StrEnum():
            return str(value)
    return value
