"""Which of a client's options are granted, and what the OACK says (RFC 2347).

Strict firmware gives up when it is told of an option that it did not ask for: only what was asked is
answered, under the name that the client gave it. What cannot be granted is left out, never an error.
"""

from collections.abc import Callable, Iterable

from attrs import frozen

VALID: dict[str, range] = {
    "blksize": range(8, 65_465),  # RFC 2348
    "timeout": range(1, 256),  # RFC 2349
    "tsize": range(1 << 63),  # RFC 2349
    "windowsize": range(1, 65_536),  # RFC 7440 §3
}
LONGEST_NUMBER = 19


@frozen(kw_only=True)
class Bounds:
    """The most that is granted."""

    blksize: int = 1468
    """Bytes: what fits a LAN's 1500 without fragments, which boot ROMs and VPN links lose."""
    windowsize: int = 64
    """Blocks: with the usual send buffer, so many are never more than it holds."""


@frozen(kw_only=True)
class Terms:
    """How a transfer is to go. The defaults are TFTP without any options."""

    blksize: int = 512
    windowsize: int = 1
    timeout: int | None = None
    """Seconds until something is repeated first, where the client asked for that."""
    answer: tuple[tuple[str, str], ...] = ()
    """The OACK's content. Empty: there is none, DATA comes at once."""


UNASKED = Terms()
MOST: dict[str, Callable[[Bounds], int]] = {
    "blksize": lambda bounds: bounds.blksize,
    "windowsize": lambda bounds: bounds.windowsize,
}


def negotiate(asked: Iterable[tuple[str, str]], *, size: int | None, bounds: Bounds) -> Terms:
    """The terms for a file of `size` bytes; None where the size on the wire is not known (netascii)."""
    granted: dict[str, int] = {}
    answer = []
    for spelled, text in asked:
        name = spelled.lower()
        value = _number(text)
        if name in granted or value not in VALID.get(name, ()):
            continue
        if name == "tsize":
            if size is None:
                continue
            value = size
        granted[name] = min(value, MOST[name](bounds)) if name in MOST else value
        answer.append((spelled, str(granted[name])))
    return Terms(
        blksize=granted.get("blksize", UNASKED.blksize),
        windowsize=granted.get("windowsize", UNASKED.windowsize),
        timeout=granted.get("timeout"),
        answer=tuple(answer),
    )


def _number(text: str) -> int:
    """-1 where the text is no decimal number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER else -1
