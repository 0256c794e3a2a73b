"""Archives in the kernel's initramfs format ("newc"), written without any tool.

Source: the Linux kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from collections.abc import Iterable

from attrs import frozen


@frozen(kw_only=True)
class Entry:
    """A file, or with `stat.S_IFDIR` or `stat.S_IFLNK` in `mode` a directory or a link to `content`."""

    name: str
    mode: int
    content: bytes = b""


def directory(name: str, permissions: int = 0o755) -> Entry:
    return Entry(name=name, mode=stat.S_IFDIR | permissions)


def file(name: str, content: bytes, permissions: int = 0o644) -> Entry:
    return Entry(name=name, mode=stat.S_IFREG | permissions, content=content)


def link(name: str, target: str) -> Entry:
    return Entry(name=name, mode=stat.S_IFLNK | 0o777, content=target.encode())


def archive(entries: Iterable[Entry]) -> bytes:
    """The whole archive; its length is a multiple of four, so that another may follow it."""
    parts = [
        _record(number, entry)
        for number, entry in enumerate([*entries, Entry(name="TRAILER!!!", mode=0)], start=1)
    ]
    return b"".join(parts)


def _record(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(piece: bytes) -> bytes:
    return piece + bytes(-len(piece) % 4)
