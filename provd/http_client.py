"""HTTP as a client: the one module that knows which library it is.

Clients made here send only what they are told to: no proxy or password from the environment, no
redirect followed. A peer with a self-signed certificate is known by its SHA-256, compared inside
the TLS handshake, so that nothing is sent to anybody else. Whom to call, what to say and what an
answer means is not known here.
"""

import hashlib
import hmac
import os
import socket
import ssl
from collections.abc import Iterator
from typing import cast

from httpx import (
    AsyncClient,
    AsyncHTTPTransport,
    ConnectTimeout,
    HTTPError,
    InvalidURL,
    Limits,
    PoolTimeout,
    ReadTimeout,
    Response,
    Timeout,
    WriteTimeout,
)

from provd.http_connections import Connections

__all__ = [
    "AsyncClient",
    "CertificateMismatch",
    "HTTPError",
    "InvalidURL",
    "Response",
    "describe_failure",
    "find_mismatch",
    "open_client",
]

# Seconds of silence, not of the whole request: that is the caller's deadline. Reading is given more
# than the 30 s for which pveproxy waits for another node of its cluster.
PATIENCE = Timeout(10.0, read=45.0)
LIMITS = Limits(max_connections=20, max_keepalive_connections=5, keepalive_expiry=15.0)

TIMEOUTS: dict[type[BaseException], str] = {
    ConnectTimeout: f"no connection within {PATIENCE.connect:.0f} s",
    ReadTimeout: f"connected, but no answer within {PATIENCE.read:.0f} s",
    WriteTimeout: f"connected, but nothing was taken within {PATIENCE.write:.0f} s",
    PoolTimeout: "too many requests are under way",
}
"""What httpx leaves without a text."""


class CertificateMismatch(ssl.SSLError):
    """The peer's certificate is not the pinned one. Buried in an `HTTPError`; see `find_mismatch`.

    A subclass of `SSLError`, because that is what Trio and httpcore expect a handshake to raise.
    """

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"the certificate has the SHA-256 fingerprint {actual}, expected was {expected}")
        self.expected = expected
        self.actual = actual


def open_client(*, fingerprint: str | None = None) -> AsyncClient:
    """A client to be used with `async with`. Its requests raise `HTTPError`, and `InvalidURL`.

    `fingerprint`, the SHA-256 of the peer's certificate in hexadecimal, with or without colons, takes
    the place of every other check: authority, name and dates. Without one the system's authorities count.
    """
    verify = True if fingerprint is None else pinned_context(fingerprint)
    transport = AsyncHTTPTransport(verify=verify, limits=LIMITS, trust_env=False)
    transport._pool._network_backend = Connections()  # httpx 0.28 has no other way to say so
    return AsyncClient(transport=transport, timeout=PATIENCE, follow_redirects=False, trust_env=False)


def pinned_context(fingerprint: str) -> ssl.SSLContext:
    """TLS that ends the handshake with `CertificateMismatch` unless the leaf has this SHA-256."""
    expected = with_colons(fingerprint.replace(":", ""))

    class Pinned(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            leaf = self.getpeercert(binary_form=True) or b""
            actual = with_colons(hashlib.sha256(leaf).hexdigest())
            if not hmac.compare_digest(actual.encode(), expected.encode()):
                raise CertificateMismatch(expected, actual)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the comparison above is the verification
    context.sslobject_class = Pinned
    return context


def with_colons(digits: str) -> str:
    """The form in which Proxmox and openssl print a fingerprint: upper-case pairs with colons."""
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2)).upper()


def find_mismatch(exc: BaseException) -> CertificateMismatch | None:
    """The wrong certificate behind an error, if that is what it was."""
    return next((each for each in causes(exc) if isinstance(each, CertificateMismatch)), None)


def describe_failure(exc: BaseException) -> str:
    """What went wrong, in one phrase: the innermost cause that has something to say.

    httpx wraps httpcore, which wraps Trio, which wraps the operating system; the outer ones are often
    empty. The phrase may quote the peer, never what was sent.
    """
    chain = list(causes(exc))
    if mismatch := find_mismatch(exc):
        return mismatch.args[0]  # type: ignore[no-any-return]
    for each in chain:
        if text := TIMEOUTS.get(type(each)):
            return text
    for each in reversed(chain):
        if isinstance(each, BaseExceptionGroup):  # one attempt for each address of a name
            phrases = [describe_failure(cast("BaseException", attempt)) for attempt in each.exceptions]
            return ", ".join(dict.fromkeys(phrases))
        if text := " ".join(phrase(each).split()):
            return text[:300]
    return type(exc).__name__


def phrase(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return f"TLS failed: {exc.reason.replace('_', ' ').lower()}"
    if isinstance(exc, OSError) and exc.errno and not isinstance(exc, (ssl.SSLError, socket.gaierror)):
        return os.strerror(exc.errno)  # without the address that Trio puts in front
    return str(exc)


def causes(exc: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it, outermost first.

    Contexts are not followed in general: they may be the caller's own troubles. But httpcore's
    connection pool raises `from None`, and only the context still knows why.
    """
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        hidden = exc.__context__ if type(exc).__module__.startswith("httpcore") else None
        exc = hidden if exc.__cause__ is None else exc.__cause__
