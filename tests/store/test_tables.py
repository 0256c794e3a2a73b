"""Hosts, operations, locks and activity: what the schema itself promises."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from provd.domain.activity import News
from provd.domain.errors import Conflict, NotFound
from provd.domain.hosts import Host, HostId, HostOptions, Mac, OperationId, StaticAddress
from provd.domain.operations import Kind, Operation, Outcome
from provd.store import activity, hosts, operations
from provd.store.database import Db, open_store
from provd.store.operations import SealedKey

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
A, B = Mac("02:00:00:00:00:0a"), Mac("02:00:00:00:00:0b")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    with open_store(tmp_path / "provd.db") as store:
        yield store.read(lambda db: db)


def register(db: Db, name: str = "nuc1", mac: Mac = A) -> Host:
    return hosts.register(db, name, mac, "nuc", HostOptions(), NOW)


def begin(db: Db, host: Host) -> Operation:
    return operations.open_(db, host, Kind.REBUILD, "a test", NOW)


def test_a_host_comes_back_as_it_was_written(db: Db) -> None:
    """Every field survives, the address with its prefix length too."""
    address = StaticAddress(
        cidr=ip_interface("192.0.2.21/24"), gateway=ip_address("192.0.2.1"), dns=ip_address("192.0.2.53")
    )
    options = HostOptions(address=address, disks=("/dev/sda", "/dev/sdb"), raid="raid1", filesystem="zfs")
    host = hosts.register(db, "nuc1", A, "nuc", options, NOW)
    assert hosts.get(db, host.id) == host
    assert host.options == options


def test_names_are_unique_whatever_their_case_and_macs_too(db: Db) -> None:
    """The refusal names the host that has it."""
    register(db, "nuc1", A)
    with pytest.raises(Conflict, match="host name NUC1 belongs to host nuc1"):
        register(db, "NUC1", B)
    with pytest.raises(Conflict, match=f"MAC {A} belongs to host nuc1"):
        register(db, "nuc2", A)


def test_the_schema_refuses_a_mac_that_is_not_canonical(db: Db) -> None:
    """Even a bug above cannot write upper case."""
    with pytest.raises(sqlite3.IntegrityError):
        register(db, "nuc1", Mac("02:00:00:00:00:0A"))


def test_one_operation_has_a_host_and_its_lock(db: Db) -> None:
    """The second one is refused, naming the first; the lock is there while the operation is."""
    host = register(db)
    operation = begin(db, host)
    assert operations.locks(db) == {f"host/{host.id}": operation.id}
    with pytest.raises(Conflict, match=f"rebuild {operation.id} has been running"):
        begin(db, host)
    operations.close(db, operation.id, Outcome.FAILED, "no", NOW)
    assert operations.locks(db) == {}
    assert begin(db, host).active


def test_a_lock_cannot_outlive_its_operation_nor_its_secrets(db: Db) -> None:
    """Whoever writes an outcome, by any statement, frees the lock and wipes key, token and answer."""
    host = register(db)
    operation = begin(db, host)
    operations.keep_key(db, operation.id, SealedKey(public_line="ssh-ed25519 AAAA", sealed=b"sealed"))
    operations.keep_answer(
        db,
        operation.id,
        sealed=b"answer",
        token_hash=b"hash",
        to="192.0.2.9 x",
        management_mac=A,
        at=NOW,
    )
    assert operations.answer(db, operation.id) is not None
    db.execute("UPDATE operations SET outcome = 'failed', finished_at = 'now' WHERE id = ?", (operation.id,))
    assert operations.locks(db) == {}
    assert operations.key(db, operation.id) is None
    assert operations.answer(db, operation.id) is None
    assert operations.token_hash(db, operation.id) is None


def test_the_schema_refuses_a_second_active_operation(db: Db) -> None:
    """The unique index stands behind the check in Python."""
    host = register(db)
    begin(db, host)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(
            """INSERT INTO operations (host_id, hostname, kind, started_by, started_at)
               VALUES (?, 'x', 'rebuild', 'x', 'x')""",
            (host.id,),
        )


def test_an_outcome_is_written_once(db: Db) -> None:
    """A later outcome does not rewrite history."""
    operation = begin(db, register(db))
    operations.close(db, operation.id, Outcome.CANCELLED, "first", NOW)
    operations.close(db, operation.id, Outcome.DONE, "second", NOW)
    assert operations.get(db, operation.id).outcome is Outcome.CANCELLED


def test_what_is_not_there_is_not_found(db: Db) -> None:
    """Unknown ids have an error of their own."""
    with pytest.raises(NotFound):
        hosts.get(db, HostId(7))
    with pytest.raises(NotFound):
        operations.get(db, OperationId(7))


def test_history_outlives_its_host(db: Db) -> None:
    """Removing a host keeps its operations and its activity, with the name it had."""
    host = register(db)
    operation = begin(db, host)
    activity.append(db, News(event="x", message="hello", host_id=host.id, operation_id=operation.id), NOW)
    operations.close(db, operation.id, Outcome.DONE, "", NOW)
    hosts.remove(db, host.id)
    assert operations.get(db, operation.id).host_id is None
    assert [line.hostname for line in activity.latest(db, 9, operation_id=operation.id)] == ["nuc1"]


def test_activity_ids_are_never_given_twice(db: Db) -> None:
    """After pruning everything the next id goes on, so that a late reader notices the gap."""
    assert activity.bounds(db) == (1, 0)
    for _ in range(3):
        activity.append(db, News(event="x", message="x"), NOW)
    assert activity.bounds(db) == (1, 3)
    activity.prune(db, NOW + activity.KEPT + timedelta(days=1))
    assert activity.bounds(db) == (4, 3)
    assert activity.append(db, News(event="x", message="x"), NOW).id == 4
    assert activity.bounds(db) == (4, 4)
    assert [line.id for line in activity.after(db, 0, 10)] == [4]


def test_what_is_ignored_stays_so(db: Db) -> None:
    """However often it is heard, and however many others are; its firmware is remembered."""
    hosts.note_sighting(db, A, "192.0.2.1", "dhcp", NOW, "UEFI x64")
    assert hosts.ignore_sighting(db, A, True)
    assert not hosts.ignore_sighting(db, A, True)
    for number in range(hosts.SIGHTINGS_KEPT + 5):
        mac = Mac(f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}")
        hosts.note_sighting(db, mac, "192.0.2.3", "dhcp", NOW + timedelta(minutes=1))
    hosts.note_sighting(db, A, "192.0.2.1", "http", NOW)
    [ignored] = [seen for seen in hosts.sightings(db) if seen.ignored]
    assert (ignored.mac, ignored.firmware, ignored.times) == (A, "UEFI x64", 2)
    assert len(hosts.sightings(db)) == hosts.SIGHTINGS_KEPT + 1
    assert hosts.ignore_sighting(db, A, False)
    assert not any(seen.ignored for seen in hosts.sightings(db))
    with pytest.raises(NotFound):
        hosts.ignore_sighting(db, Mac("02:00:00:02:00:00"), True)


def test_what_is_ignored_is_bounded_too(db: Db) -> None:
    """Whoever was silent longest is forgotten, not whoever was named just now; the others do not count."""

    def number(count: int) -> Mac:
        return Mac(f"02:00:00:01:{count >> 8:02x}:{count & 255:02x}")

    def ignored() -> set[Mac]:
        return {seen.mac for seen in hosts.sightings(db) if seen.ignored}

    for count in range(hosts.SIGHTINGS_KEPT + 1):
        hosts.note_sighting(db, number(count), "192.0.2.3", "dhcp", NOW - timedelta(minutes=count))
        hosts.ignore_sighting(db, number(count), True)
    everyone = {number(count) for count in range(hosts.SIGHTINGS_KEPT + 1)}
    assert ignored() == everyone - {number(hosts.SIGHTINGS_KEPT - 1)}
    hosts.note_sighting(db, A, "192.0.2.1", "dhcp", NOW + timedelta(minutes=1))
    assert A in {seen.mac for seen in hosts.sightings(db)}
    assert len(ignored()) == hosts.SIGHTINGS_KEPT


def test_firmware_is_known_until_another_is_heard(db: Db) -> None:
    """A contact that does not tell it changes nothing; a machine whose set-up was changed is believed."""
    for said, known in (("", ""), ("BIOS", "BIOS"), ("", "BIOS"), ("UEFI x64", "UEFI x64")):
        hosts.note_sighting(db, A, "192.0.2.1", "dhcp", NOW, said)
        assert [seen.firmware for seen in hosts.sightings(db)] == [known]


def test_whoever_was_a_host_is_a_new_face(db: Db) -> None:
    """A machine that was ignored, registered and removed is shown when it is heard again."""
    hosts.note_sighting(db, A, "192.0.2.1", "dhcp", NOW)
    hosts.ignore_sighting(db, A, True)
    hosts.remove(db, register(db, "nuc1", A).id)
    assert hosts.note_sighting(db, A, "192.0.2.1", "dhcp", NOW)
    assert [seen.ignored for seen in hosts.sightings(db)] == [False]


def test_sightings_are_counted_and_bounded(db: Db) -> None:
    """A stranger who invents MACs pushes out the oldest, not the database."""
    assert hosts.note_sighting(db, A, "192.0.2.1", "dhcp", NOW)
    assert not hosts.note_sighting(db, A, "192.0.2.2", "http", NOW + timedelta(seconds=1))
    assert [(seen.times, seen.address) for seen in hosts.sightings(db)] == [(2, "192.0.2.2")]
    for number in range(hosts.SIGHTINGS_KEPT + 5):
        mac = Mac(f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}")
        hosts.note_sighting(db, mac, "192.0.2.3", "dhcp", NOW + timedelta(minutes=1))
    assert len(hosts.sightings(db)) == hosts.SIGHTINGS_KEPT
    assert A not in {seen.mac for seen in hosts.sightings(db)}


def test_registering_ends_the_sighting(db: Db) -> None:
    """A known machine is not listed among the unknown ones."""
    hosts.note_sighting(db, A, "192.0.2.1", "dhcp", NOW)
    register(db, "nuc1", A)
    assert hosts.sightings(db) == []
