"""What the network-boot servers are told about a MAC."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from provd.config import Unknown
from provd.domain.contacts import Contact, Hop
from provd.domain.hosts import Discovery, HostOptions, Mac
from provd.domain.lifecycle import BOOTS, Boots, State
from provd.netboot.desk import Policy
from provd.netboot.probe import PROBE_MAC
from provd.orchestrator.front_desk import FrontDesk
from provd.store import hosts
from provd.store.database import Store, open_store

NOW = datetime(2026, 11, 23, tzinfo=UTC)
MAC, STRANGER = Mac("02:00:00:00:00:01"), Mac("02:00:00:00:00:02")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "provd.db") as store:
        yield store


def contact(mac: Mac) -> Contact:
    return Contact(mac=mac, hop=Hop.DISCOVER, message="asked")


@pytest.mark.parametrize("state", State)
def test_a_host_boots_what_its_state_says(store: Store, state: State) -> None:
    """The one table decides, and a host's own wishes go along."""
    options = HostOptions(discovery=Discovery.BOOT_SERVER, loader="ipxe.efi")
    host = store.read(lambda db: hosts.register(db, "nuc1", MAC, "nuc", options, NOW))
    store.read(lambda db: hosts.set_state(db, host.id, state, NOW))
    desk = FrontDesk(store, Unknown.LOG, lambda _: None)
    expected = Policy(boots=BOOTS[state], discovery=Discovery.BOOT_SERVER, loader="ipxe.efi")
    assert desk.policy(MAC) == expected
    assert desk.policy(STRANGER) == Policy(boots=None)


@pytest.mark.parametrize(("unknown", "told"), [("ignore", [MAC]), ("log", [MAC, STRANGER])])
def test_strangers_are_told_as_the_operator_wants(store: Store, unknown: str, told: list[Mac]) -> None:
    """With `ignore` they are not even remembered; a host is always told."""
    store.read(lambda db: hosts.register(db, "nuc1", MAC, "nuc", HostOptions(), NOW))
    heard: list[Contact] = []
    desk = FrontDesk(store, Unknown(unknown), heard.append)
    for mac in (MAC, STRANGER):
        desk.heard(contact(mac))
    assert [one.mac for one in heard] == told


def test_the_doctors_own_question_is_answered_and_not_told(store: Store) -> None:
    """It asks who answers here, provd included, and is no machine."""
    heard: list[Contact] = []
    desk = FrontDesk(store, Unknown.LOG, heard.append)
    assert desk.policy(PROBE_MAC).boots is Boots.LOCAL_DISK
    desk.heard(contact(PROBE_MAC))
    assert heard == []
