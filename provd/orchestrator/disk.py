"""What it takes to put large files on a disk so that they are there: locks, room, and fsync.

Everything here blocks and belongs into a worker thread. Nothing is known here of what the files are.
"""

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from provd.domain.errors import NotFound, Refused

SPARE_BYTES = 64 << 20
"""To be left on the disk for the database and the journal."""


@contextmanager
def open_source(path: Path) -> Iterator[BinaryIO]:
    """A regular file, and nothing that would wait for ever. Raises `NotFound` or `Refused`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise NotFound(f"there is no file {path}") from exc
    except OSError as exc:
        raise Refused(f"{path} cannot be read by provd: {(exc.strerror or str(exc)).lower()}") from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused(f"{path} is not a regular file")
    with open(descriptor, "rb") as file:
        yield file


@contextmanager
def locked(path: Path, *, patience: float = 0) -> Iterator[bool]:
    """Whether the directory is ours meanwhile; False while another has it for `patience` seconds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + patience
        while not (free := _lock(descriptor)) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield free
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def need_room(path: Path, size: int) -> None:
    """Raises `Refused` when `size` more bytes do not fit on the file system of `path`."""
    free = shutil.disk_usage(path).free
    if free < size + SPARE_BYTES:
        raise Refused(
            f"there is not enough room in {path.parent}: {size >> 20} MiB and {SPARE_BYTES >> 20} to spare "
            f"are needed, {free >> 20} MiB are free"
        )


def sync(file: BinaryIO) -> None:
    file.flush()
    os.fdatasync(file.fileno())


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def age(path: Path) -> float:
    """Seconds since anything in a directory was written."""
    newest = max(file.stat().st_mtime for file in (path, *path.iterdir()))
    return time.time() - newest


def explain(exc: OSError) -> Refused:
    """A failing disk as a sentence."""
    if exc.errno == errno.ENOSPC:
        return Refused("the disk is full; make room and start it again: it goes on where it was")
    return Refused(f"{exc.filename or 'the disk'}: {(exc.strerror or str(exc)).lower()}")
