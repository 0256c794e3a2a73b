"""Where root's authorized_keys go when Proxmox VE takes them over, the leaks included.

/root/.ssh/authorized_keys becomes a link to /etc/pve/priv/authorized_keys, which in a cluster is one file
for all members. Whatever stands in the regular file, or in its `.org` backup, at the wrong moment becomes
root on every node (pve-cluster, PVE::Cluster::Setup, 8.x and 9.x alike).
"""

import re
import subprocess
from pathlib import Path

from provd.simulator.cluster.locked import replace_file
from provd.simulator.cluster.machine import Machine

# Only these are ever recognised as the same key; an ed25519 line is repeated as often as it is merged.
OLD_KEY = re.compile(r"(?:^|\s)ssh-(?:rsa|dsa)\s+(\S+)\s+\S+$")


def first_boot_updatecerts(root: Path) -> None:
    """What pveproxy's first start does, some seconds after sshd answers: the keys move into /etc/pve."""
    machine = Machine(root.resolve())
    create_root_key(machine)
    take_over_keys(machine)
    merge_keys(machine)


def create_root_key(machine: Machine) -> None:
    """Make /root/.ssh/id_rsa and config, where absent; short, since nothing logs in with it here."""
    ssh = machine.path("/root/.ssh")
    hostname = machine.read().hostname
    if not (ssh / "id_rsa").exists():
        subprocess.run(
            [*f"ssh-keygen -q -t rsa -b 1024 -C root@{hostname} -f id_rsa -N".split(), ""],
            cwd=ssh,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    if not (ssh / "config").exists():
        replace_file(
            ssh / "config", b"Ciphers aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com\n", 0o640
        )


def take_over_keys(machine: Machine) -> None:
    """Replace a regular authorized_keys by the link, as before every join and at every pveproxy start."""
    home = machine.path("/root/.ssh/authorized_keys")
    shared = machine.pve / "priv" / "authorized_keys"
    backup = home.with_name("authorized_keys.org")
    shared.parent.mkdir(mode=0o700, exist_ok=True)
    imported = False
    if not shared.is_file():
        replace_file(shared, home.read_bytes() if home.is_file() else b"", 0o600)
        imported = True
    if home.is_file() and not home.is_symlink():
        home.rename(backup)
    if not home.is_symlink():
        home.symlink_to(shared)
    if imported:
        backup.unlink(missing_ok=True)


def merge_keys(machine: Machine) -> None:
    """Add this machine's own key, and a left-over backup, to the file in /etc/pve; nothing is removed."""
    ssh = machine.path("/root/.ssh")
    shared = machine.pve / "priv" / "authorized_keys"
    parts = [shared, ssh / "authorized_keys.org", ssh / "id_rsa.pub"]
    lines = [line for part in parts if part.is_file() for line in part.read_text().rstrip("\n").split("\n")]
    seen: set[str] = set()
    kept = []
    for line in lines:
        key = None if line.startswith("#") else OLD_KEY.search(line)
        if key and key[1] in seen:
            continue
        if key:
            seen.add(key[1])
        kept.append(f"{line}\n")
    replace_file(shared, "".join(kept).encode(), 0o600)
    (ssh / "authorized_keys.org").unlink(missing_ok=True)
