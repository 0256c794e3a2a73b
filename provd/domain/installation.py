"""What shall be installed on a machine: the plan, and the rules that make one possible.

The installer stops at a root shell on the console when an answer does not fit it, and some errors
(a hash that is none, a static address without mask) it does not see at all. So each word is judged
here, as early as it is written into a file or a form. This file refuses to know what an answer looks
like and what machine it is for. Source of the tables: the Proxmox installer, 8.4 to 9.2.
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from zoneinfo import TZPATH, available_timezones

from attrs import frozen

from provd.domain.errors import Invalid
from provd.domain.hosts import StaticAddress
from provd.domain.secrets import Secret


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KEYBOARDS = _words(
    "de de-ch dk en-gb en-us es fi fr fr-be fr-ca fr-ch hu is it jp lt mk nl no pl pt pt-br se si tr"
)

COUNTRIES = _words(
    """
    ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bl bm bn bo bq br bs bt bv bw
    by bz ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg eh er es et fi
    fj fk fm fo fr ga gb gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in
    io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me
    mf mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf
    pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sj sk sl sm sn so sr ss st sv
    sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug um us uy uz va vc ve vg vi vn vu wf ws ye
    yt za zm zw
    """
)
"""ISO 3166-1 alpha-2."""

RAIDS: Mapping[str, Mapping[str, int]] = {
    "ext4": {},
    "xfs": {},
    "zfs": {"raid0": 1, "raid1": 2, "raid10": 4, "raidz-1": 3, "raidz-2": 4, "raidz-3": 5},
    "btrfs": {"raid0": 1, "raid1": 2, "raid10": 4},
}
"""The fewest disks for each level that a file system has. One without levels lies on exactly one disk."""

DISK_PROPERTIES: tuple[tuple[str, str, str], ...] = (
    ("ata-", "", "ID_SERIAL"),
    ("nvme-eui.", "eui.", "ID_WWN"),
    ("wwn-", "", "ID_WWN_WITH_EXTENSION"),
)
"""Links in /dev/disk/by-id that udev (60-persistent-storage.rules) makes of one property and nothing else:
their beginning, what of it belongs to the property's value, the property. Others, like `scsi-` and
`nvme-MODEL_SERIAL`, are made in more than one way."""

_BY_ID = "/dev/disk/by-id/"
_DISK = re.compile(r"/dev/((sd|hd|vd|xvd)[a-z]{1,3}|nvme[0-9]{1,3}n[0-9]{1,3}|mmcblk[0-9]{1,3})")
_PARTITION = re.compile(
    r"((sd|hd|vd|xvd)[a-z]+[0-9]+|(nvme[0-9]+n|mmcblk)[0-9]+p[0-9]+|by-id/.*-part[0-9]+)$"
)
_ID_NAME = re.compile(r"[A-Za-z0-9#+.:=@_-]{1,200}")
_DOMAIN_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NIC_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,14}")
# The expression that the HTML standard gives for <input type=email>; the installer uses the same.
_MAIL = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_CRYPT64 = "[./0-9A-Za-z]"
_HASHES = re.compile(
    rf"\$6\$(rounds=[0-9]{{4,9}}\$)?{_CRYPT64}{{1,16}}\${_CRYPT64}{{86}}"
    rf"|\$5\$(rounds=[0-9]{{4,9}}\$)?{_CRYPT64}{{1,16}}\${_CRYPT64}{{43}}"
    rf"|\$(y|gy)\${_CRYPT64}+\${_CRYPT64}{{1,86}}\${_CRYPT64}{{43}}"
    rf"|\$7\${_CRYPT64}{{12,97}}\${_CRYPT64}{{43}}"
    rf"|\$2[aby]\$[0-9][0-9]\${_CRYPT64}{{53}}"
)
_KEY_TYPE = re.compile(r"[a-z0-9][a-z0-9@.-]{2,63}")


@frozen(kw_only=True)
class InstallPlan:
    """Everything the installer is told. The parts have been through the functions below."""

    hostname: str
    domain: str
    country: str
    keyboard: str
    timezone: str
    mailto: str
    root_password_hash: Secret
    root_ssh_keys: tuple[str, ...] = ()
    address: StaticAddress | None
    """None: the installer freezes the DHCP lease it got."""
    management_nic: str | None
    """None: the NIC that the host was registered with."""
    filesystem: str
    raid: str | None
    disks: tuple[str, ...]

    @property
    def fqdn(self) -> str:
        return f"{self.hostname}.{self.domain}"


# --- words, one at a time: each function gives the canonical form or raises `Invalid` --------------


def parse_country(text: str) -> str:
    code = text.strip().lower()
    if code not in COUNTRIES:
        hint = "; the United Kingdom is gb" if code == "uk" else ""
        raise Invalid(
            f"{text[:40]!r} is not a country code of two letters (ISO 3166-1), like de{hint}", "country"
        )
    return code


def parse_keyboard(text: str) -> str:
    layout = text.strip().lower()
    if layout not in KEYBOARDS:
        raise Invalid(
            f"{text[:40]!r} is not a keyboard layout of the installer: {', '.join(sorted(KEYBOARDS))}",
            "keyboard",
        )
    return layout


def parse_timezone(text: str) -> str:
    """A place like Europe/Vienna, or UTC. The installer knows neither Etc/UTC nor old aliases."""
    zone = text.strip()
    if zone != "UTC" and zone not in timezones():
        raise Invalid(
            f"{text[:40]!r} is not a time zone of the installer: a place like Europe/Vienna, or UTC",
            "timezone",
        )
    return zone


@cache
def timezones() -> frozenset[str]:
    """The zones of tzdata's zone.tab, which the installer's list is made of, where this system has one."""
    for directory in TZPATH:
        try:
            lines = (Path(directory) / "zone.tab").read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        return frozenset(line.split("\t")[2] for line in lines if line.count("\t") >= 2 and line[0] != "#")
    continents = _words("Africa America Antarctica Arctic Asia Atlantic Australia Europe Indian Pacific")
    return frozenset(zone for zone in available_timezones() if zone.split("/")[0] in continents)


def parse_mailto(text: str) -> str:
    address = text.strip()
    if _MAIL.fullmatch(address) is None or len(address) > 254:
        raise Invalid(f"{text[:80]!r} is not a mail address like root@example.org", "mailto")
    if address == "mail@example.invalid":
        raise Invalid("mail@example.invalid is the installer's placeholder, and refused by it", "mailto")
    return address


def parse_domain(text: str) -> str:
    """One or more DNS labels, in lower case; together with a host name it must stay below 254 characters."""
    domain = text.strip().lower()
    if len(domain) > 189 or not all(_DOMAIN_LABEL.fullmatch(label) for label in domain.split(".")):
        raise Invalid(
            f"{text[:80]!r} is not a domain: letters, digits and hyphens, parted by dots, like lab.example",
            "domain",
        )
    return domain


def parse_filesystem(text: str) -> str:
    name = text.strip().lower()
    if name not in RAIDS:
        raise Invalid(f"{text[:40]!r} is not a file system: one of {', '.join(RAIDS)}", "filesystem")
    return name


def parse_raid(text: str) -> str:
    """A level in the installer's spelling (`raid1`, `raidz-2`); RAID1 and raidz2 are understood."""
    level = re.sub(r"^raidz([123])$", r"raidz-\1", text.strip().lower())
    known = {level: None for levels in RAIDS.values() for level in levels}
    if level not in known:
        raise Invalid(f"{text[:40]!r} is not a RAID level: one of {', '.join(known)}", "raid")
    return level


def parse_disk(text: str) -> str:
    """A whole disk, /dev/nvme0n1 or a link in /dev/disk/by-id, that the installer can be pointed at exactly.

    The path is kept whole: the installer compares the end of a device's path with what it is given, so
    that a mere `da` would be /dev/sda.
    """
    path = text.strip()
    if _PARTITION.search(path):
        raise Invalid(f"{path[:80]!r} is a partition: the installer takes whole disks", "disk")
    if path.startswith(_BY_ID):
        if disk_property(path) is None:
            kinds = ", ".join(f"{start}…" for start, _, _ in DISK_PROPERTIES)
            raise Invalid(
                f"{path[:80]!r} cannot be told to the installer exactly: use a link that begins with {kinds} "
                "or the plain name, like /dev/nvme0n1",
                "disk",
            )
    elif _DISK.fullmatch(path) is None:
        raise Invalid(
            f"{text[:80]!r} is not a disk: write the whole path, like /dev/nvme0n1 or /dev/sda", "disk"
        )
    return path


def disk_property(disk: str) -> tuple[str, str] | None:
    """The udev property, and its value, that names the same disk as a link in /dev/disk/by-id does."""
    if disk.startswith(_BY_ID) and _ID_NAME.fullmatch(name := disk.removeprefix(_BY_ID)):
        for start, kept, key in DISK_PROPERTIES:
            if name.startswith(start) and (rest := name.removeprefix(start)):
                return key, kept + rest
    return None


def parse_nic_name(text: str) -> str:
    """A link's name as the installer's kernel has it and the installer can pin it: 2 to 15 characters."""
    name = text.strip()
    if _NIC_NAME.fullmatch(name) is None:
        raise Invalid(f"{text[:40]!r} is not a NIC's name like enp1s0 or eno1", "management_nic")
    return name


def parse_root_password_hash(text: str) -> Secret:
    """A crypt(5) hash: yescrypt, gost-yescrypt, scrypt, SHA-512, SHA-256 or bcrypt.

    The installer takes any text, and a system with a wrong one lets nobody in. The error does not show it.
    """
    value = text.strip()
    if not value:
        problem = "there is no root password hash"
    elif value.startswith("$1$"):
        problem = "the root password hash is MD5, which is broken"
    elif _HASHES.fullmatch(value) is None:
        problem = "the root password hash is not a whole crypt(5) hash; a plain password must not stand here"
    else:
        return Secret(value)
    raise Invalid(f"{problem}: make one with `mkpasswd -m yescrypt`", "root_password_hash")


def parse_ssh_public_key(text: str) -> str:
    """`type base64 comment`, as in a .pub file (RFC 4253 §6.6), without options. Blanks are tidied.

    Any type is taken whose name stands inside as well: what sshd accepts is sshd's business.
    """
    words = text.split()
    if not text.strip().isprintable() or len(text) > 16_384:
        raise Invalid("an SSH public key is one line of printable characters", "ssh_key")
    if len(words) < 2 or _KEY_TYPE.fullmatch(words[0]) is None:
        raise Invalid(
            f"{text[:30]!r} is not an SSH public key: the content of a .pub file is wanted", "ssh_key"
        )
    try:
        blob = b64decode(words[1], validate=True)
    except (NotBase64, ValueError) as exc:
        raise Invalid(f"the SSH public key {text[:30]!r}… is not base64", "ssh_key") from exc
    fields = _ssh_strings(blob)
    if len(fields) < 2 or fields[0] != words[0].encode():
        raise Invalid(
            f"the SSH public key {text[:30]!r}… is cut off or of another type than it says", "ssh_key"
        )
    return " ".join(words)


def _ssh_strings(blob: bytes) -> list[bytes]:
    """The strings (RFC 4251 §5) that `blob` consists of; nothing when it does not."""
    strings = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "big")
        if len(blob) < max(end, 5):
            return []
        strings.append(blob[4:end])
        blob = blob[end:]
    return strings


# --- what only shows when all words are together ---------------------------------------------------


def check_plan(plan: InstallPlan) -> None:
    """Raise `Invalid` for parts that are right by themselves and wrong together."""
    _check_disks(plan)
    if plan.address is not None:
        _check_address(plan.address)
    if len(plan.fqdn) > 253:
        raise Invalid(f"{plan.fqdn[:40]}… has {len(plan.fqdn)} characters; a name ends at 253", "domain")


def _check_disks(plan: InstallPlan) -> None:
    levels = RAIDS.get(plan.filesystem)
    if levels is None:
        raise Invalid(f"{plan.filesystem[:40]!r} is not a file system", "filesystem")
    if not plan.disks:
        raise Invalid("no disk is named to install to", "disks")
    disk, times = Counter(plan.disks).most_common(1)[0]
    if times > 1:
        raise Invalid(f"{disk} is named {times} times", "disks")
    count = len(plan.disks)
    if count > 1 and any(disk_property(disk) for disk in plan.disks):
        raise Invalid(
            "links in /dev/disk/by-id work for a single disk only: the installer has no list of them; "
            "name several disks like /dev/sda",
            "disks",
        )
    if not levels:
        if plan.raid is not None:
            raise Invalid(f"{plan.filesystem} has no RAID levels: use zfs or btrfs for {plan.raid}", "raid")
        if count != 1:
            raise Invalid(f"{plan.filesystem} takes exactly one disk, not {count}", "disks")
        return
    fewest = levels.get(plan.raid or "")
    if fewest is None:
        raise Invalid(
            f"{plan.filesystem} needs a RAID level, one of {', '.join(levels)}; "
            f"{plan.raid or 'none'} is not one of them",
            "raid",
        )
    if count < fewest:
        raise Invalid(f"{plan.raid} on {plan.filesystem} needs at least {fewest} disks, not {count}", "disks")
    if plan.raid == "raid10" and count % 2:
        raise Invalid(f"raid10 needs an even number of disks, not {count}", "disks")


def _check_address(address: StaticAddress) -> None:
    """The installer checks none of this; the host would be installed and never be heard of again."""
    cidr, network = address.cidr, address.cidr.network
    if network.num_addresses == 1:
        raise Invalid(f"{cidr} has no network mask: write it like {cidr.ip}/24", "address")
    if network.num_addresses > 2 and cidr.ip in (network.network_address, network.broadcast_address):
        raise Invalid(f"{cidr.ip} is the first or last address of {network}, not a host's", "address")
    if address.gateway == cidr.ip:
        raise Invalid(f"the gateway {address.gateway} is the host itself", "gateway")
    if address.gateway not in network:
        raise Invalid(f"the gateway {address.gateway} is not in the host's network {network}", "gateway")
