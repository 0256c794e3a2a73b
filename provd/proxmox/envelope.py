"""What the API of Proxmox VE wraps its answers in, and how their words become values.

Members newer than provd send more keys than it knows: those are ignored. A missing or mistyped one is an
answer that provd does not understand, which is an error and never a guess. What failed is told by the
status code alone: the texts differ from release to release, and are only quoted.
"""

from ipaddress import ip_address
from typing import Any, TypeVar

import cattrs

from provd.domain.errors import ClusterFailed
from provd.domain.hosts import IPAddress
from provd.http_client import Response

T = TypeVar("T")

MEANINGS = {
    401: "it does not accept this login any more",
    403: "this login may not do that",
    501: "this release of Proxmox VE does not have it",
    595: "the node that it is about cannot be reached from there",
    596: "the node that it is about has a new certificate, which the others believe within a minute",
    599: "the node that it is about does not answer",
}
"""By status: 595 and above are pveproxy's own, of a call that it passed on (pve-http-server)."""


class MemberRefused(ClusterFailed):
    """A member answered, and not with success."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


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


CONVERTER = cattrs.Converter(detailed_validation=False)
CONVERTER.register_structure_hook(str, exact_text)
CONVERTER.register_structure_hook(int, exact_int)
CONVERTER.register_structure_hook(bool, exact_bool)
CONVERTER.register_structure_hook(IPAddress, exact_address)
CONVERTER.register_structure_hook(
    IPAddress | None, lambda value, _: None if value is None else exact_address(value, None)
)


def read_envelope(response: Response, asked: str) -> Any:
    """What is in the envelope of a good answer. Raise `ClusterFailed` with the member's own words.

    `asked` is where the answer comes from, for sentences; here and below.
    """
    try:
        document = response.json()
    except (ValueError, RecursionError):
        document = None
    envelope = document if isinstance(document, dict) else {}
    if response.status_code != 200:
        meaning = MEANINGS.get(response.status_code)
        told = f"{asked} answered {complaint(response, envelope)}" + (f": {meaning}" if meaning else "")
        raise MemberRefused(told, response.status_code)
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
