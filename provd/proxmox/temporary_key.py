"""Where the operation's SSH key can be on a node, how it is taken away, and how its absence is proven.

Pure: shell text for somebody else to run.
"""

import re

from provd.domain.errors import Invalid
from provd.proxmox.remote_shell import shell

_KEY_BODY = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")

# The first-boot script puts it into authorized_keys2. The others are looked into because what stands
# in them can reach every node of the cluster: PVE moves authorized_keys to /etc/pve and links to it,
# and merges a plain file or a forgotten .org into the cluster's.
_KEY_FILES = """\
/root/.ssh/authorized_keys2 /root/.ssh/authorized_keys /root/.ssh/authorized_keys.org \
/etc/pve/priv/authorized_keys"""

# Beside the link's target, never over the link: PVE would merge the file that takes the link's place.
# Inside /etc/pve only a rename replaces a file at once.
_REMOVE_KEY = f"""\
umask 077
status=0
for file in {_KEY_FILES}; do
    file="${{PROVD_ROOT:-}}$file"
    grep -qsF -- "$1" "$file" || continue
    target="$(readlink -f -- "$file")" && [ -n "$target" ] || {{ status=1; continue; }}
    grep -vF -- "$1" "$target" >"$target.provd-new"
    [ "$?" -le 1 ] || {{ status=1; rm -f -- "$target.provd-new"; continue; }}
    case "$file" in
        *2 | *.org)
            if [ ! -s "$target.provd-new" ]; then
                rm -f -- "$target.provd-new" "$target" || status=1
                continue
            fi
            ;;
    esac
    mv -f -- "$target.provd-new" "$target" || status=1
done
exit "$status"
"""

# 2 from grep is a file that is there and cannot be read, e.g. a link into an /etc/pve that is not mounted.
_FIND_KEY = f"""\
for file in {_KEY_FILES}; do
    path="${{PROVD_ROOT:-}}$file"
    [ -e "$path" ] || [ -L "$path" ] || continue
    grep -qsF -- "$1" "$path"
    [ "$?" -eq 1 ] || echo "$file"
done
"""

_READINESS = """\
r="${PROVD_ROOT:-}"
ssh=/root/.ssh
shared=/etc/pve/priv/authorized_keys
if [ -e "$r$ssh/authorized_keys.org" ]; then
    echo "$ssh/authorized_keys.org is there: the join copies its keys to every node of the cluster"
fi
if [ -f "$r$ssh/authorized_keys" ] && [ ! -L "$r$ssh/authorized_keys" ] && [ -e "$r$shared" ]; then
    echo "$ssh/authorized_keys is no link to $shared: the join copies its keys to every node of the cluster"
fi
for file in "$ssh/authorized_keys" "$ssh/authorized_keys.org" "$shared"; do
    if grep -qsF -- "$1" "$r$file"; then
        echo "provd's temporary key is in $file, from where it can reach the cluster"
    fi
done
for file in /etc/corosync/authkey /etc/pve/corosync.conf; do
    if [ -e "$r$file" ]; then
        echo "$file is there, with which pvecm add refuses to join"
    fi
done
"""


def remove_key_command(key_body: str) -> str:
    """Take the key off the node, wherever it got to. Exit status 1: some file could not be changed.

    `key_body` is the base64 middle of the public line. Raises `Invalid`.
    """
    return shell(_REMOVE_KEY, _key(key_body))


def find_key_command(key_body: str) -> str:
    """Print each file that has the key, or that cannot be looked into; nothing proves its absence."""
    return shell(_FIND_KEY, _key(key_body))


def readiness_command(key_body: str) -> str:
    """Print a line for everything on the node that stands in the way of a clean join."""
    return shell(_READINESS, _key(key_body))


def _key(body: str) -> str:
    if _KEY_BODY.fullmatch(body) is None:
        raise Invalid("this is not the base64 body of a public key", "key_body")
    return body
