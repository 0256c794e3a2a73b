"""A file that exists nowhere: pieces of real files and bytes of our own, one behind the other.

It knows what it consists of and how to cut it, not how it is read or sent. The installer's ISO gets a
changed file inside it this way, and the initrd an ISO behind it, without a second copy of gigabytes.
"""

from pathlib import Path

from attrs import field, frozen


@frozen
class Extent:
    """`length` bytes of the file at `path`, from `offset` on."""

    path: Path
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length

    def cut(self, start: int, end: int) -> "Extent":
        return Extent(self.path, self.offset + start, end - start)


Part = bytes | Extent


@frozen
class VirtualFile:
    parts: tuple[Part, ...]
    etag: str
    """A strong validator, with its quotes (RFC 9110 §8.8.3): other bytes, another tag."""
    size: int = field(init=False)

    @size.default
    def _sum_of_parts(self) -> int:
        return sum(len(part) for part in self.parts)

    def slice(self, start: int, end: int) -> tuple[Part, ...]:
        """The parts of bytes `start` up to, not including, `end`; none of them is empty.

        Raises `ValueError` for what does not lie within the file.
        """
        if not 0 <= start <= end <= self.size:
            raise ValueError(f"bytes {start} to {end} of a file of {self.size}")
        found: list[Part] = []
        before = 0
        for part in self.parts:
            first, last = max(start - before, 0), min(end - before, len(part))
            if first < last:
                found.append(part.cut(first, last) if isinstance(part, Extent) else part[first:last])
            before += len(part)
        return tuple(found)
