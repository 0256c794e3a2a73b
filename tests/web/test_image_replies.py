"""Ranges, whatever is written in them. What the replies look like on the wire is in test_image_server.py."""

from hypothesis import given, settings
from hypothesis import strategies as st

from provd.web.image_replies import byte_range


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 1000))
def test_any_range_is_nothing_or_lies_in_the_file(text: bytes, size: int) -> None:
    """Nonsense never reaches beyond a file, and never is an exception."""
    for line in (text, b"bytes=" + text):
        found = byte_range([line], size)
        if found:
            start, stop = found
            assert 0 <= start < stop <= size


@settings(deadline=None)
@given(st.none() | st.integers(0, 2000), st.none() | st.integers(0, 2000), st.integers(0, 1000))
def test_a_range_is_what_slicing_is(first: int | None, last: int | None, size: int) -> None:
    """RFC 9110 §14.1.2, against Python's own idea of first, last and the last n."""
    line = f"bytes={'' if first is None else first}-{'' if last is None else last}".encode()
    found = byte_range([line], size)
    whole = range(size)
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        assert found is None
    else:
        start = first if first is not None else max(size - (last or 0), 0)
        wanted = whole[start : None if last is None or first is None else last + 1]
        assert (range(*found) if found else range(0)) == (wanted if len(wanted) else range(0))
        assert found is not None
