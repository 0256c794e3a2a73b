"""What an answer must look like before it may leave: keys, types, words, and what belongs together.

A second opinion on `answer.py`, which builds answers and is never asked here: an installer that stops at
an answer stops at its console, and one that misreads it wipes another disk. Stricter than the
installer where that lets things pass which nobody means: an address without mask, a hash that is none,
a filter that takes the first disk it meets. Source: the Proxmox installer 8.4 to 9.2.
"""

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address, ip_interface
from urllib.parse import urlsplit

from attrs import frozen

from provd.domain import installation
from provd.domain.errors import Invalid

Release = tuple[int, int]
Rule = Callable[[object], str | None]
"""Says what is wrong with a value, without the value: some are secrets. None: nothing."""

ALWAYS: Release = (8, 4)

_FQDN = re.compile(
    r"(?!\d+\.)(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+",
    re.ASCII,
)
_WITH_LENGTH = re.compile(r"[0-9a-f.:]+/[0-9]{1,3}", re.ASCII | re.IGNORECASE)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NIC = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,14}", re.ASCII)
_PROPERTY = re.compile(r"[A-Z][A-Z0-9_]{1,60}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31}", re.ASCII)


# --- one value at a time ---------------------------------------------------------------------------


def text(value: object) -> str | None:
    return None if isinstance(value, str) and value else "must be text"


def flag(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def one_of(*words: str) -> Rule:
    return lambda value: (
        None if isinstance(value, str) and value in words else f"must be one of {', '.join(sorted(words))}"
    )


def like(pattern: re.Pattern[str], meaning: str) -> Rule:
    return lambda value: None if isinstance(value, str) and pattern.fullmatch(value) else f"must be {meaning}"


def spelled_by(parse: Callable[[str], object]) -> Rule:
    """Whatever a parser of the domain takes, in the very spelling that it gives back."""

    def rule(value: object) -> str | None:
        if not isinstance(value, str):
            return "must be text"
        try:
            parsed = parse(value)
        except Invalid as exc:
            return str(exc)
        return None if not isinstance(parsed, str) or parsed == value else "is not in its canonical spelling"

    return rule


def hostname(value: object) -> str | None:
    return like(_FQDN, "a full name of at least two labels, the first not of digits alone")(value)


def address(value: object) -> str | None:
    try:
        return None if isinstance(value, str) and ip_address(value) and "%" not in value else "must be text"
    except ValueError:
        return "must be an IP address"


def address_with_mask(value: object) -> str | None:
    """Without its mask the installer takes it for a host route, and the host is never heard of again."""
    try:
        if isinstance(value, str) and _WITH_LENGTH.fullmatch(value) and ip_interface(value):
            return None
    except ValueError:
        pass
    return "must be an IP address with its mask, like 192.0.2.21/24"


def web_address(value: object) -> str | None:
    if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value:
        try:
            parts = urlsplit(value)
        except ValueError:
            return "must be a web address"
        if parts.scheme in ("http", "https") and parts.netloc:
            return None
    return "must be a web address"


def keys(value: object) -> str | None:
    if not isinstance(value, list):
        return "must be a list"
    return next((why for key in value if (why := text(key)) is not None), None)


def whole_disks(value: object) -> str | None:
    """Whole paths: the installer compares their end, so that `da` alone is /dev/sda."""
    if not isinstance(value, list) or not value:
        return "must be a list of disks"
    if wrong := [disk for disk in value if not isinstance(disk, str) or not disk.startswith("/dev/")]:
        return f"has {len(wrong)} that are no whole path, like /dev/sda"
    return "names a disk twice" if len(set(value)) < len(value) else None


def one_property(value: object) -> str | None:
    """Of several properties one is enough for the installer, and it takes the first device that has it."""
    if not isinstance(value, dict) or len(value) != 1:
        return "must be a single property: of several, any one would do"
    [(name, wanted)] = value.items()
    if _PROPERTY.fullmatch(name) is None or not isinstance(wanted, str) or not wanted:
        return "must be a property of udev and its value"
    return "has a pattern for a value: it could match several devices" if set(wanted) & set("*?[") else None


def pins(value: object) -> str | None:
    if not isinstance(value, dict) or not value:
        return "must map MAC addresses to names"
    names = list(value.values())
    if not all(_MAC.fullmatch(mac) for mac in value):
        return "must have MAC addresses in lower case"
    if not all(isinstance(name, str) and _NIC.fullmatch(name) for name in names):
        return "must have names of 2 to 15 letters, digits and underscores"
    return "gives two NICs one name" if len(set(names)) < len(names) else None


def count(lowest: int, highest: int) -> Rule:
    return lambda value: (
        None if type(value) is int and lowest <= value <= highest else f"must be from {lowest} to {highest}"
    )


def gib(value: object) -> str | None:
    return None if type(value) in (int, float) and 0 < float(str(value)) < 1e6 else "must be a size in GiB"


# --- the tables ------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Key:
    rule: Rule = text
    required: bool = False
    since: Release = ALWAYS


Keys = Mapping[str, Key]

TABLE = Key(rule=lambda value: None if isinstance(value, dict) else "must be a table", required=True)

SECTIONS: Keys = dict.fromkeys(
    ("global", "network", "disk-setup", "post-installation-webhook", "first-boot"), TABLE
)
"""All of them, though the installer insists on three: without webhook and first boot provd hears nothing."""

GLOBAL: Keys = {
    "fqdn": Key(rule=hostname, required=True),
    "country": Key(rule=spelled_by(installation.parse_country), required=True),
    "keyboard": Key(rule=spelled_by(installation.parse_keyboard), required=True),
    "timezone": Key(rule=spelled_by(installation.parse_timezone), required=True),
    "mailto": Key(rule=spelled_by(installation.parse_mailto), required=True),
    "root-password-hashed": Key(rule=spelled_by(installation.parse_root_password_hash), required=True),
    "root-ssh-keys": Key(rule=keys),
    "reboot-on-error": Key(rule=flag, required=True),
    "reboot-mode": Key(rule=one_of("reboot", "power-off"), since=(9, 0)),
    "subscription-key": Key(since=(9, 2)),
}
_PINNING_TABLE = Key(rule=TABLE.rule, since=(9, 1))
PINNING: Keys = {"enabled": Key(rule=flag, required=True), "mapping": Key(rule=pins, required=True)}
NETWORK: Mapping[str, Keys] = {
    "from-dhcp": {"source": Key(), "interface-name-pinning": _PINNING_TABLE},
    "from-answer": {
        "source": Key(),
        "cidr": Key(rule=address_with_mask, required=True),
        "gateway": Key(rule=address, required=True),
        "dns": Key(rule=address, required=True),
        "filter": Key(rule=one_property, required=True),
        "interface-name-pinning": _PINNING_TABLE,
    },
}
OPTIONS: Mapping[str, Keys] = {
    "ext4": {name: Key(rule=gib) for name in ("hdsize", "swapsize", "maxroot", "maxvz", "minfree")},
    "xfs": {name: Key(rule=gib) for name in ("hdsize", "swapsize", "maxroot", "maxvz", "minfree")},
    "zfs": {
        "raid": Key(rule=one_of(*installation.RAIDS["zfs"]), required=True),
        "ashift": Key(rule=count(9, 16)),
        "arc-max": Key(rule=count(64, 1 << 24)),
        "checksum": Key(rule=one_of("on", "fletcher4", "sha256")),
        "compress": Key(rule=one_of("on", "off", "lzjb", "lz4", "zle", "gzip", "zstd")),
        "copies": Key(rule=count(1, 3)),
        "hdsize": Key(rule=gib),
    },
    "btrfs": {
        "raid": Key(rule=one_of(*installation.RAIDS["btrfs"]), required=True),
        "compress": Key(rule=one_of("on", "off", "zlib", "lzo", "zstd")),
        "hdsize": Key(rule=gib),
    },
}
OPTION_TABLE: Mapping[str, str] = {"ext4": "lvm", "xfs": "lvm", "zfs": "zfs", "btrfs": "btrfs"}
DISK_SETUP: Keys = {
    "filesystem": Key(rule=one_of(*installation.RAIDS), required=True),
    "disk-list": Key(rule=whole_disks),
    "filter": Key(rule=one_property),
    **{name: Key(rule=TABLE.rule) for name in ("lvm", "zfs", "btrfs")},
}
WEBHOOK: Keys = {
    "url": Key(rule=web_address, required=True),
    "cert-fingerprint": Key(rule=like(_FINGERPRINT, "the SHA-256 of a certificate")),
    "auth-token": Key(since=(9, 2)),
}
FIRST_BOOT: Keys = {
    "source": Key(rule=one_of("from-url"), required=True),
    "ordering": Key(rule=one_of("before-network", "network-online", "fully-up"), required=True),
    "url": Key(rule=web_address, required=True),
    "cert-fingerprint": WEBHOOK["cert-fingerprint"],
}


def misfits(answer: str, release: Release) -> tuple[str, ...]:
    """What is wrong with an answer for the installer of `release`, one sentence each; () when it fits."""
    try:
        document: object = tomllib.loads(answer)
    except (ValueError, RecursionError) as exc:
        return (f"the answer is not TOML: {type(exc).__name__}",)
    found = list(_table(document, "answer", SECTIONS, release))
    if found or not isinstance(document, dict):
        return tuple(found)
    found += _table(document["global"], "global", GLOBAL, release)
    found += _network(document["network"], release)
    found += _disk_setup(document["disk-setup"], release)
    found += _table(document["post-installation-webhook"], "post-installation-webhook", WEBHOOK, release)
    found += _table(document["first-boot"], "first-boot", FIRST_BOOT, release)
    return tuple(found)


def _table(table: object, name: str, known: Keys, release: Release) -> Iterator[str]:
    if not isinstance(table, dict):
        yield f"{name} must be a table"
        return
    for key, value in table.items():
        if key not in known:
            yield f"{name} has a key that no installer knows: {key[:40]!r}"
        elif known[key].since > release:
            yield f"{name}.{key} is known from {_dotted(known[key].since)} on, not to {_dotted(release)}"
        elif (why := known[key].rule(value)) is not None:
            yield f"{name}.{key} {why}"
    yield from (f"{name}.{key} is missing" for key, it in known.items() if it.required and key not in table)


def _network(table: Mapping[str, object], release: Release) -> Iterator[str]:
    source = table.get("source")
    if not isinstance(source, str) or source not in NETWORK:
        yield f"network.source must be one of {', '.join(NETWORK)}"
        return
    found = list(_table(table, "network", NETWORK[source], release))
    yield from found
    if not found and source == "from-answer":
        network = ip_interface(str(table["cidr"])).network
        if ip_address(str(table["gateway"])) not in network:
            yield f"network.gateway is not in {network}"
    if "interface-name-pinning" in table:
        pinning = table["interface-name-pinning"]
        yield from _table(pinning, "network.interface-name-pinning", PINNING, release)
        if isinstance(pinning, dict) and pinning.get("enabled") is False:
            yield "network.interface-name-pinning must not be disabled: the installer pins all the same"


def _disk_setup(table: Mapping[str, object], release: Release) -> Iterator[str]:
    found = list(_table(table, "disk-setup", DISK_SETUP, release))
    yield from found
    if ("disk-list" in table) == ("filter" in table):
        yield "disk-setup must have either disk-list or filter"
    filesystem = table.get("filesystem")
    if found or not isinstance(filesystem, str):
        return
    fitting = OPTION_TABLE[filesystem]
    yield from (
        f"disk-setup.{name} is not for {filesystem}"
        for name in dict.fromkeys(OPTION_TABLE.values())
        if name in table and name != fitting
    )
    options = table.get(fitting, {})
    wrong = list(_table(options, f"disk-setup.{fitting}", OPTIONS[filesystem], release))
    yield from wrong
    disks = table.get("disk-list")
    if wrong or not isinstance(options, dict):
        return
    if options.get("swapsize", 0) > options.get("hdsize", math.inf) / 2:
        yield "disk-setup.lvm.swapsize must be at most half of hdsize"
    if isinstance(disks, list):
        yield from _disk_count(filesystem, options.get("raid"), len(disks))


def _disk_count(filesystem: str, raid: object, disks: int) -> Iterator[str]:
    levels = installation.RAIDS[filesystem]
    if not levels and disks != 1:
        yield f"disk-setup.disk-list must name one disk for {filesystem}, not {disks}"
    if isinstance(raid, str) and disks < levels.get(raid, 0):
        yield f"disk-setup.disk-list must name {levels[raid]} disks or more for {raid}, not {disks}"
    if raid == "raid10" and disks % 2:
        yield f"disk-setup.disk-list must name an even number of disks for raid10, not {disks}"


def _dotted(release: Release) -> str:
    return ".".join(map(str, release))
