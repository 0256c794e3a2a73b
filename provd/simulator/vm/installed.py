"""The installed system in a lab machine, once its root is mounted: network, SSH, Proxmox' first steps.

Started by guest/installed.sh as the machine's only service manager. Its exit status says what the machine
does next (`places`). The order is that of the original's units: network, sshd, pve-cluster, first boot.
"""

import os
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

from provd.simulator.vm import network
from provd.simulator.vm.places import BUSYBOX, FIRST_BOOT, POWER, POWER_OFF, REBOOT

ROOT = Path("/")
SSHD = "/usr/sbin/sshd"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def say(line: str) -> None:
    print("system:", line, flush=True)


def main(cluster_dir: Path | None) -> int:
    """Run until somebody says `reboot` or `poweroff`; returns the exit status."""
    hostname = (ROOT / "etc/hostname").read_text().strip()
    socket.sethostname(hostname)
    subprocess.run([BUSYBOX, "mkfifo", POWER], check=True)
    threading.Thread(target=start_up, args=(hostname, cluster_dir), daemon=True).start()
    # Open for writing too, so that it never comes to its end.
    with POWER.open("r+b", buffering=0) as words:
        word = words.readline().decode().strip()
    say(f"was told to {word}")
    if cluster_dir is not None:
        from provd.simulator.vm import pve

        pve.tell_cluster(ROOT, cluster_dir, online=False)
    return REBOOT if word == "reboot" else POWER_OFF


def start_up(hostname: str, cluster_dir: Path | None) -> None:
    """All that happens by itself. An error is shown and leaves the rest of the machine running."""
    try:
        first_boot("network-pre")
        interface = network.start(ROOT)
        subprocess.run([SSHD, "-E", "/var/log/sshd.log"], check=True)
        say(f"{hostname} is up, SSH answers on {interface.ip} port 22")
        first_boot("network-online")
        from provd.simulator.vm import pve

        pve.start(ROOT, cluster_dir, hostname=hostname, ip=str(interface.ip))
        first_boot("multi-user")
        say("has nothing left to do")
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        traceback.print_exc(file=sys.stdout)
        say("could not start")


def first_boot(ordering: str) -> None:
    """Run the script at its moment if its flag is there; the flag goes only after an exit with 0."""
    directory = ROOT / FIRST_BOOT
    flag = directory / "pending-first-boot-setup"
    if not flag.exists() or (directory / "ordering").read_text() != ordering:
        return
    say(f"runs the first-boot script ({ordering})")
    try:
        script = subprocess.Popen(
            [directory / "proxmox-first-boot", ordering],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": PATH, "LANG": "C.UTF-8"},
            text=True,
            errors="replace",
        )
    except OSError as error:
        say(f"the first-boot script cannot be executed: {error}")
        return
    assert script.stdout is not None
    with (ROOT / "var/log/proxmox-first-boot.log").open("a") as log:
        for line in script.stdout:
            log.write(line)
            say(f"first boot: {line.rstrip()}")
    if script.wait() == 0:
        os.sync()
        flag.unlink(missing_ok=True)
        say("the first-boot script is done")
    else:
        say(f"the first-boot script ended with {script.returncode}, it runs again at the next boot")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1] else None))
