"""A call of the API after HTTP was taken off: what is asked, by whom, and what the asked node sees."""

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, Protocol

from attrs import define, frozen

from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.options import Check, Value
from provd.simulator.cluster.state import ClusterState
from provd.simulator.cluster.tasks import Upid
from provd.simulator.cluster.tickets import ApiError, Authority, Caller

PMXCFS_DOWN = "ipcc_send_rec[1] failed: Connection refused"
MISSING = "property is missing and it is not optional"
UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"


class Tasks(Protocol):
    """Starts what outlives the request."""

    async def start_join(self, machine: Machine, words: list[str], password: str) -> Upid: ...


@frozen
class View:
    """What the answering node sees: its cluster, or itself alone."""

    state: ClusterState
    pve: Path
    node: str
    machine: Machine
    cluster: Cluster

    @property
    def authority(self) -> Authority:
        """Raise `ApiError` if /etc/pve goes away at this moment."""
        try:
            return Authority(self.pve, self.state)
        except FileNotFoundError as exc:
            raise ApiError(500, PMXCFS_DOWN) from exc


@define(kw_only=True)
class Request:
    view: View
    caller: Caller
    tasks: Tasks
    parameters: Mapping[str, str]
    arguments: Mapping[str, str]  # the named parts of the path
    method: str = "GET"

    @property
    def state(self) -> ClusterState:
        return self.view.state

    def checked(self, required: Mapping[str, Check], optional: Mapping[str, Check]) -> dict[str, Value]:
        """The parameters, parsed; raise `ApiError` 400 that names every culprit."""
        checks = {**required, **optional}
        wrong = {name: MISSING for name in required if name not in self.parameters}
        values: dict[str, Value] = {}
        for name, value in self.parameters.items():
            if name not in checks:
                wrong[name] = UNKNOWN
                continue
            try:
                values[name] = checks[name](value)
            except ValueError as problem:
                wrong[name] = str(problem)
        if wrong:
            fail_parameters(wrong)
        return values


def fail_parameters(wrong: dict[str, str]) -> NoReturn:
    raise ApiError(400, "Parameter verification failed.", wrong)
