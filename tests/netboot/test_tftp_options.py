import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.netboot.tftp_options import Bounds, Terms, negotiate

BOUNDS = Bounds()


def answer(asked: dict[str, str], size: int | None = 1000) -> dict[str, str]:
    return dict(negotiate(asked.items(), size=size, bounds=BOUNDS).answer)


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ({"blksize": "8"}, {"blksize": "8"}),
        ({"blksize": "1432"}, {"blksize": "1432"}),
        ({"blksize": "1468"}, {"blksize": "1468"}),
        ({"blksize": "65464"}, {"blksize": "1468"}),
        ({"blksize": "7"}, {}),
        ({"blksize": "65465"}, {}),
        ({"blksize": "65536"}, {}),
        ({"blksize": "abc"}, {}),
        ({"blksize": "-8"}, {}),
        ({"blksize": "1e3"}, {}),
        ({"blksize": " 512"}, {}),
        ({"blksize": "\u0665\u0661\u0662"}, {}),
        ({"blksize": "9" * 10_000}, {}),
        ({"tsize": "0"}, {"tsize": "1000"}),
        ({"tsize": "x"}, {}),
        ({"timeout": "1"}, {"timeout": "1"}),
        ({"timeout": "255"}, {"timeout": "255"}),
        ({"timeout": "0"}, {}),
        ({"timeout": "256"}, {}),
        ({"windowsize": "4"}, {"windowsize": "4"}),
        ({"windowsize": "65535"}, {"windowsize": "64"}),
        ({"windowsize": "0"}, {}),
        ({"windowsize": "65536"}, {}),
        ({"BLKSIZE": "512", "tSize": "0"}, {"BLKSIZE": "512", "tSize": "1000"}),
        ({"blksize": "512", "BlkSize": "1024"}, {"blksize": "512"}),
        ({"multicast": "", "utimeout": "1"}, {}),
        ({}, {}),
    ],
)
def test_answers(asked: dict[str, str], granted: dict[str, str]) -> None:
    """What can be granted is, as far as it can; the rest is passed over in silence."""
    assert answer(asked) == granted


def test_size_of_a_text() -> None:
    """The size of a file that is converted on the way is not told (RFC 2349)."""
    assert answer({"tsize": "0", "blksize": "512"}, size=None) == {"blksize": "512"}


def test_terms_without_options() -> None:
    """Who asks for nothing gets TFTP as it was in 1992, even with a small largest block."""
    assert negotiate([], size=1, bounds=Bounds(blksize=100)) == Terms()


@given(st.lists(st.tuples(st.sampled_from(["blksize", "TSIZE", "timeout", "windowsize", "x"]), st.text())))
def test_only_what_was_asked(asked: list[tuple[str, str]]) -> None:
    """No answer holds an option that was not asked for, none holds one twice, and all terms are in bounds."""
    terms = negotiate(asked, size=5, bounds=BOUNDS)
    names = [name for name, _ in terms.answer]
    assert set(names) <= {name for name, _ in asked}
    assert len({name.lower() for name in names}) == len(names)
    assert 8 <= terms.blksize <= BOUNDS.blksize
    assert 1 <= terms.windowsize <= BOUNDS.windowsize
    assert terms.timeout is None or 1 <= terms.timeout <= 255


@given(st.integers(), st.integers(), st.integers())
def test_never_more_than_asked(blksize: int, windowsize: int, timeout: int) -> None:
    """Blocks and windows are at most as large as asked, and a timeout is the asked one."""
    asked = {"blksize": blksize, "windowsize": windowsize, "timeout": timeout}
    granted = answer({name: str(value) for name, value in asked.items()})
    for name in ("blksize", "windowsize"):
        assert int(granted.get(name, "0")) <= max(asked[name], 0)
    assert int(granted.get("timeout", timeout)) == timeout
