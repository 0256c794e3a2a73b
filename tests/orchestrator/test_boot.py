"""The dangerous desk: who gets an answer, how often, and in which order it is written down and sent."""

import json
import tomllib
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from attrs import evolve

from house import quiet_config
from provd.config import Unknown
from provd.daemon import open_parts
from provd.domain.errors import BadDocument, Conflict, NotYourTurn, StoreError
from provd.domain.hardware import Disk, Link
from provd.domain.hosts import Host, HostId, HostOptions, LocalBoot, Mac
from provd.domain.lifecycle import State
from provd.domain.operations import Kind
from provd.domain.secrets import Secret
from provd.store import activity, hardware, hosts, images, operations
from provd.store.database import now, timestamp
from provd.store.images import NewImage
from provd.web.parts import Parts

MAC = Mac("02:00:00:00:00:01")
SERVER_TYPES = """
server_types:
  nuc: {display_name: NUC, boot_disk: /dev/nvme0n1, management_nic: enp2s0, hostname_prefix: nuc}
"""


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with open_parts(quiet_config(tmp_path, server_types=SERVER_TYPES), {}) as parts:
        yield parts


def posted(*macs: Mac, serial: str = "G6", release: str = "9.2", nic: str | None = None) -> bytes:
    """What the installer of PVE 9.2 posts, upper-case MACs and all."""
    return json.dumps(
        {
            "$schema": {"version": "1.0"},
            "product": {"fullname": "Proxmox VE", "product": "pve", "enable_btrfs": True},
            "iso": {"release": release, "isorelease": "1"},
            "dmi": {
                "system": {"serial": serial, "uuid": "1111", "name": "NUC"},
                "baseboard": {},
                "chassis": {},
            },
            "network_interfaces": [
                {"link": nic or f"enp{number}s0", "mac": str(mac).upper()}
                for number, mac in enumerate(macs, start=2)
            ],
        }
    ).encode()


async def arm(parts: Parts, mac: Mac = MAC, *, booted: bool = True) -> Host:
    """A host with a rebuild under way, whose machine has fetched its script."""
    host = await parts.enrolment.register(mac, "nuc", None, HostOptions(), "a test")
    await parts.operations.start(host.id, Kind.REBUILD, "a test")
    if booted:
        await parts.desk.script(str(mac), "192.0.2.9", None)
    return parts.fleet.host(host.id)


def token_in(answer: bytes) -> Secret:
    url: str = tomllib.loads(answer.decode())["post-installation-webhook"]["url"]
    return Secret(url.partition("token=")[2])


async def test_the_answer_ends_the_offer(parts: Parts) -> None:
    """After the answer the same machine is sent to its own disk."""
    host = await arm(parts)
    assert "proxmox-start-auto-installer" in await parts.desk.script(str(MAC), "192.0.2.9", None)
    await parts.desk.answer(posted(MAC), "192.0.2.9")
    assert parts.fleet.host(host.id).state is State.INSTALLING
    assert "proxmox-start-auto-installer" not in await parts.desk.script(str(MAC), "192.0.2.9", None)


async def test_what_cannot_be_written_down_is_not_sent(parts: Parts) -> None:
    """On a full disk there is no answer: the host stays armed, and its disk stays whole."""
    host = await arm(parts)
    # No more pages than there are, and no free space in those of a table that every answer is told in.
    await parts.store.write(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())
    filler = (
        "INSERT INTO activity (at, event, level, message) VALUES ('', '', 'info', hex(randomblob(:size)))"
    )
    for size in (2000, 200, 20, 2):
        with suppress(StoreError):
            while True:
                await parts.store.write(lambda db, size=size: db.execute(filler, {"size": size}))
    with pytest.raises(StoreError):
        await parts.desk.answer(posted(MAC), "192.0.2.9")
    assert parts.fleet.host(host.id).state is State.PXE_BOOTED


async def test_of_two_machines_that_claim_a_mac_one_is_answered(parts: Parts) -> None:
    """Two requests at the same instant, from two machines: one answer exists, and one machine has it."""
    await arm(parts)
    answers: list[bytes] = []
    refused: list[str] = []

    async def ask(serial: str) -> None:
        try:
            answers.append(await parts.desk.answer(posted(MAC, serial=serial), f"192.0.2.{len(serial)}"))
        except NotYourTurn as exc:
            refused.append(str(exc))

    async with trio.open_nursery() as nursery:
        for number in range(1, 11):
            nursery.start_soon(ask, "x" * number)
    assert (len(answers), len(refused)) == (1, 9)


async def test_a_lost_answer_is_sent_again_a_few_times_and_soon(parts: Parts) -> None:
    """The same bytes to the same address and machine; not a fourth time, not to another, not later."""
    host = await arm(parts)
    first = await parts.desk.answer(posted(MAC), "192.0.2.9")
    for body, address in ((posted(MAC), "192.0.2.10"), (posted(MAC, serial="other"), "192.0.2.9")):
        with pytest.raises(NotYourTurn):
            await parts.desk.answer(body, address)
    for _ in range(2):
        assert await parts.desk.answer(posted(MAC), "192.0.2.9") == first
    with pytest.raises(NotYourTurn):
        await parts.desk.answer(posted(MAC), "192.0.2.9")
    assert parts.fleet.host(host.id).state is State.INSTALLING


async def test_after_two_minutes_an_answer_is_not_sent_again(parts: Parts) -> None:
    """A machine that comes back late is not in the installation that was begun."""
    await arm(parts)
    await parts.desk.answer(posted(MAC), "192.0.2.9")
    long_ago = timestamp(now() - timedelta(seconds=121))
    await parts.store.write(lambda db: db.execute("UPDATE operations SET answered_at = ?", (long_ago,)))
    with pytest.raises(NotYourTurn):
        await parts.desk.answer(posted(MAC), "192.0.2.9")


@pytest.mark.parametrize("booted", [False, None])
async def test_who_was_not_sent_to_the_installer_gets_no_answer(parts: Parts, booted: bool | None) -> None:
    """Neither a host that is only registered nor one that is armed but never fetched its script."""
    if booted is None:
        host = await parts.enrolment.register(MAC, "nuc", None, HostOptions(), "a test")
    else:
        host = await arm(parts, booted=False)
    before = host.state
    with pytest.raises(NotYourTurn):
        await parts.desk.answer(posted(MAC), "192.0.2.9")
    assert parts.fleet.host(host.id).state is before


async def test_a_machine_with_the_macs_of_two_hosts_is_nobody(parts: Parts) -> None:
    """A NIC that moved between machines must not decide which of them is wiped."""
    other = Mac("02:00:00:00:00:02")
    await arm(parts)
    await arm(parts, other)
    with pytest.raises(NotYourTurn):
        await parts.desk.answer(posted(MAC, other), "192.0.2.9")


async def test_a_stranger_is_noted_and_gets_nothing(parts: Parts) -> None:
    """It appears among the sightings, for the operator to register."""
    with pytest.raises(NotYourTurn):
        await parts.desk.script(str(MAC).replace(":", "-").upper(), "192.0.2.77", None)
    with pytest.raises(NotYourTurn):
        await parts.desk.answer(posted(MAC), "192.0.2.78")
    (seen,) = parts.store.read(hosts.sightings)
    assert (seen.mac, seen.address, seen.times) == (MAC, "192.0.2.78", 2)


async def test_an_installer_that_is_too_old_ends_the_operation_with_a_reason(parts: Parts) -> None:
    """The disk is untouched, and the operator reads why."""
    host = await arm(parts)
    (operation,) = parts.store.read(operations.active)
    with pytest.raises(NotYourTurn):
        await parts.desk.answer(posted(MAC, release="8.2"), "192.0.2.9")
    over = parts.store.read(lambda db: operations.get(db, operation.id))
    assert over.outcome == "failed"
    assert "8.2" in over.detail
    assert parts.fleet.host(host.id).state is State.FAILED


async def test_an_answer_that_does_not_fit_is_not_sent(tmp_path: Path) -> None:
    """The last look: what came past every parser ends the operation, and the disk is untouched."""
    config = quiet_config(tmp_path, server_types=SERVER_TYPES)
    config = evolve(config, install=evolve(config.install, keyboard="us"))
    async with open_parts(config, {}) as parts:
        host = await arm(parts)
        (operation,) = parts.store.read(operations.active)
        with pytest.raises(NotYourTurn):
            await parts.desk.answer(posted(MAC), "192.0.2.9")
        over = parts.store.read(lambda db: operations.get(db, operation.id))
        assert over.outcome == "failed"
        assert "the answer does not fit its installer: global.keyboard 'us' is not" in over.detail
        assert parts.store.read(lambda db: hardware.get(db, host.id)) is None


async def test_the_token_of_one_host_opens_no_other_and_dies_with_its_operation(parts: Parts) -> None:
    """Bound to host and operation: wrong host, wrong token and a finished operation are all refused alike."""
    host = await arm(parts)
    other = await arm(parts, Mac("02:00:00:00:00:02"))
    token = token_in(await parts.desk.answer(posted(MAC), "192.0.2.9"))
    assert b"authorized_keys2" in parts.desk.first_boot_script(host.id, token, "192.0.2.9")
    for host_id, wrong in ((other.id, token), (host.id, Secret("wrong")), (HostId(99), token)):
        with pytest.raises(NotYourTurn):
            parts.desk.first_boot_script(host_id, wrong, "192.0.2.9")
        with pytest.raises(NotYourTurn):
            await parts.desk.installed(host_id, wrong, b"{}")
        with pytest.raises(NotYourTurn):
            await parts.desk.phoned_home(host_id, wrong, b"{}")
    (operation, _) = parts.store.read(operations.active)
    await parts.operations.cancel(operation.id, "a test")
    with pytest.raises(NotYourTurn):
        parts.desk.first_boot_script(host.id, token, "192.0.2.9")


async def test_not_even_the_sealed_secrets_stay_in_the_files(parts: Parts) -> None:
    """Once an operation is over, its sealed key and answer are in no page of the database and its log."""
    await arm(parts)
    await parts.desk.answer(posted(MAC), "192.0.2.9")
    (operation,) = parts.store.read(operations.active)
    key = parts.store.read(lambda db: operations.key(db, operation.id))
    answer = parts.store.read(lambda db: operations.answer(db, operation.id))
    assert key is not None
    assert answer is not None

    def kept() -> bytes:
        return b"".join(file.read_bytes() for file in parts.store.path.parent.glob("provd.db*"))

    assert key.sealed in kept()
    await parts.operations.cancel(operation.id, "a test")
    assert key.sealed not in kept()
    assert answer.sealed[:64] not in kept()


async def test_a_token_before_there_is_one_opens_nothing(parts: Parts) -> None:
    """An armed host without an answer has no token, and the empty one is not it."""
    host = await arm(parts)
    with pytest.raises(NotYourTurn):
        parts.desk.first_boot_script(host.id, Secret(""), "192.0.2.9")


async def test_a_report_that_is_none_changes_nothing(parts: Parts) -> None:
    """With the right token and a wrong body the state stays, and the caller is told what is wrong."""
    host = await arm(parts)
    token = token_in(await parts.desk.answer(posted(MAC), "192.0.2.9"))
    for body in (b"", b"[]", b'{"fqdn": 7}', b"\xff"):
        with pytest.raises(BadDocument):
            await parts.desk.installed(host.id, token, body)
        with pytest.raises(BadDocument):
            await parts.desk.phoned_home(host.id, token, body)
    assert parts.fleet.host(host.id).state is State.INSTALLING


def installed_report(*disks: str) -> bytes:
    """What the installer posts when it is done, with these devices."""
    document = {
        "fqdn": "nuc1.lab.example",
        "product": {"version": "9.2.1"},
        "ssh-public-host-keys": {},
        "disks": [{"size": 1, "udev-properties": {"DEVNAME": disk}} for disk in disks],
    }
    return json.dumps(document).encode()


async def test_what_a_machine_tells_of_itself_is_remembered(parts: Parts) -> None:
    """Its NICs with the answer, its disks once it is installed; both outlive the operation."""
    host = await arm(parts)
    assert parts.store.read(lambda db: hardware.get(db, host.id)) is None
    token = token_in(await parts.desk.answer(posted(MAC), "192.0.2.9"))
    asked = parts.store.read(lambda db: hardware.get(db, host.id))
    assert asked is not None
    assert (asked.hardware.product, asked.hardware.links) == ("NUC", (Link("enp2s0", MAC),))
    assert asked.hardware.disks is None
    await parts.desk.installed(host.id, token, installed_report("/dev/nvme0n1"))
    (operation,) = parts.store.read(operations.active)
    await parts.operations.cancel(operation.id, "a test")

    for serial, known in (("G6", (Disk(device="/dev/nvme0n1"),)), ("another", None)):
        await parts.operations.start(host.id, Kind.REBUILD, "a test")
        await parts.desk.script(str(MAC), "192.0.2.9", None)
        await parts.desk.answer(posted(MAC, serial=serial), "192.0.2.9")
        told = parts.store.read(lambda db: hardware.get(db, host.id))
        assert told is not None
        assert told.hardware.disks == known, "the disks of another machine are not its own"
        (operation,) = parts.store.read(operations.active)
        await parts.operations.cancel(operation.id, "a test")
    await parts.enrolment.remove(host.id, "a test")
    assert parts.store.read(lambda db: hardware.get(db, host.id)) is None


async def test_a_later_call_home_cannot_move_the_host(parts: Parts) -> None:
    """Where the host lives is told once; a second call, or one with other keys, is only written down."""
    host = await arm(parts)
    token = token_in(await parts.desk.answer(posted(MAC), "192.0.2.9"))
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"

    def call(ip: str) -> bytes:
        return json.dumps(
            {
                "ip": ip,
                "uuid": "4c4c4544-0042-3510-8052-b4c04f4d3132",
                "mac": str(MAC),
                "hostname": host.hostname,
                "host_keys": [key],
                "reboot_needed": False,
            }
        ).encode()

    await parts.desk.phoned_home(host.id, token, call("192.0.2.21"))
    await parts.desk.phoned_home(host.id, token, call("192.0.2.66"))
    assert parts.fleet.host(host.id).ip == ip_address("192.0.2.21")
    assert parts.store.read(lambda db: hosts.host_keys(db, host.id)) == (key,)


async def test_a_machine_that_reboots_again_and_again_does_not_fill_the_history(parts: Parts) -> None:
    """A host that boots its own disk is noted once a minute, however often it asks."""
    await parts.enrolment.register(MAC, "nuc", None, HostOptions(), "a test")
    ring = parts.bell.next()
    await parts.desk.script(str(MAC), "192.0.2.9", None)
    assert ring.is_set()
    ring = parts.bell.next()
    for _ in range(20):
        await parts.desk.script(str(MAC), "192.0.2.9", None)
    assert not ring.is_set()


# --- images of our own ---

OLD_IPXE = "iPXE/1.0.0+git-20190125.36a4c85-5.1"
NEW_IPXE = "iPXE/1.21.1+git20250501.dad20602+dfsg-1"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Parts]:
    """A daemon that has an image of its own to offer, and shows strangers a menu."""
    config = quiet_config(tmp_path, server_types=SERVER_TYPES)
    config = evolve(
        config,
        proxmox=evolve(config.proxmox, installer_url=""),
        pxe=evolve(config.pxe, unknown=Unknown.MENU),
    )
    async with open_parts(config, {}) as parts:
        yield parts


async def import_image(parts: Parts, release: str = "9.2-1") -> None:
    image = NewImage(
        name=f"pve-{release}",
        product="pve",
        release=release,
        sha256="0" * 64,
        size=10_000,
        mode_offset=4096,
        prepared_sha256="1" * 64,
    )
    await parts.store.write(lambda db: images.add(db, image, now()))


def bearer(parts: Parts, host: Host) -> str:
    """What the installer sends that came with the ISO of the host's operation."""
    operation = parts.store.read(lambda db: operations.active_on(db, host.id))
    assert operation is not None
    return f"Bearer provd:{parts.installers.base_url(operation).rpartition('/')[2]}"


async def test_without_an_image_no_rebuild_begins(house: Parts) -> None:
    """The operator is told what to import before a machine is sent to nothing."""
    host = await house.enrolment.register(MAC, "nuc", None, HostOptions(), "a test")
    with pytest.raises(Conflict, match="provd image import"):
        await house.operations.start(host.id, Kind.REBUILD, "a test")
    assert house.fleet.host(host.id).state is State.REGISTERED


async def test_an_old_ipxe_gets_its_image_in_one_piece(house: Parts) -> None:
    """Debian 12's cannot hand a UEFI kernel two initrds; Debian 13's can."""
    await import_image(house)
    host = await arm(house, booted=False)
    old = await house.desk.script(str(MAC), "192.0.2.9", OLD_IPXE)
    new = await house.desk.script(str(MAC), "192.0.2.9", NEW_IPXE)
    assert "initrd ${base}/installer.img" in old
    assert "initrd ${base}/proxmox.iso proxmox.iso" in new
    operation = house.store.read(lambda db: operations.active_on(db, host.id))
    assert operation is not None
    assert house.installers.base_url(operation) in old
    assert await house.desk.script(str(MAC), "192.0.2.9", None) == old


async def test_a_new_default_does_not_change_what_is_under_way(house: Parts) -> None:
    """The image is settled when the rebuild begins."""
    await import_image(house)
    host = await arm(house)
    await import_image(house, "9.3-1")
    newer = house.store.read(lambda db: images.named(db, "pve-9.3-1"))
    await house.store.write(lambda db: images.set_default(db, newer.id))
    operation = house.store.read(lambda db: operations.active_on(db, host.id))
    assert operation is not None
    used = house.store.read(lambda db: operations.image_of(db, operation.id))
    assert used is not None
    assert house.store.read(lambda db: images.get(db, used)).release == "9.2-1"


async def test_a_mac_alone_gets_no_answer(house: Parts) -> None:
    """From PVE 9.2 on, whoever asks shows that it came with this operation's ISO."""
    await import_image(house)
    host = await arm(house)
    for wrong in (None, "Bearer provd:1-00", "Basic x"):
        with pytest.raises(NotYourTurn):
            await house.desk.answer(posted(MAC), "192.0.2.9", wrong)
    assert house.fleet.host(host.id).state is State.PXE_BOOTED
    answer = await house.desk.answer(posted(MAC), "192.0.2.9", bearer(house, host))
    assert b"[global]" in answer
    assert house.fleet.host(host.id).state is State.INSTALLING


async def test_too_little_memory_is_said_and_not_decided(house: Parts) -> None:
    """What was measured on other machines need not be true of this one."""
    await import_image(house)
    host = await house.enrolment.register(MAC, "nuc", None, HostOptions(), "a test")
    await house.store.write(lambda db: hosts.set_address(db, host.id, ip_address("192.0.2.9"), "an-id", 4096))
    await house.operations.start(host.id, Kind.REBUILD, "a test")
    told = house.store.read(lambda db: activity.latest(db, 10, host_id=host.id))
    assert any("has 4096 MiB of memory" in line.message for line in told)


async def test_a_stranger_is_shown_a_menu_and_may_say_hello(house: Parts) -> None:
    """Where the operator wants that; it is listed with what it says of itself, and never installed."""
    script = await house.desk.script(str(MAC), "192.0.2.9", OLD_IPXE)
    assert "menu provd" in script
    assert "proxmox-start-auto-installer" not in script
    assert "listed" in await house.desk.hello(str(MAC), "192.0.2.9", "NUC, serial G6\n")
    (seen,) = house.store.read(hosts.sightings)
    assert seen.via == "says hello: NUC, serial G6\\n"
    await house.enrolment.register(MAC, "nuc", None, HostOptions(), "a test")
    with pytest.raises(NotYourTurn):
        await house.desk.hello(str(MAC), "192.0.2.9", "again")


async def test_how_a_host_leaves_ipxe_is_its_own_choice(house: Parts) -> None:
    """With sanboot its script never leaves before it has tried the disk."""
    options = HostOptions(local_boot=LocalBoot.SANBOOT)
    await house.enrolment.register(MAC, "nuc", None, options, "a test")
    script = await house.desk.script(str(MAC), "192.0.2.9", NEW_IPXE)
    assert script.index("sanboot") < script.index("exit 1")
