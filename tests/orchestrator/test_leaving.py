"""How a member leaves: of running members, over real SSH and HTTPS, with the turn that it needs."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from attrs import define

from orchestrator.cluster_admin_lab import KILL_OWN_SSHD, PASSWORD, Lab, open_admin
from provd.domain.errors import ClusterFailed
from provd.domain.hosts import HostOptions, Mac
from provd.domain.operations import Departure, Kind, Operation, Stage, Wish
from provd.orchestrator import entering
from provd.orchestrator.fleet import Change
from provd.orchestrator.membership import leaving
from provd.orchestrator.membership.leaving import Leaving
from provd.orchestrator.membership.striking import Leaver
from provd.orchestrator.membership.turns import Turns
from provd.orchestrator.operations import CLEAN_UP_SECONDS
from provd.store import departures, hosts, operations

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@define
class Room:
    lab: Lab
    turns: Turns
    leaving: Leaving

    async def leaver(self, name: str, stage: Stage = Stage.RELEASED) -> Leaver:
        """An operation that takes `name` out of the cluster, which is at `stage`."""
        member = (await self.lab.admin.look(PASSWORD, beside="nobody")).node(name)
        assert member is not None

        def begin(change: Change) -> Operation:
            mac = Mac(f"02:00:00:00:00:0{member.nodeid}")
            host = hosts.register(change.db, name, mac, "nuc", HostOptions(), NOW)
            operation = operations.open_(change.db, host, Kind.REBUILD, "a test", NOW)
            departures.put(change.db, operation.id, Departure.of(member, Wish(member=member)))
            departures.set_stage(change.db, operation.id, stage)
            return operation

        operation = await self.lab.fleet.change(begin)
        assert operation.host_id is not None
        return Leaver(operation=operation, host_id=operation.host_id, node=name, password=PASSWORD)

    def departure(self, who: Leaver) -> Departure:
        departure = self.leaving.of(who.operation.id)
        assert departure is not None
        return departure

    def nodes(self) -> list[str]:
        return sorted(self.lab.cluster.read().nodes)

    def root(self, name: str) -> Path:
        return self.lab.members.members[name].root

    def always_quorate(self) -> bool:
        return all(moment.quorate for moment in self.lab.cluster.history())

    async def until_told(self, words: str) -> None:
        while True:
            ring = self.lab.fleet.bell.next()
            if any(words in line for line in self.lab.told()):
                return
            await ring.wait()


@pytest.fixture(params=[3], ids=["three"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    async with open_admin(tmp_path, request.param) as lab:
        turns = Turns(lab.fleet)
        yield Room(lab, turns, Leaving(lab.fleet, turns, lab.admin))


@pytest.mark.parametrize("room", [2, 3], indirect=True, ids=["two", "three"])
async def test_a_member_that_runs_leaves_and_restarts(room: Room) -> None:
    """Disarmed, struck out, tidied up after; the others are quorate throughout, and the turn is free."""
    who = await room.leaver("pve2")
    assert await room.leaving.leave_running(who, room.departure(who))
    assert "pve2" not in room.nodes()
    assert room.departure(who).stage is Stage.LEFT
    assert room.turns.holder() is None
    assert not (room.root("pve2") / "etc/corosync/authkey").exists()
    assert not (room.lab.cluster.pve / "nodes/pve2").exists()
    assert room.always_quorate()
    await room.until_told("was restarted")
    with trio.fail_after(20):
        while "systemctl reboot" not in room.lab.calls("pve2"):
            await trio.sleep(0.05)
    await room.leaving.leave_when_off(who, room.departure(who))  # nothing is left to do
    assert room.turns.holder() is None


async def test_it_changes_nothing_while_it_is_somebody_elses_turn(room: Room) -> None:
    """Also where the daemon was restarted after the turn had been given back: it waits for it again."""
    who, other = await room.leaver("pve2"), await room.leaver("pve3", Stage.ASKED)
    assert await room.lab.store.write(lambda db: departures.take_turn(db, other.operation.id, NOW))
    for leave in (
        lambda: room.leaving.leave_running(who, room.departure(who)),
        lambda: room.leaving.leave_for_good(who),
        lambda: room.leaving.leave_when_off(who, room.departure(who)),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            with trio.move_on_after(1):
                await room.until_told("was struck out")
            nursery.cancel_scope.cancel()
        assert room.nodes() == ["pve1", "pve2", "pve3"]
        assert (room.root("pve2") / "etc/corosync/authkey").exists()
    turn = room.turns.holder()
    assert turn is not None
    assert turn.hostname == "pve3"


async def test_who_is_needed_is_not_struck_out(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another member went away since it was released: that one is named, and quorum is kept."""
    monkeypatch.setattr("provd.orchestrator.membership.striking.OFFLINE_SECONDS", 2)
    who = await room.leaver("pve2")
    await room.lab.off("pve3")
    with pytest.raises(ClusterFailed, match="bring pve3 back"):
        await room.leaving.leave_running(who, room.departure(who))
    assert room.nodes() == ["pve1", "pve2", "pve3"]
    assert room.always_quorate()

    await room.leaving.take_back(who, room.departure(who))
    assert (room.root("pve2") / "etc/corosync/authkey").exists()
    assert "the cluster services of pve2 run again" in room.lab.told()


async def test_who_cannot_be_disarmed_is_not_struck_out(room: Room) -> None:
    """It would come back. That is told, and it may be switched off instead."""
    (room.root("pve2") / "etc/corosync/disarmed-by-provd").write_text("in the way")
    who = await room.leaver("pve2")
    await room.leaving.leave_running(who, room.departure(who))
    assert room.nodes() == ["pve1", "pve2", "pve3"]
    assert room.departure(who).stage is Stage.RELEASED
    assert room.turns.holder() is None
    [told] = [line for line in room.lab.told() if "could not be disarmed" in line]
    assert told.startswith("pve2 cannot be taken out of the cluster while it runs")


async def test_one_that_has_left_and_does_not_restart(room: Room) -> None:
    """It is out, and a human is asked to restart it; nobody waits for it to leave once more."""
    shell = room.root("pve2") / "usr/local/sbin/sh"
    head = '#!/bin/sh\ncase "$*" in *" reboot") ;; *) exec /bin/sh "$@";; esac\n'
    shell.write_text(head + KILL_OWN_SSHD)
    shell.chmod(0o755)
    who = await room.leaver("pve2")
    assert not await room.leaving.leave_running(who, room.departure(who))
    assert room.nodes() == ["pve1", "pve3"]
    *_, advice, left = room.lab.told()
    assert advice.startswith("pve2 has left the cluster; restart it, or switch it off, by hand: ")
    assert left == "pve2 is out of the cluster"


async def test_one_that_is_off_is_struck_out(room: Room) -> None:
    """And tidied up after; a second time is no harm."""
    who = await room.leaver("pve2")
    await room.lab.off("pve2")
    await room.leaving.leave_running(who, room.departure(who))
    assert "pve2" in room.nodes()
    for _ in range(2):
        await room.leaving.leave_when_off(who, room.departure(who))
        assert room.nodes() == ["pve1", "pve3"]
    assert room.departure(who).stage is Stage.LEFT
    assert room.turns.holder() is None
    assert room.always_quorate()


def test_there_is_time_to_say_that_nobody_answers() -> None:
    """A machine that is off swallows packets: what is told of it then is told within the cleaning up."""
    assert leaving.KNOCK_SECONDS + entering.CLUSTER_SECONDS < CLEAN_UP_SECONDS


@pytest.mark.parametrize("room", [2], indirect=True, ids=["two"])
async def test_the_last_one_is_told_to_be_content(room: Room) -> None:
    """A cluster of two whose other half is off has no quorum to strike it out with, until it is told so."""
    who = await room.leaver("pve2")
    await room.lab.off("pve2")
    await room.leaving.leave_when_off(who, room.departure(who))
    assert room.nodes() == ["pve1"]
    assert room.lab.cluster.read().quorate
    assert any("content with their own 1 votes" in line for line in room.lab.told())


async def test_votes_are_not_lowered_while_another_is_missing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might run elsewhere, and the cluster would be two; it is named instead."""
    monkeypatch.setattr("provd.orchestrator.membership.striking.OFFLINE_SECONDS", 2)
    who = await room.leaver("pve2")
    await room.lab.off("pve2")
    await room.lab.off("pve3")
    with pytest.raises(ClusterFailed, match="bring pve3 back"):
        await room.leaving.leave_when_off(who, room.departure(who))
    assert room.nodes() == ["pve1", "pve2", "pve3"]
    assert room.lab.cluster.read().expected_votes == 3
