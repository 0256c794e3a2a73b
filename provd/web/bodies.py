"""The JSON bodies of the API, parsed once into values. What is wrong is named by its field."""

from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from typing import TypeVar

from attrs import frozen
from quart import request

from provd.domain import installation as rules
from provd.domain.documents import parse_json
from provd.domain.errors import Invalid
from provd.domain.hosts import (
    Discovery,
    HostOptions,
    LocalBoot,
    Mac,
    Membership,
    StaticAddress,
    one_of,
    parse_file_name,
    parse_hostname,
    parse_nodeid,
)
from provd.domain.secrets import Secret

T = TypeVar("T")


@frozen(kw_only=True)
class Registration:
    """POST /api/hosts"""

    mac: Mac
    server_type: str
    hostname: str | None
    options: HostOptions


@frozen(kw_only=True)
class RebuildWish:
    """POST /api/hosts/{id}/rebuild"""

    password: Secret | None
    force: str | None
    """The host's name, typed to go on in spite of what a rehearsal said."""
    drain: bool | None
    """None: as the configuration says."""
    keep_entry: bool
    """A member is not struck out, and joins again under its entry."""


class Fields:
    """A JSON object whose fields are taken one by one; what nobody took is an error."""

    def __init__(self, document: object, path: str = "") -> None:
        self._path = path
        if not isinstance(document, dict):
            raise Invalid("a JSON object is expected here", path.rstrip(".") or None)
        self._left: dict[str, object] = dict(document)

    def optional(self, name: str, parse: Callable[[str], T]) -> T | None:
        """The field's text, parsed; None when it is absent, null or empty."""
        value = self._left.pop(name, None)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise Invalid(f"{self._path}{name} must be text", self._path + name)
        try:
            return parse(value)
        except Invalid as exc:
            raise Invalid(str(exc), self._path + name) from exc
        except ValueError as exc:
            raise Invalid(f"{self._path}{name}: {exc}", self._path + name) from exc

    def required(self, name: str, parse: Callable[[str], T]) -> T:
        value = self.optional(name, parse)
        if value is None:
            raise Invalid(f"{self._path}{name} is missing", self._path + name)
        return value

    def flag(self, name: str) -> bool | None:
        """None when it is absent or null."""
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, bool):
            raise Invalid(f"{self._path}{name} must be true or false", self._path + name)
        return value

    def texts(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...] | None:
        """A list of texts, each parsed; None when it is absent, null or empty."""
        values = self._left.pop(name, None) or []
        if not isinstance(values, list):
            raise Invalid(f"{self._path}{name} must be a list", self._path + name)
        each = [Fields({name: value}, self._path).required(name, parse) for value in values]
        return tuple(each) or None

    def object(self, name: str) -> "Fields | None":
        value = self._left.pop(name, None)
        return None if value is None else Fields(value, f"{self._path}{name}.")

    def end(self) -> None:
        if self._left:
            name = sorted(self._left)[0]
            raise Invalid(f"there is no field {self._path}{name[:60]}", f"{self._path}{name[:60]}")


async def received() -> bytes:
    """The body of this request, which the gate has measured already."""
    body = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    return body if isinstance(body, bytes) else body.encode()


def parse_registration(body: bytes) -> Registration:
    fields = Fields(parse_json(body))
    registration = Registration(
        mac=fields.required("mac", Mac.parse),
        server_type=fields.required("server_type", str),
        hostname=fields.optional("hostname", parse_hostname),
        options=_parse_options(fields.object("options")),
    )
    fields.end()
    return registration


def parse_password(body: bytes) -> Secret | None:
    """POST …/cluster-password; an empty body says nothing."""
    if not body.strip():
        return None
    fields = Fields(parse_json(body))
    password = fields.optional("cluster_password", _one_line_secret)
    fields.end()
    return password


def parse_rebuild(body: bytes) -> RebuildWish:
    """POST …/rebuild; an empty body wishes nothing."""
    fields = Fields(parse_json(body) if body.strip() else {})
    wish = RebuildWish(
        password=fields.optional("cluster_password", _one_line_secret),
        force=fields.optional("force", str),
        drain=fields.flag("drain"),
        keep_entry=fields.flag("keep_entry") or False,
    )
    fields.end()
    return wish


def parse_wishes(body: bytes) -> HostOptions:
    """PATCH /api/hosts/{id}: `options`, as a whole."""
    fields = Fields(parse_json(body))
    options = fields.object("options")
    if options is None:
        raise Invalid("options is missing", "options")
    fields.end()
    return _parse_options(options)


def _parse_options(fields: Fields | None) -> HostOptions:
    if fields is None:
        return HostOptions()
    options = HostOptions(
        address=_parse_address(fields.object("address")),
        filesystem=fields.optional("filesystem", rules.parse_filesystem),
        raid=fields.optional("raid", rules.parse_raid),
        disks=fields.texts("disks", rules.parse_disk),
        timezone=fields.optional("timezone", rules.parse_timezone),
        keyboard=fields.optional("keyboard", rules.parse_keyboard),
        country=fields.optional("country", rules.parse_country),
        mailto=fields.optional("mailto", rules.parse_mailto),
        domain=fields.optional("domain", rules.parse_domain),
        discovery=fields.optional("discovery", one_of(Discovery)),
        local_boot=fields.optional("local_boot", one_of(LocalBoot)),
        loader=fields.optional("loader", parse_file_name),
        cluster=fields.optional("cluster", one_of(Membership)),
        links=fields.texts("links", ip_address),
        nodeid=fields.optional("nodeid", parse_nodeid),
    )
    fields.end()
    return options


def _parse_address(fields: Fields | None) -> StaticAddress | None:
    if fields is None:
        return None
    address = StaticAddress(
        cidr=fields.required("cidr", _interface),
        gateway=fields.required("gateway", ip_address),
        dns=fields.required("dns", ip_address),
    )
    fields.end()
    if address.gateway not in address.cidr.network:
        raise Invalid(
            f"the gateway {address.gateway} is not in {address.cidr.network}", "options.address.gateway"
        )
    return address


def _interface(text: str):  # type: ignore[no-untyped-def]  # as typed as ip_interface
    if "/" not in text:
        # The installer would take a bare address for a /32 and cut the host off.
        raise Invalid(f"{text[:60]!r} needs its prefix length, as in 192.168.1.21/24")
    return ip_interface(text)


def _one_line_secret(text: str) -> Secret:
    if any(ord(character) < 32 for character in text):
        raise Invalid("a password is one line")
    return Secret(text)
