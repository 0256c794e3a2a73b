"""`provd image …` as processes: what it prints, how it ends, and that Ctrl-C loses nothing."""

import argparse
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import trio
from attrs import frozen

from iso_maker import make_iso
from provd.images_cli import describe
from provd.orchestrator.progress import Progress

ROOT = Path(__file__).parents[1]
NAME = "proxmox-ve_9.2-1"

MAIN = """
import argparse, os, sys
from pathlib import Path
from provd import cli, images_cli
from provd.config import load_config

top = argparse.ArgumentParser()
images_cli.add_commands(top.add_subparsers(required=True), cli.add, cli.open_state)
options = top.parse_args()
try:
    options.command(load_config(options.config, os.environ), options)
except* cli.ProvdError as group:
    sys.exit("".join(f"provd: {error}\\n" for error in cli.leaves_of(group)))
"""
"""`provd` with these commands and no others."""


@frozen
class Shell:
    folder: Path

    def command(self, *words: object) -> list[str]:
        config = ROOT / "deploy" / "examples" / "provisioning.yaml"
        return [sys.executable, "-W", "error", "-c", MAIN, "image", *map(str, words), "--config", str(config)]

    @property
    def environ(self) -> dict[str, str]:
        return os.environ | {"STATE_DIRECTORY": str(self.folder / "state"), "PYTHONPATH": str(ROOT)}

    def run(self, *words: object) -> tuple[int, str, str]:
        done = subprocess.run(
            self.command(*words),
            env=self.environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


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


async def test_ctrl_c_keeps_what_was_copied(shell: Shell, tmp_path: Path) -> None:
    """It ends with 1 and says how to go on; the same command then makes the image."""
    big = make_iso(tmp_path / "big.iso", more={"/pve-base.squashfs": bytes(600 << 20)})
    process = await trio.lowlevel.open_process(
        shell.command("import", big), env=shell.environ, stderr=subprocess.PIPE
    )
    partial = tmp_path / "state" / "images" / f".import-{NAME}" / "proxmox.iso"
    with trio.fail_after(30):
        while not (partial.exists() and partial.stat().st_size > 1 << 20):
            await trio.sleep(0.005)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = b"".join([part async for part in process.stderr]).decode()
        await process.wait()
    assert process.returncode == 1, err
    assert "run the same command again and it goes on there" in err
    assert "Traceback" not in err
    status, _, err = await trio.to_thread.run_sync(shell.run, "list")
    assert (status, "was broken off with" in err) == (0, True)
    done = await trio.to_thread.run_sync(shell.run, "import", big)
    assert done[:2] == (0, f"{NAME} is imported and the default\n"), done
    assert (await trio.to_thread.run_sync(shell.run, "verify", NAME))[0] == 0


def test_a_terminal_shows_one_line_that_moves(shell: Shell, tmp_path: Path) -> None:
    """Percent and MiB on one line, which is gone at the end."""
    big = make_iso(tmp_path / "big.iso", more={"/pve-base.squashfs": bytes(300 << 20)})
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        shell.command("import", big), env=shell.environ, stderr=follower, stdout=subprocess.PIPE
    )
    os.close(follower)
    shown = b"".join(read_all(leader)).decode()
    assert process.communicate()[0].decode() == f"{NAME} is imported and the default\n"
    assert re.search(r"\r *\d+ %  \d+ of 30\d MiB", shown)
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


def test_the_commands_are_listed() -> None:
    """Each with what it does."""
    from provd import cli, images_cli

    top = argparse.ArgumentParser()
    images_cli.add_commands(top.add_subparsers(), cli.add, cli.open_state)
    assert top.parse_args(["image", "import", "x", "--default"]).default is True
