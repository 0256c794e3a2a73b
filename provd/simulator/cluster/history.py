"""What became of a cluster, moment by moment: one line of JSON for every change of its members or votes.

It is written under the cluster's lock, so that no change can hide between two lines: a test that reads it
afterwards knows whether quorum was ever lost, and whether two members were ever on their way at once.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, frozen

from provd.simulator.cluster.state import ClusterState

ONLINE, OFFLINE = "online", "offline"
ENTERED = "entered"
"""Listed, with votes that count, while its machine has not become a member yet."""


@frozen(kw_only=True)
class Moment:
    time: float  # Unix time
    what: tuple[str, ...]  # sentences: what is different from the line before
    config_version: int
    expected_votes: int
    online_votes: int
    quorum: int
    quorate: bool
    nodes: Mapping[str, str]  # name to `online`, `offline` or `entered`

    @property
    def entering(self) -> frozenset[str]:
        """Whose join has begun and not ended."""
        return frozenset(name for name, condition in self.nodes.items() if condition == ENTERED)


def moment_of(state: ClusterState, now: float) -> Moment:
    return Moment(
        time=now,
        what=(),
        config_version=state.config_version,
        expected_votes=state.expected_votes,
        online_votes=state.online_votes,
        quorum=state.quorum,
        quorate=state.quorate,
        nodes={
            name: ENTERED if node.root is None else ONLINE if node.online else OFFLINE
            for name, node in state.nodes.items()
        },
    )


def record(log: Path, before: Moment, after: Moment) -> None:
    """Append `after`, unless it is what was there already. The caller holds the cluster's lock."""
    if evolve(after, time=before.time) == before:
        return
    line = json.dumps(asdict(evolve(after, what=_differences(before, after))))
    with log.open("a") as file:
        file.write(f"{line}\n")


def read(log: Path) -> list[Moment]:
    """Oldest first."""
    if not log.exists():
        return []
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    return [Moment(**line | {"what": tuple(line["what"])}) for line in lines]


def _differences(before: Moment, after: Moment) -> tuple[str, ...]:
    said = [f"{name} is struck out" for name in before.nodes if name not in after.nodes]
    for name, condition in after.nodes.items():
        if condition != before.nodes.get(name):
            said.append(f"{name} is {condition}")
    if after.expected_votes != before.expected_votes:
        said.append(f"{after.expected_votes} votes are expected")
    if after.online_votes != before.online_votes and not said:
        said.append(f"{after.online_votes} votes are there")
    if after.quorate != before.quorate:
        said.append("quorum is reached" if after.quorate else "quorum is lost")
    return tuple(said) or (f"the configuration is version {after.config_version}",)
