"""`provd image …` as processes: what it prints, how it ends, and that Ctrl-C loses nothing."""

import argparse
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path

import pytest
import trio
from attrs import frozen

from iso_maker import make_iso
from provd import images_cli
from provd.config import Config, load_config
from provd.domain.errors import ProvdError, leaves_of
from provd.images_cli import describe
from provd.orchestrator.progress import Progress
from provd.store.database import Store, open_store

ROOT = Path(__file__).parents[1]
NAME = "proxmox-ve_9.2-1"

CONFIG = ROOT / "deploy" / "examples" / "provisioning.yaml"


def add(one: argparse.ArgumentParser, command: images_cli.Command, *names: str) -> None:
    for name in names:
        one.add_argument(name)
    one.set_defaults(command=command)


def open_state(config: Config) -> AbstractContextManager[Store]:
    return open_store(config.paths.state_dir / "provd.db")


def main(state_dir: str, words: Sequence[str]) -> int:
    """`provd` with these commands and no others."""
    top = argparse.ArgumentParser()
    images_cli.add_commands(top.add_subparsers(required=True), add, open_state)
    options = top.parse_args(["image", *words])
    errors: Sequence[Exception] = ()
    try:
        options.command(load_config(CONFIG, {"STATE_DIRECTORY": state_dir}), options)
    except* ProvdError as group:
        errors = leaves_of(group)
    for error in errors:
        print(f"provd: {error}", file=sys.stderr)
    return 1 if errors else 0


@frozen
class Shell:
    folder: Path
    capture: pytest.CaptureFixture[str]

    @property
    def state(self) -> str:
        return str(self.folder / "state")

    def run(self, *words: object) -> tuple[int, str, str]:
        """Here and now: (exit status, what it prints, what it complains)."""
        self.capture.readouterr()
        status = main(self.state, [str(word) for word in words])
        printed = self.capture.readouterr()
        return status, printed.out, printed.err

    def command(self, *words: object) -> list[str]:
        """The same as a process of its own."""
        return [sys.executable, "-W", "error", __file__, self.state, *map(str, words)]


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    return Shell(tmp_path, capsys)


@pytest.fixture(scope="session")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_iso(tmp_path_factory.mktemp("iso") / "a.iso")


def test_the_life_of_an_image(shell: Shell, iso: Path, tmp_path: Path) -> None:
    """Imported from a relative path, listed, checked, chosen and removed; each says one line."""
    (tmp_path / "here.iso").symlink_to(iso)
    digest = sha256(iso.read_bytes()).hexdigest()
    status, out, err = shell.run("import", "here.iso")
    assert (status, out) == (0, f"{NAME} is imported and the default\n"), err
    assert f"SHA-256 {digest}" in err
    assert "100 %" in err or "MiB" not in err
    assert shell.run("import", iso, "--name", "second", "--sha256", digest, "--default")[:2] == (
        0,
        "second is imported and the default\n",
    )
    status, out, err = shell.run("list")
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    assert re.fullmatch(r"second +9\.2-1 +0\.00 GiB  2\d{3}-\d\d-\d\d \d\d:\d\d  default", first)
    assert re.fullmatch(rf"{re.escape(NAME)} +9\.2-1 +0\.00 GiB  2\d{{3}}-\d\d-\d\d \d\d:\d\d", second)
    assert shell.run("verify", NAME)[:2] == (0, f"{NAME} is as it was imported\n")
    assert shell.run("default", NAME)[:2] == (0, f"{NAME} is installed from now on\n")
    assert shell.run("remove", "second")[:2] == (0, "second is removed\n")
    assert not (tmp_path / "state" / "images" / "second").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("import", "missing.iso"), "there is no file"),
        (("import", "/dev/null"), "not a regular file"),
        (("import", __file__), "not an ISO image"),
        (("verify", "x"), "there is no image x"),
        (("remove", "x"), "there is no image x"),
        (("default", "x"), "there is no image x"),
    ],
)
def test_what_cannot_be_is_one_line(shell: Shell, words: tuple[str, ...], said: str) -> None:
    """On stderr, and the exit status says so."""
    status, out, err = shell.run(*words)
    assert (status, out) == (1, "")
    assert said in err
    assert "Traceback" not in err


def test_a_wrong_sha256_and_a_damaged_image(shell: Shell, iso: Path, tmp_path: Path) -> None:
    """Both end with 1 and name the file."""
    status, _, err = shell.run("import", iso, "--sha256", "0" * 64)
    assert (status, "was expected" in err) == (1, True)
    assert shell.run("import", iso)[0] == 0
    kernel = tmp_path / "state" / "images" / NAME / "vmlinuz"
    kernel.write_bytes(kernel.read_bytes() + b"x")
    status, _, err = shell.run("verify", NAME)
    assert (status, "vmlinuz is not what is in the ISO" in err) == (1, True)
    os.rename(kernel.parent, tmp_path / "gone")
    assert "is missing: remove the image" in shell.run("list")[2]


def test_ctrl_c_keeps_what_was_copied(shell: Shell, tmp_path: Path) -> None:
    """It ends with 1 and says how to go on; the same command then makes the image."""
    big = make_iso(tmp_path / "big.iso", more={"/pve-base.squashfs": bytes(200 << 20)})
    partial = tmp_path / "state" / "images" / f".import-{NAME}" / "proxmox.iso"

    async def interrupt() -> tuple[int | None, str]:
        process = await trio.lowlevel.open_process(shell.command("import", big), stderr=subprocess.PIPE)
        while not (partial.exists() and partial.stat().st_size > 1 << 20):
            await trio.sleep(0.005)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = b"".join([part async for part in process.stderr]).decode()
        return await process.wait(), err

    async def in_time() -> tuple[int | None, str]:
        with trio.fail_after(60):
            return await interrupt()

    status, err = trio.run(in_time)
    assert status == 1, err
    assert "run the same command again and it goes on there" in err
    assert "Traceback" not in err
    assert "was broken off with" in shell.run("list")[2]
    assert shell.run("import", big)[:2] == (0, f"{NAME} is imported and the default\n")
    assert shell.run("verify", NAME)[0] == 0


def test_a_terminal_shows_one_line_that_moves(shell: Shell, tmp_path: Path) -> None:
    """Percent and MiB on one line, which is gone at the end."""
    big = make_iso(tmp_path / "big.iso", more={"/pve-base.squashfs": bytes(200 << 20)})
    leader, follower = pty.openpty()
    process = subprocess.Popen(shell.command("import", big), stderr=follower, stdout=subprocess.PIPE)
    os.close(follower)
    shown = b"".join(read_all(leader)).decode()
    assert process.communicate()[0].decode() == f"{NAME} is imported and the default\n"
    assert re.search(r"\r *\d+ %  \d+ of 20\d MiB", shown)
    assert "\r\x1b[K" in shown
    assert shown.count("\n") == 1, "the SHA-256's"


def read_all(terminal: int) -> Iterator[bytes]:
    try:
        while data := os.read(terminal, 4096):
            yield data
    except OSError:  # Linux' way to say that nobody has the other end any more
        os.close(terminal)


def test_how_far_in_words() -> None:
    """Percent, sizes, rate and time left, as far as they are known."""
    progress = Progress()
    progress.at(0, 2000 << 20, 0.0)
    assert describe(progress) == "  0 %  0 of 2000 MiB"
    progress.at(100 << 20, 2000 << 20, 1.0)
    assert describe(progress) == "  5 %  100 of 2000 MiB  100.0 MiB/s  19 s left"
    progress.at(110 << 20, 20_000 << 20, 2.0)
    assert re.fullmatch(r"  0 %  110 of 20000 MiB  \d+\.\d MiB/s  \d+ min \d+ s left", describe(progress))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
