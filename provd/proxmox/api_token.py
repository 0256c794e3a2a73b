"""An API token of Proxmox VE, as its owner was shown it once: USER@REALM!ID=SECRET (pveum(1))."""

import re
from typing import Self

from attrs import frozen

from provd.domain.errors import Invalid
from provd.domain.secrets import Secret

FORM = re.compile(r"([^\s:/!=]+@[A-Za-z][A-Za-z0-9.\-_]+![A-Za-z][A-Za-z0-9.\-_]+)=([0-9A-Za-z\-]{8,})")
"""User, realm and id after pve-access-control's formats; the secret is a UUID."""


@frozen
class ApiToken:
    name: str
    """USER@REALM!ID, which is no secret."""
    secret: Secret

    @classmethod
    def parse(cls, text: Secret) -> Self:
        """Raise `Invalid` for anything else; the sentence does not repeat it."""
        found = FORM.fullmatch(text.reveal().strip())
        if found is None:
            raise Invalid(
                "is no API token: write USER@REALM!ID=SECRET in one line, the full-tokenid and the value that"
                " `pveum user token add` prints, with = between them"
            )
        return cls(found[1], Secret(found[2]))

    @property
    def header(self) -> str:
        """For `Authorization:`. A token needs no CSRF token."""
        return f"PVEAPIToken={self.name}={self.secret.reveal()}"
