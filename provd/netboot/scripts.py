"""The iPXE scripts: one wipes a disk, one leaves it alone, one asks, one shows the way to the others.

Which of them a machine is given is decided elsewhere, by one table. Values are never escaped, for
iPXE has no quoting: a word that is not made of harmless characters is refused. What iPXE fills in by
itself, like ${serial}, cannot add a word: a line is cut into words before it is filled in.

All start with `imgfree`: an image that an earlier script left registered would become the head of
the initrd and panic the kernel (iPXE 2.0.0 keeps autoexec.ipxe). None says `dhcp`: opening the NIC a
second time hangs some UEFI firmware. UEFI is left with `exit 1`, because plain `exit` counts as a
successful boot there and ends in the set-up menu.
"""

import re
from collections.abc import Mapping
from enum import StrEnum

from provd.domain.errors import Invalid
from provd.domain.hosts import LocalBoot, Mac, parse_hostname
from provd.netboot.loaders import IpxeVersion

# Brackets for an IPv6 address; no `$`, `#`, `|`, `&` or blank, which mean something to iPXE.
_BASE_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,255}(/[A-Za-z0-9._~/=+-]{0,1000})?")


class Form(StrEnum):
    """How the installer's ISO reaches its initrd, which looks for a file /proxmox.iso in itself."""

    SEPARATE = "separate"
    """As the ISO's own second initrd, which iPXE wraps and appends."""
    MERGED = "merged"
    """It is in the one initrd already: for iPXE that hands a UEFI kernel no more than one."""


def form_for(version: IpxeVersion | None) -> Form:
    """What suits the iPXE that asks. MERGED works with every iPXE, but has to be made and kept."""
    return Form.SEPARATE if version is not None and version.merges_initrds else Form.MERGED


# The kernel of a UEFI machine opens what `initrd=` names: `initrd.magic` is all the script's initrds
# as one (iPXE since May 2021), any other name is that one image. BIOS ignores the word.
_LOAD: Mapping[Form, str] = {
    Form.SEPARATE: """\
kernel ${{base}}/vmlinuz initrd=initrd.magic {arguments} || goto failed
initrd ${{base}}/initrd.img || goto failed
initrd ${{base}}/proxmox.iso proxmox.iso || goto failed
""",
    Form.MERGED: """\
kernel ${{base}}/vmlinuz initrd=installer.img {arguments} || goto failed
initrd ${{base}}/installer.img || goto failed
""",
}

_ARGUMENTS = "ramdisk_size=16777216 rw quiet splash=silent proxmox-start-auto-installer"

# BIOS can only be left towards a disk by starting it. On UEFI the boot order knows better, but there
# is firmware that gives up at the first failure; only iPXE since 2025 can start a disk there.
_LEAVE: Mapping[LocalBoot, str] = {
    LocalBoot.EXIT: """\
iseq ${{platform}} pcbios || exit 1
sanboot --no-describe --drive 0x80 ||
""",
    LocalBoot.SANBOOT: """\
sanboot --no-describe --drive 0x80 ||
""",
}

_LEFT = """\
echo provd: no first disk that boots; the firmware goes on with its boot order
sleep 5
exit 1
"""

INSTALLER = """\
#!ipxe
# provd: install Proxmox VE on {hostname}
set base {base_url}
set wait:int32 0
:retry
imgfree
echo provd: {hostname} gets the Proxmox VE installer from ${{base}}
{load}\
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
{leave}\
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
{leave}\
"""

# A full-screen menu hides what was printed before it: what the machine is stands in it.
UNKNOWN = """\
#!ipxe
# provd: nobody has registered {mac}
imgfree
menu provd: this machine is not registered
item --gap -- MAC address  {mac}
item --gap -- Product      ${{manufacturer}} ${{product}}
item --gap -- Serial       ${{serial}}
item --gap -- UUID         ${{uuid}}
item --gap --
item local Boot from the local disk
item hello List this machine in provd, then boot from the local disk
choose --timeout {milliseconds} --default local choice || goto local
iseq ${{choice}} hello || goto local
chain --autofree {hello} || echo provd: the machine could not be listed
sleep 3
:local
imgfree
echo provd: {mac} boots its own disk
{leave}\
"""

MENU_SECONDS = 15

# The iPXE of 2019 reads %26 as & and sends it so: behind an & the rest of a value is lost.
_HELLO = (
    "{base_url}/ipxe/{hyphened}/hello?uuid=${{uuid}}&serial=${{serial:uristring}}"
    "&product=${{product:uristring}}&manufacturer=${{manufacturer:uristring}}"
)

GREETING = """\
#!ipxe
echo provd: {mac} is listed; register it on the page of provd to install it
"""

# The NIC that the firmware booted from is the one that has an address already; with builds that bring
# drivers of their own it need not be net0. Debian 13's iPXE wants it opened, 2.0.0 does that itself.
# Without --replace this script would stay registered, and become the head of an initrd.
AUTOEXEC = """\
#!ipxe
# provd: the way to this machine's own script
set nic:int32 0
:look
isset ${{net${{nic}}/mac}} || goto none
isset ${{net${{nic}}/ip}} && goto found ||
inc nic
goto look
:found
ifopen net${{nic}} ||
chain --replace {base_url}/ipxe/${{net${{nic}}/mac:hexhyp}} || exit 1
:none
autoboot || exit 1
"""


def installer_script(
    *,
    hostname: str,
    base_url: str,
    form: Form = Form.SEPARATE,
    local_boot: LocalBoot = LocalBoot.EXIT,
) -> str:
    """Start the Proxmox installer from `base_url`.

    There lie vmlinuz and, as `form` says, initrd.img and proxmox.iso, or installer.img. Tries six
    times, then boots the local disk. Raises `Invalid` for a value that iPXE could misread.
    """
    base, name = _checked(base_url), parse_hostname(hostname)
    load = _LOAD[form].format(arguments=_ARGUMENTS)
    return INSTALLER.format(hostname=name, base_url=base, load=load, leave=_leave(local_boot))


def local_disk_script(hostname: str, local_boot: LocalBoot = LocalBoot.EXIT) -> str:
    """Boot what is on the machine's own disk. Raises `Invalid` for a name iPXE could misread."""
    return LOCAL_DISK.format(hostname=parse_hostname(hostname), leave=_leave(local_boot))


def unknown_script(*, mac: Mac, base_url: str) -> str:
    """Say what the machine is, offer to list it in provd at `base_url`, and boot its disk. Never waits long.

    Raises `Invalid` for a URL that iPXE could misread.
    """
    hyphened = mac.text.replace(":", "-")
    return UNKNOWN.format(
        mac=mac,
        milliseconds=1000 * MENU_SECONDS,
        hello=_HELLO.format(base_url=_checked(base_url), hyphened=hyphened),
        leave=_leave(LocalBoot.EXIT),
    )


def greeting_script(mac: Mac) -> str:
    """What the unknown machine's `hello` is answered with: a word on its screen. Then its menu goes on."""
    return GREETING.format(mac=mac)


def autoexec_script(base_url: str) -> str:
    """Take a UEFI machine from iPXE's start to `base_url`/ipxe/MAC, without another round of DHCP.

    Where no NIC has an address, do what iPXE would have done without this script. Raises `Invalid` for
    a URL that iPXE could misread.
    """
    return AUTOEXEC.format(base_url=_checked(base_url))


def _leave(local_boot: LocalBoot) -> str:
    return _LEAVE[local_boot].format() + _LEFT


def _checked(base_url: str) -> str:
    base = base_url.rstrip("/")
    if _BASE_URL.fullmatch(base) is None:
        raise Invalid(
            f"{base_url[:80]!r} cannot stand in an iPXE script: a plain HTTP URL is wanted", "base_url"
        )
    return base
