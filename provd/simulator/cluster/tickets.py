"""Who is calling the API, and what they may do: tickets, CSRF tokens, API tokens, privileges.

Texts and order after PVE::HTTPServer and PVE::AccessControl of PVE 8.1 to 9.2.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from attrs import frozen

from provd.simulator.cluster.state import ClusterState

ROOT = "root@pam"
EVERYTHING = (
    *("Datastore.Audit", "Permissions.Modify", "Sys.Audit", "Sys.Console", "Sys.Modify"),
    *("Sys.PowerMgmt", "VM.Audit"),
)
TICKET = re.compile(r"(PVE:([^:]+):([0-9A-F]{8}))::(\S+)")


class ApiError(Exception):
    """An answer that is not a success: status, message (its first line is the reason phrase), details."""

    def __init__(self, status: int, message: str, errors: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors


@frozen
class Caller:
    user: str
    privs: Mapping[str, list[str]]  # by ACL path
    is_token: bool = False

    def privileges(self, path: str) -> list[str]:
        """Those set at the nearest path at or above `path`."""
        while path not in self.privs and path != "/":
            path = path.rpartition("/")[0] or "/"
        return self.privs.get(path, [])

    def may(self, privilege: str, path: str = "/") -> bool:
        return privilege in self.privileges(path)


class Authority:
    """Signs and checks with the secret that lives in /etc/pve: a join exchanges it, and old tickets die."""

    def __init__(self, pve: Path, state: ClusterState) -> None:
        self._secret = (pve / "priv" / "authkey.key").read_bytes()
        self._state = state

    def ticket(self, user: str) -> str:
        return self._signed(f"PVE:{user}:{int(time.time()):08X}")

    def tfa_challenge(self, kind: str) -> str:
        """The half ticket after the first factor; it opens nothing else."""
        return self._signed(f"PVE:!tfa!%7B%22{kind}%22%3Atrue%7D:{int(time.time()):08X}")

    def csrf_token(self, user: str) -> str:
        stamp = f"{int(time.time()):08X}"
        return f"{stamp}:{self._signature(f'{stamp}:{user}')}"

    def user_of(self, ticket: str) -> str | None:
        """None for a ticket that is expired, forged, or signed before a join."""
        found = TICKET.fullmatch(ticket)
        if found is None or not _same(found[4], self._signature(found[1])):
            return None
        return found[2] if self._is_fresh(found[3]) else None

    def csrf_is_good(self, token: str, user: str) -> bool:
        stamp, _, signature = token.partition(":")
        good = _same(signature, self._signature(f"{stamp}:{user}"))
        return good and self._is_fresh(stamp)

    def _is_fresh(self, stamp: str) -> bool:
        return -300 < time.time() - int(stamp, 16) < self._state.timings.ticket_lifetime

    def _signed(self, text: str) -> str:
        return f"{text}::{self._signature(text)}"

    def _signature(self, text: str) -> str:
        return base64.b64encode(hmac.digest(self._secret, text.encode(), hashlib.sha256)).decode()


def authenticate(
    state: ClusterState, authority: Authority, method: str, headers: Mapping[str, str]
) -> Caller:
    """Raise `ApiError` 401 for everybody who is not known."""
    token = token_in(headers)
    if token is not None:
        return _token_caller(state, token)
    ticket = _ticket_in(headers)
    if ticket is None:
        raise ApiError(401, "No ticket")
    user = authority.user_of(ticket)
    if user is None or user.startswith("!tfa!"):
        raise _failed(state, "permission denied - invalid PVE ticket")
    if method != "GET" and not authority.csrf_is_good(headers.get("csrfpreventiontoken", ""), user):
        raise ApiError(401, "Permission denied - invalid csrf token")
    return Caller(user, {"/": list(EVERYTHING)})


def token_in(headers: Mapping[str, str]) -> str | None:
    """`USER@REALM!ID=SECRET`, where a cookie does not go before it."""
    found = re.fullmatch(r"PVEAPIToken[= ](.*)", headers.get("authorization", ""))
    return found[1] if found and _ticket_in(headers) is None else None


def _ticket_in(headers: Mapping[str, str]) -> str | None:
    for text in (headers.get("cookie", ""), headers.get("authorization", "")):
        found = re.search(r"(?:^|[;\s])PVEAuthCookie=([^;]*)", text)
        if found:
            return unquote(found[1])
    return None


def _token_caller(state: ClusterState, text: str) -> Caller:
    name, _, secret = text.partition("=")
    token = state.tokens.get(name)
    if token is None:
        user, _, short = name.rpartition("!")
        raise _failed(state, f"no such token '{short}' for user '{user}'")
    if token.expire and token.expire < time.time():
        raise _failed(state, f"token '{name.rpartition('!')[2]}' access expired")
    if not _same(secret, token.secret):
        raise _failed(state, "invalid token value!")
    return Caller(name, token.privs, is_token=True)


def _failed(state: ClusterState, detail: str) -> ApiError:
    return ApiError(401, "Authentication failed!" if state.release.uniform_401 else detail)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
