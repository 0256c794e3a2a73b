"""Whatever happens to a cluster that provd works on, it is never worse off by that.

Plans are random, the same in every run; PROVD_EXAMPLES=N plays N others, longer ones and different each time,
and shrinks the one that fails. A plan that failed is printed, and can be added below as an example. One takes
about half a minute.
"""

import os
import tempfile
from pathlib import Path

import trio
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from endtoend.membership_plan import (
    JOIN_FAULTS,
    Cancel,
    CutPower,
    Decommission,
    Down,
    JoinFault,
    KillDaemon,
    Listen,
    LockBusy,
    Plan,
    Play,
    PowerOn,
    Rebuild,
    Rejoin,
    Step,
    Up,
)
from endtoend.membership_rules import check
from endtoend.world import open_world

EXAMPLES = int(os.environ.get("PROVD_EXAMPLES") or 0)

MACHINE = st.integers(0, 2)
MEMBER = st.integers(0, 3)
LISTEN = st.builds(Listen, st.integers(1, 12))
RARELY = st.sampled_from([False, False, False, True])
REBUILD = st.builds(Rebuild, MACHINE, keep_entry=RARELY, force=RARELY)

# Repeated is what shall come more often: without rebuilds nothing happens, without pauses everything at once.
STEPS: st.SearchStrategy[Step] = st.one_of(
    REBUILD,
    REBUILD,
    REBUILD,
    LISTEN,
    LISTEN,
    LISTEN,
    st.builds(Cancel, MACHINE),
    st.builds(Rejoin, MACHINE),
    st.builds(Decommission, MACHINE),
    st.builds(CutPower, MACHINE),
    st.builds(PowerOn, MACHINE),
    st.builds(Down, MEMBER),
    st.builds(Up, MEMBER),
    st.builds(KillDaemon),
    st.builds(LockBusy, st.booleans()),
    st.builds(JoinFault, st.sampled_from(sorted(JOIN_FAULTS))),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    members = draw(st.integers(1, 4))
    veterans = draw(st.integers(0, 3))
    newcomers = draw(st.integers(0 if veterans else 1, 1 if veterans < 3 else 0))
    steps = draw(st.lists(STEPS, min_size=6, max_size=8 if not EXAMPLES else 14))
    return Plan(members, veterans, newcomers, draw(st.booleans()), tuple(steps))


async def play(plan: Plan, directory: Path) -> None:
    async with open_world(directory, members=plan.members, trusted=plan.trusted) as world:
        told = Play(world, plan)
        await told.run()
        check(told)


@settings(
    max_examples=EXAMPLES or 3,
    derandomize=not EXAMPLES,
    database=None,
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
@example(  # a vote whose entry stays is expected all the time that its node is away
    Plan(1, 1, 0, True, (Rebuild(0, keep_entry=True, force=True), Listen(12)))
)
@example(  # the turn outlives the daemon, and members that go down meanwhile are missed before the join
    Plan(3, 0, 1, True, (Rebuild(0), Listen(12), KillDaemon(), Down(1), Listen(9), Up(1), Rejoin(0)))
)
@example(  # disarmed, offline, and not struck out: it is taken back, and leaves again
    Plan(
        4, 1, 0, True, (LockBusy(True), Rebuild(0), Listen(9), KillDaemon(), Cancel(0), Listen(6), Rebuild(0))
    )
)
@given(plans())
def test_a_cluster_is_never_worse_off(plan: Plan) -> None:
    """Quorum, turns, addresses, keys, wipes, and a way on for whoever reads that something failed."""
    with tempfile.TemporaryDirectory() as directory:
        trio.run(play, plan, Path(directory))
