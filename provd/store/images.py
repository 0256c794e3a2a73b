"""What installers machines were sent to, and what these said of themselves."""

from datetime import datetime

from attrs import frozen

from provd.store.database import Db, moment, timestamp


@frozen(kw_only=True)
class Image:
    url: str
    product: str | None
    release: str | None
    """As the installer posts it, e.g. "9.2"; None until one has booted from here."""
    first_offered: datetime
    last_offered: datetime


def offered(db: Db, url: str, at: datetime) -> None:
    """A machine was sent to `url` for kernel, initrd and ISO."""
    db.execute(
        """INSERT INTO images (url, first_offered, last_offered) VALUES (:url, :at, :at)
           ON CONFLICT (url) DO UPDATE SET last_offered = :at""",
        {"url": url, "at": timestamp(at)},
    )


def introduced_itself(db: Db, url: str, product: str, release: str) -> None:
    """The installer from `url` posted its product and release."""
    db.execute("UPDATE images SET product = ?, release = ? WHERE url = ?", (product, release, url))


def everything(db: Db) -> list[Image]:
    rows = db.execute("SELECT * FROM images ORDER BY last_offered DESC")
    return [
        Image(
            url=row["url"],
            product=row["product"],
            release=row["release"],
            first_offered=moment(row["first_offered"]),
            last_offered=moment(row["last_offered"]),
        )
        for row in rows
    ]
