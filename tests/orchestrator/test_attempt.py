"""The last attempt to build a host, from history alone."""

from datetime import UTC, datetime, timedelta

from provd.domain.activity import Activity
from provd.domain.contacts import Hop
from provd.orchestrator.attempt import Goal, passed

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def lines(*events: str) -> list[Activity]:
    """A line a minute."""
    return [
        Activity(id=number, at=START + timedelta(minutes=number), event=event, message=f"line {number}")
        for number, event in enumerate(events)
    ]


def test_only_what_a_machine_passed_counts() -> None:
    """Talk, warnings and other facts are no stops."""
    found = passed(
        lines("operation.started", "boot.missing_hop", "boot.flood", "host.rebuild_started", "boot.loader")
    )
    assert list(found) == [Hop.LOADER]
    assert (found[Hop.LOADER].message, found[Hop.LOADER].last) == ("line 4", START + timedelta(minutes=4))


def test_what_is_passed_again_is_counted() -> None:
    """With when it was first and last."""
    station = passed(lines("boot.discover", "boot.discover", "boot.discover"))[Hop.DISCOVER]
    assert (station.times, station.first, station.last) == (3, START, START + timedelta(minutes=2))


def test_a_machine_that_is_switched_on_again_begins_anew() -> None:
    """As long as it has no answer: what it had passed before is no way to the end."""
    found = passed(lines("boot.discover", "boot.loader", "host.script_fetched", "boot.discover", "boot.ipxe"))
    assert list(found) == [Hop.DISCOVER, Hop.IPXE]
    assert found[Hop.DISCOVER].times == 1


def test_a_boot_from_its_own_disk_is_no_part_of_it() -> None:
    """After the answer the machine is heard at the first stations again, on its way to its new system."""
    found = passed(
        lines(
            "boot.discover",
            "host.script_fetched",
            "host.answer_sent",
            "boot.discover",
            "boot.loader",
            "host.script_fetched",
            "host.install_reported",
            "host.phoned_home",
            "host.join_started",
            "host.completed",
        )
    )
    way = [Hop.DISCOVER, Hop.SCRIPT, Hop.ANSWER, Hop.REPORT, Hop.PHONE_HOME, Goal.JOIN, Goal.READY]
    assert list(found) == way
    assert {station.times for station in found.values()} == {1}
