"""ISOs that arrive over HTTP in chunks, each at the offset where the last one ended.

    .uploads/ID/{upload.json, data}    while it arrives
    .uploads/ID/{upload.json, iso}     when all of it is there

An upload outlives its connection, its browser and the daemon. After a restart it goes on at the last
offset that is on disk for certain. What is in the file is not known here, but that an ISO 9660 image
says so near its beginning: whoever uploads something else learns that at once.
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio
from attrs import define, field

from provd.domain.documents import one_line
from provd.domain.errors import BadImage, Conflict, Invalid, NotFound
from provd.orchestrator.disk import age, explain, need_room, sync, sync_directory
from provd.orchestrator.image_files import LARGEST_ISO, TRASH, parse_name, parse_sha256

T = TypeVar("T")

LARGEST_CHUNK = 1 << 20
"""Bytes of one request. No more than any other body may have: the server takes bodies from strangers,
too, before it knows whose they are. Chunks of 8 MiB were not measurably faster."""
SYNC_BYTES = 16 << 20
MOST = 8
KEPT_SECONDS = 24 * 3600.0

SIGNATURE_AT, SIGNATURE = 16 * 2048 + 1, b"CD001"


class WrongOffset(Conflict):
    """A chunk does not follow the last one. `offset` is where the next one belongs."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the next chunk begins at byte {offset}")
        self.offset = offset


@define(eq=False, kw_only=True)
class Upload:
    id: str
    file_name: str
    size: int
    offset: int
    sha256: str | None
    image_name: str | None
    by: str
    job_id: int | None = None
    """What became of it, when it was complete."""
    turn: trio.Lock = field(factory=trio.Lock, repr=False)

    @property
    def complete(self) -> bool:
        return self.offset == self.size


class Uploads:
    """`load` is to be called once, before anything else."""

    def __init__(self, images_dir: Path) -> None:
        self._images_dir = images_dir
        self._directory = images_dir / ".uploads"
        self._known: dict[str, Upload] = {}
        self._threads = trio.CapacityLimiter(4)

    def everything(self) -> Sequence[Upload]:
        return tuple(self._known.values())

    def get(self, upload_id: str) -> Upload:
        if upload_id not in self._known:
            raise NotFound("there is no such upload; it was cancelled, or a day went by without a byte")
        return self._known[upload_id]

    def file(self, upload: Upload) -> Path:
        """The ISO, of an upload that is complete."""
        return self._directory / upload.id / "iso"

    async def create(
        self, file_name: str, size: int, *, sha256: str | None, image_name: str | None, by: str
    ) -> Upload:
        """Raises `Invalid`, or `Refused` when there are too many of them or too little room."""
        if not 0 < size <= LARGEST_ISO:
            raise Invalid("an ISO has at least one byte and less than 4 GiB", "size")
        if len(self._known) >= MOST:
            raise Conflict(f"{MOST} uploads are under way already; cancel one of them first")
        upload = Upload(
            id=secrets.token_hex(8),
            file_name=one_line(file_name, 100),
            size=size,
            offset=0,
            sha256=parse_sha256(sha256) if sha256 else None,
            image_name=parse_name(image_name) if image_name else None,
            by=by,
        )
        await self._in_thread(lambda: self._make(upload))
        self._known[upload.id] = upload
        return upload

    async def append(self, upload: Upload, offset: int, data: bytes) -> Upload:
        """Write a chunk. Raises `WrongOffset`, `Invalid` beyond the size, `BadImage` for no ISO.

        Two at a time for one upload follow each other, and the second learns the offset.
        """
        async with upload.turn:
            self.get(upload.id)
            if offset != upload.offset or upload.complete:
                raise WrongOffset(upload.offset)
            if offset + len(data) > upload.size:
                raise Invalid(f"the upload ends at byte {upload.size}", "size")
            end = SIGNATURE_AT + len(SIGNATURE)
            seen = data[SIGNATURE_AT - offset : end - offset] if offset <= SIGNATURE_AT else b""
            if len(seen) == len(SIGNATURE) and seen != SIGNATURE:
                raise BadImage(f"{upload.file_name} is not an ISO image")
            await self._in_thread(lambda: self._write(upload, offset, data))
            upload.offset += len(data)
        return upload

    async def discard(self, upload: Upload) -> None:
        """Forget it, whatever is there of it."""
        async with upload.turn:
            self._known.pop(upload.id, None)
            await self._in_thread(lambda: self._throw_away(self._directory / upload.id))

    async def load(self) -> None:
        """Take up what the last daemon left, and delete what nobody has touched for a day."""
        found = await self._in_thread(self._load)
        self._known.update((upload.id, upload) for upload in found)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads)
        except OSError as exc:
            raise explain(exc) from exc

    # --- in worker threads ---

    def _make(self, upload: Upload) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            if path.name not in self._known and age(path) > KEPT_SECONDS:
                self._throw_away(path)
        need_room(self._directory, upload.size)
        directory = self._directory / upload.id
        directory.mkdir(mode=0o700)
        (directory / "data").touch()
        with (directory / "upload.json").open("wb") as file:
            file.write(
                json.dumps(
                    {
                        "file_name": upload.file_name,
                        "size": upload.size,
                        "sha256": upload.sha256,
                        "image_name": upload.image_name,
                        "by": upload.by,
                    }
                ).encode()
            )
            sync(file)
        sync_directory(directory)

    def _write(self, upload: Upload, offset: int, data: bytes) -> None:
        directory = self._directory / upload.id
        with (directory / "data").open("r+b") as file:
            # Not appended: an attempt that failed in the middle may have left some bytes.
            file.seek(offset)
            file.write(data)
            end = offset + len(data)
            if end // SYNC_BYTES > offset // SYNC_BYTES or end == upload.size:
                sync(file)
        if end == upload.size:
            os.truncate(directory / "data", end)
            os.rename(directory / "data", directory / "iso")
            sync_directory(directory)

    def _load(self) -> list[Upload]:
        if not self._directory.exists():
            return []
        found = []
        for directory in sorted(self._directory.iterdir()):
            upload = None if age(directory) > KEPT_SECONDS else _read(directory)
            if upload is None:
                self._throw_away(directory)
            else:
                found.append(upload)
        return found

    def _throw_away(self, directory: Path) -> None:
        trash = self._images_dir / f"{TRASH}{secrets.token_hex(8)}"
        try:
            os.rename(directory, trash)
        except FileNotFoundError:
            return
        shutil.rmtree(trash, ignore_errors=True)


def _read(directory: Path) -> Upload | None:
    """An upload as it lies on disk; None for what is none, or only half begun."""
    try:
        about = json.loads((directory / "upload.json").read_bytes())
        if (directory / "iso").exists():
            offset = (directory / "iso").stat().st_size
        else:
            # What is beyond may be a hole: a power cut keeps a file's size before its content.
            offset = (directory / "data").stat().st_size // SYNC_BYTES * SYNC_BYTES
            os.truncate(directory / "data", offset)
        return Upload(id=directory.name, offset=offset, **about)
    except (OSError, ValueError, TypeError):
        return None
