import json
import unicodedata
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provd.domain.documents import MAX_KEYS, as_list, as_object, as_text, one_line, parse_json
from provd.domain.errors import BadDocument

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**19) + 1, 10**19 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_what_json_can_say_comes_back(value: object) -> None:
    """Every value within the limits is read as Python's own writer meant it."""
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(
    st.binary()
    | st.text(alphabet='{}[]",:\\ud80 019eE.-\ud800NaN', max_size=40).map(
        lambda t: t.encode(errors="replace")
    )
)
def test_any_bytes_give_a_value_or_bad_document(body: bytes) -> None:
    """Nothing but `BadDocument` gets out, whatever comes in."""
    with suppress(BadDocument):
        parse_json(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b'{"a":1', "not JSON", id="cut off"),
        pytest.param(b"[1] 2", "not JSON", id="more after the end"),
        pytest.param(b"\xef\xbb\xbf{}", "not JSON", id="byte order mark"),
        pytest.param(b"\xff\xfe{\0}\0", "not UTF-8", id="UTF-16"),
        pytest.param(b'"\xed\xa0\x80"', "not UTF-8", id="surrogate as bytes"),
        pytest.param(b'{"a":NaN}', "NaN", id="NaN"),
        pytest.param(b"[-Infinity]", "-Infinity", id="infinity"),
        pytest.param(b"[1e999]", "too big", id="float overflow"),
        pytest.param(b'{"a":1,"b":{"a":2,"a":3}}', "same name twice", id="duplicate name"),
        pytest.param(rb'["\ud800"]', "surrogate", id="lone high surrogate"),
        pytest.param(rb'{"\udc00":1}', "surrogate", id="lone low surrogate in a name"),
        pytest.param(rb'["a\u0000b"]', "NUL", id="escaped NUL"),
        pytest.param(b'["a\0b"]', "not JSON", id="plain NUL"),
        pytest.param(b"[10000000000000000000]", "19 digits", id="20 digits"),
        pytest.param(b"[" + b"9" * 100_000 + b"]", "19 digits", id="100,000 digits"),
    ],
)
def test_poison_is_refused(body: bytes, reason: str) -> None:
    """What readers disagree about, or choke on, is refused with a reason."""
    with pytest.raises(BadDocument, match=reason):
        parse_json(body)


def test_a_surrogate_pair_is_one_character() -> None:
    """Two escaped halves that belong together are an ordinary character."""
    assert parse_json(rb'"\ud83d\ude00"') == "\U0001f600"


def test_depth_ends_before_the_recursion_does() -> None:
    """The limit is exact, and a million brackets are an error like any other."""
    assert parse_json(b"[" * 25 + b"]" * 25)
    for opening in (b"[" * 26, b'{"a":' * 26, b"[" * 1_000_000):
        with pytest.raises(BadDocument, match="deeper than 25"):
            parse_json(opening)


def test_brackets_in_strings_are_not_depth() -> None:
    """Only structure counts, whatever is escaped inside a string."""
    assert parse_json(rb'["' + b"[" * 100 + rb"\"{\\" + b'"]') == ["[" * 100 + '"{\\']


def test_a_string_without_end_costs_linear_time() -> None:
    """A megabyte of escaped quotes is refused at once; in quadratic time this would take an hour."""
    with pytest.raises(BadDocument):
        parse_json(b'"' + b'\\"' * 500_000)


def test_names_are_counted_over_the_whole_document() -> None:
    """5,000 names are taken, one more is not, wherever they are."""
    objects = [{f"k{n}": 0 for n in range(1_000)} for _ in range(5)]
    assert sum(map(len, objects)) == MAX_KEYS
    assert parse_json(json.dumps(objects).encode()) == objects
    with pytest.raises(BadDocument, match="5000 names"):
        parse_json(json.dumps([*objects, {"one": 1}]).encode())


def test_accessors_name_what_is_wrong() -> None:
    """A value of another type is refused by its name."""
    assert (as_object({}, "x"), as_list([], "x"), as_text("a", "x", 1)) == ({}, [], "a")
    for refuse in (as_object, as_list, as_text):
        with pytest.raises(BadDocument, match=r"x\.y is not"):
            refuse(None, "x.y")
    with pytest.raises(BadDocument, match="more than 3"):
        as_text("abcd", "x", 3)


@given(st.text(), st.integers(1, 300))
@example("a\r\nb\x1b[31m\u202egnp.exe\u2066\u2028\x85\ud800", 200)
def test_one_line_is_one_visible_line(text: str, limit: int) -> None:
    """Whatever goes in, what comes out is on one line, within the limit, visible, and can be encoded."""
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(f"x{line}".splitlines()) == 1
    line.encode()
    assert not {unicodedata.category(char) for char in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_one_line_shows_what_it_took_away() -> None:
    """Harmless text stays as it is; the rest is readable as an escape; a cut is marked."""
    assert one_line("Grüße, <b>日本</b>") == "Grüße, <b>日本</b>"
    assert one_line("a\r\n\x1b[0m\u202e") == r"a\r\n\x1b[0m\u202e"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"
