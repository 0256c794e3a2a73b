"""How the Proxmox installer picks disks and NICs by udev properties (PVE 8.2 to 9.2).

The rules surprise people, so they stand apart: a single-disk filter is always OR, whatever
`filter-match` says, and in `all` mode a property that a device lacks counts as matched.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from provd.simulator.machine.refusal import InstallerRefused


class HasUdev(Protocol):
    @property
    def udev(self) -> dict[str, str]: ...


Device = TypeVar("Device", bound=HasUdev)


def compile_glob(glob: str) -> re.Pattern[str]:
    """Translate `?`, `*`, `**`, `[..]` and `[!..]`; case counts. Raises `InstallerRefused` for a bad glob."""
    pattern, at = "", 0
    while at < len(glob):
        char = glob[at]
        if char == "*":
            stars = len(glob[at:]) - len(glob[at:].lstrip("*"))
            at += stars
            if stars > 2:
                raise InstallerRefused(f"filter {glob!r}: wildcards are either regular `*` or recursive `**`")
            whole = (at == stars or glob[at - stars - 1] == "/") and (at == len(glob) or glob[at] == "/")
            if stars == 2 and not whole:
                raise InstallerRefused(
                    f"filter {glob!r}: recursive wildcards must form a single path component"
                )
            if stars == 2 and at < len(glob):
                pattern, at = pattern + "(?:.*/)?", at + 1
            else:
                pattern += ".*"
        elif char == "[":
            negated = glob[at + 1 : at + 2] == "!"
            first = at + 1 + negated
            end = glob.find("]", first + 1)  # the first member may be `]` itself
            if end < 0:
                raise InstallerRefused(f"filter {glob!r}: invalid range pattern")
            pattern, at = pattern + _char_class(glob[first:end], negated), end + 1
        else:
            pattern, at = pattern + ("." if char == "?" else re.escape(char)), at + 1
    return re.compile(pattern, re.DOTALL)


def _char_class(members: str, negated: bool) -> str:
    alternatives, at = [], 0
    while at < len(members):
        if members[at + 1 : at + 2] == "-" and at + 2 < len(members):
            low, high = members[at], members[at + 2]
            if low <= high:  # a range that runs backwards holds nothing
                alternatives.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 3
        else:
            alternatives.append(re.escape(members[at]))
            at += 1
    if not alternatives:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{''.join(alternatives)}]"


def first_match(filters: Mapping[str, str], devices: Sequence[Device]) -> Device | None:
    """The first of `devices` that matches any of the filters: NICs, and the one disk of ext4 and xfs."""
    hits = all_matches(filters, devices, require_all=False)
    return hits[0] if hits else None


def all_matches(filters: Mapping[str, str], devices: Sequence[Device], *, require_all: bool) -> list[Device]:
    """Every device that matches: what ZFS and Btrfs use.

    With `require_all`, a key that a device does not have counts as matched: `{"NOSUCHKEY": "x"}` takes
    every disk (measured with PVE 9.2).
    """
    globs = {key: compile_glob(value) for key, value in filters.items()}

    def matches(properties: Mapping[str, str]) -> bool:
        known = [
            glob.fullmatch(properties[key]) is not None for key, glob in globs.items() if key in properties
        ]
        return all(known) if require_all else any(known)

    return [device for device in devices if matches(device.udev)]
