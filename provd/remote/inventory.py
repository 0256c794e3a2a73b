"""Tells the Infrastructure inventory that a host is there, over HTTP.

The contract is `deploy/inventory-openapi.yaml`: one idempotent PUT. This file knows one attempt and
how long to wait after it; that and when there is another one is the outbox's to remember.
"""

import html
import json
import re
from urllib.parse import quote

from attrs import frozen

from provd.domain.errors import InventoryFailed
from provd.domain.secrets import Secret
from provd.http_client import AsyncClient, HTTPError, InvalidURL, Response, describe_failure

FIRST_DELAY = 5.0
LONGEST_DELAY = 15 * 60.0
RETRIED = frozenset({408, 429})
"""Of the refusals, those that speak of the moment and not of the request (RFC 9110 §15.5.9, RFC 6585 §4)."""


class RegistrationFailed(InventoryFailed):
    """One attempt failed. `permanent`: the same request will fail again, until somebody changes something."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


@frozen(kw_only=True)
class Registration:
    hardware_id: str
    """The machine's own name for itself, its DMI UUID; text from the network."""
    hostname: str
    ip: str
    mac: str
    server_type_id: str
    """The inventory's word for the type, not provd's."""


async def register(
    client: AsyncClient, base_url: str, token: Secret | None, registration: Registration
) -> None:
    """Create or replace the inventory's entry for this host.

    Raise `RegistrationFailed` unless the inventory says that it has it. Safe to cancel and to repeat:
    the request is idempotent.
    """
    document = {
        "hostname": registration.hostname,
        "ip": registration.ip,
        "mac": registration.mac,
        "server_type_id": registration.server_type_id,
    }
    body = json.dumps(document).encode("ascii")
    response = await send(client, "PUT", base_url, token, registration.hardware_id, body)
    if response.status_code not in (200, 201, 204):
        raise refused(response, base_url, token)


async def unregister(client: AsyncClient, base_url: str, token: Secret | None, hardware_id: str) -> None:
    """Take the inventory's entry away; one that is not there is as good.

    Raise `RegistrationFailed` unless the inventory says so. Safe to cancel and to repeat.
    """
    response = await send(client, "DELETE", base_url, token, hardware_id)
    if response.status_code not in (200, 202, 204, 404, 410):
        raise refused(response, base_url, token)


async def send(
    client: AsyncClient,
    method: str,
    base_url: str,
    token: Secret | None,
    hardware_id: str,
    body: bytes | None = None,
) -> Response:
    """One request about one server. Raise `RegistrationFailed` when there is no answer to it."""
    url = f"{base_url.rstrip('/')}/servers/{path_segment(hardware_id)}"
    headers = authorization(token) | ({b"Content-Type": b"application/json"} if body is not None else {})
    try:
        return await client.request(method, url, content=body, headers=headers)
    except InvalidURL as exc:
        raise RegistrationFailed(
            f"the inventory's address {base_url} is no URL: {exc}", permanent=True
        ) from exc
    except HTTPError as exc:
        # What is no HTTP is quoted by the library, and somebody may send back what was sent.
        reason = without(token, describe_failure(exc))
        raise RegistrationFailed(
            f"the inventory at {base_url} cannot be reached: {reason}", permanent=False
        ) from exc


def refused(response: Response, base_url: str, token: Secret | None) -> RegistrationFailed:
    return RegistrationFailed(
        f"the inventory at {base_url} answered {summary(response, token)}",
        permanent=response.is_client_error and response.status_code not in RETRIED,
    )


def retry_delay(attempts: int) -> float:
    """Seconds to wait after so many failed attempts: 5, 10, 20 … and never more than 15 minutes."""
    doublings = min(max(attempts - 1, 0), 32)
    return min(FIRST_DELAY * 2.0**doublings, LONGEST_DELAY)


def path_segment(hardware_id: str) -> str:
    """Percent-encoded, to be one segment of a path whatever a machine calls itself (RFC 3986 §3.3)."""
    # Dots cannot be protected: "%2E%2E" means ".." to clients and servers alike.
    if not hardware_id.isprintable() or not hardware_id.strip(". "):
        raise RegistrationFailed(f"{hardware_id[:60]!r} cannot be a hardware id", permanent=True)
    return quote(hardware_id, safe="")


def authorization(token: Secret | None) -> dict[bytes, bytes]:
    if not token:
        return {}
    # Checked here, because the HTTP library quotes an illegal header in its error, token and all.
    if re.fullmatch(r"[!-~]+", token.reveal()) is None:
        raise RegistrationFailed(
            "the inventory token holds a space, a line break or a character outside ASCII", permanent=True
        )
    return {b"Authorization": b"Bearer " + token.reveal().encode("ascii")}


def summary(response: Response, token: Secret | None) -> str:
    """The status and the beginning of what was said with it, in one line and without the token."""
    said = response.text
    if response.has_redirect_location:
        said = f"(not followed) {response.headers['Location']}"
    line = without(token, f"{response.status_code} {response.reason_phrase} {said}")[:1000]
    return " ".join("".join(c if c.isprintable() else " " for c in line).split())[:240]


def without(token: Secret | None, text: str) -> str:
    """`text` with *** for the token, also where an error page escaped it: for JSON, HTML or a URL."""
    if not token:
        return text
    plain = token.reveal()
    escaped = json.dumps(plain)[1:-1]
    for form in (plain, escaped, escaped.replace("/", r"\/"), html.escape(plain), quote(plain, safe="")):
        text = text.replace(form, "***")
    return text
