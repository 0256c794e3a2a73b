"""Fills in the script that a new system runs at its first boot; `first-boot.sh` says what that does.

The installer fetches it before it touches a disk, keeps it readable for root only, and never deletes
it. Placeholders are strict: each is filled, none is left over, every value is one quoted shell word.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from shlex import quote

from provd.domain.errors import Invalid
from provd.domain.hosts import parse_hostname
from provd.domain.installation import parse_ssh_public_key
from provd.domain.secrets import Secret
from provd.proxmox.remote_shell import shell

TEMPLATE = files("provd.proxmox").joinpath("first-boot.sh").read_text("utf-8")
_PLACEHOLDER = re.compile(r"@([A-Z_]+)@")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 §2.1. Nothing in it means anything to curl's config syntax."""


def build_first_boot_script(
    *,
    phone_home_url: str,
    token: Secret,
    public_key_line: str,
    key_expires: datetime,
    gpu: bool,
    hostname: str,
) -> bytes:
    """A POSIX shell script of a few kilobytes; the installer takes up to 1 MiB and cuts off the rest.

    The public key opens the host until `key_expires` (aware) at the latest. Raises `Invalid`.
    """
    if _TOKEN.fullmatch(token.reveal()) is None:
        raise Invalid("the machine token is not a bearer token", "token")
    if not re.fullmatch(r"https?://[!-~]{1,2000}", phone_home_url):
        raise Invalid(f"{phone_home_url[:80]!r} is not an HTTP URL", "phone_home_url")
    key_line = parse_ssh_public_key(public_key_line)
    script = fill(
        TEMPLATE,
        {
            "PHONE_HOME_URL": phone_home_url,
            "TOKEN": token.reveal(),
            "KEY_OPTIONS": key_options(key_expires),
            "KEY_LINE": key_line,
            "KEY_BODY": key_line.split()[1],
            "GPU": "yes" if gpu else "no",
            "HOSTNAME": parse_hostname(hostname),
        },
    )
    return script.encode()


def key_options(expires: datetime) -> str:
    """What the key may do: commands only, and until then (sshd(8); a time in UTC since OpenSSH 9.1)."""
    return f'restrict,expiry-time="{expires.astimezone(UTC):%Y%m%d%H%MZ}"'


def fill(template: str, values: Mapping[str, str]) -> str:
    """Each `@NAME@` as a shell word. Raises `KeyError` for one without value, or a value without place.

    One pass: a value that looks like a placeholder stays what it is.
    """
    unused = set(values) - set(_PLACEHOLDER.findall(template))
    if unused:
        raise KeyError(f"the template has no place for {', '.join(sorted(unused))}")
    return _PLACEHOLDER.sub(lambda match: quote(values[match[1]]), template)


_RESTART = """\
[ -e "${PROVD_ROOT:-}/run/provd-restart-wanted" ] || exit 0
echo restarting
systemctl reboot
"""


def restart_command() -> str:
    """Restart the host where its first boot asked for it, and say so; otherwise say nothing."""
    return shell(_RESTART)
