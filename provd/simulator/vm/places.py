"""Where things are in a lab machine, as the scripts in `guest/` leave them."""

from pathlib import Path

BUSYBOX = Path("/run/provd/busybox")
"""For what the host may not have: mkdosfs, ip, brctl."""
ISO = Path("/run/provd/iso")
LEASES = Path("/run/provd/lease")
"""One file for each link that got an address."""
TARGET = Path("/run/provd/target")
"""The new disk's root file system while it is written."""

WHOLE = Path("/run/provd/whole")
"""The installed system's `/` once more, as one mount: files can be moved about in it."""
POWER = Path("/run/initctl")
"""A FIFO: whoever writes `reboot` or `poweroff` to it is heard (`machine.programs` do)."""

REBOOT, POWER_OFF = 0, 3
"""Exit statuses that the scripts understand; every other leaves the machine standing."""

SYSTEM = "system"
"""On the disk: what overlays the host's root."""
FIRST_BOOT = "var/lib/proxmox-first-boot"
"""In the system, as in `machine.root_directory`, which takes seconds to import in here."""
FRESH = "var/lib/provd-vm/fresh"
"""In the system: there until its first start."""
