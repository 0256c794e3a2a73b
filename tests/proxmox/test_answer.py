import tomllib
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.errors import CannotInstall
from provd.domain.hardware import Link
from provd.domain.hosts import Mac, StaticAddress
from provd.domain.installation import RAIDS, InstallPlan
from provd.domain.secrets import Secret
from provd.proxmox.answer import build_answer, management_mac
from provd.proxmox.reports import Dmi, SystemInfo
from provd.simulator.machine.answer_rules import InstallOrder, check_answer
from provd.simulator.machine.hardware import Hardware, gpu_node, hostile, nuc
from provd.simulator.machine.refusal import InstallerRefused

GOLDEN = Path(__file__).parents[1] / "golden"
MAC = Mac("1c:69:7a:aa:bb:cc")
HASH = "$y$j9T$U5J89FSHMFqLqsbwt.dqw0$wVLZ5IBZalitd2qvYwn5YdZvWXXYJVdpYiC3OW6Uvd."
WEBHOOK = "http://192.0.2.5:8080/api/hosts/1/installed?token=abc"
FIRST_BOOT = "http://192.0.2.5:8080/api/hosts/1/first-boot-script?token=abc"
TOWER = gpu_node(str(MAC), "192.0.2.21")
RELEASES = ["8.4", "9.0", "9.1", "9.2"]

PLAN = InstallPlan(
    hostname="nuc1",
    domain="lab.example",
    country="at",
    keyboard="de",
    timezone="Europe/Vienna",
    mailto="ops@lab.example",
    root_password_hash=Secret(HASH),
    address=None,
    management_nic=None,
    filesystem="ext4",
    raid=None,
    disks=("/dev/nvme0n1",),
)
STATIC = StaticAddress(
    cidr=ip_interface("192.0.2.21/24"), gateway=ip_address("192.0.2.1"), dns=ip_address("192.0.2.53")
)


def seen(hardware: Hardware = TOWER, release: str = "9.2", product: str = "pve") -> SystemInfo:
    """The machine as it introduces itself."""
    major, minor = release.split(".")
    return SystemInfo(
        release=(int(major), int(minor)),
        product=product,
        links=tuple(Link(nic.name, Mac(nic.mac)) for nic in hardware.nics),
        dmi=Dmi(uuid="", serial="", product_name=""),
    )


def build(plan: InstallPlan, machine: SystemInfo, boot_mac: Mac = MAC) -> str:
    return build_answer(plan, machine, boot_mac=boot_mac, webhook_url=WEBHOOK, first_boot_url=FIRST_BOOT)


def accepted(plan: InstallPlan, release: str = "9.2", hardware: Hardware = TOWER) -> InstallOrder:
    """What the installer of this release would do with the answer."""
    return check_answer(build(plan, seen(hardware, release)), release, hardware)


PLANS = {
    "dhcp": PLAN,
    "dhcp-pinned": evolve(PLAN, management_nic="enp3s0"),
    "static": evolve(
        PLAN, address=STATIC, management_nic="enp3s0", root_ssh_keys=("ssh-ed25519 AAAA a", "ssh-rsa BB b")
    ),
    "zfs-mirror": evolve(
        PLAN, address=STATIC, filesystem="zfs", raid="raid1", disks=("/dev/sda", "/dev/sdb")
    ),
    "disk-by-id": evolve(
        PLAN, filesystem="xfs", disks=("/dev/disk/by-id/ata-ST4000VN006_3CW104_ZW60AABBCC",)
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_golden_answers(name: str) -> None:
    """An answer is this text, to the letter: a change of it is seen in a review."""
    assert build(PLANS[name], seen()) == (GOLDEN / f"answer-{name}.toml").read_text()


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", PLANS)
def test_every_installer_accepts(name: str, release: str) -> None:
    """Each answer passes the strict reading of each release, and selects what the plan says."""
    plan = PLANS[name]
    order = accepted(plan, release)
    assert order.fqdn == "nuc1.lab.example"
    assert order.reboot_on_error
    assert order.root_password_hashed == HASH
    assert order.root_ssh_keys == plan.root_ssh_keys
    assert (order.filesystem, order.raid) == (plan.filesystem, plan.raid)
    if plan.disks[0].startswith("/dev/disk"):
        assert [disk.name for disk in order.disks] == ["sda"]
    else:
        assert tuple(disk.device for disk in order.disks) == plan.disks
    assert order.webhook is not None
    assert order.webhook.url == WEBHOOK
    assert order.first_boot is not None
    assert (order.first_boot.url, order.first_boot.ordering) == (FIRST_BOOT, "fully-up")


@pytest.mark.parametrize(
    ("filesystem", "raid"), [(name, raid) for name, levels in RAIDS.items() for raid in levels or [None]]
)
def test_every_file_system_is_accepted(filesystem: str, raid: str | None) -> None:
    """Each level, with as many disks as it needs, is one that the installer knows."""
    count = RAIDS[filesystem][raid] if raid else 1
    data = TOWER.disks[1]
    disks = tuple(evolve(data, name=f"sd{letter}") for letter in "abcdefgh"[:count])
    plan = evolve(PLAN, filesystem=filesystem, raid=raid, disks=tuple(disk.device for disk in disks))
    order = accepted(plan, hardware=evolve(TOWER, disks=disks))
    assert (order.raid, len(order.disks)) == (raid, count)


@pytest.mark.parametrize("nic", [0, 1])
def test_a_static_address_lands_on_the_wanted_nic(nic: int) -> None:
    """The NIC by name, or the one that is registered, is taken by an address that only it has."""
    wanted = TOWER.nics[nic]
    by_name = accepted(evolve(PLAN, address=STATIC, management_nic=wanted.name))
    assert by_name.network.nic == wanted
    boot = Mac(wanted.mac)
    answer = build(evolve(PLAN, address=STATIC), seen(), boot)
    assert check_answer(answer, "9.2", TOWER).network.nic == wanted
    assert management_mac(evolve(PLAN, management_nic=wanted.name), seen(), MAC) == boot
    assert management_mac(PLAN, seen(), boot) == boot


def test_names_are_pinned_only_where_that_is_known() -> None:
    """With DHCP the NIC keeps its name from 9.1 on; before, the table would be an unknown key."""
    plan = evolve(PLAN, management_nic="enp3s0")
    pins = {str(management_mac(plan, seen(), MAC)): "enp3s0"}
    for release in RELEASES:
        network = tomllib.loads(build(plan, seen(release=release)))["network"]
        pinning = {"enabled": True, "mapping": pins}
        expected = {"interface-name-pinning": pinning} if release in ("9.1", "9.2") else {}
        assert network == {"source": "from-dhcp"} | expected


@pytest.mark.parametrize("release", ["8.2", "8.3", "7.4"])
def test_old_installers_are_refused(release: str) -> None:
    """Before 8.4 an answer would not be understood; the operator is told what to do."""
    with pytest.raises(CannotInstall, match=r"8\.4 or later"):
        build(PLAN, seen(release=release))


def test_other_products_are_refused() -> None:
    """The backup server's installer asks the same question and gets no answer."""
    with pytest.raises(CannotInstall, match="pbs"):
        build(PLAN, seen(product="pbs"))


@pytest.mark.parametrize("address", [None, STATIC])
def test_a_missing_nic_is_named_with_those_that_are_there(address: StaticAddress | None) -> None:
    """The operator sees what to write instead; what the machine calls its links stays on one line."""
    machine = seen(hostile(TOWER))
    with pytest.raises(
        CannotInstall, match=r"no network link eno9, .* enp2s0 \(1c:69:7a:aa:bb:cc\), enp3s0"
    ) as caught:
        build(evolve(PLAN, management_nic="eno9", address=address), machine)
    assert str(caught.value).isprintable()
    with pytest.raises(CannotInstall, match="no network link 02:00:00:00:00:01"):
        build(evolve(PLAN, address=address), machine, Mac("02:00:00:00:00:01"))
    with pytest.raises(CannotInstall, match="none at all"):
        build(PLAN, evolve(machine, links=()))


def test_impossible_plans_are_not_served() -> None:
    """A plan that went wrong after it was checked does not reach the installer."""
    with pytest.raises(CannotInstall, match="exactly one disk"):
        build(evolve(PLAN, disks=("/dev/sda", "/dev/sdb")), seen())


def test_a_listed_disk_that_is_not_there_stops_the_installer() -> None:
    """With a whole path nothing else can match, so the wrong disk is never taken instead."""
    with pytest.raises(InstallerRefused, match="no disk of this machine"):
        accepted(evolve(PLAN, disks=("/dev/sdz",)), hardware=nuc(str(MAC), "192.0.2.21"))


ANYTHING = st.text(st.characters(exclude_categories=["Cs"]))
HOSTILE_TEXT = ANYTHING | st.sampled_from(
    ['"\n[disk-setup]\ndisk-list = ["sda"]\n', "'''", '"""', "\\", "\r\n", "\0", "a]\nb = 1"]
)


@given(
    st.fixed_dictionaries(dict.fromkeys(("country", "keyboard", "timezone", "mailto"), HOSTILE_TEXT)),
    st.lists(HOSTILE_TEXT, max_size=3),
    HOSTILE_TEXT,
)
def test_hostile_texts_stay_values(words: dict[str, Any], keys: list[str], url: str) -> None:
    """Whatever a value says, the answer has the same keys, and reads back as what was put in."""
    plan = evolve(PLAN, **words, root_ssh_keys=tuple(keys), root_password_hash=Secret(url))
    answer = tomllib.loads(
        build_answer(plan, seen(), boot_mac=MAC, webhook_url=url, first_boot_url=FIRST_BOOT)
    )
    assert answer == {
        "global": {
            "fqdn": "nuc1.lab.example",
            **words,
            "root-password-hashed": url,
            "reboot-on-error": True,
            **({"root-ssh-keys": keys} if keys else {}),
        },
        "network": {"source": "from-dhcp"},
        "disk-setup": {"filesystem": "ext4", "disk-list": ["/dev/nvme0n1"]},
        "post-installation-webhook": {"url": url},
        "first-boot": {"source": "from-url", "ordering": "fully-up", "url": FIRST_BOOT},
    }
