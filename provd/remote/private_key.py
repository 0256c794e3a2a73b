"""A private key as OpenSSH's `ssh-keygen` writes it to a file, read (OpenSSH's PROTOCOL.key).

Only ed25519 and only without a passphrase: nobody is there to type one when the daemon starts.
"""

import binascii
import re
import struct
from base64 import b64decode

from provd.domain.errors import Invalid
from provd.domain.secrets import Secret
from provd.remote.keys import ALGORITHM, KeyPair

MAGIC = b"openssh-key-v1\0"
ARMOUR = re.compile(
    r"\s*-----BEGIN OPENSSH PRIVATE KEY-----\s(.*)-----END OPENSSH PRIVATE KEY-----\s*", re.DOTALL
)
MAKE_ONE = "ssh-keygen -t ed25519 -N '' -C provd -f FILE makes one"


class Words:
    """The fields of a blob, one after the other (RFC 4251 §5). Raises `Invalid` where they end too soon."""

    def __init__(self, blob: bytes) -> None:
        self._left = blob

    def number(self) -> int:
        return int(struct.unpack(">I", self._take(4))[0])

    def string(self) -> bytes:
        return self._take(self.number())

    def _take(self, size: int) -> bytes:
        if size > len(self._left):
            raise damaged()
        taken, self._left = self._left[:size], self._left[size:]
        return taken


def parse_private_key(text: Secret) -> KeyPair:
    """Raise `Invalid` for what is no such key. No sentence repeats any of it."""
    whole = text.reveal()
    found = ARMOUR.fullmatch(whole)
    if found is None:
        raise Invalid(f"{not_openssh(whole)}; {MAKE_ONE}")
    try:
        blob = b64decode("".join(found[1].split()), validate=True)
    except binascii.Error as exc:
        raise damaged() from exc
    if not blob.startswith(MAGIC):
        raise damaged()
    outer = Words(blob[len(MAGIC) :])
    cipher, _, _ = outer.string(), outer.string(), outer.string()
    if cipher != b"none":
        raise Invalid(
            "has a passphrase, which nobody can give when provd starts: ssh-keygen -p -N '' -f FILE takes it"
            f" away; or {MAKE_ONE}"
        )
    if outer.number() != 1:
        raise damaged()
    public = Words(outer.string())
    inner = Words(outer.string())
    if inner.number() != inner.number():
        raise damaged()
    kind = inner.string()
    if kind != ALGORITHM.encode():
        name = kind.decode("ascii", "replace")
        shown = name if name.isprintable() else "unknown"
        raise Invalid(f"is of the type {shown}, not {ALGORITHM}; {MAKE_ONE}")
    inner.string()
    secret = inner.string()
    comment = inner.string().decode("utf-8", "replace")
    if len(secret) != 64:
        raise damaged()
    pair = KeyPair(secret[:32], comment if comment.isprintable() and comment else "provd")
    if secret[32:] != pair.public or public.string() != kind or public.string() != pair.public:
        raise damaged()
    return pair


def not_openssh(text: str) -> str:
    if text.lstrip().startswith(("ssh-", "ecdsa-", "sk-")):
        return "is a public key; the private one is in the file without .pub"
    if "PRIVATE KEY-----" in text:
        return "is not in OpenSSH's format"
    return "is no private key of OpenSSH"


def damaged() -> Invalid:
    return Invalid(f"is a private key of OpenSSH that is damaged; {MAKE_ONE}")
