"""A disk that hangs: a file system with one file, whose every read waits until the disk is taken away.

It is taken away after some seconds at the latest, so that who waits for it fails a test, and holds up none.

It speaks FUSE with the kernel itself (fuse(4), linux/fuse.h), in a thread, for no library is needed to
answer four questions. Nothing of it is left when the context ends.
"""

import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from errno import ENOENT, ENOSYS
from pathlib import Path

import trio
from attrs import define, field

IN_HEADER = struct.Struct("=IIQQIIIHH")
OUT_HEADER = struct.Struct("=IiQ")
ATTRIBUTES = struct.Struct("=6Q3I7I")
FILE = 2
"""Its node; the root's is 1."""
NAME = "image.iso"
MNT_FORCE, MNT_DETACH = 1, 2
"""The first ends every request that waits (fuse_umount_begin in Linux)."""
PATIENCE = 10.0
"""Seconds."""


class Question(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    INIT = 26


libc = ctypes.CDLL(None, use_errno=True)


@define
class Disk:
    path: Path
    """Of the file."""
    size: int
    _fuse: int
    _bell: tuple[int, int] = field(factory=os.pipe)

    async def wait_read(self) -> None:
        """Until somebody waits for it."""
        await trio.lowlevel.wait_readable(self._bell[0])

    def answer(self) -> None:
        """Runs until the disk is taken away."""
        with suppress(OSError):
            while True:
                request = os.read(self._fuse, 1 << 20)
                _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
                if opcode == Question.READ:
                    os.write(self._bell[1], b"!")
                elif opcode != Question.FORGET:
                    error, body = self._reply(opcode, node, request[IN_HEADER.size :])
                    os.write(self._fuse, OUT_HEADER.pack(OUT_HEADER.size + len(body), -error, unique) + body)

    def close(self) -> None:
        for fd in (self._fuse, *self._bell):
            os.close(fd)

    def _reply(self, opcode: int, node: int, asked: bytes) -> tuple[int, bytes]:
        match opcode:
            case Question.INIT:
                return 0, struct.pack("=4I48x", 7, 31, 1 << 20, 0)
            case Question.LOOKUP if asked.rstrip(b"\0") == NAME.encode():
                return 0, struct.pack("=4Q2I", FILE, 0, 60, 60, 0, 0) + self._attributes(FILE)
            case Question.LOOKUP:
                return ENOENT, b""
            case Question.GETATTR:
                return 0, struct.pack("=Q2I", 60, 0, 0) + self._attributes(node)
            case Question.OPEN:
                return 0, struct.pack("=Q2I", 0, 0, 0)
        return ENOSYS, b""

    def _attributes(self, node: int) -> bytes:
        mode = 0o100444 if node == FILE else 0o40555
        return ATTRIBUTES.pack(node, self.size, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


@contextmanager
def hanging_disk(place: Path, size: int) -> Iterator[Disk]:
    """Mounted at `place`. Raises OSError where there is no FUSE, or nothing may be mounted."""
    disk = Disk(place / NAME, size, os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    try:
        options = f"fd={disk._fuse},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"hanging", bytes(place), b"fuse", 0, options):
            raise PermissionError(ctypes.get_errno(), "nothing can be mounted here")
        answering = threading.Thread(target=disk.answer)
        taken_away = threading.Timer(PATIENCE, libc.umount2, (bytes(place), MNT_FORCE))
        answering.start()
        taken_away.start()
        try:
            yield disk
        finally:
            taken_away.cancel()
            libc.umount2(bytes(place), MNT_FORCE)
            libc.umount2(bytes(place), MNT_DETACH)
            answering.join()
    finally:
        disk.close()
