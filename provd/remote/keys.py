"""The key pair of one operation, and the seal under which it waits in the database.

A pair is made for an operation, put into the answer of the installer, used to log in, and forgotten.
This file refuses to know where a sealed value is stored and who logs in with it. The OpenSSH private
form exists in memory only; no key file is ever written for it.
"""

import os
import stat
import struct
import tempfile
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Self

from attrs import field, frozen
from nacl.exceptions import CryptoError
from nacl.secret import Aead
from nacl.signing import SigningKey
from nacl.utils import random

from provd.domain.errors import ConfigError, StoreError

ALGORITHM = "ssh-ed25519"
MASTER_BYTES = 32
CREDENTIAL_NAME = "sealing-key"
STATE_FILE_NAME = "sealing.key"


def ssh_string(value: bytes) -> bytes:
    """The `string` of RFC 4251 §5: a length of four bytes, then that many bytes."""
    return struct.pack(">I", len(value)) + value


def armored(blob: bytes) -> str:
    """The text form of an unencrypted OpenSSH private key: base64 in lines of 70 characters."""
    text = b64encode(blob).decode()
    lines = [text[i : i + 70] for i in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])


@frozen
class KeyPair:
    """An ed25519 pair, kept as its 32-byte seed (RFC 8032 §5.1.5)."""

    seed: bytes = field(repr=False)
    comment: str
    """What an administrator reads at the end of the line in `authorized_keys`."""

    @classmethod
    def generate(cls, comment: str) -> Self:
        return cls(bytes(SigningKey.generate()), comment)

    @property
    def public(self) -> bytes:
        return bytes(SigningKey(self.seed).verify_key)

    @property
    def blob(self) -> bytes:
        """The public key as it goes over the wire (RFC 8709 §4)."""
        return ssh_string(ALGORITHM.encode()) + ssh_string(self.public)

    @property
    def body(self) -> str:
        """The base64 middle of the public line: names this key and no other, whatever its comment says."""
        return b64encode(self.blob).decode()

    @property
    def public_line(self) -> str:
        """One line for `authorized_keys`, without the newline."""
        return f"{ALGORITHM} {self.body} {self.comment}"

    def private_openssh(self) -> str:
        """The private key as OpenSSH and paramiko read it (OpenSSH's PROTOCOL.key), unencrypted."""
        check = bytes(8)  # two equal words; they tell a wrong passphrase, and there is none
        secret = check + self.blob + ssh_string(self.seed + self.public) + ssh_string(self.comment.encode())
        padding = bytes(range(1, 1 + -len(secret) % 8))
        nothing = ssh_string(b"none") + ssh_string(b"none") + ssh_string(b"")  # cipher, KDF, its options
        one_key = struct.pack(">I", 1) + ssh_string(self.blob)
        return armored(b"openssh-key-v1\0" + nothing + one_key + ssh_string(secret + padding))


class Seal:
    """Encrypts what must lie in the database but not be readable there (XChaCha20-Poly1305).

    The context, e.g. `operations/17/key`, is authenticated with the value: a sealed value that is
    copied to another row or column does not open there.
    """

    def __init__(self, master: bytes) -> None:
        self.box = Aead(master)

    def seal(self, plain: bytes, context: str) -> bytes:
        return bytes(self.box.encrypt(plain, aad=context.encode()))

    def open(self, sealed: bytes, context: str) -> bytes:
        """Raise `StoreError` when the value was sealed with another key, for another place, or changed."""
        try:
            return self.box.decrypt(sealed, aad=context.encode())
        except (CryptoError, ValueError) as exc:
            raise StoreError(
                f"the sealed value of {context} does not open: it was sealed with another sealing key,"
                " belongs elsewhere, or is damaged"
            ) from exc


def load_master_key(state_dir: Path, credentials_dir: Path | None) -> bytes:
    """The 32 bytes that seal everything else.

    The systemd credential `sealing-key` comes first (`LoadCredential=`, `LoadCredentialEncrypted=`);
    without one, `sealing.key` in the state directory, which the first start makes. Both hold 32 raw
    bytes or 64 hexadecimal digits. Raise `ConfigError` for a file that exists and cannot be trusted:
    a key that is replaced by a default is no key at all (CVE-2024-47533).
    """
    if credentials_dir is not None:
        credential = credentials_dir / CREDENTIAL_NAME
        if os.path.lexists(credential):
            # Where systemd grants the service user access by an ACL, the mask shows as group bits; the
            # directory itself is closed to others.
            return read_master_key(credential, forbidden=stat.S_IRWXO)
    path = state_dir / STATE_FILE_NAME
    if not os.path.lexists(path):
        make_master_key(path)
    return read_master_key(path, forbidden=stat.S_IRWXG | stat.S_IRWXO)


def read_master_key(path: Path, forbidden: int) -> bytes:
    """Raise `ConfigError` when the file is no key, or its mode has a bit of `forbidden`."""
    try:
        # A FIFO in the place of the file must not hang the start.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(4096) if stat.S_ISREG(mode) else None
    except OSError as exc:
        raise ConfigError(f"the sealing key {path} cannot be read: {exc.strerror}") from exc
    if content is None:
        raise ConfigError(f"the sealing key {path} is not a regular file")
    if mode & forbidden:
        raise ConfigError(
            f"the sealing key {path} can be read by others (mode {stat.S_IMODE(mode):04o}):"
            " chmod 0600, and rebuild what was installed meanwhile if others had access"
        )
    if len(content) == MASTER_BYTES:
        return content
    with suppress(ValueError):
        decoded = bytes.fromhex(content.decode("ascii"))
        if len(decoded) == MASTER_BYTES:
            return decoded
    raise ConfigError(
        f"the sealing key {path} has {len(content)} bytes; it must hold 32 raw bytes or 64 hexadecimal digits"
    )


def make_master_key(path: Path) -> None:
    """Write a new key that is whole or absent, whenever the power fails; keep one that appeared meanwhile."""
    try:
        # mkstemp: O_EXCL, 0600.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(random(MASTER_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(name, path)
        finally:
            os.unlink(name)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise ConfigError(f"the sealing key {path} cannot be made: {exc.strerror}") from exc
