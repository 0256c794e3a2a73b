"""The members that the cluster told of: one row for a name, and host keys that outlive what is told anew."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve

from provd.store import members
from provd.store.database import Store, now, open_store
from provd.store.members import RememberedMember


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "provd.db") as store:
        yield store


def member(name: str) -> RememberedMember:
    return RememberedMember(name=name, address="10.0.0.1", fingerprint="AA:BB", seen_at=now())


async def test_what_is_remembered_comes_back_latest_first(store: Store) -> None:
    """Whole, in the order in which they are worth asking."""
    old, new = evolve(member("pve1"), seen_at=now() - timedelta(days=1)), member("pve2")
    await store.write(lambda db: members.remember(db, [old, new]))
    assert store.read(members.everyone) == (new, old)


async def test_a_name_has_one_row_and_keeps_its_host_keys(store: Store) -> None:
    """However it is spelled; what was pinned is not told by the cluster, and stays."""
    await store.write(lambda db: members.remember(db, [member("pve1")]))
    await store.write(lambda db: members.pin_host_keys(db, "PVE1", ["ssh-ed25519 AAAA"]))
    renewed = evolve(member("Pve1"), address="10.0.0.9", fingerprint="CC")
    await store.write(lambda db: members.remember(db, [renewed]))
    assert store.read(members.everyone) == (evolve(renewed, ssh_host_keys=("ssh-ed25519 AAAA",)),)


async def test_forgetting_tells_how_many_there_were(store: Store) -> None:
    """The host keys go with the row."""
    await store.write(lambda db: members.remember(db, [member("pve1"), member("pve2")]))
    await store.write(lambda db: members.pin_host_keys(db, "pve1", ["ssh-ed25519 AAAA"]))
    assert await store.write(lambda db: members.forget(db, ["PVE1", "pve9"])) == 1
    await store.write(lambda db: members.remember(db, [member("pve1")]))
    assert {one.name: one.ssh_host_keys for one in store.read(members.everyone)} == {"pve1": (), "pve2": ()}
    assert await store.write(lambda db: members.forget(db, [])) == 0
