"""The key pair speaks OpenSSH's forms, and the seal opens only in its own place."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.exceptions import CryptoError

from provd.domain.errors import ConfigError, StoreError
from provd.remote.keys import KeyPair, Seal, load_master_key

MASTER = bytes(range(32))
seeds = st.binary(min_size=32, max_size=32)


def ssh_keygen(*args: str) -> str:
    return subprocess.run(["ssh-keygen", *args], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("comment", ["", "x", "provd operation 17", "größer", "c" * 100])
def test_openssh_reads_the_private_key_and_derives_the_same_public_line(comment: str, tmp_path: Path) -> None:
    """`ssh-keygen -y` accepts the private form for every length of padding and prints our public line."""
    pair = KeyPair.generate(comment)
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(pair.private_openssh())
    assert ssh_keygen("-y", "-P", "", "-f", str(path)) == pair.public_line.strip()


def test_openssh_reads_the_public_line(tmp_path: Path) -> None:
    """`ssh-keygen -l` knows the public line as an ed25519 key with our comment."""
    pair = KeyPair.generate("provd operation 17")
    path = tmp_path / "key.pub"
    path.write_text(pair.public_line + "\n")
    listed = ssh_keygen("-l", "-f", str(path))
    assert listed.startswith("256 SHA256:")
    assert listed.endswith("provd operation 17 (ED25519)")


def test_body_is_the_middle_of_the_public_line() -> None:
    """What is searched for in `authorized_keys` stands in the line, between type and comment."""
    pair = KeyPair.generate("a comment")
    assert pair.public_line.split(" ", 2) == ["ssh-ed25519", pair.body, "a comment"]


def test_pairs_differ_and_hide_their_seed() -> None:
    """Two pairs are two secrets, and `repr` shows neither."""
    one, other = KeyPair.generate("x"), KeyPair.generate("x")
    assert one != other
    assert one.body != other.body
    assert "seed" not in repr(one)
    assert one.seed.hex() not in repr(one)
    assert str(one.seed) not in repr(one)


@given(seeds, st.binary(max_size=200), st.text(max_size=40))
def test_what_was_sealed_opens_in_its_place(master: bytes, plain: bytes, context: str) -> None:
    """Any value comes back under its own key and context, and is not visible in between."""
    sealed = Seal(master).seal(plain, context)
    assert Seal(master).open(sealed, context) == plain
    assert len(plain) < 8 or plain not in sealed


def test_a_sealed_value_cannot_be_moved() -> None:
    """Another row, another key and a changed byte all end in a `StoreError` that names the place."""
    sealed = Seal(MASTER).seal(b"seed", "operations/17/key")
    attempts = [
        (Seal(MASTER), sealed, "operations/18/key"),
        (Seal(bytes(32)), sealed, "operations/17/key"),
        (Seal(MASTER), sealed[:-1] + bytes([sealed[-1] ^ 1]), "operations/17/key"),
    ]
    for seal, value, context in attempts:
        with pytest.raises(StoreError, match=context) as caught:
            seal.open(value, context)
        assert isinstance(caught.value.__cause__, CryptoError)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_as_a_sealed_value(value: bytes) -> None:
    """Whatever lies in the column gives a `StoreError`, nothing else."""
    with pytest.raises(StoreError):
        Seal(MASTER).open(value, "operations/1/key")


def test_equal_values_are_sealed_differently() -> None:
    """The database does not tell which rows hold the same secret."""
    seal = Seal(MASTER)
    assert seal.seal(b"same", "a") != seal.seal(b"same", "a")


def test_first_start_makes_the_key_and_later_starts_find_it(tmp_path: Path) -> None:
    """The state directory's key is 32 bytes, mode 0600, stays the same, and leaves no other file behind."""
    first = load_master_key(tmp_path, None)
    assert load_master_key(tmp_path, None) == first
    assert len(first) == 32
    assert [path.name for path in tmp_path.iterdir()] == ["sealing.key"]
    assert (tmp_path / "sealing.key").stat().st_mode & 0o777 == 0o600


def test_two_directories_have_two_keys(tmp_path: Path) -> None:
    """A key is random, never a constant."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert load_master_key(tmp_path / "a", None) != load_master_key(tmp_path / "b", None)


@pytest.mark.parametrize("content", [MASTER, MASTER.hex().encode(), MASTER.hex().upper().encode() + b"\n"])
def test_credential_comes_before_the_state_file(content: bytes, tmp_path: Path) -> None:
    """A systemd credential, raw or hexadecimal, is the key, and no file is made beside it."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "sealing-key").touch(mode=0o440)
    (credentials / "sealing-key").write_bytes(content)
    assert load_master_key(tmp_path, credentials) == MASTER
    assert not (tmp_path / "sealing.key").exists()


def test_without_the_credential_the_state_file_is_used(tmp_path: Path) -> None:
    """A credentials directory that holds other things only changes nothing."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    assert load_master_key(tmp_path, credentials) == load_master_key(tmp_path, None)


@pytest.mark.parametrize(
    "content", [b"", b"\n", MASTER[:-1], MASTER + b"\n", b"0" * 63, b"g" * 64, b"\xff" * 64]
)
@pytest.mark.parametrize("as_credential", [True, False])
def test_a_file_that_is_no_key_is_an_error(content: bytes, as_credential: bool, tmp_path: Path) -> None:
    """An empty, short, long or undecodable file is named in a `ConfigError` and stays as it was."""
    path = tmp_path / ("sealing-key" if as_credential else "sealing.key")
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="32 raw bytes or 64 hex") as caught:
        load_master_key(tmp_path, tmp_path if as_credential else None)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "mode"), [("sealing.key", 0o640), ("sealing.key", 0o604), ("sealing-key", 0o444)]
)
def test_a_key_open_to_others_is_an_error(name: str, mode: int, tmp_path: Path) -> None:
    """A good key in a file that others can read is refused."""
    path = tmp_path / name
    path.write_bytes(MASTER)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}"):
        load_master_key(tmp_path, tmp_path)


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    """A directory, a FIFO and a dangling link in the key's place are refused, and nothing waits for them."""
    path = tmp_path / "sealing.key"
    path.mkdir()
    with pytest.raises(ConfigError):
        load_master_key(tmp_path, None)
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        load_master_key(tmp_path, None)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_master_key(tmp_path, None)


def test_a_state_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """No key is made up when there is no place to keep it."""
    with pytest.raises(ConfigError, match="cannot be made"):
        load_master_key(tmp_path / "missing", None)
