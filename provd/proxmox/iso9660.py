"""ISO 9660 with Rock Ridge names, as far as it takes to read a disc image and to add one file to it.

A file is added like a later session adds to a disc: its content and a new root directory go behind the
end, and the volume descriptor points there. Every other byte stays where it was, so that an image of
two gigabytes is not written anew, and files that boot loaders find by their block number are still
found. Rewriting the image (pycdlib 1.22 does) moves every file and drops the GPT, HFS+ and GRUB parts
of a hybrid image. The Joliet tree, if there is one, is left without the new file: Linux prefers Rock
Ridge (fs/isofs/inode.c).

What lies on the disc is not known here. The image may be anything, so each read is bounded.

Facts are from ECMA-119 (ISO 9660), IEEE P1281 (SUSP 1.12) and IEEE P1282 (RRIP 1.12).
"""

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from attrs import frozen

from provd.domain.errors import BadImage

SECTOR = 2048
FIRST_DESCRIPTOR = 16
MOST_DESCRIPTORS = 64
LARGEST_DIRECTORY = 1 << 20
"""Bytes: eight thousand entries. /boot and / of an installer have some forty."""
MOST_CONTINUATIONS = 4096
"""Areas outside the directories that names may be spread over. A circle of them ends here, too."""
PIECE = 1 << 20

DIRECTORY, MULTI_EXTENT = 0x02, 0x80
ITSELF, PARENT = b"\x00", b"\x01"

FILE_MODE = 0o100444
"""Of a file that is added: a regular file that everybody may read."""


@frozen(kw_only=True)
class Entry:
    """A file or directory; `offset` and `size` are in bytes."""

    name: str
    offset: int
    size: int
    is_directory: bool
    in_pieces: bool
    """A file beyond 4 GiB, of which this is one part."""
    record: bytes
    """As it stands in its directory."""


@frozen
class Patch:
    """Bytes to be written at an offset of the image, which may lie behind its end."""

    offset: int
    data: bytes


class Volume:
    """An open image. Raises `BadImage` for what is not one, or ends too early."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.file_size = file.seek(0, 2)
        self._descriptor_at, self._descriptor = self._primary_descriptor()
        (sectors,) = struct.unpack_from("<I", self._descriptor, 80)
        (sector_size,) = struct.unpack_from("<H", self._descriptor, 128)
        if sector_size != SECTOR:
            raise BadImage(f"the image has sectors of {sector_size} bytes, and 2048 are usual")
        self.size = sectors * SECTOR
        if self.size > self.file_size:
            raise BadImage(
                f"the image is cut off: it has {self.file_size} of {self.size} bytes; fetch it again"
            )
        self._continuations = 0
        self._listings: dict[int, Sequence[Entry]] = {}
        self._skip = 0
        self._root = self._entry(self._descriptor[156:190])
        self._skip = self._rock_ridge_skip()

    # --- reading ---

    def find(self, path: str) -> Entry | None:
        """The file or directory at an absolute path; symbolic links are not followed."""
        here = self._root
        for name in path.strip("/").split("/"):
            if not here.is_directory:
                return None
            found = [entry for entry in self._entries(here) if entry.name == name]
            if not found:
                return None
            here = found[0]
        return here

    def read(self, entry: Entry, limit: int) -> bytes:
        """The whole of a small file. Raises `BadImage` beyond `limit` bytes."""
        if entry.size > limit:
            raise BadImage(f"{entry.name} in the image has {entry.size} bytes, and {limit} were expected")
        return b"".join(self.pieces(entry))

    def pieces(self, entry: Entry) -> Iterator[bytes]:
        """The bytes of a file, in pieces of at most one MiB."""
        if entry.in_pieces:
            raise BadImage(f"{entry.name} in the image is larger than 4 GiB")
        for start in range(0, entry.size, PIECE):
            yield self._read(entry.offset + start, min(PIECE, entry.size - start))

    # --- adding ---

    def plan_file(self, name: str, identifier: bytes, content: bytes) -> tuple[Sequence[Patch], int]:
        """What to write so that the root directory has the file, and the offset of its content.

        The content begins at a sector. A file of that name is replaced. `identifier` is its name for
        readers without Rock Ridge. Written twice it is the same as written once.
        """
        content_at = _aligned(max(self.file_size, self.size))
        directory_at = content_at + _aligned(len(content))
        entries = self._entries(self._root)
        if any(_identifier(entry.record) == identifier and entry.name != name for entry in entries):
            raise BadImage(f"another file in the image is called {identifier.decode()} already")
        added = _file_record(name, identifier, content_at // SECTOR, len(content), self._root.record[18:25])
        kept = [entry.record for entry in entries if entry.name != name]
        size = len(_pack([*kept, added]))
        place = struct.pack("<I", directory_at // SECTOR) + struct.pack(">I", directory_at // SECTOR)
        length = struct.pack("<I", size) + struct.pack(">I", size)

        def moved(record: bytes) -> bytes:
            """A record of the root directory, which lies elsewhere now."""
            return record[:2] + place + length + record[18:]

        records = sorted([*kept, added], key=_sort_key)
        directory = _pack(
            [moved(each) if _identifier(each) in (ITSELF, PARENT) else each for each in records]
        )
        end = directory_at + size
        descriptor = bytearray(self._descriptor)
        descriptor[80:88] = struct.pack("<I", end // SECTOR) + struct.pack(">I", end // SECTOR)
        descriptor[156:190] = moved(self._root.record)
        patches = [
            Patch(content_at, content.ljust(_aligned(len(content)), b"\0")),
            Patch(directory_at, directory),
            *self._path_table_patches(place),
            *self._parent_patches(entries, place + length),
            # Last, as it is what makes the rest visible.
            Patch(self._descriptor_at, bytes(descriptor)),
        ]
        return patches, content_at

    def _path_table_patches(self, place: bytes) -> Iterator[Patch]:
        """The first record of each path table is the root's (ECMA-119 §9.4)."""
        for at, order, where in (
            (140, "<I", place[:4]),
            (144, "<I", place[:4]),
            (148, ">I", place[4:]),
            (152, ">I", place[4:]),
        ):
            (sector,) = struct.unpack_from(order, self._descriptor, at)
            # The second of each kind is optional, and often 0.
            if sector and self._read(sector * SECTOR, 1) == b"\x01":
                yield Patch(sector * SECTOR + 2, where)

    def _parent_patches(self, entries: Sequence[Entry], where: bytes) -> Iterator[Patch]:
        """ ".." in each directory of the root."""
        for entry in entries:
            if not entry.is_directory or _identifier(entry.record) in (ITSELF, PARENT):
                continue
            first = self._read(entry.offset, SECTOR)
            at = first[0]
            if at < 34 or first[at + 32 : at + 34] != b"\x01\x01":
                raise BadImage(f"the directory {entry.name} in the image is damaged")
            yield Patch(entry.offset + at + 2, where)

    # --- the format ---

    def _primary_descriptor(self) -> tuple[int, bytes]:
        for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + MOST_DESCRIPTORS):
            at = number * SECTOR
            if at + SECTOR > self.file_size:
                break
            sector = self._read(at, SECTOR)
            if sector[1:6] != b"CD001" or sector[0] == 255:
                break
            if sector[0] == 1:
                return at, sector
        raise BadImage("this is not an ISO image")

    def _rock_ridge_skip(self) -> int:
        """How many bytes stand before each system use area (SUSP §5.3)."""
        first = next(self._records(self._root), b"")
        at = first.find(b"SP\x07\x01\xbe\xef", 34)
        if at < 0 or len(first) < at + 7:
            raise BadImage("the image has no Rock Ridge names, which Proxmox' installers have")
        return first[at + 6]

    def _entries(self, directory: Entry) -> Sequence[Entry]:
        if directory.offset not in self._listings:
            self._listings[directory.offset] = [self._entry(record) for record in self._records(directory)]
        return self._listings[directory.offset]

    def _records(self, directory: Entry) -> Iterator[bytes]:
        if directory.size > LARGEST_DIRECTORY:
            raise BadImage(f"the directory {directory.name or '/'} in the image has {directory.size} bytes")
        for start in range(0, directory.size, SECTOR):
            sector = self._read(directory.offset + start, min(SECTOR, directory.size - start))
            at = 0
            # No record crosses the end of a sector; what is left of one is zero.
            while at < len(sector) and (length := sector[at]):
                if length < 34 or at + length > len(sector) or 33 + sector[at + 32] > length:
                    raise BadImage(f"the directory {directory.name or '/'} in the image is damaged")
                yield sector[at : at + length]
                at += length

    def _entry(self, record: bytes) -> Entry:
        (sector,) = struct.unpack_from("<I", record, 2)
        (size,) = struct.unpack_from("<I", record, 10)
        # An extended attribute record stands before the content.
        offset = (sector + record[1]) * SECTOR
        return Entry(
            name=self._name(record),
            offset=offset,
            size=size,
            is_directory=bool(record[25] & DIRECTORY),
            in_pieces=bool(record[25] & MULTI_EXTENT),
            record=record,
        )

    def _name(self, record: bytes) -> str:
        identifier = _identifier(record)
        if identifier in (ITSELF, PARENT):
            return ""
        area = record[33 + len(identifier) + (1 - len(identifier) % 2) + self._skip :]
        alternate = b"".join(
            data[1:] for kind, data in self._system_use(area) if kind == b"NM" and not data[:1] > b"\x01"
        )
        # As Linux shows a name that has no other.
        name = alternate or identifier.partition(b";")[0].rstrip(b".").lower()
        return name.decode(errors="replace")

    def _system_use(self, area: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The entries of a system use area and of those that continue it: (signature, data)."""
        while True:
            more: tuple[int, int, int] | None = None
            while len(area) >= 4 and 4 <= area[2] <= len(area):
                kind, data, area = area[:2], area[4 : area[2]], area[area[2] :]
                if kind == b"ST":
                    break
                if kind == b"CE" and len(data) >= 24:
                    more = struct.unpack("<I4xI4xI4x", data[:24])
                yield kind, data
            if more is None or more[2] > SECTOR:
                return
            self._continuations += 1
            if self._continuations > MOST_CONTINUATIONS:
                raise BadImage("the image is damaged: its file names do not end")
            area = self._read(more[0] * SECTOR + more[1], more[2])

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise BadImage("the image is damaged: it points behind its own end")
        return data


def _identifier(record: bytes) -> bytes:
    return record[33 : 33 + record[32]]


def _sort_key(record: bytes) -> tuple[bool, bytes]:
    """By name, padded with spaces, "." and ".." first (ECMA-119 §9.3)."""
    identifier = _identifier(record)
    return identifier not in (ITSELF, PARENT), identifier.ljust(64)


def _file_record(name: str, identifier: bytes, sector: int, size: int, recorded: bytes) -> bytes:
    both = (
        struct.pack("<I", sector)
        + struct.pack(">I", sector)
        + struct.pack("<I", size)
        + struct.pack(">I", size)
    )
    padding = b"" if len(identifier) % 2 else b"\0"
    head = both + recorded + b"\0\0\0\x01\0\0\x01" + bytes([len(identifier)]) + identifier + padding
    numbers = (FILE_MODE, 1, 0, 0)  # mode, links, user, group
    px = b"".join(struct.pack("<I", number) + struct.pack(">I", number) for number in numbers)
    use = b"PX\x24\x01" + px + b"NM" + bytes([5 + len(name)]) + b"\x01\0" + name.encode("ascii")
    length = 2 + len(head) + len(use)
    return bytes([length + length % 2, 0]) + head + use + b"\0" * (length % 2)


def _pack(records: Sequence[bytes]) -> bytes:
    """Records as a directory: whole sectors, and none across the border of two."""
    packed = bytearray()
    for record in records:
        room = -len(packed) % SECTOR
        if len(record) > room:
            packed += bytes(room)
        packed += record
    return bytes(packed.ljust(_aligned(len(packed)), b"\0"))


def _aligned(size: int) -> int:
    return size + -size % SECTOR
