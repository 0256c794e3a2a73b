"""Debian packages, downloaded and unpacked into a directory of ours: nothing is installed, no root is needed.

Knows apt and dpkg; what the files in a package are good for is known elsewhere.
"""

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from urllib.request import urlopen

NEWER_IPXE_POOL = "http://deb.debian.org/debian/pool/main/i/ipxe"
NEWER_IPXE = "ipxe_1.21.1+git20250501.dad20602+dfsg-1_all.deb"
NEWER_IPXE_SHA256 = "eeaca79dbde0fb86c102bf1d362c6f6a67ed0ddab38b3dd12e1b332339f5dd99"


class CannotFetch(Exception):
    """A package could not be had; the text has what apt or dpkg said."""


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/provd-lab`, below ~/.cache where that is not set."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "provd-lab"


def kernel_package() -> str:
    """The package that `linux-image-amd64` stands for today. Raises `CannotFetch`."""
    listing = _run(["apt-cache", "depends", "linux-image-amd64"], Path("/"))
    for line in listing.splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends" and name.startswith("linux-image-"):
            return name
    raise CannotFetch("apt knows no package linux-image-amd64: run apt-get update")


def unpacked(package: str, cache: Path) -> Path:
    """The directory with the files of `package`; downloads it where the cache has none. Raises `CannotFetch`.

    The version is that of the first download, for as long as the cache lives.
    """
    target = cache / "packages" / package
    if target.is_dir():
        return target
    draft = cache / "packages" / f".{package}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    download = draft / "download"
    download.mkdir(parents=True)
    try:
        _run(["apt-get", "download", "-q", package], download)
        (deb,) = download.glob("*.deb")
        _run(["dpkg-deb", "--extract", str(deb), str(draft / "files")], download)
        (draft / "files").rename(target)
    except OSError as exc:
        if not target.is_dir():  # or somebody else was faster
            raise CannotFetch(f"{package}: {exc}") from exc
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def newer_ipxe(cache: Path) -> Path:
    """The directory of Debian 13's iPXE builds, whatever Debian this is. Raises `CannotFetch`."""
    target = cache / "packages" / NEWER_IPXE.partition("_")[0] / NEWER_IPXE_SHA256[:16]
    if not target.is_dir():
        target.mkdir(parents=True)
        deb = target / NEWER_IPXE
        try:
            with urlopen(f"{NEWER_IPXE_POOL}/{NEWER_IPXE}", timeout=60) as response:
                deb.write_bytes(response.read())
            if sha256(deb.read_bytes()).hexdigest() != NEWER_IPXE_SHA256:
                raise CannotFetch(f"{NEWER_IPXE} is not the file it was")
            _run(["dpkg-deb", "--extract", str(deb), str(target)], target)
        except (OSError, CannotFetch) as exc:
            shutil.rmtree(target)
            raise CannotFetch(f"{NEWER_IPXE}: {exc}") from exc
    return target / "usr/lib/ipxe"


def _run(command: list[str], directory: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as exc:
        raise CannotFetch(f"{command[0]} is not there: the lab's machines are built from Debian's") from exc
    except subprocess.CalledProcessError as exc:
        raise CannotFetch(f"{' '.join(command)}: {exc.stderr.strip()}") from exc
    return done.stdout
