"""One member of the cluster, spoken to over its REST API.

The member is known by the fingerprint of its certificate, and nothing is said to any other machine. With
root's password all is open, with an API token only reading: membership takes root@pam itself, whatever a
token may do (pve-cluster 8.1 to 9.1). A password is root's on that member: each has its own.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from attrs import define, evolve, field, frozen

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
from provd.proxmox.api_token import ApiToken
from provd.proxmox.envelope import parse, read_envelope, rows, strange


class LoginRefused(ClusterFailed):
    """The password or token is wrong or not enough. To ask again does not help, and costs 3 s each time."""


class CertificateChanged(ClusterFailed):
    """The machine at the member's address has another certificate than the pinned one."""

    def __init__(self, name: str, expected: str, actual: str) -> None:
        super().__init__(
            f"the certificate of {name} is not the pinned one: {expected} was expected, it presents {actual}"
        )
        self.expected = expected
        self.actual = actual


@frozen(kw_only=True)
class NodeStatus:
    name: str
    nodeid: int
    """0 on a machine that is in no cluster."""
    ip: IPAddress | None = None
    """None for a node that was not seen since the asked member started."""
    online: bool
    local: bool = False
    """Whether it is the one that answered."""


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
    links: Mapping[int, str] = MappingProxyType({})
    """All of them, by number."""


@frozen(kw_only=True)
class ClusterRow:
    """The row of `/cluster/status` about the whole."""

    name: str
    quorate: bool
    version: int


@frozen(kw_only=True)
class NodeRow:
    """A row of `/nodes`."""

    node: str
    ssl_fingerprint: str | None = None
    """None while a node is being added and has no certificate yet."""


@frozen(kw_only=True)
class Ticket:
    """The answer of `/access/ticket`."""

    ticket: str = field(repr=False)
    CSRFPreventionToken: str = field(default="", repr=False)
    """To be sent with whatever changes something. None comes with half a login."""
    NeedTFA: bool = False


@define(eq=False)
class Member:
    """One member, logged in. A ticket lives for two hours; nobody keeps one that long."""

    name: str
    """`address:port`, for sentences."""
    client: AsyncClient
    headers: dict[str, str] = field(factory=dict, repr=False)
    user: str = ""
    """Who is logged in: `root@pam`, or the name of a token."""
    node_name: str = ""
    """Its own name in the cluster; empty until `status` was asked for."""

    async def log_in(self, password: Secret) -> None:
        """As root@pam. Raise `LoginRefused` when the password is wrong or not enough."""
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
        self.user = "root@pam"
        # Encoded, because a ticket may hold characters that end a cookie (RFC 6265 §4.1.1).
        self.headers["Cookie"] = f"PVEAuthCookie={quote(answer.ticket, safe='')}"
        self.headers["CSRFPreventionToken"] = answer.CSRFPreventionToken

    async def use_token(self, token: ApiToken) -> None:
        """Raise `LoginRefused` when the member does not know it."""
        self.user = token.name
        self.headers["Authorization"] = token.header
        response = await self.send("GET", "/version")
        if response.status_code == 401:
            raise LoginRefused(
                f"the cluster refused the API token {token.name} (asked {self.name}): correct"
                " credentials.cluster_token_file; `pveum user token list` shows the tokens that there are"
            )
        read_envelope(response, f"{self.name}/version")

    async def status(self) -> ClusterStatus:
        """What this member sees at this moment; on a member that was cut off, not what the others see."""
        status = parse_status(await self.get("/cluster/status"), f"{self.name}/cluster/status")
        self.node_name = next((node.name for node in status.nodes if node.local), self.node_name)
        return status

    async def config_nodes(self) -> tuple[ConfigNode, ...]:
        """Who is configured as a member, with votes; empty on a machine that is in no cluster."""
        asked = f"{self.name}/cluster/config/nodes"
        return tuple(
            evolve(parse(ConfigNode, {**row, "links": {}}, asked), links=parse_links(row, asked))
            for row in rows(await self.get("/cluster/config/nodes"), asked)
        )

    async def fingerprints(self) -> dict[str, str]:
        """What the API of each node serves, by the node's name: the SHA-256 in upper-case pairs."""
        asked = f"{self.name}/nodes"
        found = [parse(NodeRow, row, asked) for row in rows(await self.get("/nodes"), asked)]
        return {row.node: row.ssl_fingerprint.upper() for row in found if row.ssl_fingerprint}

    async def delete_node(self, name: str) -> None:
        """Strike `name`, which must be another member, out of the cluster. Takes root's password.

        Raise `ClusterFailed` when it is not known, has no quorum to do it with, or may not; a node that is
        struck out already is the same refusal, so look first.
        """
        path = f"/cluster/config/nodes/{quote(name, safe='')}"
        read_envelope(await self.send("DELETE", path), f"{self.name}{path}")

    async def get(self, path: str) -> Any:
        return read_envelope(await self.send("GET", path), f"{self.name}{path}")

    async def send(self, method: str, path: str, form: dict[str, str] | None = None) -> Response:
        url = f"https://{self.name}/api2/json{path}"
        try:
            return await self.client.request(method, url, data=form, headers=self.headers)
        except (HTTPError, InvalidURL) as exc:
            if mismatch := find_mismatch(exc):
                raise CertificateChanged(self.name, mismatch.expected, mismatch.actual) from exc
            raise ClusterFailed(
                f"the cluster member {self.name} cannot be asked: {describe_failure(exc)}"
            ) from exc


@asynccontextmanager
async def open_member(
    address: str, port: int, fingerprint: str, login: Secret | ApiToken
) -> AsyncIterator[Member]:
    """Log in, as root@pam or with a token, at the member that has this certificate.

    Raise `ClusterFailed` when it cannot be reached, is another machine, or says no. Cancel at will.
    """
    async with open_client(fingerprint=fingerprint) as client:
        member = Member(f"[{address}]:{port}" if ":" in address else f"{address}:{port}", client)
        if isinstance(login, ApiToken):
            await member.use_token(login)
        else:
            await member.log_in(login)
        yield member


async def show_certificate(address: str, port: int, fingerprint: str) -> None:
    """Nothing but a handshake with whoever is there.

    Raise `CertificateChanged` for another certificate than this, `ClusterFailed` when nobody answers.
    """
    async with open_client(fingerprint=fingerprint) as client:
        member = Member(f"[{address}]:{port}" if ":" in address else f"{address}:{port}", client)
        await member.send("GET", "/version")


def parse_links(row: dict[str, Any], asked: str) -> Mapping[int, str]:
    return {
        int(found[1]): parse(str, value, asked)
        for key, value in row.items()
        if (found := re.fullmatch(r"ring([0-7])_addr", key))
    }


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
