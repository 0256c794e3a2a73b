"""A search for secrets: in which form, in which place. It knows no place by itself and no secret."""

import base64
import html
import json
from collections.abc import Mapping
from urllib.parse import quote, quote_plus

from attrs import define, field, frozen


@frozen(order=True)
class Find:
    secret: str
    form: str
    place: str


@define
class Evidence:
    """What was seen, by the place where it was seen."""

    seen: dict[str, list[bytes]] = field(factory=dict)

    def add(self, place: str, content: bytes) -> None:
        pieces = self.seen.setdefault(place, [])
        if not pieces or pieces[-1] != content:
            pieces.append(content)

    def places_of(self, value: bytes) -> set[str]:
        return {place for place, pieces in self.seen.items() if any(value in piece for piece in pieces)}

    def search(self, secrets: Mapping[str, bytes]) -> list[Find]:
        """Every secret in every form. Base64 that was broken into lines is found, too."""
        sought = [
            (name, form, text) for name, value in secrets.items() for form, text in forms(value).items()
        ]
        found = set()
        for place, pieces in self.seen.items():
            for piece in pieces:
                unbroken = piece.replace(b"\r", b"").replace(b"\n", b"")
                for name, form, text in sought:
                    if text in piece or text in unbroken:
                        found.add(Find(name, form, place))
        return sorted(found)


def forms(secret: bytes) -> dict[str, bytes]:
    """How a secret may look by the time it is written somewhere."""
    text = secret.decode("latin-1")
    each = [repr(bytes([byte]))[2:-1].encode() for byte in secret]
    forms = {
        "plain": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "for a URL": quote(secret, safe="").encode(),
        "for a form": quote_plus(secret).encode(),
        "for JSON": json.dumps(text)[1:-1].encode(),
        "for JSON with \\/": json.dumps(text)[1:-1].replace("/", r"\/").encode(),
        "for HTML": html.escape(text).encode("latin-1"),
        "repr": b"".join(each),
        # Where the whole holds both kinds of quotes.
        "repr with \\'": b"".join(rb"\'" if one == b"'" else one for one in each),
    }
    # In the middle of something longer it has one of three forms, by where it begins.
    for offset in range(3):
        whole = base64.b64encode(bytes(offset) + secret)
        core = whole[-(-offset * 8 // 6) : -4]
        forms[f"base64 at {offset}"] = core
        forms[f"base64url at {offset}"] = core.translate(bytes.maketrans(b"+/", b"-_"))
    return forms
