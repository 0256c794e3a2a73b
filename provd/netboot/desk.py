"""The one question that the network-boot servers ask of the rest of provd, and what they tell it.

They know packets. What a machine is, and whether its disk is to be wiped, is known elsewhere.
"""

from typing import Protocol

from attrs import frozen

from provd.domain.contacts import Contact
from provd.domain.hosts import Discovery, Mac
from provd.domain.lifecycle import Boots


@frozen(kw_only=True)
class Policy:
    """What a MAC is to be given when it asks the network what to boot."""

    boots: Boots | None
    """None: nobody registered this MAC."""
    discovery: Discovery = Discovery.OFFER
    loader: str | None = None
    """The file name of the iPXE build that this host wants instead of its architecture's usual one."""


class Desk(Protocol):
    """Neither call waits for anything: a firmware counts the seconds."""

    def policy(self, mac: Mac) -> Policy: ...

    def heard(self, contact: Contact) -> None:
        """Take note that a machine made itself heard. What is told twice is told once."""
