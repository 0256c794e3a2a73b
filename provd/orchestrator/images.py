"""The image library: importing, checking, choosing and removing what machines are installed from.

An image is its directory and its row. The directory gets its name first and the row is written then,
under the directory's lock; on the way out it is the other way round. So an image that is listed is
whole, and what a power cut leaves behind is a directory that is not listed, which is told.

Files are read and written in worker threads. A cancellation ends them between two pieces; what an
import has copied by then is used by the next one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from provd.config import Config
from provd.domain.activity import News
from provd.domain.errors import BadImage, Conflict, Invalid
from provd.orchestrator.disk import explain, open_source
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.image_files import ImageFiles, Tick, parse_name, parse_sha256
from provd.orchestrator.progress import Progress
from provd.proxmox import iso
from provd.store import images
from provd.store.images import Image, NewImage

T = TypeVar("T")

BUSY_THREADS = 2
"""Imports and checks at a time: more only share one disk."""


class ImageLibrary:
    def __init__(self, config: Config, fleet: Fleet) -> None:
        self.directory = config.paths.images_dir
        self.fleet = fleet
        self.files = ImageFiles(self.directory)
        self._threads = trio.CapacityLimiter(BUSY_THREADS)

    # --- looking ---

    def everything(self) -> Sequence[Image]:
        return self.fleet.store.read(images.everything)

    def named(self, name: str) -> Image:
        """Raises `NotFound`."""
        return self.fleet.store.read(lambda db: images.named(db, name))

    def default(self) -> Image | None:
        return self.fleet.store.read(images.default)

    def problems(self) -> Sequence[str]:
        """Where the directory and the database do not agree, one sentence each. Reads directories only."""
        listed = {image.name for image in self.everything()}
        there = self.files.names()
        return [
            *(
                f"{self.directory / name} is missing: remove the image {name}"
                for name in sorted(listed - there)
            ),
            *(
                f"{self.directory / name} belongs to no image: import that one again, or delete the directory"
                for name in sorted(there - listed)
            ),
            *(
                f"the import of {name} was broken off with {size >> 20} MiB copied: start it again to go on; "
                "after a day it is deleted"
                for name, size in self.files.broken_off().items()
            ),
        ]

    # --- changing ---

    async def import_iso(
        self,
        source: Path,
        *,
        by: str,
        sha256: str | None = None,
        name: str | None = None,
        make_default: bool = False,
        move: bool = False,
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of the ISO at an absolute path; with `move` the file becomes part of it.

        Raises `BadImage` for what is no ISO of Proxmox VE or not the one expected, `Conflict` when the
        name is taken, and other `Refused` for what is wrong with the file or the disk.
        """
        if not source.is_absolute():
            raise Invalid(f"the path {str(source)[:200]} is not absolute", "path")
        expected = parse_sha256(sha256) if sha256 else None
        wanted = parse_name(name) if name else None
        tick = watched(progress)

        def work() -> Image:
            with open_source(source) as file:
                found = iso.inspect(file)
            final = parse_name(wanted or found.name)
            trio.from_thread.run_sync(self._must_be_new, final)
            with self.files.partial(final) as partial:
                try:
                    prepared = self.files.prepare(source, partial, expected, tick, move=move)
                except BaseException as exc:
                    if move or isinstance(exc, BadImage):
                        # There is nothing in it to go on with.
                        self.files.discard(partial)
                    raise
                new = NewImage(
                    name=final,
                    product=prepared.iso.product,
                    release=prepared.iso.release,
                    sha256=prepared.sha256,
                    size=prepared.iso.size,
                    mode_offset=prepared.iso.mode_offset,
                    prepared_sha256=prepared.prepared_sha256,
                )
                self.files.publish(partial, final)
                try:
                    return trio.from_thread.run(self._enter, new, make_default, by)
                except BaseException:
                    self.files.unpublish(partial, final)
                    raise

        return await self._in_thread(work)

    async def verify(self, name: str, by: str, progress: Progress | None = None) -> Image:
        """Read all of it again. Raises `BadImage` when it is not what was imported."""
        image = self.named(name)
        tick = watched(progress)

        def work() -> None:
            self.files.verify(image.name, image.prepared_sha256, image.mode_offset, tick)

        await self._in_thread(work)
        await self.fleet.note(
            News(event="image.verified", message=f"{name} is as it was imported (checked by {by})")
        )
        return image

    async def set_default(self, name: str, by: str) -> Image:
        """What is installed from now on where nothing else is said. Raises `NotFound`."""

        def choose(change: Change) -> Image:
            image = images.named(change.db, name)
            if not image.is_default:
                images.set_default(change.db, image.id)
                change.note(News(event="image.default", message=f"{by} made {name} the default image"))
            return images.get(change.db, image.id)

        return await self.fleet.change(choose)

    async def remove(self, name: str, by: str) -> None:
        """Raises `Conflict` while an operation installs from it, `NotFound` when there is none."""

        def forget(change: Change) -> None:
            images.remove(change.db, images.named(change.db, name).id)
            change.note(News(event="image.removed", message=f"{by} removed the image {name}"))

        await self.fleet.change(forget)
        await self._in_thread(lambda: self.files.discard(self.files.of(name)))

    async def clean_up(self) -> None:
        """Delete what is left of removals and of imports that nobody has resumed."""
        await self._in_thread(self.files.clean_up)

    # --- inside ---

    async def _enter(self, new: NewImage, make_default: bool, by: str) -> Image:
        def enter(change: Change) -> Image:
            image = images.add(change.db, new, change.at)
            if make_default:
                images.set_default(change.db, image.id)
            image = images.get(change.db, image.id)
            message = f"{by} imported {image.name} (Proxmox VE {image.release}, {image.size >> 20} MiB)"
            change.note(
                News(
                    event="image.imported",
                    message=message + (": it is the default now" if image.is_default else ""),
                )
            )
            return image

        return await self.fleet.change(enter)

    def _must_be_new(self, name: str) -> None:
        """Said before two gigabytes are copied rather than after."""
        if self.fleet.store.read(lambda db: images.find(db, name)) is not None:
            raise Conflict(f"there is an image {name} already; remove it first or give another name")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads)
        except OSError as exc:
            raise explain(exc) from exc


def watched(progress: Progress | None) -> Tick:
    """Tells how far it is, and ends a worker thread whose task was cancelled."""

    def tick(done: int, total: int) -> None:
        trio.from_thread.check_cancelled()
        if progress is not None:
            progress.at(done, total)

    return tick
