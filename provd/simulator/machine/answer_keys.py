"""The words of an answer file, as tables: which keys exist in which installer, and what each may hold.

This is the first of two stages: types, enums, unknown keys. What only makes sense together, or only
against real disks and NICs, is `answer_rules`' business. Source: the Proxmox installer 8.2.6 to 9.2.7.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_interface
from pathlib import Path
from zoneinfo import TZPATH, available_timezones

from attrs import frozen

from provd.domain.hosts import IPAddress, IPInterface
from provd.simulator.machine.refusal import InstallerRefused

Version = tuple[int, int, int]

INSTALLERS: Mapping[str, Version] = {
    "8.2": (8, 2, 6),
    "8.3": (8, 3, 3),
    "8.4": (8, 4, 6),
    "9.0": (9, 0, 9),
    "9.1": (9, 1, 7),
    "9.2": (9, 2, 7),
}
"""The installer package that each release's last ISO carries. What an answer may say depends on it."""

ALWAYS: Version = (8, 2, 2)

_KEYBOARDS = "de de-ch dk en-gb en-us es fi fr fr-be fr-ca fr-ch hu is it jp lt mk nl no pl pt pt-br se si tr"
KEYBOARDS = frozenset(_KEYBOARDS.split())
_ISO_3166_1_ALPHA_2 = """
    ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bl bm bn bo bq br bs
    bt bv bw by bz ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee
    eg eh er es et fi fj fk fm fo fr ga gb gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm
    hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc
    li lk lr ls lt lu lv ly ma mc md me mf mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na
    nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw
    sa sb sc sd se sg sh si sj sk sl sm sn so sr ss st sv sx sy sz tc td tf tg th tj tk tl tm tn to
    tr tt tv tw tz ua ug um us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw
"""
COUNTRIES = frozenset(_ISO_3166_1_ALPHA_2.split())
# WHATWG HTML, "valid e-mail address": no dot needed in the domain.
_EMAIL = re.compile(
    r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
)
_LABEL = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_PINNED_NAME = re.compile(r"[a-z][a-z0-9_]*(?:[:.][0-9]+)?", re.IGNORECASE)


def timezones() -> frozenset[str]:
    """The names of zone.tab, without `Etc/…` and without links such as `US/Eastern`, plus `UTC`."""
    for folder in TZPATH:
        table = Path(folder) / "zone.tab"
        if table.is_file():
            rows = (line.split("\t") for line in table.read_text("utf-8").splitlines() if line[:1] != "#")
            return frozenset(row[2] for row in rows if len(row) > 2) | {"UTC"}
    zones = (name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "US/")))
    return frozenset(zones) | {"UTC"}


# --- what a value may be: each reader takes the value and the name to complain about --------------


def text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InstallerRefused(f"{name}: invalid type, expected a string")
    return value


def texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InstallerRefused(f"{name}: invalid type, expected a sequence")
    return tuple(text(item, name) for item in value)


def flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InstallerRefused(f"{name}: invalid type, expected a boolean")
    return value


def u32(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise InstallerRefused(f"{name}: invalid value, expected u32")
    return value


def gib(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InstallerRefused(f"{name}: invalid type, expected a number")
    try:
        return float(value)
    except OverflowError as error:
        raise InstallerRefused(f"{name}: number out of range") from error


def text_map(value: object, name: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InstallerRefused(f"{name}: invalid type, expected a map")
    return {key: text(item, f"{name}.{key}") for key, item in value.items()}


def anything(value: object, name: str) -> object:
    return value


def one_of(*variants: str) -> Callable[[object, str], str]:
    def read(value: object, name: str) -> str:
        if text(value, name) not in variants:
            raise InstallerRefused(
                f"{name}: unknown variant `{value}`, expected one of {', '.join(variants)}"
            )
        return str(value)

    return read


def address(value: object, name: str) -> IPAddress:
    try:
        if "%" in text(value, name):
            raise ValueError("zone")
        return ip_address(text(value, name))
    except ValueError as error:
        raise InstallerRefused(f"{name}: invalid IP address syntax") from error


def cidr(value: object, name: str) -> IPInterface:
    """`ip/len`. Without `/len` it silently becomes a host route: /32 or /128 (measured with 9.2.7)."""
    _, slash, length = text(value, name).partition("/")
    if "%" in text(value, name) or (slash and not (length.isascii() and length.isdigit())):
        raise InstallerRefused(f"{name}: invalid CIDR")
    try:
        return ip_interface(text(value, name))
    except ValueError as error:
        raise InstallerRefused(f"{name}: invalid IP address") from error


def country(value: object, name: str) -> str:
    if text(value, name) not in COUNTRIES:
        raise InstallerRefused(f"{name}: country code {value!r} is not valid")
    return str(value)


def mailto(value: object, name: str) -> str:
    if _EMAIL.fullmatch(text(value, name)) is None or value == "mail@example.invalid":
        raise InstallerRefused(f"{name}: {value!r} is not a valid e-mail address")
    return str(value)


def timezone(value: object, name: str) -> str:
    if text(value, name) not in timezones():
        raise InstallerRefused(f"{name}: timezone {value!r} is not valid")
    return str(value)


def check_fqdn(fqdn: str, name: str) -> str:
    """At least two labels, the first not of digits alone, 253 characters (proxmox-network-types 1.1.3)."""
    labels = fqdn.split(".")
    if len(fqdn) > 253 or any(_LABEL.fullmatch(label) is None for label in labels):
        raise InstallerRefused(f"{name}: {fqdn!r} is not a valid FQDN")
    if len(labels) < 2:
        raise InstallerRefused(f"{name}: {fqdn!r} has no domain part")
    if labels[0].isdigit():
        raise InstallerRefused(f"{name}: the host name must not be of digits alone")
    return fqdn


def pin_map(value: object, name: str) -> dict[str, str]:
    pins = text_map(value, name)
    for pin in pins.values():
        if not 2 <= len(pin) <= 15 or _PINNED_NAME.fullmatch(pin) is None:
            raise InstallerRefused(f"{name}: {pin!r} is not a valid interface name")
    if len(set(pins.values())) != len(pins):
        raise InstallerRefused(f"{name}: duplicate interface name")
    return {mac.lower(): pin for mac, pin in pins.items()}


# --- the tables ----------------------------------------------------------------------------------


@frozen(kw_only=True)
class Key:
    """One key. `snake`: its older spelling with underscores is accepted too."""

    read: Callable[[object, str], object] = text
    required: bool = False
    since: Version = ALWAYS
    snake: bool = True


SECTIONS: Mapping[str, Key] = {
    "global": Key(read=anything, required=True),
    "network": Key(read=anything, required=True),
    "disk-setup": Key(read=anything, required=True, snake=False),
    "post-installation-webhook": Key(read=anything, snake=False, since=(8, 2, 7)),
    "first-boot": Key(read=anything, snake=False, since=(8, 3, 0)),
}
GLOBAL: Mapping[str, Key] = {
    "country": Key(read=country, required=True),
    "fqdn": Key(read=anything, required=True),
    "keyboard": Key(read=one_of(*sorted(KEYBOARDS)), required=True),
    "mailto": Key(read=mailto, required=True),
    "timezone": Key(read=timezone, required=True),
    "root-password": Key(),
    "root-password-hashed": Key(since=(8, 2, 7)),
    "root-ssh-keys": Key(read=texts),
    "reboot-on-error": Key(read=flag),
    "reboot-mode": Key(read=one_of("reboot", "power-off"), since=(8, 4, 3)),
    "subscription-key": Key(since=(9, 2, 0)),
}
FQDN_TABLE: Mapping[str, Key] = {"source": Key(read=one_of("from-dhcp")), "domain": Key()}
PINNING: Mapping[str, Key] = {"enabled": Key(read=flag, required=True), "mapping": Key(read=pin_map)}
_PINNING_KEY = Key(read=anything, since=(9, 1, 0), snake=False)
NETWORK: Mapping[str, Mapping[str, Key]] = {
    "from-dhcp": {"source": Key(), "interface-name-pinning": _PINNING_KEY},
    "from-answer": {
        "source": Key(),
        "cidr": Key(read=cidr, required=True),
        "gateway": Key(read=address, required=True),
        "dns": Key(read=address, required=True),
        "filter": Key(read=text_map),
        "interface-name-pinning": _PINNING_KEY,
    },
}
DISK_SETUP: Mapping[str, Key] = {
    "filesystem": Key(read=one_of("ext4", "xfs", "zfs", "btrfs"), required=True),
    "disk-list": Key(read=texts),
    "filter": Key(read=text_map),
    "filter-match": Key(read=one_of("any", "all")),
    "zfs": Key(read=anything),
    "lvm": Key(read=anything),
    "btrfs": Key(read=anything),
}
OPTIONS: Mapping[str, Mapping[str, Key]] = {
    "zfs": {
        "raid": Key(),
        "ashift": Key(read=u32),
        "arc-max": Key(read=u32),
        "checksum": Key(read=one_of("on", "fletcher4", "sha256")),
        "compress": Key(read=one_of("on", "off", "lzjb", "lz4", "zle", "gzip", "zstd")),
        "copies": Key(read=u32),
        "hdsize": Key(read=gib),
    },
    "lvm": {name: Key(read=gib) for name in ("hdsize", "swapsize", "maxroot", "maxvz", "minfree")},
    "btrfs": {
        "raid": Key(),
        "compress": Key(read=one_of("on", "off", "zlib", "lzo", "zstd"), since=(8, 2, 7)),
        "hdsize": Key(read=gib),
    },
}
WEBHOOK: Mapping[str, Key] = {
    "url": Key(required=True),
    "cert-fingerprint": Key(),
    "auth-token": Key(since=(9, 2, 0)),
}
FIRST_BOOT: Mapping[str, Key] = {
    "source": Key(read=one_of("from-url", "from-iso"), required=True),
    "ordering": Key(read=one_of("before-network", "network-online", "fully-up")),
    "url": Key(),
    "cert-fingerprint": Key(),
}


class Table:
    """A table of the answer after the first stage: canonical names, values of the right types."""

    def __init__(self, raw: object, name: str, keys: Mapping[str, Key], installer: Version) -> None:
        """Raise `InstallerRefused` for a key that this installer does not know, lacks or cannot read.

        Multi-word keys are kebab-case from 8.4.0 on and were snake_case only before; section names were
        kebab-case from the start.
        """
        if not isinstance(raw, dict):
            raise InstallerRefused(f"{name}: invalid type, expected a table")
        self.name = name
        self.values: dict[str, object] = {}
        for spelling, value in raw.items():
            canonical = spelling.replace("_", "-")
            key = keys.get(canonical)
            is_snake = "_" in spelling
            if (
                key is None
                or key.since > installer
                or (is_snake and (not key.snake or "-" in spelling))
                or (not is_snake and "-" in spelling and key.snake and installer < (8, 4, 0))
            ):
                expected = ", ".join(sorted(n for n, k in keys.items() if k.since <= installer))
                raise InstallerRefused(f"{name}: unknown field `{spelling}`, expected one of {expected}")
            if canonical in self.values:
                raise InstallerRefused(f"{name}: duplicate field `{canonical}`")
            self.values[canonical] = key.read(value, f"{name}.{canonical}")
        for canonical, key in keys.items():
            if key.required and canonical not in self.values:
                raise InstallerRefused(f"{name}: missing field `{canonical}`")

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return None if value is None else str(value)

    def flag(self, key: str) -> bool:
        return self.values.get(key) is True

    def number(self, key: str) -> float | None:
        value = self.values.get(key)
        return float(value) if isinstance(value, int | float) else None

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key)
        return value if isinstance(value, tuple) else ()

    def map(self, key: str) -> dict[str, str] | None:
        value = self.values.get(key)
        return value if isinstance(value, dict) else None
