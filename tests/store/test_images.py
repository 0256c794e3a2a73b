"""The images' table: names, the one default, and who may go."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from provd.domain.errors import Conflict, NotFound
from provd.domain.hosts import HostOptions, Mac
from provd.domain.operations import Kind, Outcome
from provd.store import hosts, images, operations
from provd.store.database import Db, open_store
from provd.store.images import Image, NewImage

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    with open_store(tmp_path / "provd.db") as store:
        yield store.read(lambda db: db)


def new(name: str, release: str = "9.2-1") -> NewImage:
    return NewImage(
        name=name,
        product="pve",
        release=release,
        sha256="a" * 64,
        size=1_700_000_000,
        mode_offset=1_700_000_768,
        prepared_sha256="b" * 64,
    )


def add(db: Db, name: str, minutes: int = 0) -> Image:
    return images.add(db, new(name), NOW + timedelta(minutes=minutes))


def test_an_image_comes_back_as_it_was_written(db: Db) -> None:
    """By number, by name and in the list."""
    image = images.add(db, new("proxmox-ve_9.2-1"), NOW)
    assert (image.size, image.mode_offset) == (1_700_000_000, 1_700_000_768)
    assert (image.imported_at, image.release, image.prepared_sha256) == (NOW, "9.2-1", "b" * 64)
    assert images.get(db, image.id) == images.find(db, image.name) == images.named(db, image.name) == image
    assert images.everything(db) == [image]


def test_who_is_not_there(db: Db) -> None:
    """`find` and `default` say None, the others raise."""
    assert images.find(db, "x") is None
    assert images.default(db) is None
    for look in (lambda: images.get(db, 1), lambda: images.named(db, "x"), lambda: images.remove(db, 1)):
        with pytest.raises(NotFound):
            look()


def test_the_first_is_the_default_until_another_is_chosen(db: Db) -> None:
    """There is always exactly one, and the schema knows."""
    first, second = add(db, "a"), add(db, "b", 1)
    assert (first.is_default, second.is_default) == (True, False)
    images.set_default(db, second.id)
    assert [image.name for image in images.everything(db) if image.is_default] == ["b"]
    assert [image.name for image in images.everything(db)] == ["b", "a"]
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE images SET is_default = 1")


def test_a_name_is_given_once(db: Db) -> None:
    """The refusal says what to do."""
    add(db, "a")
    with pytest.raises(Conflict, match="image a already; remove it first"):
        add(db, "a")


def test_the_default_goes_last(db: Db) -> None:
    """Nobody should find out at the next rebuild which one took its place."""
    first, second = add(db, "a"), add(db, "b")
    with pytest.raises(Conflict, match="choose another one first"):
        images.remove(db, first.id)
    images.remove(db, second.id)
    images.remove(db, first.id)
    assert images.everything(db) == []
    assert add(db, "c").is_default


def test_an_image_in_use_stays(db: Db) -> None:
    """As long as an operation installs from it, and no longer."""
    image = add(db, "a")
    host = hosts.register(db, "nuc1", Mac("02:00:00:00:00:0a"), "nuc", HostOptions(), NOW)
    operation = operations.open_(db, host, Kind.REBUILD, "a test", NOW)
    operations.set_image(db, operation.id, image.id)
    with pytest.raises(Conflict, match=f"being installed on nuc1 .operation {operation.id}"):
        images.remove(db, image.id)
    operations.close(db, operation.id, Outcome.DONE, "", NOW)
    images.remove(db, image.id)


def test_a_number_is_never_given_again(db: Db) -> None:
    """What an old operation installed from is not mistaken for what came later."""
    image = add(db, "a")
    images.remove(db, image.id)
    assert add(db, "b").id > image.id
