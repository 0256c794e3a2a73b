import json
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.domain.errors import BadDocument
from provd.domain.hardware import Disk, Link
from provd.domain.hosts import Mac
from provd.proxmox.reports import (
    MAX_REMEMBERED,
    Dmi,
    parse_install_report,
    parse_phone_home,
    parse_system_info,
    real_uuid,
)
from provd.simulator.machine.answer_keys import INSTALLERS
from provd.simulator.machine.hardware import HOSTILE, gpu_node, hostile, nuc
from provd.simulator.machine.reports import system_information

MAC = "1c:69:7a:aa:bb:cc"
UUID = "9f1c2b00-5d3a-4c86-9be1-1c697aaabbcc"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYPXYoVsJrVMtWFkxX0HzOaUO2f0yzmYSmBEbpDrmaN"
NUC = nuc(MAC, "192.0.2.21")


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


def install_report(**changes: Any) -> bytes:
    """As the webhook of 9.2 posts it."""
    document = {
        "$schema": {"version": "1.2"},
        "debian-version": "13.4",
        "product": {"fullname": "Proxmox VE", "short": "pve", "version": "9.2.1"},
        "iso": {"release": "9.2", "isorelease": "1"},
        "dmi": {"system": {"uuid": UUID.upper()}, "baseboard": {}, "chassis": {}},
        "filesystem": "zfs (RAID0)",
        "fqdn": "nuc1.lab.example",
        "machine-id": "0123456789abcdef0123456789abcdef",
        "disks": [
            {"size": 500107862016, "is-bootdisk": True, "udev-properties": {"DEVNAME": "/dev/nvme0n1"}}
        ],
        "network-interfaces": [
            {"name": "wlp1", "mac": "1c:69:7a:00:00:01", "udev-properties": {}},
            {"name": "eno1", "mac": MAC, "address": "192.0.2.21/24", "is-management": True},
        ],
        "ssh-public-host-keys": {"ed25519": f"{HOST_KEY} root@nuc1", "rsa": "unknown", "ecdsa": ""},
    }
    return encode(document | changes)


def phone_home(**changes: Any) -> bytes:
    """As our own script posts it."""
    document = {
        "ip": "192.0.2.21",
        "uuid": UUID.upper(),
        "mac": MAC,
        "hostname": "nuc1",
        "host_keys": [HOST_KEY],
        "reboot_needed": False,
    }
    return encode(document | changes)


@pytest.mark.parametrize("release", INSTALLERS)
def test_every_release_is_understood(release: str) -> None:
    """Whichever installer asks, with or without `$schema`, in either case: the same machine is seen."""
    info = parse_system_info(encode(system_information(NUC, release)))
    assert info.release == tuple(map(int, release.split(".")))
    assert info.product == "pve"
    assert info.links[0] == Link("enp2s0", Mac(MAC))
    assert info.dmi == Dmi(uuid=UUID, serial="G6ANAABBCC", product_name="NUC13ANHi5")


def test_newer_installers_are_understood() -> None:
    """A release that is not out yet, with more to tell, is read for what is known."""
    document = system_information(NUC, "9.2") | {
        "cpus": [1, 2],
        "iso": {"release": "10.0-beta1", "flavour": 1},
    }
    assert parse_system_info(encode(document)).release == (10, 0)


def test_odd_links_are_passed_over() -> None:
    """A link without a machine's Ethernet address does not make the others unseen."""
    macs = ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "80:00:02:08:fe:80:00:00", "", None, MAC.upper()]
    links = [{"link": f"l{n}", "mac": mac} for n, mac in enumerate(macs)] + [{"link": "x"}, {}]
    info = parse_system_info(encode(system_information(NUC, "9.2") | {"network_interfaces": links}))
    assert info.links == (Link("l5", Mac(MAC)),)


def test_a_hostile_machine_is_only_read() -> None:
    """Vendor strings and NIC names that mean harm are values like any other."""
    info = parse_system_info(encode(system_information(hostile(NUC), "9.2")))
    assert info.links[-1].name == HOSTILE
    assert info.dmi.product_name == HOSTILE.strip()


@pytest.mark.parametrize("dmi", [None, {}, [], {"system": None}, {"system": {"uuid": 7}}])
def test_firmware_without_dmi_is_empty(dmi: object) -> None:
    """A machine whose firmware says nothing, or nonsense, is a machine with MACs only."""
    info = parse_system_info(encode(system_information(NUC, "9.2") | {"dmi": dmi}))
    assert info.dmi == Dmi(uuid="", serial="", product_name="")


def test_identity_is_the_firmware() -> None:
    """The identity survives another release and another case, and differs between two machines."""
    documents = [system_information(NUC, "8.4"), system_information(NUC, "9.2")]
    documents[1]["dmi"]["system"]["uuid"] = UUID.upper()
    other = system_information(nuc("1c:69:7a:aa:bb:cd", "192.0.2.22"), "9.2")
    first, second, third = (parse_system_info(encode(d)).identity for d in (*documents, other))
    assert first == second != third
    assert first.isalnum()


@pytest.mark.parametrize(
    "changes",
    [
        {"iso": None},
        {"iso": {"release": "nine"}},
        {"iso": {"release": "٩.٢"}},
        {"product": {}},
        {"network_interfaces": {}},
        {"network_interfaces": ["eno1"]},
    ],
)
def test_incomplete_questions_are_refused(changes: dict[str, object]) -> None:
    """Without release, product or links nothing can be answered."""
    with pytest.raises(BadDocument):
        parse_system_info(encode(system_information(NUC, "9.2") | changes))


def test_the_install_report() -> None:
    """All that is used later is found; keys that the installer could not read are left out."""
    report = parse_install_report(install_report())
    assert report.fqdn == "nuc1.lab.example"
    assert report.machine_id == "0123456789abcdef0123456789abcdef"
    assert report.host_keys == (HOST_KEY,)
    assert report.management == Link("eno1", Mac(MAC))
    assert report.address == ip_interface("192.0.2.21/24")
    assert [link.name for link in report.links] == ["wlp1", "eno1"]
    assert report.product_version == "9.2.1"
    assert report.hardware_uuid == UUID


def test_the_report_tells_disks() -> None:
    """Under each name that a plan may use; what has no device or is no object is passed over."""
    tower = gpu_node(MAC, "192.0.2.21")
    told: list[Any] = [{"size": 1, "udev-properties": disk.udev} for disk in tower.disks]
    told[1]["udev-properties"] |= {"ID_WWN_WITH_EXTENSION": "0x5000c500aabbcc00"}
    odd = [7, {}, {"udev-properties": []}, {"udev-properties": {"ID_MODEL": "x"}}]
    nvme, sda, sdb = parse_install_report(install_report(disks=[*odd, *told])).disks
    assert [disk.device for disk in (nvme, sda, sdb)] == ["/dev/nvme0n1", "/dev/sda", "/dev/sdb"]
    assert nvme.described == f"/dev/nvme0n1 (Samsung SSD 980 PRO 1TB, serial {tower.disks[0].serial})"
    for name in (
        "/dev/sda",
        f"/dev/disk/by-id/ata-{tower.disks[1].udev['ID_SERIAL']}",
        "/dev/disk/by-id/wwn-0x5000c500aabbcc00",
    ):
        assert [disk.is_called(name) for disk in (nvme, sda, sdb)] == [False, True, False]
    assert nvme.is_called(f"/dev/disk/by-id/nvme-{tower.disks[0].udev['ID_WWN']}")
    for nothing in (None, "x", [], {"a": 1}):
        assert parse_install_report(install_report(disks=nothing)).disks == ()


def test_what_is_remembered_is_bounded_and_harmless() -> None:
    """However much a machine tells, and whatever it is called."""
    many = [{"udev-properties": {"DEVNAME": "/dev/sd\n" * 99, "ID_MODEL": "x" * 999}}] * 999
    disks = parse_install_report(install_report(disks=many)).disks
    assert len(disks) == MAX_REMEMBERED
    assert all(len(text) <= 128 and text.isprintable() for text in (disks[0].device, disks[0].model))
    machine = parse_system_info(encode(system_information(hostile(NUC), "9.2"))).hardware
    assert machine.disks is None
    assert machine.installer == (9, 2)
    assert all(text.isprintable() for text in (machine.product, *(link.name for link in machine.links)))
    assert Disk(device="/dev/sda").described == "/dev/sda"


def test_a_report_without_management_nic() -> None:
    """The installer need not mark one: 9.1 and 9.2 do not when names are pinned."""
    report = parse_install_report(install_report(**{"network-interfaces": [{"name": "nic0", "mac": MAC}]}))
    assert (report.management, report.address) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"fqdn": None},
        {"product": {"version": 9}},
        {"ssh-public-host-keys": {"ed25519": "ssh-ed25519 AAAA"}},
        {"ssh-public-host-keys": {"ed25519": f"{HOST_KEY}\nssh-rsa AAAA"}},
        {"ssh-public-host-keys": [HOST_KEY]},
        {"network-interfaces": 3},
    ],
)
def test_wrong_reports_are_refused(changes: dict[str, object]) -> None:
    """A report that names no host, or pins what is no key, is none."""
    with pytest.raises(BadDocument):
        parse_install_report(install_report(**changes))


def test_the_call_home() -> None:
    """A machine with a real UUID is named by it, in lower case."""
    call = parse_phone_home(phone_home())
    assert call.ip == ip_address("192.0.2.21")
    assert call.hardware_id == UUID
    assert call.host_keys == (HOST_KEY,)
    assert (call.hostname, call.reboot_needed, call.memory_mib) == ("nuc1", False, None)


@pytest.mark.parametrize(
    ("said", "known"),
    [(15933, 15933), (None, None), (0, None), (-1, None), (True, None), ("8", None), (2**60, None)],
)
def test_a_memory_that_is_none_is_not_known(said: object, known: int | None) -> None:
    """Only a plausible number of MiB is believed, and nothing else of the call is lost by it."""
    assert parse_phone_home(phone_home(memory_mib=said)).memory_mib == known


@pytest.mark.parametrize(
    "uuid",
    [
        "",
        "Default string",
        "Not Settable",
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "FEFEFEFE-FEFE-FEFE-FEFE-FEFEFEFEFEFE",
        "03000200-0400-0500-0006-000700080009",
    ],
)
def test_a_filler_uuid_gives_way_to_the_mac(uuid: str) -> None:
    """What thousands of mainboards share names no machine; its MAC does."""
    assert real_uuid(uuid) is None
    assert parse_phone_home(phone_home(uuid=uuid)).hardware_id == f"mac-{MAC}"
    with pytest.raises(BadDocument):
        parse_phone_home(phone_home(uuid=uuid, mac=""))


@pytest.mark.parametrize(
    "changes",
    [
        {"ip": ""},
        {"ip": "192.0.2.21/24"},
        {"ip": "0.0.0.0"},
        {"ip": "224.0.0.1"},
        {"ip": "255.255.255.255"},
        {"ip": "::"},
        {"ip": "fe80::1%a\nb"},
        {"ip": 3232235777},
        {"host_keys": []},
        {"host_keys": ["ssh-ed25519"]},
        {"host_keys": HOST_KEY},
        {"hostname": "n" * 300},
    ],
)
def test_wrong_calls_are_refused(changes: dict[str, object]) -> None:
    """A call without one host's address, or without its keys, leads nowhere."""
    with pytest.raises(BadDocument):
        parse_phone_home(phone_home(**changes))


DOCUMENTS = [
    (parse_system_info, json.loads(encode(system_information(NUC, "9.2")))),
    (parse_install_report, json.loads(install_report())),
    (parse_phone_home, json.loads(phone_home())),
]


@given(st.data())
def test_any_document_gives_a_value_or_bad_document(data: st.DataObject) -> None:
    """Put anything in the place of any part of a good document: nothing but `BadDocument` gets out."""
    parse, document = data.draw(st.sampled_from(DOCUMENTS))
    junk = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**70) | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )
    where = copy = json.loads(json.dumps(document))
    while True:
        key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        inside = where[key]
        if not isinstance(inside, dict | list) or not inside or data.draw(st.booleans()):
            break
        where = inside
    where[key] = data.draw(junk)
    try:
        parse(encode(copy))
    except BadDocument:
        return
