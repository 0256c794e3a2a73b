"""auto-installer-mode.toml: the file on the ISO that tells the installer where to ask for its answer.

It always has the same size, so that it can be laid over its place in an ISO that was prepared once.
What the keys are called and since when they are known: `proxmox-auto-install-assistant prepare-iso`,
PVE 8.2 to 9.2. An unknown key ends an installation, so each goes only to those who know it.
"""

import re
from urllib.parse import urlsplit

import tomli_w

from provd.domain.errors import Invalid
from provd.domain.secrets import Secret

MODE_FILE_SIZE = 2048
"""Bytes: one sector of a disc."""

LABEL = "proxmox-ais"
LABEL_SINCE = (8, 3)
"""The installer's own tools write it since 8.2.7; the one of PVE 8.2 refuses what it does not know."""
TOKEN_SINCE = (9, 2)


def build_mode_file(
    release: str, answer_url: str, *, fingerprint: str | None = None, token: Secret | None = None
) -> bytes:
    """The file for an installer of `release` ("9.2-1"), padded with empty lines.

    `fingerprint` is the SHA-256 of the certificate behind an https address. `token` ("name:secret")
    comes back as a bearer token; installers before 9.2 have no such thing, and none is written for
    them. Raises `Invalid` for what an installer would not take, or what does not fit.
    """
    if urlsplit(answer_url).scheme not in ("http", "https") or not _is_plain(answer_url):
        raise Invalid("the address for answers is not a web address of printable ASCII without spaces")
    version = version_of(release)
    http: dict[str, str] = {"url": answer_url}
    if fingerprint is not None:
        if not re.fullmatch(r"[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}", fingerprint):
            raise Invalid("the fingerprint of a certificate is 32 pairs of hexadecimal digits")
        http["cert_fingerprint"] = fingerprint
    if token is not None and version >= TOKEN_SINCE:
        if not _is_plain(token.reveal()) or ":" not in token.reveal():
            raise Invalid("a token for answers is a name, a colon and a secret, in printable ASCII")
        http["token"] = token.reveal()
    document: dict[str, object] = {"mode": "http"}
    if version >= LABEL_SINCE:
        document["partition_label"] = LABEL
    content = tomli_w.dumps(document | {"http": http}).encode()
    if len(content) > MODE_FILE_SIZE:
        raise Invalid(f"the address for answers is too long: {len(content) - MODE_FILE_SIZE} bytes too many")
    return content.ljust(MODE_FILE_SIZE, b"\n")


def version_of(release: str) -> tuple[int, int]:
    """(9, 2) of "9.2-1". Raises `Invalid`."""
    match = re.match(r"([0-9]{1,3})\.([0-9]{1,3})(?![0-9])", release, re.ASCII)
    if match is None:
        raise Invalid(f"{release[:40]!r} is not a release like 9.2-1")
    return int(match[1]), int(match[2])


def _is_plain(text: str) -> bool:
    return bool(text) and all("!" <= character <= "~" for character in text)
