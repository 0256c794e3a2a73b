"""JSON and text from strangers, made harmless at the border.

Whatever a machine on the LAN sends comes through here before anybody looks at it. This file knows
how a document can be poisoned; it refuses to know what any document means.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from math import isinf
from typing import NoReturn

from provd.domain.errors import BadDocument

MAX_KEYS = 5_000
"""The largest honest document, a webhook of a machine with forty disks, stays below 4,000."""

MAX_DIGITS = 19
"""As many as a signed 64-bit integer has: bigger ones do not fit the database either."""

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that move the cursor, turn the line round or cannot be encoded: controls, format
characters (bidi overrides and isolates among them), surrogates, line and paragraph separators."""

# The closing quote is optional so that a string without end is one match: linear in any input.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def parse_json(body: bytes, *, max_depth: int = 25) -> object:
    """The value of a JSON text (RFC 8259); stricter than the standard where readers disagree.

    Raises `BadDocument`. Refused besides malformed text: a byte order mark, repeated names, NaN and
    infinities, integers of more than 19 digits, NUL and lone surrogates inside strings, more than
    5,000 names, and nesting beyond `max_depth`.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise BadDocument(f"the body is not UTF-8 text: byte {exc.start} is wrong") from exc
    _check_depth(text, max_depth)
    builder = _Builder()
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=builder.object,
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as exc:
        raise BadDocument(f"the body is not JSON: {exc.msg} at line {exc.lineno}") from exc
    for string in _strings(value):
        if "\0" in string:
            raise BadDocument("a string in the body has a NUL character")
        if not string.isascii() and any("\ud800" <= char <= "\udfff" for char in string):
            raise BadDocument("a string in the body has half of a surrogate pair")
    return value


def as_object(value: object, name: str) -> Mapping[str, object]:
    """`value` where an object is due. Raises `BadDocument`, which calls it `name`."""
    if not isinstance(value, dict):
        raise BadDocument(f"{name} is not a JSON object")
    return value


def as_list(value: object, name: str) -> list[object]:
    """`value` where an array is due. Raises `BadDocument`, which calls it `name`."""
    if not isinstance(value, list):
        raise BadDocument(f"{name} is not a JSON array")
    return value


def as_text(value: object, name: str, limit: int = 1_000) -> str:
    """`value` where a string of at most `limit` characters is due. Raises `BadDocument`."""
    if not isinstance(value, str):
        raise BadDocument(f"{name} is not a string")
    if len(value) > limit:
        raise BadDocument(f"{name} has {len(value)} characters, more than {limit}")
    return value


def one_line(text: str, limit: int = 200) -> str:
    """`text` as it may stand in a log line: nothing unseen, on one line, at most `limit` characters.

    What would act on a terminal or a page appears as its escape (`\\n`, `\\x1b`, `\\u202e`).
    """
    # Twice the limit is more than can be shown, and keeps a megabyte from being examined.
    shown = "".join(_visible(char) for char in text[: 2 * limit])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _visible(char: str) -> str:
    if unicodedata.category(char) in UNSEEN:
        return char.encode("unicode_escape").decode()
    return char


class _Builder:
    """Makes the objects of one document, and counts their names."""

    def __init__(self) -> None:
        self.keys = 0

    def object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        self.keys += len(pairs)
        if self.keys > MAX_KEYS:
            raise BadDocument(f"the body has more than {MAX_KEYS} names")
        made = dict(pairs)
        if len(made) != len(pairs):
            raise BadDocument("an object in the body has the same name twice")
        return made


def _check_depth(text: str, max_depth: int) -> None:
    """Before the parser sees it: CPython's recurses, and raises `RecursionError` where it pleases."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
            if depth > max_depth:
                raise BadDocument(f"the body is nested deeper than {max_depth} levels")
        elif token[0] in ("]", "}"):
            depth -= 1


def _parse_int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise BadDocument(f"the body has an integer of more than {MAX_DIGITS} digits")
    return int(digits)


def _parse_float(digits: str) -> float:
    value = float(digits)
    if isinf(value):
        raise BadDocument("the body has a number that is too big")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise BadDocument(f"the body has {name}, which is not JSON")


def _strings(value: object) -> Iterator[str]:
    """Every string in the value, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
