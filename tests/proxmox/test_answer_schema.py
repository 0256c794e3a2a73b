"""The last look at an answer: what provd builds passes, and each rule that is broken is named."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from provd.proxmox.answer_schema import misfits
from provd.simulator.machine.answer_rules import check_answer
from provd.simulator.machine.hardware import gpu_node

GOLDEN = Path(__file__).parents[1] / "golden"
ANSWERS = sorted(path.name for path in GOLDEN.glob("answer-*.toml"))
TOWER = gpu_node("1c:69:7a:aa:bb:cc", "192.0.2.21")

Edit = Callable[[dict[str, Any]], object]


def golden(name: str = "answer-static.toml") -> dict[str, Any]:
    return tomllib.loads((GOLDEN / name).read_text())


@pytest.mark.parametrize("name", ANSWERS)
def test_what_provd_builds_fits(name: str) -> None:
    """Every golden answer, for the release that it was built for."""
    assert misfits((GOLDEN / name).read_text(), (9, 2)) == ()


def put(section: str, **values: object) -> Edit:
    """Values under their keys, hyphens written as underscores."""
    return lambda answer: answer[section].update(
        {name.replace("_", "-"): value for name, value in values.items()}
    )


def drop(section: str, key: str) -> Edit:
    return lambda answer: answer[section].pop(key)


def zfs(raid: str, *disks: str) -> Edit:
    return lambda answer: answer.update(
        {"disk-setup": {"filesystem": "zfs", "zfs": {"raid": raid}, "disk-list": list(disks)}}
    )


def pinning(**values: object) -> Edit:
    return put("network", interface_name_pinning=values)


BROKEN: list[tuple[Edit, str]] = [
    (lambda answer: answer.pop("network"), "answer.network is missing"),
    (lambda answer: answer.pop("first-boot"), "answer.first-boot is missing"),
    (lambda answer: answer.update(extra={}), "a key that no installer knows: 'extra'"),
    (lambda answer: answer.update({"global": 7}), "answer.global must be a table"),
    (put("global", root_password="secret"), "no installer knows: 'root-password'"),
    (put("global", fqdn="nuc1"), "global.fqdn must be a full name"),
    (put("global", fqdn="7.lab.example"), "global.fqdn must be a full name"),
    (put("global", country="AT"), "global.country is not in its canonical spelling"),
    (put("global", country="uk"), "global.country 'uk' is not a country code"),
    (put("global", keyboard="us"), "global.keyboard 'us' is not a keyboard layout"),
    (put("global", timezone="Etc/UTC"), "global.timezone 'Etc/UTC' is not a time zone"),
    (put("global", mailto="mail@example.invalid"), "global.mailto"),
    (put("global", root_password_hashed="hunter2"), "not a whole crypt(5) hash"),
    (drop("global", "root-password-hashed"), "global.root-password-hashed is missing"),
    (put("global", root_ssh_keys="ssh-ed25519 AAAA"), "global.root-ssh-keys must be a list"),
    (put("global", root_ssh_keys=[7]), "global.root-ssh-keys must be text"),
    (put("global", reboot_on_error="yes"), "global.reboot-on-error must be true or false"),
    (put("global", reboot_mode="poweroff"), "global.reboot-mode must be one of power-off, reboot"),
    (drop("global", "reboot-on-error"), "global.reboot-on-error is missing"),
    (put("network", source="static"), "network.source must be one of from-dhcp, from-answer"),
    (put("network", source="from-dhcp"), "network has a key that no installer knows: 'cidr'"),
    (put("network", cidr="192.0.2.21"), "network.cidr must be an IP address with its mask"),
    (put("network", cidr="192.0.2.21/33"), "network.cidr must be an IP address with its mask"),
    (put("network", gateway="198.51.100.1"), "network.gateway is not in 192.0.2.0/24"),
    (put("network", gateway="fd00::1"), "network.gateway is not in 192.0.2.0/24"),
    (put("network", gateway="router"), "network.gateway must be an IP address"),
    (put("network", dns=["192.0.2.1"]), "network.dns must be text"),
    (put("network", filter={}), "network.filter must be a single property"),
    (put("network", filter={"A_B": "x", "C_D": "y"}), "network.filter must be a single property"),
    (put("network", filter={"ID_NET_NAME_MAC": "enx*"}), "network.filter has a pattern"),
    (put("network", filter={"lower": "x"}), "network.filter must be a property of udev"),
    (pinning(enabled=False, mapping={"1c:69:7a:aa:bb:cc": "eno1"}), "must not be disabled"),
    (pinning(enabled=True), "interface-name-pinning.mapping is missing"),
    (pinning(enabled=True, mapping={"1C:69:7A:AA:BB:CC": "eno1"}), "MAC addresses in lower case"),
    (pinning(enabled=True, mapping={"1c:69:7a:aa:bb:cc": "x"}), "names of 2 to 15"),
    (
        pinning(enabled=True, mapping={"1c:69:7a:aa:bb:cc": "n1", "1c:69:7a:aa:bb:cd": "n1"}),
        "gives two NICs one name",
    ),
    (put("disk-setup", filesystem="ntfs"), "disk-setup.filesystem must be one of"),
    (put("disk-setup", disk_list=["sda"]), "disk-setup.disk-list has 1 that are no whole path"),
    (put("disk-setup", disk_list=[]), "disk-setup.disk-list must be a list of disks"),
    (put("disk-setup", disk_list=["/dev/sda", "/dev/sda"]), "names a disk twice"),
    (put("disk-setup", disk_list=["/dev/sda", "/dev/sdb"]), "must name one disk for ext4, not 2"),
    (put("disk-setup", filter={"ID_SERIAL": "x"}), "either disk-list or filter"),
    (drop("disk-setup", "disk-list"), "either disk-list or filter"),
    (put("disk-setup", filter_match="all"), "no installer knows: 'filter-match'"),
    (put("disk-setup", zfs={"raid": "raid1"}), "disk-setup.zfs is not for ext4"),
    (put("disk-setup", lvm={"swapsize": -1}), "disk-setup.lvm.swapsize must be a size in GiB"),
    (put("disk-setup", lvm={"swapsize": 9, "hdsize": 16}), "swapsize must be at most half of hdsize"),
    (put("disk-setup", filesystem="zfs"), "disk-setup.zfs.raid is missing"),
    (zfs("raidz1", "/dev/sda"), "disk-setup.zfs.raid must be one of"),
    (zfs("raid1", "/dev/sda"), "must name 2 disks or more for raid1, not 1"),
    (zfs("raid10", *(f"/dev/sd{letter}" for letter in "abcde")), "an even number of disks for raid10"),
    (put("post-installation-webhook", url="ftp://x/"), "post-installation-webhook.url must be a web address"),
    (put("post-installation-webhook", cert_fingerprint="AA"), "the SHA-256 of a certificate"),
    (put("first-boot", source="from-iso"), "first-boot.source must be one of from-url"),
    (put("first-boot", ordering="later"), "first-boot.ordering must be one of"),
    (put("first-boot", url="http://[x/"), "first-boot.url must be a web address"),
]


@pytest.mark.parametrize(("edit", "words"), BROKEN, ids=[words for _, words in BROKEN])
def test_each_rule_that_is_broken_is_named(edit: Edit, words: str) -> None:
    """By the key and what it must be; a hash or a password is not repeated."""
    answer = golden()
    edit(answer)
    found = misfits(tomli_w.dumps(answer), (9, 2))
    assert any(words in sentence for sentence in found), found
    assert not any("hunter2" in sentence or "secret" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("edit", "before", "since"),
    [
        (pinning(enabled=True, mapping={"1c:69:7a:aa:bb:cc": "eno1"}), (9, 0), (9, 1)),
        (put("global", reboot_mode="power-off"), (8, 4), (9, 0)),
        (put("global", subscription_key="pve1c-0123456789"), (9, 1), (9, 2)),
        (put("post-installation-webhook", auth_token="x"), (9, 1), (9, 2)),
    ],
)
def test_words_that_a_release_does_not_know(
    edit: Edit, before: tuple[int, int], since: tuple[int, int]
) -> None:
    """An unknown key ends an installation: each is refused before the release that brought it."""
    answer = golden()
    edit(answer)
    [sentence] = misfits(tomli_w.dumps(answer), before)
    assert f"known from {since[0]}.{since[1]} on" in sentence
    assert misfits(tomli_w.dumps(answer), since) == ()


def test_what_is_not_toml_is_said() -> None:
    """And not quoted: it may hold a hash."""
    assert misfits("[global", (9, 2)) == ("the answer is not TOML: TOMLDecodeError",)


words = st.text(max_size=12)
values = st.recursive(
    st.one_of(words, st.booleans(), st.integers(), st.floats(), st.dates(), st.just("from-answer")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_any_toml_gives_sentences(data: st.DataObject) -> None:
    """Whatever stands where, there is a list of what is wrong, and never an exception."""
    answer = golden(data.draw(st.sampled_from(ANSWERS)))
    section = data.draw(st.sampled_from(list(answer)))
    key = data.draw(st.sampled_from(list(answer[section])) | words)
    if data.draw(st.booleans()):
        answer[section] = data.draw(values)
    else:
        answer[section][key] = data.draw(values)
    found = misfits(tomli_w.dumps(answer), data.draw(st.sampled_from([(8, 4), (9, 0), (9, 1), (9, 2)])))
    assert all(isinstance(sentence, str) and sentence for sentence in found)


@given(st.dictionaries(words, values))
def test_any_document_gives_sentences(document: dict[str, Any]) -> None:
    """One that has nothing of an answer is told what it lacks."""
    assert misfits(tomli_w.dumps(document), (9, 2))


PLAUSIBLE: list[Edit] = [
    *(put("global", country=word) for word in ("de", "DE", "uk", "gb", "")),
    *(put("global", keyboard=word) for word in ("us", "en-us", "pt-br")),
    *(put("global", fqdn=name) for name in ("a.b", "a..b", "-a.b", "a.b.", "x_y.z", "1.2", "1a.2")),
    *(put("global", mailto=mail) for mail in ("root@localhost", "root", "a@b..c")),
    *(put("network", cidr=cidr) for cidr in ("192.0.2.9/24", "192.0.2.9/255.255.255.0", "fd00::9/64", "x/1")),
    *(put("network", dns=dns) for dns in ("192.0.2.1", "fe80::1%eth0", "::1", "1.1.1.1, 8.8.8.8")),
    *(put("disk-setup", filesystem=name) for name in ("ext4", "xfs", "zfs", "btrfs", "EXT4")),
    *(put("disk-setup", lvm={"hdsize": size, "swapsize": 8}) for size in (4, 16.5, 64, "64")),
    *(zfs(raid, *disks) for raid in ("raid0", "RAID0", "raid1") for disks in ([], ["/dev/sda"], ["sda"])),
    *(zfs("raid1", "/dev/sda", "/dev/sdb") for _ in range(3)),
    put("disk-setup", disk_list=["/dev/sda"]),
]


@given(st.lists(st.sampled_from(PLAUSIBLE), max_size=3))
def test_what_fits_is_accepted_by_an_installer(edits: list[Edit]) -> None:
    """Two readers that do not know each other: what passes ours is never refused by the other."""
    answer = golden()
    for edit in edits:
        edit(answer)
    text = tomli_w.dumps(answer)
    if not misfits(text, (9, 2)):
        check_answer(text, "9.2", TOWER)
