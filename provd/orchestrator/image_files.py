"""The image directory: how an image gets in, whole or not at all, and how it gets out.

    NAME/{vmlinuz, initrd.img, proxmox.iso}    an image, once its directory has this name
    .import-NAME/                              one that is being made, or was when the power failed
    .trash-…/                                  on its way out

Everything here blocks and belongs into a worker thread. `Tick` is told of each piece, and may raise to
stop the work; what was copied by then stays and is not written again. What the database knows of the
images is not known here. Several processes may work at once: who makes or finishes an image holds a
lock on its directory, which the kernel gives back however a process ends.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from provd.domain.errors import BadImage, Conflict, Invalid, NotFound
from provd.orchestrator.disk import age, locked, need_room, open_source, sync, sync_directory
from provd.proxmox import iso
from provd.proxmox.installer_files import INITRD, ISO, KERNEL
from provd.proxmox.iso import ProxmoxIso, patched
from provd.proxmox.iso9660 import Entry, Volume

Tick = Callable[[int, int], None]
"""Bytes done, and bytes in all."""

PIECE = 1 << 20
SYNC_BYTES = 64 << 20
"""What is reported as done is on disk but for this much: an estimate is honest on a slow card, too."""
LARGEST_ISO = 0xFFFF_FFFF
"""As a file in an initrd has to be smaller than 4 GiB (cpio(5))."""
KEPT_SECONDS = 24 * 3600.0
"""How long an import that was broken off waits to be resumed."""
PATIENCE_SECONDS = 0.2
"""For whoever only looks whether a directory is locked."""

IMPORT, TRASH = ".import-", ".trash-"
RESERVED = frozenset({"jobs", "uploads"})
"""Words that stand in the API where the name of an image may stand."""
NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}")


@frozen(kw_only=True)
class Prepared:
    """An image that was made ready."""

    iso: ProxmoxIso
    sha256: str
    prepared_sha256: str


def parse_name(text: str) -> str:
    if text in RESERVED:
        raise Invalid(f"an image cannot be called {text}")
    if not NAME.fullmatch(text):
        raise Invalid(
            f"{text[:60]!r} is no name for an image: letters, digits and .+~_- are, a letter or digit first"
        )
    return text


def parse_sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        raise Invalid("a SHA-256 is 64 hexadecimal digits")
    return text.lower()


class ImageFiles:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def of(self, name: str) -> Path:
        return self.directory / parse_name(name)

    # --- in ---

    @contextmanager
    def partial(self, name: str) -> Iterator[Path]:
        """The directory in which the image of that name is made, by nobody else meanwhile.

        Raises `Conflict` while another import or process has it.
        """
        path = self.directory / f"{IMPORT}{parse_name(name)}"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path, patience=PATIENCE_SECONDS) as free:
            # It may have got its name between our two steps.
            if not free or not path.exists():
                raise Conflict(f"{name} is being imported already")
            yield path

    def prepare(
        self, source: Path, partial: Path, expected: str | None, tick: Tick, *, move: bool = False
    ) -> Prepared:
        """Make the three files of an image in `partial` from the ISO `source`, on disk for certain.

        With `move` the ISO itself becomes part of the image; it has to be on the same file system.
        Raises `BadImage` for what is not installable or not the `expected` SHA-256, `Refused` where there
        is no room. What an earlier attempt has written is used again.
        """
        with open_source(source) as file:
            found = iso.inspect(file)
            if found.prepared_size > LARGEST_ISO:
                raise BadImage(f"{source} has {found.size} bytes, and an initrd cannot hold 4 GiB or more")
            target = partial / ISO
            present = 0 if move or not target.exists() else target.stat().st_size
            written = found.prepared_size - (found.size if move else min(present, found.prepared_size))
            need_room(partial, written + found.kernel.size + found.initrd.size)
            volume = Volume(file)
            extract(volume, found.kernel, partial / KERNEL)
            extract(volume, found.initrd, partial / INITRD)
            if move:
                digest, prepared_digest = _read(file, found, tick)
            else:
                with target.open("r+b" if present else "w+b") as copy:
                    digest, prepared_digest = _copy(file, copy, found, tick)
        if expected is not None and digest != expected:
            raise BadImage(
                f"the SHA-256 of {source.name} is {digest}, and {expected} was expected: "
                "it is damaged or another file; fetch it again"
            )
        if move:
            os.rename(source, target)
            with target.open("r+b") as image:
                for patch in found.patches:
                    image.seek(patch.offset)
                    image.write(patch.data)
                sync(image)
        with target.open("rb") as image:
            if iso.mode_file_offset(image) != found.mode_offset:
                raise BadImage(f"{source} changed while it was imported")
        sync_directory(partial)
        return Prepared(iso=found, sha256=digest, prepared_sha256=prepared_digest)

    def publish(self, partial: Path, name: str) -> None:
        """Give the directory its name. The caller knows that no image has it.

        A directory of that name is what a power cut left between this and the database's row.
        """
        final = self.of(name)
        if final.exists():
            with locked(final) as free:
                if not free:
                    raise Conflict(f"{name} is being imported already")
                self.discard(final)
        os.rename(partial, final)
        sync_directory(self.directory)

    def unpublish(self, partial: Path, name: str) -> None:
        os.rename(self.of(name), partial)

    # --- out ---

    def discard(self, path: Path) -> None:
        """Make a directory disappear at once and delete it then."""
        trash = self.directory / f"{TRASH}{secrets.token_hex(8)}"
        try:
            os.rename(path, trash)
        except FileNotFoundError:
            return
        shutil.rmtree(trash, ignore_errors=True)

    def clean_up(self) -> None:
        """Delete what nobody will come back for."""
        for path in self._hidden(TRASH):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._hidden(IMPORT):
            with suppress(FileNotFoundError), locked(path) as free:
                if free and age(path) > KEPT_SECONDS:
                    self.discard(path)

    # --- looking ---

    def verify(self, name: str, prepared_sha256: str, mode_offset: int, tick: Tick) -> None:
        """Read all of an image and compare. Raises `BadImage` for the first difference."""
        directory = self.of(name)
        again = "import the image again, and look at the disk"
        try:
            with open_source(directory / ISO) as file:
                total, done, digest = os.fstat(file.fileno()).st_size, 0, sha256()
                while piece := file.read(PIECE):
                    digest.update(piece)
                    done += len(piece)
                    tick(done, total)
                if digest.hexdigest() != prepared_sha256:
                    raise BadImage(f"{directory / ISO} is not what was imported; {again}")
                if iso.mode_file_offset(file) != mode_offset:
                    raise BadImage(f"{directory / ISO} has its mode file in another place; {again}")
                volume = Volume(file)
                for path, copy in ((iso.KERNEL, KERNEL), (iso.INITRD, INITRD)):
                    entry = volume.find(path)
                    if entry is None or not _same(volume, entry, directory / copy):
                        raise BadImage(f"{directory / copy} is not what is in the ISO; {again}")
        except (FileNotFoundError, NotFound) as exc:
            raise BadImage(f"{directory} is not complete; {again}") from exc

    def names(self) -> set[str]:
        """Of the directories that look like images."""
        if not self.directory.exists():
            return set()
        return {path.name for path in self.directory.iterdir() if path.is_dir() and NAME.fullmatch(path.name)}

    def broken_off(self) -> dict[str, int]:
        """Imports that nobody is working on: name and bytes there."""
        found = {}
        for path in self._hidden(IMPORT):
            # One that is finished or deleted meanwhile is no longer of interest.
            with suppress(FileNotFoundError), locked(path) as free:
                if free:
                    file = path / ISO
                    found[path.name.removeprefix(IMPORT)] = file.stat().st_size if file.exists() else 0
        return found

    def _hidden(self, prefix: str) -> list[Path]:
        if not self.directory.exists():
            return []
        return [path for path in sorted(self.directory.iterdir()) if path.name.startswith(prefix)]


# --- bytes ------------------------------------------------------------------------------------------


def _copy(source: BinaryIO, target: BinaryIO, found: ProxmoxIso, tick: Tick) -> tuple[str, str]:
    """Copy and patch in one pass: (SHA-256 of the source, of the target).

    What is there already is compared, not written: so an import that was broken off goes on where it was,
    whatever happened to either file in between.
    """
    original, prepared = sha256(), sha256()
    present, unsynced = os.fstat(target.fileno()).st_size, 0
    for at, piece in _pieces(source, found):
        original.update(piece[: max(0, found.size - at)])
        changed = patched(at, piece, found.patches)
        prepared.update(changed)
        target.seek(at)
        if at >= present or target.read(len(changed)) != changed:
            target.seek(at)
            target.write(changed)
            unsynced += len(changed)
        if unsynced >= SYNC_BYTES:
            sync(target)
            unsynced = 0
        tick(at + len(piece), found.prepared_size)
    target.truncate(found.prepared_size)
    sync(target)
    return original.hexdigest(), prepared.hexdigest()


def _read(source: BinaryIO, found: ProxmoxIso, tick: Tick) -> tuple[str, str]:
    """The same two hashes, without a copy."""
    original, prepared = sha256(), sha256()
    for at, piece in _pieces(source, found):
        original.update(piece[: max(0, found.size - at)])
        prepared.update(patched(at, piece, found.patches))
        tick(at + len(piece), found.prepared_size)
    return original.hexdigest(), prepared.hexdigest()


def _pieces(source: BinaryIO, found: ProxmoxIso) -> Iterator[tuple[int, bytes]]:
    """The source, and zeros up to the prepared size: (offset, bytes)."""
    source.seek(0)
    for at in range(0, found.prepared_size, PIECE):
        length = min(PIECE, found.prepared_size - at)
        piece = source.read(min(length, max(0, found.size - at)))
        if len(piece) < min(length, found.size - at):
            raise BadImage("the file became shorter while it was read")
        yield at, piece.ljust(length, b"\0")


def extract(volume: Volume, entry: Entry, path: Path) -> None:
    with path.open("wb") as file:
        for piece in volume.pieces(entry):
            file.write(piece)
        sync(file)


def _same(volume: Volume, entry: Entry, path: Path) -> bool:
    with path.open("rb") as file:
        return all(file.read(len(piece)) == piece for piece in volume.pieces(entry)) and not file.read(1)
