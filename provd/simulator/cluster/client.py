"""The joining node's side of the HTTPS API: one connection to one member, over real TLS.

It connects to addresses of the loopback network only: a simulated machine has no other network.
"""

import http.client
import ipaddress
import json
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from attrs import frozen

from provd.simulator.cluster.leaves import fingerprint_of

REAL_PORT = 8006


class CannotConnect(Exception):
    """The text in parentheses of `500 Can't connect to ...`."""


@frozen
class Answer:
    status: int
    reason: str
    document: dict[str, Any]

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def data(self) -> Any:
        return self.document.get("data")


class ApiClient:
    """A connection whose certificate was judged by `verify`, which is handed its fingerprint."""

    def __init__(self, address: str, port: int, verify: Callable[[str], None]) -> None:
        if not ipaddress.ip_address(address).is_loopback:
            raise CannotConnect("No route to host")
        context = ssl.create_default_context()
        context.check_hostname = False  # the pinned leaf counts, not its names
        context.verify_mode = ssl.CERT_NONE
        # 60 s are the original's too (PVE::APIClient::LWP).
        self._connection = http.client.HTTPSConnection(address, port, timeout=60, context=context)
        try:
            self._connection.connect()
        except TimeoutError as exc:
            raise CannotConnect("Connection timed out") from exc
        except OSError as exc:
            raise CannotConnect(exc.strerror or str(exc)) from exc
        tls: ssl.SSLSocket = self._connection.sock
        der = tls.getpeercert(binary_form=True)
        assert der is not None  # a TLS server always shows one
        verify(fingerprint_of(der))
        self._headers: dict[str, str] = {}

    def use_ticket(self, ticket: str, csrf_token: str) -> None:
        self._headers = {
            "Cookie": f"PVEAuthCookie={quote(ticket, safe='')}",
            "CSRFPreventionToken": csrf_token,
        }

    def call(self, method: str, path: str, parameters: dict[str, str] | None = None) -> Answer:
        """Raise `CannotConnect` when the member goes away instead of answering."""
        headers = dict(self._headers)
        if parameters is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            body = urlencode(parameters) if parameters is not None else None
            self._connection.request(method, f"/api2/json{path}", body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise CannotConnect(getattr(exc, "strerror", None) or str(exc)) from exc
        document = json.loads(content) if content else {}
        return Answer(response.status, response.reason, document if isinstance(document, dict) else {})

    def close(self) -> None:
        self._connection.close()


def resolve(name: str, hosts: str) -> str | None:
    """An address for `name`: itself, or what the machine's /etc/hosts says. DNS is never asked."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    for line in hosts.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if name in names:
            return address
    return None
