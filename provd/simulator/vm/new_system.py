"""The files of a new system over the host's root: what Proxmox' installer writes, and what hides the host.

Only writes files; disks and the network are not known here.
"""

import os
import shutil
import stat
from pathlib import Path

from provd.simulator.machine.answer_rules import InstallOrder
from provd.simulator.machine.root_directory import build_root, write_file
from provd.simulator.vm.places import FRESH

# Directories of which nothing of the host's is to be seen.
_OPAQUE = (
    *("etc/ssh", "etc/network", "etc/kernel", "etc/default/grub.d", "etc/apt/sources.list.d"),
    *("root/.ssh", "boot", "etc/pve", "etc/corosync", "var/lib/proxmox-first-boot", "var/lib/pve-cluster"),
    *("var/log", "var/spool", "usr/local/lib/systemd"),
)
# Files of the host's that a login would run or read.
_HIDDEN = (
    *(".bashrc", ".profile", ".bash_profile", ".bash_login", ".zshenv", ".curlrc", ".wgetrc", ".netrc"),
)
_SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_rsa_key
HostKey /etc/ssh/ssh_host_ecdsa_key
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin yes
# The cluster's authorized_keys lies below a directory of the host's that anybody may write to, such as /tmp.
StrictModes no
UsePAM no
KbdInteractiveAuthentication no
PrintMotd no
LogLevel VERBOSE
Subsystem sftp /usr/lib/openssh/sftp-server
"""
# GRUB's own update-grub reads the same files in the same order. With ZFS the original boots with
# systemd-boot, whose command line is in /etc/kernel/cmdline (proxmox-boot-tool(8)).
_UPDATE_GRUB = """\
#!/bin/sh
# Writes what GRUB will start the kernel with, from /etc/default/grub.
root="${PROVD_ROOT:-}"
for file in "$root"/etc/default/grub "$root"/etc/default/grub.d/*.cfg; do [ ! -f "$file" ] || . "$file"; done
words="ro $GRUB_CMDLINE_LINUX_DEFAULT $GRUB_CMDLINE_LINUX"
case "$(cat "$root/etc/kernel/cmdline")" in
    root=ZFS=*) words="$(cut -d ' ' -f 2- "$root/etc/kernel/cmdline")" ;;
esac
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg.new" <<END
echo "provd lab: starts the system on this disk"
linux /system/boot/vmlinuz root=UUID=@UUID@ $words
initrd /system/boot/initrd.img
boot
END
sync
mv "$root/boot/grub/grub.cfg.new" "$root/boot/grub/grub.cfg"
"""


def write_system(
    root: Path,
    order: InstallOrder,
    *,
    leaked: tuple[str, ...],
    first_boot: bytes | None,
    password_hash: str,
    kernel: Path,
    disk_id: str,
) -> str:
    """Write it to `root`, which must not exist; returns the new machine id.

    `kernel` is a directory with vmlinuz and initrd.img, `disk_id` the UUID of the root file system.
    """
    machine_id = build_root(root, order, leaked=leaked, first_boot=first_boot)
    (root / "root").chmod(0o700)
    for name in _OPAQUE:
        (root / name).mkdir(parents=True, exist_ok=True)
        os.setxattr(root / name, "trusted.overlay.opaque", b"y")
    (root / "tmp").chmod(0o1777)
    for name in _HIDDEN:
        os.mknod(root / "root" / name, stat.S_IFCHR, 0)  # a "whiteout": kernel documentation, overlayfs.rst
    write_file(root / "etc/ssh/sshd_config", _SSHD_CONFIG)
    write_file(root / "etc/shadow", f"root:{password_hash}:20000:0:99999:7:::\n", 0o600)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copyfile(kernel / name, root / "boot" / name)
    write_file(root / "usr/local/bin/update-grub", _UPDATE_GRUB.replace("@UUID@", disk_id), 0o755)
    write_file(root / FRESH, "")
    return machine_id
