"""Keys as `ssh-keygen` makes them: the one that fits is read, all others are refused with a way out."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.errors import Invalid
from provd.domain.secrets import Secret
from provd.remote.keys import KeyPair
from provd.remote.private_key import parse_private_key


def make(path: Path, *options: str) -> Secret:
    subprocess.run(["ssh-keygen", "-q", "-f", str(path), *options], check=True, capture_output=True)
    return Secret(path.read_text())


@pytest.mark.parametrize("comment", ["", "provd", "root@größer", "c" * 100])
def test_openssh_and_provd_read_the_same_key(tmp_path: Path, comment: str) -> None:
    """The pair has the public half that OpenSSH wrote beside it."""
    text = make(tmp_path / "key", "-t", "ed25519", "-N", "", "-C", comment)
    pair = parse_private_key(text)
    assert pair.public_line.split()[:2] == (tmp_path / "key.pub").read_text().split()[:2]
    assert pair.comment == (comment or "provd")


@given(
    st.binary(min_size=32, max_size=32), st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1)
)
def test_what_provd_writes_it_reads(seed: bytes, comment: str) -> None:
    """The two directions agree; line ends of another system do no harm."""
    pair = KeyPair(seed, comment)
    for text in (pair.private_openssh(), pair.private_openssh().replace("\n", "\r\n")):
        read = parse_private_key(Secret(text))
        assert (read.seed, read.public) == (pair.seed, pair.public)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("-t", "ed25519", "-N", "a passphrase"), r"passphrase.*ssh-keygen -p -N ''"),
        (("-t", "rsa", "-b", "2048", "-N", ""), r"type ssh-rsa.*ssh-keygen -t ed25519"),
        (("-t", "ecdsa", "-N", ""), r"type ecdsa-sha2-nistp256.*ssh-keygen -t ed25519"),
        (("-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"), r"not in OpenSSH's format.*ssh-keygen"),
    ],
)
def test_other_keys_are_refused(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    """By their kind, with the command that makes the right one."""
    with pytest.raises(Invalid, match=sentence):
        parse_private_key(make(tmp_path / "key", *options))


def test_a_public_key_in_its_place(tmp_path: Path) -> None:
    """A frequent slip: the file with .pub."""
    make(tmp_path / "key", "-t", "ed25519", "-N", "")
    with pytest.raises(Invalid, match=r"public key.*without \.pub"):
        parse_private_key(Secret((tmp_path / "key.pub").read_text()))


WHOLE = KeyPair(bytes(range(32)), "provd").private_openssh()


@given(st.data())
def test_a_damaged_key_is_an_error_or_the_same_key(data: st.DataObject) -> None:
    """One character changed or everything after some point lost: never another key, never another error."""
    position = data.draw(st.integers(0, len(WHOLE) - 1))
    other = data.draw(st.sampled_from("AZaz09+/=\n-") | st.just(""))
    rest = WHOLE[position + 1 :] if data.draw(st.booleans()) else ""
    try:
        read = parse_private_key(Secret(WHOLE[:position] + other + rest))
    except Invalid as exc:
        assert WHOLE.splitlines()[1][20:60] not in str(exc)  # noqa: PT017
    else:
        assert read.seed == bytes(range(32))


@given(st.text(max_size=200))
def test_any_text_is_refused(text: str) -> None:
    """Whatever is in the file, it is one printable sentence."""
    with pytest.raises(Invalid) as caught:
        parse_private_key(Secret(text))
    assert str(caught.value).isprintable()
