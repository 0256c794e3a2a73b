"""What must hold of a cluster's whole history, whatever happened; each rule raises `AssertionError`.

Quorum is lost by somebody: by whoever took away the node that was missed, or entered one that has not come
yet. provd looks before it acts, and the world may change between the two: what was taken away by somebody
else within `HASTE` before its act it could not know.
"""

import re
from collections import Counter
from itertools import pairwise

from endtoend.membership_plan import Play, turns
from provd.simulator.cluster.history import ENTERED, OFFLINE, ONLINE, Moment

HASTE = 5.0
"""Seconds between provd's look at a cluster and what it does there, on a busy machine."""

WAY_ON = re.compile(r"`[^`]+`|\b(proxmox|credentials|deadlines|ssh)\.\w+|Retry from join|\brebuild\b")


def check(play: Play) -> None:
    quorum_is_never_lost_by_provd(play)
    members_change_one_at_a_time(play)
    every_failure_has_a_way_on(play)
    nothing_is_locked(play)
    disks_are_wiped_only_when_asked(play)
    who_is_ready_is_a_member(play)
    assert "Traceback" not in play.world.log.read_text()


def quorum_is_never_lost_by_provd(play: Play) -> None:
    history = play.world.cluster.history()[play.world.begun :]
    for before, after in pairwise(history):
        if before.quorate and not after.quorate:
            assert _is_excused(play, before, after), (
                f"provd cost the cluster its quorum: {after.what}, {dict(before.nodes)} became"
                f" {dict(after.nodes)}, {after.online_votes} of {after.expected_votes} votes"
            )


def _is_excused(play: Play, before: Moment, after: Moment) -> bool:
    gone = {name for name in before.nodes if before.nodes[name] == ONLINE != after.nodes.get(name)}
    entered = {name for name in after.nodes if after.nodes[name] == ENTERED != before.nodes.get(name)}
    if any(event.begun <= after.time <= event.over + 0.5 for event in play.events):
        return True  # it was our hand
    if entered and len(after.nodes.keys() - entered) == 1:
        return True  # the only member waits for the newcomer, whatever is done
    decided = min([after.time, *(_released(play, name, after.time) for name in gone)]) - HASTE
    unforeseen = {event.node for event in play.events if decided <= event.over <= after.time}
    missing = [name for name in unforeseen if after.nodes.get(name) == OFFLINE]
    return after.online_votes + len(missing) >= after.quorum


def _released(play: Play, node: str, before: float) -> float:
    """When provd last said that `node` may go away: the first turn of its operation."""
    own = [turn for turn in turns(play.world) if turn.hostname == node and turn.begun <= before]
    return min((turn.begun for turn in own if turn.operation == own[-1].operation), default=before)


def members_change_one_at_a_time(play: Play) -> None:
    """Each in a turn of its own operation; and who was entered comes online in that same turn, or never."""
    seen = turns(play.world)
    for earlier, later in pairwise(seen):
        assert earlier.over <= later.begun, seen
    for before, after in pairwise(play.world.cluster.history()[play.world.begun :]):
        changed = {name for name in before.nodes if name not in after.nodes}
        for name, now in after.nodes.items():
            was = before.nodes.get(name)
            if now == ENTERED != was or (was, now) == (ENTERED, ONLINE):
                changed.add(name)
        for name in changed:
            assert any(
                turn.hostname == name and turn.begun - 0.2 <= after.time <= turn.over + 0.2 for turn in seen
            ), f"{after.what} at {after.time}, while the turns were {seen}"


def every_failure_has_a_way_on(play: Play) -> None:
    for hostname, outcome, detail in play.world.rows("SELECT hostname, outcome, detail FROM operations"):
        assert outcome is not None
        assert outcome == "done" or detail, hostname
        assert "a bug in provd" not in detail
        if outcome == "failed":
            assert WAY_ON.search(detail), f"no way on for {hostname}: {detail}"


def nothing_is_locked(play: Play) -> None:
    assert play.world.rows("SELECT * FROM locks") == []


def disks_are_wiped_only_when_asked(play: Play) -> None:
    wipes = Counter(
        {host["hostname"]: machine.wipes() for host, machine in zip(play.hosts, play.machines, strict=True)}
    )
    assert not wipes - Counter(play.accepted), f"{wipes}, asked for were {play.accepted}"


def who_is_ready_is_a_member(play: Play) -> None:
    """Everything is mended: whom provd calls ready is online, and so is whom it never touched."""
    online = play.world.member_states()
    for hostname, state, touched in play.world.rows(
        "SELECT hostname, state, (SELECT count(*) FROM operations WHERE host_id = hosts.id) FROM hosts"
    ):
        veteran = hostname in {host["hostname"] for host in play.hosts[: play.plan.veterans]}
        if state == "ready" or (veteran and not touched):
            assert online.get(hostname), f"{hostname} is {state}, and the cluster has {online}"
    for name in play.world.members:
        assert online.get(name), f"{name} is no member any more: {online}"
