"""Cutting a file that exists nowhere must be the same as cutting one that does."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provd.domain.virtual_file import Extent, Part, VirtualFile

DISK = {Path("/a"): bytes(range(100)), Path("/b"): bytes(range(100, 250))}


def extents() -> st.SearchStrategy[Extent]:
    return st.sampled_from(sorted(DISK)).flatmap(
        lambda path: st.tuples(st.integers(0, len(DISK[path])), st.integers(0, len(DISK[path]))).map(
            lambda ends: Extent(path, min(ends), max(ends) - min(ends))
        )
    )


def content(parts: tuple[Part, ...]) -> bytes:
    return b"".join(
        DISK[part.path][part.offset : part.offset + part.length] if isinstance(part, Extent) else part
        for part in parts
    )


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50) | extents(), max_size=6), st.data())
def test_a_slice_has_the_bytes_of_the_whole(parts: list[Part], data: st.DataObject) -> None:
    """Whatever the parts and wherever the cut: the same bytes, and no part without any."""
    file = VirtualFile(tuple(parts), '"x"')
    whole = content(file.parts)
    assert file.size == len(whole)
    start = data.draw(st.integers(0, file.size))
    end = data.draw(st.integers(start, file.size))
    cut = file.slice(start, end)
    assert content(cut) == whole[start:end]
    assert all(len(part) for part in cut)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (0, 11), (3, 2), (11, 11)])
def test_what_is_not_in_the_file_cannot_be_cut_out(start: int, end: int) -> None:
    """A mistake in a range is an error, never other bytes."""
    with pytest.raises(ValueError, match="of a file of 10"):
        VirtualFile((b"0123", Extent(Path("/a"), 0, 6)), '"x"').slice(start, end)
