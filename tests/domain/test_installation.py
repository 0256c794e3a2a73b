import struct
from base64 import b64encode
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.errors import Invalid
from provd.domain.hosts import StaticAddress
from provd.domain.installation import (
    InstallPlan,
    check_plan,
    disk_property,
    parse_country,
    parse_disk,
    parse_domain,
    parse_filesystem,
    parse_keyboard,
    parse_mailto,
    parse_nic_name,
    parse_raid,
    parse_root_password_hash,
    parse_ssh_public_key,
    parse_timezone,
)
from provd.domain.secrets import Secret

YESCRYPT = "$y$j9T$U5J89FSHMFqLqsbwt.dqw0$wVLZ5IBZalitd2qvYwn5YdZvWXXYJVdpYiC3OW6Uvd."
SHA512 = "$6$GemQgPLOcNIa52pq"
SHA512 += "$diwKVH7hJ2CXAW9C7BrVkakKQcNvwLjzSbvcKTuVZ0k9/io5IOuNuIIwXOqeM80qO7b68CmlPiSpBsZbniKK41"


def ssh_key(algorithm: str = "ssh-ed25519", *parts: bytes, comment: str = "me@here") -> str:
    blob = b"".join(
        struct.pack(">I", len(part)) + part for part in (algorithm.encode(), *(parts or (b"k" * 32,)))
    )
    return f"{algorithm} {b64encode(blob).decode()} {comment}"


PLAN = InstallPlan(
    hostname="n1",
    domain="lab.example",
    country="at",
    keyboard="de",
    timezone="UTC",
    mailto="root@lab.example",
    root_password_hash=Secret(YESCRYPT),
    address=None,
    management_nic=None,
    filesystem="ext4",
    raid=None,
    disks=("/dev/sda",),
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_country, " AT ", "at"),
        (parse_keyboard, "EN-us", "en-us"),
        (parse_timezone, "Europe/Vienna", "Europe/Vienna"),
        (parse_timezone, "UTC", "UTC"),
        (parse_mailto, "root@localhost", "root@localhost"),
        (parse_mailto, "a.b+c@lab.example", "a.b+c@lab.example"),
        (parse_domain, "Lab.Example", "lab.example"),
        (parse_domain, "local", "local"),
        (parse_filesystem, "ZFS", "zfs"),
        (parse_raid, "RAID1", "raid1"),
        (parse_raid, "raidz2", "raidz-2"),
        (parse_raid, "RAIDZ-3", "raidz-3"),
        (parse_disk, "/dev/nvme0n1", "/dev/nvme0n1"),
        (parse_disk, "/dev/sdab", "/dev/sdab"),
        (
            parse_disk,
            "/dev/disk/by-id/nvme-eui.0025385b71b0c5d1",
            "/dev/disk/by-id/nvme-eui.0025385b71b0c5d1",
        ),
        (parse_nic_name, "enp1s0f1np1", "enp1s0f1np1"),
        (parse_root_password_hash, YESCRYPT, Secret(YESCRYPT)),
        (parse_root_password_hash, SHA512 + "\n", Secret(SHA512)),
        (parse_root_password_hash, "$6$rounds=5000$ab$" + "a" * 86, Secret("$6$rounds=5000$ab$" + "a" * 86)),
        (parse_root_password_hash, "$5$ab$" + "a" * 43, Secret("$5$ab$" + "a" * 43)),
        (parse_root_password_hash, "$2b$12$" + "a" * 53, Secret("$2b$12$" + "a" * 53)),
        (parse_ssh_public_key, "  " + ssh_key(comment="two words"), ssh_key(comment="two words")),
        (parse_ssh_public_key, ssh_key(comment="").strip(), ssh_key(comment="").strip()),
        (
            parse_ssh_public_key,
            ssh_key("ecdsa-sha2-nistp256", b"nistp256", b"q" * 65),
            ssh_key("ecdsa-sha2-nistp256", b"nistp256", b"q" * 65),
        ),
    ],
)
def test_good_words_get_their_canonical_form(
    parse: Callable[[str], object], text: str, value: object
) -> None:
    """What a human may write is understood, and stored as the installer spells it."""
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_country, "uk"),
        (parse_country, "aut"),
        (parse_keyboard, "us"),
        (parse_timezone, "Etc/UTC"),
        (parse_timezone, "utc"),
        (parse_timezone, "US/Eastern"),
        (parse_timezone, "Asia/Calcutta"),
        (parse_mailto, "mail@example.invalid"),
        (parse_mailto, "root"),
        (parse_mailto, "root@-x"),
        (parse_mailto, "root@x\n.y"),
        (parse_domain, "lab..example"),
        (parse_domain, "lab.example."),
        (parse_domain, "-lab"),
        (parse_domain, "a" * 64),
        (parse_domain, ".".join(["abcdefghi"] * 20)),
        (parse_filesystem, "ntfs"),
        (parse_raid, "raid5"),
        (parse_disk, "sda"),
        (parse_disk, "da"),
        (parse_disk, "/dev/sda1"),
        (parse_disk, "/dev/nvme0n1p2"),
        (parse_disk, "/dev/sda\n"[:-1] + "\nx"),
        (parse_disk, "/dev/disk/by-id/ata-X_1-part1"),
        (parse_disk, "/dev/disk/by-id/nvme-Samsung_SSD_980_S6B0"),
        (parse_disk, "/dev/disk/by-id/scsi-35000c500a1b2c3d4"),
        (parse_disk, "/dev/disk/by-id/ata-*"),
        (parse_disk, "/dev/disk/by-id/wwn-"),
        (parse_disk, "/dev/disk/by-path/pci-0000:00:17.0-ata-1"),
        (parse_disk, "/dev/sd٣"),
        (parse_nic_name, "e"),
        (parse_nic_name, "eth0.5"),
        (parse_nic_name, "0eth"),
        (parse_nic_name, "abcdefghijklmnop"),
        (parse_root_password_hash, ""),
        (parse_root_password_hash, "hunter2hunter2"),
        (parse_root_password_hash, "!"),
        (parse_root_password_hash, "*"),
        (parse_root_password_hash, YESCRYPT[:-1]),
        (parse_root_password_hash, "!" + YESCRYPT),
        (parse_root_password_hash, "root:" + YESCRYPT),
        (parse_root_password_hash, "$1$kOCTb0hD$6ur4ge8UBkrYLKJjZzOHd."),
        (parse_root_password_hash, "ShctwHJvKSp.E"),
        (parse_root_password_hash, YESCRYPT + "\nx"),
        (parse_ssh_public_key, ""),
        (parse_ssh_public_key, "ssh-ed25519"),
        (parse_ssh_public_key, "ssh-ed25519 AAAA"),
        (parse_ssh_public_key, "ssh-ed25519 %%%%"),
        (parse_ssh_public_key, ssh_key("ssh-rsa", b"e", b"n").replace("ssh-rsa", "ssh-dss")),
        (parse_ssh_public_key, ssh_key(comment="a\nssh-rsa AAAA")),
        (parse_ssh_public_key, ssh_key(comment="a\x1b[31m")),
        (parse_ssh_public_key, 'command="x" ' + ssh_key()),
        (parse_ssh_public_key, "-----BEGIN OPENSSH PRIVATE KEY-----"),
    ],
)
def test_bad_words_are_refused(parse: Callable[[str], object], text: str) -> None:
    """What the installer would stop at, or worse, swallow, is refused with a sentence and its field."""
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert caught.value.field
    assert str(caught.value)


PARSERS: list[Callable[[str], Any]] = [
    parse_country,
    parse_keyboard,
    parse_timezone,
    parse_mailto,
    parse_domain,
    parse_filesystem,
    parse_raid,
    parse_disk,
    parse_nic_name,
    parse_root_password_hash,
    parse_ssh_public_key,
]


@given(st.sampled_from(PARSERS), st.text() | st.text(alphabet="/dev/sdanvme01-id.$6y=@ \n٣ſK", max_size=30))
def test_any_text_gives_a_canonical_word_or_invalid(parse: Callable[[str], Any], text: str) -> None:
    """A word that was taken is printable ASCII (a key's comment aside), and stays itself when read again."""
    try:
        value = parse(text)
    except Invalid:
        return
    word = value.reveal() if isinstance(value, Secret) else value
    assert word.isprintable()
    assert word.isascii() or parse is parse_ssh_public_key
    assert parse(word) == value


@pytest.mark.parametrize("text", ["correct horse battery", "$6$correct horse", "$1$correct$horse"])
def test_a_password_in_the_wrong_place_is_not_shown(text: str) -> None:
    """The error about a hash that is none does not repeat what may be a plain password."""
    with pytest.raises(Invalid) as caught:
        parse_root_password_hash(text)
    assert "horse" not in str(caught.value)


def test_links_by_id_become_one_exact_property() -> None:
    """Each accepted link names the udev property that it was made of."""
    prefix = "/dev/disk/by-id/"
    assert disk_property(f"{prefix}ata-WDC_WD40EFRX-68N_WD-1234") == ("ID_SERIAL", "WDC_WD40EFRX-68N_WD-1234")
    assert disk_property(f"{prefix}nvme-eui.00253855") == ("ID_WWN", "eui.00253855")
    assert disk_property(f"{prefix}wwn-0x5000c500") == ("ID_WWN_WITH_EXTENSION", "0x5000c500")
    assert disk_property("/dev/sda") is None


def address(cidr: str, gateway: str) -> StaticAddress:
    return StaticAddress(cidr=ip_interface(cidr), gateway=ip_address(gateway), dns=ip_address("192.0.2.53"))


def disks(count: int) -> tuple[str, ...]:
    return tuple(f"/dev/sd{chr(ord('a') + n)}" for n in range(count))


@pytest.mark.parametrize(
    ("filesystem", "raid", "count"),
    [
        ("ext4", None, 1),
        ("xfs", None, 1),
        ("zfs", "raid0", 1),
        ("zfs", "raid1", 2),
        ("zfs", "raid1", 3),
        ("zfs", "raid10", 4),
        ("zfs", "raidz-1", 3),
        ("zfs", "raidz-2", 4),
        ("zfs", "raidz-3", 5),
        ("btrfs", "raid0", 2),
        ("btrfs", "raid1", 2),
        ("btrfs", "raid10", 6),
    ],
)
def test_possible_plans_pass(filesystem: str, raid: str | None, count: int) -> None:
    """Every file system with each of its levels and enough disks is a plan."""
    check_plan(evolve(PLAN, filesystem=filesystem, raid=raid, disks=disks(count)))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"disks": ()}, "disks"),
        ({"disks": disks(2)}, "disks"),
        ({"raid": "raid0"}, "raid"),
        ({"filesystem": "vfat"}, "filesystem"),
        ({"filesystem": "zfs"}, "raid"),
        ({"filesystem": "btrfs", "raid": "raidz-1", "disks": disks(3)}, "raid"),
        ({"filesystem": "zfs", "raid": "raid1"}, "disks"),
        ({"filesystem": "zfs", "raid": "raidz-2", "disks": disks(3)}, "disks"),
        ({"filesystem": "zfs", "raid": "raid10", "disks": disks(5)}, "disks"),
        ({"filesystem": "zfs", "raid": "raid1", "disks": ("/dev/sda", "/dev/sda")}, "disks"),
        ({"filesystem": "zfs", "raid": "raid1", "disks": ("/dev/disk/by-id/ata-a", "/dev/sda")}, "disks"),
        ({"domain": ".".join(["a" * 62] * 4)}, "domain"),
        ({"address": address("192.0.2.5/32", "192.0.2.1")}, "address"),
        ({"address": address("192.0.2.0/24", "192.0.2.1")}, "address"),
        ({"address": address("192.0.2.255/24", "192.0.2.1")}, "address"),
        ({"address": address("192.0.2.5/24", "192.0.3.1")}, "gateway"),
        ({"address": address("192.0.2.5/24", "2001:db8::1")}, "gateway"),
        ({"address": address("192.0.2.5/24", "192.0.2.5")}, "gateway"),
    ],
)
def test_impossible_plans_are_refused(changes: dict[str, Any], field: str) -> None:
    """Parts that do not fit together are refused, and the culprit is named."""
    with pytest.raises(Invalid) as caught:
        check_plan(evolve(PLAN, **changes))
    assert caught.value.field == field


@pytest.mark.parametrize("cidr", ["192.0.2.5/24", "192.0.2.4/31", "2001:db8::5/64"])
def test_good_addresses_pass(cidr: str) -> None:
    """An address with a mask, and a gateway beside it, is a plan."""
    gateway = "192.0.2.5" if cidr.endswith("/31") else cidr.split("5/")[0] + "1"
    check_plan(evolve(PLAN, address=address(cidr, gateway)))
