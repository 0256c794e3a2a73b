"""Who answers the network-boot servers: what a MAC may boot, by what the database says of it now."""

from collections.abc import Callable

from provd.config import Unknown
from provd.domain.contacts import Contact
from provd.domain.hosts import Discovery, Mac
from provd.domain.lifecycle import BOOTS, Boots
from provd.netboot.desk import Policy
from provd.netboot.probe import PROBE_MAC
from provd.store import hosts
from provd.store.database import Store


class FrontDesk:
    """The `Desk` of provd/netboot."""

    def __init__(self, store: Store, unknown: Unknown, tell: Callable[[Contact], None]) -> None:
        self._store = store
        self._unknown = unknown
        self._tell = tell

    def policy(self, mac: Mac) -> Policy:
        if mac == PROBE_MAC:
            # The doctor asks who answers, and provd is one of those.
            return Policy(boots=Boots.LOCAL_DISK)
        found = self._store.read(lambda db: hosts.find_by_mac(db, [mac]))
        if not found:
            return Policy(boots=None)
        options = found[0].options
        return Policy(
            boots=BOOTS[found[0].state],
            discovery=options.discovery or Discovery.OFFER,
            loader=options.loader,
        )

    def heard(self, contact: Contact) -> None:
        """A stranger is not even remembered where the operator wants to know of none."""
        if contact.mac == PROBE_MAC:
            return
        if self._unknown is not Unknown.IGNORE or self.policy(contact.mac).boots is not None:
            self._tell(contact)
