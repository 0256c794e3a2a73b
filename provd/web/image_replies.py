"""What a request for an image is answered: status, headers, and which bytes of which file.

All of it is decided here, from the request and from what the file is; no socket, no disk and no clock
has a say. Whether there is such a file and who may read it is decided elsewhere, and how its bytes get
onto the wire is not known here.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus

import h11
from attrs import frozen

from provd.domain.virtual_file import Part
from provd.orchestrator.installers import Served

TARGET = re.compile(rb"(?:https?://[^/?#]+)?/([0-9A-Za-z-]{1,100})/([0-9A-Za-z.-]{1,100})", re.IGNORECASE)
"""The absolute form must be understood, though only proxies use it (RFC 9112 §3.2.2)."""
RANGE = re.compile(rb"bytes=[ \t]*(?:([0-9]{1,100})-([0-9]{0,100})|-([0-9]{1,100}))[ \t]*", re.IGNORECASE)
ENTITY_TAG = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


@frozen(kw_only=True)
class Reply:
    status: HTTPStatus
    headers: Sequence[tuple[str, str]] = ()
    length: int | None = 0
    """What Content-Length says. None: nothing, for a 304 has no content to speak of."""
    content: "Content | None" = None
    last: bool = False
    """The connection is closed behind it."""


@frozen(kw_only=True)
class Content:
    """Bytes `start` up to `stop` of a file."""

    served: Served
    start: int
    stop: int

    def parts(self) -> tuple[Part, ...]:
        return self.served.file.slice(self.start, self.stop)


def refusal(status: int, *headers: tuple[str, str]) -> Reply:
    return Reply(status=HTTPStatus(status), headers=headers, last=True)


def parse_target(target: bytes) -> tuple[str, str] | None:
    """Token and name of what is asked for; None where the target cannot be of anything we have."""
    match = TARGET.fullmatch(target)
    return (match[1].decode(), match[2].decode()) if match is not None else None


def reply_to(request: h11.Request, served: Served) -> Reply:
    """The answer to a GET or HEAD for what exists, in the order of RFC 9110 §13.2.2."""
    size, etag = served.file.size, served.file.etag
    validator = [("ETag", etag), ("Cache-Control", "no-store")]
    if_match = values(request, b"if-match")
    if if_match and not lists(if_match, etag, weak=False):
        return Reply(status=HTTPStatus.PRECONDITION_FAILED, headers=validator)
    if lists(values(request, b"if-none-match"), etag, weak=True):
        return Reply(status=HTTPStatus.NOT_MODIFIED, headers=validator, length=None)

    about = [*validator, ("Accept-Ranges", "bytes"), ("Content-Type", "application/octet-stream")]
    if request.method == b"HEAD":  # Range is defined for GET only (RFC 9110 §14.2)
        return Reply(status=HTTPStatus.OK, headers=about, length=size)
    part = None
    if is_of_this_file(values(request, b"if-range"), etag):
        part = byte_range(values(request, b"range"), size)
    if part == ():
        headers = [*validator, ("Content-Range", f"bytes */{size}")]
        return Reply(status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
    start, stop = part or (0, size)
    return Reply(
        status=HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK,
        headers=[*about, ("Content-Range", f"bytes {start}-{stop - 1}/{size}")] if part else about,
        length=stop - start,
        content=Content(served=served, start=start, stop=stop),
    )


def byte_range(lines: Sequence[bytes], size: int) -> tuple[int, int] | tuple[()] | None:
    """Start and stop of the one range that is asked for (RFC 9110 §14.1.2); () when it has no byte.

    None for no range, for several and for nonsense: then the whole file is the right answer (§14.2).
    """
    match = RANGE.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None:
        return None
    if match[3]:
        start, stop = max(size - int(match[3]), 0), size
    else:
        start, stop = int(match[1]), int(match[2]) + 1 if match[2] else size
        if match[2] and stop <= start:
            return None
    return (start, min(stop, size)) if start < min(stop, size) else ()


def is_of_this_file(if_range: Sequence[bytes], etag: str) -> bool:
    """Whether the part that the client has is of it (RFC 9110 §13.1.5). A date never is."""
    return not if_range or list(if_range) == [etag.encode()]


def lists(lines: Sequence[bytes], etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags has this one (RFC 9110 §8.8.3.2), or is `*`."""
    text = b",".join(lines).strip()
    return text == b"*" or any(
        tag == etag.encode() and (weak or not prefix) for prefix, tag in ENTITY_TAG.findall(text)
    )


def values(request: h11.Request, name: bytes) -> list[bytes]:
    return [value for key, value in request.headers if key == name]
