"""A text that must not be seen: it has no `repr`, no JSON form and no place in an f-string."""

import hmac
import secrets
from hashlib import blake2b


class Secret:
    """Wraps a secret from the border on. `reveal()` is the one way to it, and easy to search for."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    @classmethod
    def random(cls) -> "Secret":
        """256 bits from the operating system, as 43 characters that are safe in a URL."""
        return cls(secrets.token_urlsafe(32))

    def reveal(self) -> str:
        return self._text

    def digest(self) -> bytes:
        """What the database keeps of a token: 256 random bits need no salt and no slow hash."""
        # A stranger may send what UTF-8 cannot hold.
        return blake2b(self._text.encode("utf-8", "surrogateescape"), digest_size=32).digest()

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        """In constant time, as far as Python can promise it."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    __hash__ = None  # type: ignore[assignment]  # a secret is no dictionary key
