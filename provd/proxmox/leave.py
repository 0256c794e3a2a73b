"""What is run over SSH when a node leaves its cluster: on the node itself, and on one that stays.

Pure: shell text for somebody else to run, after pve-docs' `pvecm.adoc` (9.1). Each script looks before it
acts and may be run again. PROVD_ROOT is a prefix for the paths, so that all of it can run inside a directory.
"""

import re

from provd.domain.errors import Invalid
from provd.proxmox.remote_shell import shell

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)

# --- on the node that leaves -----------------------------------------------------------------------

# Without key and configuration its corosync can meet nobody, should the old system ever boot again.
# pve-cluster stays: with it goes /etc/pve, and with that every key that opens this host.
_DISARM = """\
d="${PROVD_ROOT:-}/etc/corosync"
systemctl disable --now pve-ha-lrm pve-ha-crm
systemctl disable corosync
mkdir -p "$d/disarmed-by-provd" || exit 1
for file in corosync.conf authkey; do
    if [ -e "$d/$file" ]; then
        mv -f "$d/$file" "$d/disarmed-by-provd/$file" || exit 1
    fi
done
"""

# A corosync.conf that is there is newer: pmxcfs wrote it when the cluster's changed meanwhile.
_ARM = """\
d="${PROVD_ROOT:-}/etc/corosync"
[ -d "$d/disarmed-by-provd" ] || exit 0
for file in corosync.conf authkey; do
    if [ -e "$d/$file" ]; then
        rm -f "$d/disarmed-by-provd/$file"
    elif [ -e "$d/disarmed-by-provd/$file" ]; then
        mv "$d/disarmed-by-provd/$file" "$d/$file" || exit 1
    fi
done
rmdir "$d/disarmed-by-provd"
systemctl enable --now corosync
systemctl enable --now pve-ha-crm pve-ha-lrm
"""

# The answer to the command must be on its way before the network goes down.
_RESTART = """\
nohup sh -c 'sleep 1; systemctl '"$1" >/dev/null 2>&1 </dev/null &
"""

# --- on a node that stays ----------------------------------------------------------------------------

# 3: there are guests' configurations, which nobody but a human may remove.
_TIDY = """\
r="${PROVD_ROOT:-}"
name="$1"
copy="/var/lib/pve-cluster/backup/provd-$name-$2.tar.gz"
nodes="$r/etc/pve/nodes"
keys="$r/etc/pve/priv/authorized_keys"
umask 077
[ -d "$nodes/$name" ] || grep -qs " root@$name\\$" "$keys" || exit 0
if [ ! -e "$r$copy" ]; then
    mkdir -p "$r/var/lib/pve-cluster/backup"
    set -- priv/authorized_keys
    [ -d "$nodes/$name" ] && set -- "nodes/$name" "$@"
    tar -C "$r/etc/pve" -czf "$r$copy.new" "$@" && mv -f "$r$copy.new" "$r$copy" || exit 1
fi
status=0
if [ -d "$nodes/$name" ]; then
    guests="$(ls "$nodes/$name/qemu-server" "$nodes/$name/lxc" 2>/dev/null | sed -n 's/\\.conf$//p')"
    if [ -n "$guests" ]; then
        echo "guests" $guests
        status=3
    else
        rm -rf "$nodes/$name" || exit 1
    fi
fi
if grep -qs " root@$name\\$" "$keys"; then
    grep -v " root@$name\\$" "$keys" >"$keys.provd-new"
    [ "$?" -le 1 ] && mv -f "$keys.provd-new" "$keys" || exit 1
fi
echo "copy $copy"
exit "$status"
"""

_MAINTENANCE = """\
ha-manager crm-command node-maintenance "$2" "$1"
"""

# pve-cluster merges the same line at the end of the join; to be let in before gives nothing beyond that.
_ADMIT = """\
keys="${PROVD_ROOT:-}/etc/pve/priv/authorized_keys"
grep -qsxF -- "$1" "$keys" && exit 0
umask 077
# sed, and not cat: it ends a last line that somebody did not end.
{ sed '$a\\' "$keys" && printf '%s\\n' "$1"; } >"$keys.provd-new" && mv -f "$keys.provd-new" "$keys"
"""

GUESTS_THERE = 3
"""Exit status of `tidy_command`: all but the node's directory was tidied."""


def disarm_command() -> str:
    """Let the node's cluster services never start again; corosync itself runs on until it is stopped."""
    return shell(_DISARM)


def arm_command() -> str:
    """Take `disarm_command` back."""
    return shell(_ARM)


def stop_corosync_command() -> str:
    return shell("systemctl stop corosync")


def restart_command() -> str:
    """Restart the machine in a moment."""
    return shell(_RESTART, "reboot")


def power_off_command() -> str:
    """Switch the machine off in a moment."""
    return shell(_RESTART, "poweroff")


def tidy_command(node: str, stamp: str) -> str:
    """Save, then remove what a struck-out node left: its directory in /etc/pve/nodes, and its root's key.

    Prints `copy PATH` and `guests VMID…`. `stamp` names the copy; one that is there is kept. Raises
    `Invalid`.
    """
    return shell(_TIDY, _name(node), _name(stamp))


def maintenance_command(node: str, *, on: bool) -> str:
    """HA moves the node's services away and keeps others off it, or not any more (pve-ha-manager 3.6)."""
    return shell(_MAINTENANCE, _name(node), "enable" if on else "disable")


def admit_command(public_line: str) -> str:
    """Add a key of another node's root to the cluster's. Raises `Invalid`."""
    if re.fullmatch(r"ssh-rsa [A-Za-z0-9+/=]+ root@[A-Za-z0-9.-]+", public_line, re.ASCII) is None:
        raise Invalid(f"{public_line[:60]!r} is not the public RSA key of a node's root")
    return shell(_ADMIT, public_line)


def delnode_command(node: str) -> str:
    return shell('LC_ALL=C pvecm delnode "$1"', _name(node))


def expected_command(votes: int) -> str:
    """Be content with so many votes, until corosync.conf changes next. Not while others may still run."""
    return shell('LC_ALL=C pvecm expected "$1"', str(votes))


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise Invalid(f"{text[:70]!r} is not the name of a node")
    return text
