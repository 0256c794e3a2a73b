"""What an existing member of the cluster says about it, read over its REST API.

Only the login and reading: nothing here changes a cluster. The member is known by the fingerprint of
its certificate, and root's password is sent to nobody else. API tokens are not used, since the same
password is needed for the join anyway, which takes no token (pve-cluster 9.1).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import quote

import cattrs
from attrs import define, field, frozen

from provd.domain.errors import ClusterFailed
from provd.domain.hosts import IPAddress
from provd.domain.secrets import Secret
from provd.http_client import (
    AsyncClient,
    HTTPError,
    InvalidURL,
    Response,
    describe_failure,
    find_mismatch,
    open_client,
)

T = TypeVar("T")


class LoginRefused(ClusterFailed):
    """Root's password is wrong or not enough. To ask again does not help, and costs 3 s each time."""


@frozen(kw_only=True)
class NodeStatus:
    name: str
    nodeid: int
    """0 on a machine that is in no cluster."""
    ip: IPAddress | None = None
    """None for a node that was not seen since the asked member started."""
    online: bool


@frozen(kw_only=True)
class ClusterStatus:
    name: str | None
    """None: the asked machine is in no cluster."""
    quorate: bool
    version: int
    """Of corosync.conf; grows by one with every change of members. 0 without a cluster."""
    nodes: tuple[NodeStatus, ...]


@frozen(kw_only=True)
class ConfigNode:
    """A member as corosync.conf has it, whether it runs or not."""

    name: str
    nodeid: int
    quorum_votes: int = 1
    """1 where the file says nothing (corosync.conf(5))."""
    ring0_addr: str | None = None
    """An address, or a name that every member resolves."""


@frozen(kw_only=True)
class ClusterRow:
    """The row of `/cluster/status` about the whole."""

    name: str
    quorate: bool
    version: int


@frozen(kw_only=True)
class Ticket:
    """The answer of `/access/ticket`."""

    ticket: str = field(repr=False)
    NeedTFA: bool = False


def exact_text(value: object, _: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("not a line of text")
    return value


def exact_int(value: object, _: object) -> int:
    """Perl does not tell 7 from "7", and what comes from corosync.conf is always text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a whole number")
    return value


def exact_bool(value: object, _: object) -> bool:
    if value not in (0, 1, "0", "1") or isinstance(value, float):
        raise ValueError("neither 0 nor 1")
    return value in (1, "1")


def exact_address(value: object, _: object) -> IPAddress:
    return ip_address(exact_text(value, str))


# Members newer than provd send more keys than it knows: those are ignored. A missing or mistyped one
# is an answer that provd does not understand.
CONVERTER = cattrs.Converter(detailed_validation=False)
CONVERTER.register_structure_hook(str, exact_text)
CONVERTER.register_structure_hook(int, exact_int)
CONVERTER.register_structure_hook(bool, exact_bool)
CONVERTER.register_structure_hook(IPAddress, exact_address)
CONVERTER.register_structure_hook(
    IPAddress | None, lambda value, _: None if value is None else exact_address(value, None)
)


@define(eq=False)
class Member:
    """One member, logged in as root@pam. The ticket lives for two hours; nobody keeps one that long."""

    name: str
    """`address:port`, for sentences."""
    client: AsyncClient
    headers: dict[str, str] = field(factory=dict, repr=False)

    async def log_in(self, password: Secret) -> None:
        """Raise `LoginRefused` when the password is wrong or not enough."""
        path = "/access/ticket"
        response = await self.send("POST", path, {"username": "root@pam", "password": password.reveal()})
        if response.status_code == 401:
            raise LoginRefused(
                f"the cluster refused root's password (asked {self.name}): give the right one with the next"
                " rebuild, or correct credentials.cluster_password_file"
            )
        answer = parse(Ticket, read_envelope(response, f"{self.name}{path}"), f"{self.name}{path}")
        if answer.NeedTFA:
            raise LoginRefused(
                f"root@pam has a second factor on {self.name}, which provd cannot give, nor could the host"
                " that is to join: remove it under Datacenter > Permissions > Two Factor"
            )
        # Encoded, because a ticket may hold characters that end a cookie (RFC 6265 §4.1.1).
        self.headers["Cookie"] = f"PVEAuthCookie={quote(answer.ticket, safe='')}"

    async def status(self) -> ClusterStatus:
        """What this member sees at this moment; on a member that was cut off, not what the others see."""
        return parse_status(await self.get("/cluster/status"), f"{self.name}/cluster/status")

    async def config_nodes(self) -> tuple[ConfigNode, ...]:
        """Who is configured as a member, with votes; empty on a machine that is in no cluster."""
        asked = f"{self.name}/cluster/config/nodes"
        return tuple(
            parse(ConfigNode, row, asked) for row in rows(await self.get("/cluster/config/nodes"), asked)
        )

    async def get(self, path: str) -> Any:
        return read_envelope(await self.send("GET", path), f"{self.name}{path}")

    async def send(self, method: str, path: str, form: dict[str, str] | None = None) -> Response:
        url = f"https://{self.name}/api2/json{path}"
        try:
            return await self.client.request(method, url, data=form, headers=self.headers)
        except (HTTPError, InvalidURL) as exc:
            if mismatch := find_mismatch(exc):
                raise ClusterFailed(
                    f"the certificate of {self.name} is not the configured one: proxmox.join_fingerprint is"
                    f" {mismatch.expected}, but it presents {mismatch.actual}. Certificates are renewed now"
                    f" and then: compare with `pvenode cert info` on that node, then change the configuration"
                ) from exc
            raise ClusterFailed(
                f"the cluster member {self.name} cannot be asked: {describe_failure(exc)}"
            ) from exc


@asynccontextmanager
async def open_member(address: str, port: int, fingerprint: str, password: Secret) -> AsyncIterator[Member]:
    """Log in as root@pam at the member that has this certificate.

    Raise `ClusterFailed` when it cannot be reached, is another machine, or says no. Cancel at will.
    """
    async with open_client(fingerprint=fingerprint) as client:
        member = Member(f"[{address}]:{port}" if ":" in address else f"{address}:{port}", client)
        await member.log_in(password)
        yield member


# --- what an answer means; `asked` is where it comes from, for sentences ---------------------------


def read_envelope(response: Response, asked: str) -> Any:
    """What is in the envelope of a good answer. Raise `ClusterFailed` with the member's own words."""
    try:
        document = response.json()
    except (ValueError, RecursionError):
        document = None
    envelope = document if isinstance(document, dict) else {}
    if response.status_code != 200:
        raise ClusterFailed(f"{asked} answered {complaint(response, envelope)}")
    if "data" not in envelope:
        raise strange(asked, "no JSON object with data")
    return envelope["data"]


def complaint(response: Response, envelope: dict[str, Any]) -> str:
    """The reason is in the body since libpve-http-server-perl 5.2 (2025); before, in the status line only."""
    message = envelope.get("message")
    errors = envelope.get("errors")
    words = [str(response.status_code), message if isinstance(message, str) else response.reason_phrase]
    if isinstance(errors, dict):
        words += [f"({name}: {why})" for name, why in errors.items()]
    return clip(" ".join(words))


def parse_status(data: object, asked: str) -> ClusterStatus:
    """The rows of `/cluster/status`. Raise `ClusterFailed` for anything that cannot be relied on."""
    whole: list[ClusterRow] = []
    nodes: list[NodeStatus] = []
    for row in rows(data, asked):
        match row.get("type"):
            case "cluster":
                whole.append(parse(ClusterRow, row, asked))
            case "node":
                nodes.append(parse(NodeStatus, row, asked))
            case other:
                raise strange(asked, f"a row of type {other!r}")
    if not nodes or len(whole) > 1:
        raise strange(asked, f"{len(nodes)} nodes in {len(whole)} clusters")
    if not whole:  # a machine alone has nobody to lose
        return ClusterStatus(name=None, quorate=True, version=0, nodes=tuple(nodes))
    [lab] = whole
    return ClusterStatus(name=lab.name, quorate=lab.quorate, version=lab.version, nodes=tuple(nodes))


def rows(data: object, asked: str) -> list[dict[str, Any]]:
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise strange(asked, "no list of objects")
    return data


def parse(shape: type[T], value: object, asked: str) -> T:
    try:
        return CONVERTER.structure(value, shape)
    except (ValueError, TypeError, KeyError) as exc:
        raise strange(asked, f"no {shape.__name__}: {type(exc).__name__} {exc}") from exc


def strange(asked: str, what: str) -> ClusterFailed:
    return ClusterFailed(f"{asked} answered something else than Proxmox VE does: {clip(what)}")


def clip(text: str) -> str:
    """One printable line of bearable length."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())[:300]
