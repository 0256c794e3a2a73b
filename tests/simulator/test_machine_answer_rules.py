"""The installer's eyes: which answers each release takes, and which disks and NIC it makes of them."""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from provd.simulator.machine.answer_keys import (
    DISK_SETUP,
    FIRST_BOOT,
    GLOBAL,
    INSTALLERS,
    KEYBOARDS,
    NETWORK,
    WEBHOOK,
    timezones,
)
from provd.simulator.machine.answer_rules import InstallOrder, check_answer, check_document
from provd.simulator.machine.hardware import Disk, Hardware, Lease, gpu_node, nuc
from provd.simulator.machine.installer import leaked_arguments
from provd.simulator.machine.refusal import InstallerRefused
from provd.simulator.machine.udev_filters import all_matches, compile_glob, first_match

MAC, IP = "02:00:00:00:00:01", "127.77.0.11"
NUC, TOWER = nuc(MAC, IP), gpu_node(MAC, IP)
LEASED = attrs.evolve(NUC, lease=Lease(cidr=f"{IP}/24", gateway=IP, dns=IP, hostname="h", domain="d.example"))

GONE = object()


def answer(**sections: Any) -> dict[str, Any]:
    """A good answer for every release from 8.4 on, with sections replaced."""
    return {
        "global": {
            "country": "us",
            "keyboard": "en-us",
            "timezone": "UTC",
            "fqdn": "nuc1.lab.example",
            "mailto": "ops@lab.example",
            "root-password-hashed": "$6$x$y",
        },
        "network": {"source": "from-dhcp"},
        "disk-setup": {"filesystem": "ext4", "disk-list": ["nvme0n1"]},
    } | {name.replace("_", "-"): section for name, section in sections.items()}


def changed(path: str, value: object, document: dict[str, Any] | None = None) -> dict[str, Any]:
    """The good answer with one key, written as `section/key`, set or (GONE) taken out."""
    document = document or answer()
    *way, last = path.split("/")
    table = document
    for step in way:
        table = table.setdefault(step, {})
    if value is GONE:
        del table[last]
    else:
        table[last] = value
    return document


def check(document: Mapping[str, Any], release: str = "9.2", machine: Hardware = NUC) -> InstallOrder:
    return check_answer(tomli_w.dumps(document), release, machine)


def refusal(document: Mapping[str, Any], release: str = "9.2", machine: Hardware = NUC) -> str:
    with pytest.raises(InstallerRefused) as caught:
        check(document, release, machine)
    return str(caught.value)


STATIC = {
    "source": "from-answer",
    "cidr": "192.0.2.21/24",
    "gateway": "192.0.2.1",
    "dns": "192.0.2.53",
    "filter": {"ID_NET_NAME_MAC": "enx020000000001"},
}
ZFS: dict[str, Any] = {"filesystem": "zfs", "zfs": {"raid": "raid1"}, "disk-list": ["sda", "sdb"]}


def test_a_good_answer() -> None:
    """Everything the installer needs is in the order."""
    order = check(answer(network=STATIC))
    assert (order.fqdn, order.hostname, order.filesystem_name) == ("nuc1.lab.example", "nuc1", "ext4")
    assert [disk.device for disk in order.disks] == ["/dev/nvme0n1"]
    assert str(order.network.cidr) == "192.0.2.21/24"
    assert order.network.nic.name == "enp2s0"
    assert (order.reboot_mode, order.reboot_on_error) == ("reboot", False)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # unknown keys, at every level
        ("foo", {}),
        ("global/foo", 1),
        ("network/foo", 1),
        ("disk-setup/foo", 1),
        ("disk-setup/lvm", {"foo": 1}),
        ("post-installation-webhook", {"url": "http://x", "foo": 1}),
        ("first-boot", {"source": "from-iso", "foo": 1}),
        ("global/fqdn", {"source": "from-dhcp", "foo": 1}),
        ("network/interface-name-pinning", {"enabled": True, "foo": 1}),
        # section names in kebab case only
        ("post_installation_webhook", {"url": "http://x"}),
        ("disk_setup", {"filesystem": "ext4", "disk-list": ["sda"]}),
        ("first_boot", {"source": "from-iso"}),
        # missing
        ("global", GONE),
        ("network", GONE),
        ("disk-setup", GONE),
        ("global/country", GONE),
        ("global/fqdn", GONE),
        ("global/root-password-hashed", GONE),
        ("disk-setup/filesystem", GONE),
        ("post-installation-webhook", {}),
        ("first-boot", {}),
        ("first-boot", {"source": "from-url"}),
        ("network/interface-name-pinning", {}),
        # types
        ("global", 1),
        ("global/reboot-on-error", "yes"),
        ("global/root-ssh-keys", "ssh-ed25519 AAAA"),
        ("global/root-ssh-keys", [1]),
        ("network/source", 1),
        ("disk-setup/lvm", {"hdsize": "10"}),
        ("disk-setup/lvm", {"hdsize": True}),
        # values
        ("global/country", "US"),
        ("global/country", "uk"),
        ("global/keyboard", "us"),
        ("global/timezone", "Etc/UTC"),
        ("global/timezone", "utc"),
        ("global/timezone", "US/Eastern"),
        ("global/mailto", "mail@example.invalid"),
        ("global/mailto", "root"),
        ("global/mailto", "a@b@c"),
        ("global/reboot-mode", "poweroff"),
        ("global/root-password", "both-are-set"),
        ("global/fqdn", "nuc1"),
        ("global/fqdn", "nuc1.lab."),
        ("global/fqdn", "123.lab.example"),
        ("global/fqdn", "a_b.lab.example"),
        ("global/fqdn", "-a.lab.example"),
        ("global/fqdn", "a" * 64 + ".example"),
        ("global/fqdn", ".".join(["abcd"] * 60)),
        ("global/fqdn", "é.example"),
        ("global/fqdn", {}),
        ("global/fqdn", {"source": "from-answer"}),
        ("network/source", "dhcp"),
        ("network/cidr", "192.0.2.2/24"),
        ("network/interface-name-pinning", {"enabled": True, "mapping": {MAC: "0nic"}}),
        ("network/interface-name-pinning", {"enabled": True, "mapping": {MAC: "n"}}),
        ("network/interface-name-pinning", {"enabled": True, "mapping": {MAC: "n" * 16}}),
        ("network/interface-name-pinning", {"enabled": True, "mapping": {MAC: "lan", "02:0f": "lan"}}),
        ("network/interface_name_pinning", {"enabled": True}),
        ("disk-setup/filesystem", "EXT4"),
        ("disk-setup/disk-list", []),
        ("disk-setup/disk-list", ["nvme0n1", "nvme0n1"]),
        ("disk-setup/disk-list", ["sda"]),
        ("disk-setup/filter", {"ID_TYPE": "disk"}),
        ("disk-setup/filter-match", "some"),
        ("disk-setup/zfs", {"raid": "raid0"}),
        ("disk-setup/lvm", {"hdsize": 10, "swapsize": 6}),
        ("first-boot", {"source": "from-url", "url": "http://x", "ordering": "late"}),
    ],
)
def test_what_is_refused(path: str, value: object) -> None:
    """Each of these stops the installer of PVE 9.2."""
    refusal(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("global/country", "gb"),
        ("global/mailto", "root@localhost"),
        ("global/timezone", "Europe/Vienna"),
        ("global/root-password-hashed", ""),
        ("global/reboot-mode", "power-off"),
        ("global/fqdn", "NUC1.Lab.Example"),
        ("global/fqdn", "n1.2"),
        ("global/reboot_on_error", True),
        ("global/root_ssh_keys", ["not a key at all"]),
        ("global/subscription-key", "nonsense"),
        ("disk-setup/lvm", {"hdsize": 10, "swapsize": 5.0}),
        ("disk-setup/filter-match", "all"),
        ("post-installation-webhook", {"url": "no url", "cert_fingerprint": "x", "auth-token": "t"}),
        ("first-boot", {"source": "from-iso", "url": "http://tolerated"}),
        ("first-boot", {"source": "from-url", "url": "http://x", "ordering": "before-network"}),
    ],
)
def test_what_is_accepted(path: str, value: object) -> None:
    """The installer does not look at hashes, keys and URLs, and knows the old spellings."""
    check(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "first"),
    [
        ("global/root-ssh-keys", ["ssh-ed25519 AAAA x"], "8.4"),
        ("global/root_ssh_keys", ["ssh-ed25519 AAAA x"], "8.2"),
        ("post-installation-webhook", {"url": "http://x"}, "8.3"),
        ("first-boot", {"source": "from-iso"}, "8.3"),
        ("global/reboot-mode", "reboot", "8.4"),
        ("global/fqdn", {"source": "from-dhcp"}, "8.4"),
        ("network/interface-name-pinning", {"enabled": True}, "9.1"),
        ("global/subscription-key", "pve1c-0123456789", "9.2"),
        ("post-installation-webhook", {"url": "http://x", "auth-token": "t"}, "9.2"),
    ],
)
def test_the_version_matrix(path: str, value: object, first: str) -> None:
    """A key is unknown to every release before the one that brought it, and known to all later ones."""
    for release in INSTALLERS:
        document = answer(**{"disk-setup": {"filesystem": "ext4", "disk_list": ["nvme0n1"]}})
        if release == "8.2":  # no hashes yet, and multi-word keys in snake case only
            document["global"] |= {"root_password": "long-enough"}
        else:
            document["global"] |= {"root_password_hashed": "x"}
        del document["global"]["root-password-hashed"]
        document = changed(path, value, document)
        if release >= first:
            check(document, release, LEASED)
        else:
            assert re.search("unknown field|invalid type", refusal(document, release, LEASED)), release


def test_passwords() -> None:
    """Eight bytes at least since 8.4, and one of the two, not both."""
    for password, release, good in (
        ("1234567", "9.2", False),
        ("12345678", "9.2", True),
        ("ääää", "9.2", True),
        ("1", "8.3", True),
    ):
        document = answer(disk_setup={"filesystem": "ext4", "disk_list": ["nvme0n1"]})
        del document["global"]["root-password-hashed"]
        document["global"]["root_password"] = password
        if good:
            assert check(document, release).root_password == password
        else:
            refusal(document, release)


def test_both_spellings_of_one_key_are_a_duplicate() -> None:
    """`root-ssh-keys` and `root_ssh_keys` in one table cannot both count."""
    document = changed("global/root_ssh_keys", [], changed("global/root-ssh-keys", []))
    assert "duplicate field" in refusal(document)


def test_a_name_from_dhcp() -> None:
    """The answer's domain wins; no host name from DHCP is an error; a bad name falls back in silence."""

    def fqdn(lease: Lease, **table: str) -> str:
        return check(changed("global/fqdn", table), machine=attrs.evolve(NUC, lease=lease)).fqdn

    assert fqdn(LEASED.lease, source="from-dhcp") == "h.d.example"
    assert fqdn(LEASED.lease, domain="own.example") == "h.own.example"
    assert fqdn(LEASED.lease, source="from-dhcp", domain="") == "h.d.example"
    assert fqdn(attrs.evolve(LEASED.lease, hostname="1"), source="from-dhcp") == "pve.example.invalid"
    for lease in (NUC.lease, attrs.evolve(LEASED.lease, domain=None)):
        with pytest.raises(InstallerRefused, match="from DHCP"):
            fqdn(lease, source="from-dhcp")


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"cidr": "192.0.2.21"}, "192.0.2.21/32"),
        ({"cidr": "2001:db8::5"}, "2001:db8::5/128"),
        ({"gateway": "2001:db8::1"}, "192.0.2.21/24"),
        ({"gateway": "198.51.100.1"}, "192.0.2.21/24"),
        ({"cidr": "192.0.2.21/33"}, None),
        ({"cidr": "192.0.2.21/255.255.255.0"}, None),
        ({"cidr": "192.0.2.21/"}, None),
        ({"dns": ["192.0.2.53"]}, None),
        ({"dns": "dns.example"}, None),
        ({"dns": "fe80::1%eth0"}, None),
        ({"filter": {}}, None),
        ({"filter": {"ID_NET_NAME_MAC": "enx*ff"}}, None),
        ({"filter": {"ID_NET_NAME_MAC": "["}}, None),
        ({"filter": {"ID_NET_NAME_MAC": "*020000000001"}}, "192.0.2.21/24"),
    ],
)
def test_static_addresses(change: dict[str, object], outcome: str | None) -> None:
    """No mask becomes a host route, gateways are not compared; no NIC or no address is refused."""
    document = answer(network=STATIC | change)
    if outcome is None:
        refusal(document)
    else:
        assert str(check(document).network.cidr) == outcome


def test_a_filter_is_needed_for_a_static_address() -> None:
    """The schema lets it be left out, the installation does not."""
    assert "no filter defined" in refusal(answer(network={k: v for k, v in STATIC.items() if k != "filter"}))


def test_nics_are_tried_in_the_order_of_their_names() -> None:
    """A filter that fits several takes the first by name; its keys are OR."""
    document = answer(network=STATIC | {"filter": {"INTERFACE": "enp3s0", "ID_NET_DRIVER": "r81*"}})
    machine = attrs.evolve(TOWER, nics=tuple(reversed(TOWER.nics)))
    assert check(document, machine=machine).network.nic.name == "enp2s0"


def test_pinned_names() -> None:
    """The table alone pins every NIC, even with enabled = false; MACs in any case are found."""
    for enabled in (True, False):
        table = {"enabled": enabled, "mapping": {MAC.upper(): "lan0"}}
        order = check(changed("network/interface-name-pinning", table), machine=TOWER)
        assert order.network.pins == {MAC: "lan0", "12:00:00:00:00:01": "nic0"}


# --- disks ---------------------------------------------------------------------------------------


def disks(machine: Hardware = TOWER, **setup: Any) -> list[str]:
    document = answer(disk_setup={key.replace("_", "-"): value for key, value in setup.items()})
    return [disk.name for disk in check(document, machine=machine).disks]


def many(count: int, size: int = 100) -> Hardware:
    return attrs.evolve(
        NUC,
        disks=tuple(
            Disk(name=f"sd{chr(97 + n)}", size=size, serial=f"S{n}", model="M") for n in range(count)
        ),
    )


def test_which_disk_is_wiped() -> None:
    """By the end of its path; with a filter the first hit, whatever filter-match says."""
    assert disks(filesystem="ext4", disk_list=["/dev/sda"]) == ["sda"]
    assert disks(filesystem="xfs", disk_list=["da"]) == ["sda"]
    either = {"ID_SERIAL_SHORT": "nothing", "DEVNAME": "/dev/sd*"}
    assert disks(filesystem="ext4", filter=either, filter_match="all") == ["sda"]
    assert disks(many(11), filesystem="ext4", filter={"DEVNAME": "/dev/sd[ck]"}) == [
        "sdk"
    ]  # index "10" < "2"
    for empty in ({"DEVNAME": "/dev/vd*"}, {}):
        with pytest.raises(InstallerRefused):
            disks(filesystem="ext4", filter=empty)


def test_zfs_takes_all_hits() -> None:
    """any and all; a key that a disk lacks counts as matched in `all`; missing listed disks are skipped."""
    raid0: dict[str, Any] = {"filesystem": "zfs", "zfs": {"raid": "raid0"}}
    assert disks(**raid0, filter={"ID_BUS": "ata", "DEVNAME": "*nvme*"}) == ["nvme0n1", "sda", "sdb"]
    assert disks(**raid0, filter={"ID_BUS": "ata", "DEVNAME": "*"}, filter_match="all") == [
        "nvme0n1",
        "sda",
        "sdb",
    ]
    assert disks(**raid0, filter={"NOSUCHKEY": "foo"}, filter_match="all") == ["nvme0n1", "sda", "sdb"]
    assert disks(**raid0, disk_list=["sdb", "sdz"]) == ["sdb"]
    with pytest.raises(InstallerRefused):
        disks(**raid0, filter={"NOSUCHKEY": "foo"})
    with pytest.raises(InstallerRefused, match="at least 2"):
        disks(filesystem="zfs", zfs={"raid": "raid1"}, disk_list=["sdb", "sdz"])


@pytest.mark.parametrize(
    ("raid", "fewest"),
    [("raid0", 1), ("raid1", 2), ("raid10", 4), ("raidz-1", 3), ("raidz-2", 4), ("RAIDZ-3", 5)],
)
def test_disks_of_a_raid(raid: str, fewest: int) -> None:
    """Each level has its least number of disks, listed or matched."""
    names = [disk.name for disk in many(fewest).disks]
    assert disks(many(fewest), filesystem="zfs", zfs={"raid": raid}, disk_list=names) == names
    if fewest > 1:
        for how in ({"disk_list": names[:-1]}, {"filter": {"DEVNAME": f"/dev/sd[!{names[-1][-1]}]"}}):
            with pytest.raises(InstallerRefused, match="at least"):
                disks(many(fewest), filesystem="zfs", zfs={"raid": raid}, **how)


@pytest.mark.parametrize("raid", ["raidz1", "Raid1", "raid5", "", None])
def test_raid_words(raid: str | None) -> None:
    """Lower or upper case as a whole, with the hyphen, and never left out."""
    with pytest.raises(InstallerRefused):
        disks(filesystem="zfs", zfs={} if raid is None else {"raid": raid}, disk_list=["sda", "sdb"])


def test_more_rules_of_disk_setup() -> None:
    """Btrfs has no raidz; raid10 wants pairs; mirrors want like sizes; ext4 one disk; options must fit."""
    uneven = attrs.evolve(TOWER, disks=(TOWER.disks[1], attrs.evolve(TOWER.disks[2], size=10**12)))
    for machine, setup in (
        (
            TOWER,
            {"filesystem": "btrfs", "btrfs": {"raid": "raidz-1"}, "disk_list": ["sda", "sdb", "nvme0n1"]},
        ),
        (many(5), {"filesystem": "zfs", "zfs": {"raid": "raid10"}, "filter": {"DEVNAME": "*"}}),
        (uneven, {"filesystem": "zfs", "zfs": {"raid": "raid1"}, "disk_list": ["sda", "sdb"]}),
        (TOWER, {"filesystem": "ext4", "disk_list": ["sda", "sdb"]}),
        (TOWER, ZFS | {"lvm": {"hdsize": 4}}),
        (TOWER, ZFS | {"zfs": {"raid": "raid1", "ashift": -1}}),
        (TOWER, ZFS | {"zfs": {"raid": "raid1", "compress": "best"}}),
    ):
        with pytest.raises(InstallerRefused):
            disks(machine, **setup)
    assert disks(**ZFS | {"zfs": {"raid": "raid1", "ashift": 99, "copies": 0, "arc_max": 1}}) == [
        "sda",
        "sdb",
    ]
    order = check(answer(disk_setup=ZFS | {"zfs": {"raid": "raid1", "hdsize": 7}}), machine=TOWER)
    assert (order.filesystem_name, order.hdsize) == ("zfs (RAID1)", 7.0)


# --- globs, kernel words, anything at all --------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "text", "matches"),
    [
        ("*", "anything/at all", True),
        ("?", "a", True),
        ("?", "", False),
        ("S[0-9]x", "S5x", True),
        ("S[!0-9]x", "S5x", False),
        ("[]]", "]", True),
        ("[a-]", "-", True),
        ("a*", "A", False),
        ("a.c", "abc", False),
        ("**/b", "b", True),
        ("a/**/b", "a/x/y/b", True),
        ("[z-a]", "m", False),
    ],
)
def test_globs(glob: str, text: str, matches: bool) -> None:
    """`?`, `*`, `[..]`, `[!..]` and `**`; case counts and nothing else is special."""
    assert (compile_glob(glob).fullmatch(text) is not None) is matches


@pytest.mark.parametrize("glob", ["[", "[!", "[]", "a[b", "***", "a**", "**b"])
def test_bad_globs(glob: str) -> None:
    """A bad glob stops the installation."""
    with pytest.raises(InstallerRefused):
        compile_glob(glob)


def test_words_that_stay_in_the_kernel_line() -> None:
    """What the installer does not know stays with the installed system, `initrd=` among it."""
    line = (
        "BOOT_IMAGE=/x root=/y ramdisk_size=16777216 rw ro quiet splash=silent vga=1 initrd=initrd.magic"
        " proxdebug proxtui proxauto proxmox-start-auto-installer proxmox-own=1 hdsize=4 ext4 nomodeset"
        " console=ttyS0,115200 rootdelay=3"
    )
    assert leaked_arguments(line) == (
        "initrd=initrd.magic",
        "nomodeset",
        "console=ttyS0,115200",
        "rootdelay=3",
    )


@given(st.text())
def test_any_glob_compiles_or_is_refused(glob: str) -> None:
    """A text without special characters matches itself; any other compiles or is refused."""
    try:
        pattern = compile_glob(glob)
    except InstallerRefused:
        return
    if not set(glob) & set("*?["):
        assert pattern.fullmatch(glob) is not None


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(["zfs", "raid1", "from-answer", "from-dhcp", "from-url", "10.0.0.1/8"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
SECTIONS = st.sampled_from(["global", "network", "disk-setup", "post-installation-webhook", "first-boot"])
KEYS = st.sampled_from(
    sorted({"": None, **GLOBAL, **NETWORK["from-answer"], **DISK_SETUP, **WEBHOOK, **FIRST_BOOT})
)


@given(st.text(), st.sampled_from(sorted(INSTALLERS)))
def test_any_text_is_an_order_or_refused(text: str, release: str) -> None:
    """No text makes the reader raise anything but its refusal."""
    with pytest.raises(InstallerRefused):
        check_answer(text, release, NUC)


@given(st.lists(st.tuples(SECTIONS, KEYS, VALUES), max_size=4), st.sampled_from(sorted(INSTALLERS)))
def test_any_document_is_an_order_or_refused(changes: list[tuple[str, str, object]], release: str) -> None:
    """A good answer with anything at all put into it gives an order or a refusal."""
    document = answer()
    for section, key, value in changes:
        if not key:
            document[section] = value
        elif isinstance(document.get(section), dict):
            document[section][key] = value
    with suppress(InstallerRefused):
        assert check_document(document, release, TOWER).disks


def test_nesting_without_end_is_refused() -> None:
    """A text that would exhaust the stack is refused like any other."""
    with pytest.raises(InstallerRefused):
        check_answer("a=" + "[" * 100_000, "9.2", NUC)


@given(
    st.dictionaries(
        st.sampled_from(["DEVNAME", "ID_MODEL", "ID_BUS", "NOPE"]), st.sampled_from(["*", "x", "*s*"])
    )
)
def test_filters_agree_with_their_definition(filters: dict[str, str]) -> None:
    """OR needs one key that is there and fits; `all` needs that none that is there misfits."""

    def hit(disk: Disk, key: str) -> bool:
        return key in disk.udev and compile_glob(filters[key]).fullmatch(disk.udev[key]) is not None

    any_of = [disk for disk in TOWER.disks if any(hit(disk, key) for key in filters)]
    all_of = [disk for disk in TOWER.disks if all(hit(disk, key) or key not in disk.udev for key in filters)]
    assert all_matches(filters, TOWER.disks, require_all=False) == any_of
    assert all_matches(filters, TOWER.disks, require_all=True) == all_of
    assert first_match(filters, TOWER.disks) == (any_of[0] if any_of else None)


def test_the_lists_of_words() -> None:
    """25 keyboards; real zones and UTC, none of the zones that are links or offsets."""
    assert len(KEYBOARDS) == 25
    assert {"UTC", "Europe/Berlin", "America/New_York"} <= timezones()
    assert not {"Etc/UTC", "GMT", "US/Pacific", "utc"} & timezones()
