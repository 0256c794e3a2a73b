"""How single values of a YAML file are read: from what YAML made of them, or `Invalid` is raised."""

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import urlsplit

from provd.domain.architectures import Architecture
from provd.domain.errors import Invalid
from provd.domain.hosts import IPAddress, one_of, parse_file_name
from provd.yaml_document import Misfits, clip

T = TypeVar("T")


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


def loader_map(value: object) -> Mapping[Architecture, str]:
    """Architecture to the file name of its iPXE build."""
    if not isinstance(value, dict):
        raise Invalid("must be a mapping of architectures to file names")
    names, found = {}, []
    for key, item in value.items():
        try:
            names[one_of(Architecture)(text(key))] = parse_file_name(text(item))
        except Invalid as exc:
            found.append(((key,), str(exc)))
    if found:
        raise Misfits(*found)
    return MappingProxyType(names)


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
