"""What of this computer a lab machine sees: its programs, its Python and this checkout; no home, no secret.

A directory with copies of some files of /etc, on which the rest is mounted, in a mount namespace that the
machine's QEMU has for itself. Mounting needs root.
"""

import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

PROJECT = Path(__file__).resolve().parents[3]
PYTHON = Path(sys.prefix).resolve() / "bin" / Path(sys.executable).name
"""Where the machine finds them."""

_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_EMPTY = ("dev", "proc", "sys", "run", "mnt", "var/lib", "var/log")
_ETC = (
    *("alternatives", "pam.d", "security", "ssl/certs", "ssl/openssl.cnf", "ld.so.conf.d", "terminfo"),
    *("ld.so.cache", "ld.so.conf", "passwd", "group", "nsswitch.conf", "host.conf", "gai.conf", "login.defs"),
    *("mke2fs.conf", "protocols", "services", "shells", "environment", "default/locale", "localtime"),
    *("os-release", "debian_version", "profile", "bash.bashrc"),
)
_MOUNT = 'while [ "$1" != -- ]; do mount --rbind "$1" "$2" || exit; shift 2; done; shift; exec "$@"'


@frozen
class Shown:
    """`mounts` are what is missing in `directory`: source and target."""

    directory: Path
    mounts: tuple[tuple[Path, Path], ...]

    def beneath(self, command: Sequence[str]) -> list[str]:
        """`command`, to see the directory whole; the process is the command itself, with its id."""
        words = [str(path) for mount in self.mounts for path in mount]
        return ["unshare", "--mount", "sh", "-c", _MOUNT, "mount", *words, "--", *command]


def show(directory: Path) -> Shown:
    """Make the directory; what an earlier machine had of it is made anew."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in _EMPTY:
        (directory / name).mkdir(parents=True)
    for name, permissions in (("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777)):
        (directory / name).mkdir()
        (directory / name).chmod(permissions)
    for name in _ETC:
        copy(Path("/etc") / name, directory / "etc" / name)
    mounts = []
    for source in trees():
        target = directory / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            target.mkdir(exist_ok=True)
            mounts.append((source, target))
    return Shown(directory, tuple(mounts))


def trees() -> Iterator[Path]:
    """Links to directories are among them."""
    yield from (path for name in _SYSTEM if (path := Path("/") / name).exists())
    for path in dict.fromkeys(
        (Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), PROJECT / "provd")
    ):
        if not path.is_relative_to("/usr"):
            yield path


def copy(source: Path, target: Path) -> None:
    """As far as it is there and everybody may read it."""
    if source.is_dir():
        target.mkdir(parents=True)
        for name in os.listdir(source):
            copy(source / name, target / name)
    elif source.is_symlink() or (source.is_file() and source.stat().st_mode & stat.S_IROTH):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
