"""Programs of an installed Proxmox VE system that do nothing here but write down that they were called.

Two reasons: a test can see what a script did to the system, and nothing that runs on a simulated
machine, which is an ordinary process, can reach the real machine's `reboot` or `update-grub`.
"""

from pathlib import Path
from shlex import quote

LOG = "var/log/programs.log"
POWER = "run/initctl"
"""A FIFO, as sysvinit had one: who writes `reboot` or `poweroff` to it is heard by the machine."""

_SILENT = (
    *("update-initramfs", "proxmox-boot-tool", "grub-install", "efibootmgr"),
    *("modprobe", "rmmod", "sysctl", "udevadm", "hostnamectl", "timedatectl"),
    *("apt", "apt-get", "apt-mark", "dpkg", "service", "pvesubscription", "ifreload"),
)
# What GRUB will hand to the kernel, worked out from its configuration as grub-mkconfig does.
_UPDATE_GRUB = """\
cd "$PROVD_ROOT/etc/default" && mkdir -p "$PROVD_ROOT/boot/grub" || exit 1
for file in ./grub ./grub.d/*.cfg; do [ ! -f "$file" ] || . "$file"; done
set -- root=/dev/mapper/pve-root ro $GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT
echo "$*" > "$PROVD_ROOT/boot/grub/cmdline"
"""
_SYSTEMCTL = """\
for word; do
    case "$word" in reboot|poweroff|halt) exec "$PROVD_ROOT/usr/local/bin/$word";; esac
done
exec "$PROVD_ROOT/usr/local/bin/systemctl" "$@"
"""
_POWER = {"reboot": "reboot", "shutdown": "poweroff", "poweroff": "poweroff", "halt": "poweroff"}


def install_programs(root: Path) -> None:
    """Put them into ROOT/usr/local/bin, beside what is there already."""
    bodies = dict.fromkeys(_SILENT, "") | {
        name: f'case "$*" in *-r*) what=reboot;; *) what={what};; esac\n'
        f'echo "$what" > "$PROVD_ROOT/{POWER}"\n'
        for name, what in _POWER.items()
    }
    bodies["update-grub"] = _UPDATE_GRUB
    bodies["hostname"] = 'if [ $# -eq 0 ]; then cat "$PROVD_ROOT/etc/hostname"; fi\n'
    bodies["lspci"] = 'echo "00:00.0 Host bridge: simulated"\n'
    head = f"#!/bin/sh\nPROVD_ROOT={quote(str(root))}\n"
    programs = {root / "usr/local/bin" / name: body for name, body in bodies.items()}
    # The one that is there already knows nothing of reboots, so this one stands before it in PATH.
    programs[root / "usr/local/sbin/systemctl"] = _SYSTEMCTL
    for program, body in programs.items():
        if not program.exists():
            note = f'printf \'%s\\n\' "{program.name} $*" >> "$PROVD_ROOT/{LOG}"\n'
            program.write_text(head + note + body)
            program.chmod(0o755)
