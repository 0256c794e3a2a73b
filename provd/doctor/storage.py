"""Files: the disk that they need, the installer images, the loaders, the credentials."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from attrs import frozen

from provd.config import CredentialsSection, read_credential
from provd.credentials import read_key, read_token
from provd.doctor.findings import Finding, ok, problem, skipped, warning
from provd.domain.errors import ConfigError

MIB, GIB = 1 << 20, 1 << 30
USUAL_IMAGE = 2 * GIB
"""A Proxmox VE 9 ISO is a little smaller."""
LEAST_FREE = 200 * MIB
"""Below this the database itself is in danger."""


@frozen(kw_only=True)
class KnownImage:
    name: str
    default: bool
    files: Mapping[Path, int | None]
    """What must lie on the disk, with its size in bytes where that is known."""


Images = Callable[[], Iterable[KnownImage]]


def look_at_disk(directories: Iterable[Path], images: Iterable[KnownImage]) -> Iterator[Finding]:
    needed = max([size or 0 for image in images for size in image.files.values()] + [0]) or USUAL_IMAGE
    seen: dict[int, Path] = {}
    for directory in directories:
        there = next(each for each in (directory, *directory.parents) if each.exists())
        seen.setdefault(there.stat().st_dev, there)
    for there in seen.values():
        free = shutil.disk_usage(there).free
        what = f"{size_of(free)} are free under {there}"
        mend = f"Remove images that are no longer used, or give {there} more room."
        if free < LEAST_FREE:
            yield problem("disk", what, mend)
        elif free < needed:
            yield warning("disk", f"{what}; another image takes {size_of(needed)}", mend)
        else:
            yield ok("disk", what)


def look_at_images(images: Iterable[KnownImage], installer_url: str) -> Iterator[Finding]:
    check, known = "images", list(images)
    if installer_url:
        yield skipped(check, f"machines are sent to {installer_url} (proxmox.installer_url)")
        return
    if not known:
        yield problem(
            check,
            "there is no installer image: no machine can be installed",
            "Import a Proxmox VE ISO, on the page of images or with `provd image import`.",
        )
    elif not any(image.default for image in known):
        yield warning(
            check,
            f"none of the images is the default one: {', '.join(image.name for image in known)}",
            "Choose one as the default, on the page of images.",
        )
    for image in known:
        wrong = [reason for file, size in image.files.items() if (reason := unfit(file, size))]
        if wrong:
            yield problem(
                check, f"the image {image.name} is damaged: {'; '.join(wrong)}", "Remove and import it again."
            )
        else:
            yield ok(check, f"the image {image.name} is complete{', and the default' * image.default}")


def unfit(file: Path, size: int | None) -> str:
    """Why the file is not the one that is meant; nothing where it is."""
    try:
        found = file.stat().st_size
    except OSError as exc:
        return f"{file}: {exc.strerror}"
    if found == 0 or (size is not None and found != size):
        return f"{file} has {found} bytes instead of {size or 'some'}"
    return ""


def look_at_credentials(section: CredentialsSection, credentials_dir: Path | None) -> Iterator[Finding]:
    for read, name, without in (
        (
            partial(read_credential, section.cluster_password_file, "cluster-password"),
            "cluster-password",
            "it is asked for at each rebuild",
        ),
        (
            partial(read_token, section),
            "cluster-token",
            "the cluster is looked at with root's password only",
        ),
        (
            partial(read_key, section),
            "cluster-ssh-key",
            "what takes a shell on a member is left to you",
        ),
        (
            partial(read_credential, section.infrastructure_token_file, "infrastructure-token"),
            "infrastructure-token",
            "the inventory is told without one",
        ),
    ):
        try:
            secret = read(credentials_dir)
        except ConfigError as exc:
            yield problem(
                "credentials", str(exc), f"chmod 600, chown to provd's user, or remove its key: {name}"
            )
        else:
            yield ok("credentials", f"the {name} can be read" if secret else f"there is no {name}: {without}")


def size_of(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
