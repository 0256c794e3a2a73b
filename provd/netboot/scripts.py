"""The two iPXE scripts: the one that wipes a disk, and the one that leaves it alone.

Which of them a machine is given is decided elsewhere, by one table. Values are never escaped, for
iPXE has no quoting: a word that is not made of harmless characters is refused.

Both start with `imgfree`: an image that an earlier script left registered would become the head of
the initrd and panic the kernel (iPXE 2.0.0 keeps autoexec.ipxe). Neither says `dhcp`: opening the NIC
a second time hangs some UEFI firmware. UEFI is left with `exit 1`, because plain `exit` counts as a
successful boot there and ends in the set-up menu.
"""

import re

from provd.domain.errors import Invalid
from provd.domain.hosts import parse_hostname

# Brackets for an IPv6 address; no `$`, `#`, `|`, `&` or blank, which mean something to iPXE.
_BASE_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,255}(/[A-Za-z0-9._~/=+-]{0,1000})?")

# `initrd=initrd.magic` is every initrd of the script as one, for EFI builds since May 2021; BIOS
# ignores it. The installer's own initrd looks for a file named /proxmox.iso before it looks at disks.
INSTALLER = """\
#!ipxe
# provd: install Proxmox VE on {hostname}
set base {base_url}
set wait:int32 0
:retry
imgfree
echo provd: {hostname} gets the Proxmox VE installer from ${{base}}
kernel ${{base}}/vmlinuz initrd=initrd.magic ramdisk_size=16777216 rw quiet splash=silent \
proxmox-start-auto-installer || goto failed
initrd ${{base}}/initrd.img || goto failed
initrd ${{base}}/proxmox.iso proxmox.iso || goto failed
boot || goto failed
:failed
inc wait 5
iseq ${{wait}} 30 || goto again
imgfree
echo
echo provd: {hostname} could not load the installer from ${{base}}
echo provd: nothing was changed on its disks; the messages above say what failed
echo provd: it boots its own disk in 30 seconds
sleep 30
iseq ${{platform}} pcbios || exit 1
sanboot --no-describe --drive 0x80 || exit 1
:again
echo provd: the installer could not be loaded, trying again in ${{wait}} seconds
sleep ${{wait}}
goto retry
"""

LOCAL_DISK = """\
#!ipxe
# provd: {hostname} is not to be installed
imgfree
echo provd: {hostname} boots its own disk
iseq ${{platform}} pcbios || exit 1
sanboot --no-describe --drive 0x80 || goto failed
:failed
echo provd: {hostname} has no first disk that boots; the firmware goes on with its boot order
sleep 5
exit 1
"""


def installer_script(*, hostname: str, base_url: str) -> str:
    """Start the Proxmox installer from `base_url`, which has vmlinuz, initrd.img and proxmox.iso.

    Tries five times, then boots the local disk. Raises `Invalid` for a value iPXE could misread.
    """
    base = base_url.rstrip("/")
    if _BASE_URL.fullmatch(base) is None:
        raise Invalid(
            f"{base_url[:80]!r} cannot stand in an iPXE script: a plain HTTP URL is wanted", "base_url"
        )
    return INSTALLER.format(hostname=parse_hostname(hostname), base_url=base)


def local_disk_script(hostname: str) -> str:
    """Boot what is on the machine's own disk. Raises `Invalid` for a name iPXE could misread."""
    return LOCAL_DISK.format(hostname=parse_hostname(hostname))
