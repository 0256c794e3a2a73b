"""HTTP as the installer speaks it: one attempt, 60 seconds, redirects its own way, certificates pinned.

Source: the Proxmox installer up to 9.2.7 (its client is ureq). It knows no document.
"""

import hashlib
import ssl
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import httpx
import trio
from attrs import frozen

from provd.simulator.machine.refusal import InstallerRefused

PATIENCE_SECONDS = 60
_REDIRECTS_AT_MOST = 10


@frozen(kw_only=True)
class Reply:
    status: int
    content_type: str
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


async def request(
    method: str,
    url: str,
    *,
    source_ip: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    fingerprint: str | None = None,
    at_most: int,
) -> Reply:
    """One request; a 302 is followed as GET, 307 and 308 fail (measured with 9.2.7; 301 and 303 presumed).

    The body is cut after `at_most` bytes. Raises `InstallerRefused`, also after `PATIENCE_SECONDS`.
    """
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            for _ in range(_REDIRECTS_AT_MOST):
                reply, location = await _once(
                    method, url, source_ip, body, headers or {}, fingerprint, at_most
                )
                if reply.status not in (301, 302, 303, 307, 308):
                    return reply
                if reply.status in (307, 308) or location is None:
                    raise InstallerRefused(f"{url}: redirect failed")
                method, url, body = "GET", urljoin(url, location), b""
    except trio.TooSlowError as error:
        raise InstallerRefused(f"{url}: timeout: global") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise InstallerRefused(f"{url}: {_reason(error)}") from error
    raise InstallerRefused(f"{url}: too many redirects")


def _reason(error: BaseException) -> str:
    """The first text there is, from the error down to its causes: httpx often has none of its own."""
    deeper = error.__cause__ or error.__context__
    return str(error) or (type(error).__name__ if deeper is None else _reason(deeper))


async def _once(
    method: str,
    url: str,
    source_ip: str,
    body: bytes,
    headers: Mapping[str, str],
    fingerprint: str | None,
    at_most: int,
) -> tuple[Reply, str | None]:
    verify: ssl.SSLContext | bool = urlsplit(url).scheme == "https"
    if verify and fingerprint is not None:
        verify = await _trust_only(url, fingerprint)
    transport = httpx.AsyncHTTPTransport(local_address=source_ip, verify=verify)
    async with httpx.AsyncClient(transport=transport, timeout=None) as client:
        base = {"accept-encoding": "gzip", "user-agent": "ureq/3.0.12"}
        # A request built by hand gets no default headers of httpx, such as "accept: */*".
        wanted = httpx.Request(method, url, headers=base | dict(headers), content=body)
        response = await client.send(wanted, stream=True)
        try:
            received = b""
            async for chunk in response.aiter_bytes():
                received += chunk[: at_most - len(received)]
        finally:
            with trio.move_on_after(1, shield=True):
                await response.aclose()
    reply = Reply(
        status=response.status_code,
        content_type=response.headers.get("content-type", ""),
        body=received,
    )
    return reply, response.headers.get("location")


async def _trust_only(url: str, fingerprint: str) -> ssl.SSLContext:
    """Trust the leaf with this SHA-256 and no other; its name and dates are not looked at."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 443)
    pem = await trio.to_thread.run_sync(ssl.get_server_certificate, address, abandon_on_cancel=True)
    served = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    if served != fingerprint.replace(":", "").lower():
        raise InstallerRefused(f"{url}: certificate fingerprint {served} does not match")
    context = ssl.create_default_context(cadata=pem)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


async def post_and_hang_up(url: str, *, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a whole POST and drop the connection as soon as the answer begins to arrive."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise ValueError("only a plain http request can lose its answer here")
    lines = [f"POST {parts.path or '/'} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
    head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""])
    try:
        stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)
        async with stream:
            await stream.send_all(head.encode("latin-1") + body)
            await stream.receive_some(1)  # so that the request was surely heard
    except (OSError, trio.BrokenResourceError) as error:
        raise InstallerRefused(f"{url}: {error}") from error
