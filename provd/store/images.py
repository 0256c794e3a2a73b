"""The installers that lie under the state directory, and which of them is taken unless one is named."""

import sqlite3
from datetime import datetime

from attrs import frozen

from provd.domain.errors import Conflict, NotFound
from provd.store.database import Db, moment, timestamp


@frozen(kw_only=True)
class NewImage:
    """An image that was imported just now."""

    name: str
    """Of its directory, and in URLs: "proxmox-ve_9.2-1"."""
    product: str
    release: str
    """As the ISO says, "9.2-1"."""
    sha256: str
    """Of the ISO as it was imported: what Proxmox publishes."""
    size: int
    """Bytes, likewise."""
    mode_offset: int
    """Where auto-installer-mode.toml lies in the prepared ISO."""
    prepared_sha256: str
    """Of proxmox.iso as it lies on disk."""


@frozen(kw_only=True)
class Image(NewImage):
    id: int
    imported_at: datetime
    is_default: bool


def add(db: Db, image: NewImage, at: datetime) -> Image:
    """The first image becomes the default. Raises `Conflict` when the name is taken."""
    if find(db, image.name) is not None:
        raise Conflict(f"there is an image {image.name} already; remove it first or give another name")
    cursor = db.execute(
        """INSERT INTO images (name, product, release, sha256, size, mode_offset, prepared_sha256,
                               imported_at, is_default)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, NOT EXISTS (SELECT 1 FROM images))""",
        (
            image.name,
            image.product,
            image.release,
            image.sha256,
            image.size,
            image.mode_offset,
            image.prepared_sha256,
            timestamp(at),
        ),
    )
    return get(db, cursor.lastrowid or 0)


def get(db: Db, image_id: int) -> Image:
    row = db.execute("SELECT * FROM images WHERE id = ?", (image_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no image {image_id}")
    return _image(row)


def find(db: Db, name: str) -> Image | None:
    row = db.execute("SELECT * FROM images WHERE name = ?", (name,)).fetchone()
    return _image(row) if row is not None else None


def named(db: Db, name: str) -> Image:
    """As `find`, but raises `NotFound`."""
    image = find(db, name)
    if image is None:
        raise NotFound(f"there is no image {name}")
    return image


def everything(db: Db) -> list[Image]:
    """Newest first."""
    return [_image(row) for row in db.execute("SELECT * FROM images ORDER BY imported_at DESC, id DESC")]


def default(db: Db) -> Image | None:
    """None when there is no image at all."""
    row = db.execute("SELECT * FROM images WHERE is_default = 1").fetchone()
    return _image(row) if row is not None else None


def set_default(db: Db, image_id: int) -> None:
    db.execute("UPDATE images SET is_default = 0 WHERE is_default = 1")
    db.execute("UPDATE images SET is_default = 1 WHERE id = ?", (image_id,))


def remove(db: Db, image_id: int) -> None:
    """Raises `Conflict` while an operation installs from it, or while it is the default of several."""
    image = get(db, image_id)
    user = db.execute(
        "SELECT id, hostname FROM operations WHERE image_id = ? AND outcome IS NULL", (image_id,)
    ).fetchone()
    if user is not None:
        raise Conflict(
            f"{image.name} is being installed on {user['hostname']} (operation {user['id']}); "
            "wait for it or cancel it first"
        )
    if image.is_default and len(everything(db)) > 1:
        raise Conflict(f"{image.name} is the default; choose another one first")
    db.execute("DELETE FROM images WHERE id = ?", (image_id,))


def _image(row: sqlite3.Row) -> Image:
    return Image(
        id=row["id"],
        name=row["name"],
        product=row["product"],
        release=row["release"],
        sha256=row["sha256"],
        size=row["size"],
        mode_offset=row["mode_offset"],
        prepared_sha256=row["prepared_sha256"],
        imported_at=moment(row["imported_at"]),
        is_default=bool(row["is_default"]),
    )
