"""What the API answers, path by path: a table, and one function per line of it.

Knows nothing of HTTP but status codes; `api.py` carries the words. Shapes and texts are those of PVE 8.1 to
9.2 (PVE::API2::Cluster, PVE::API2::ClusterConfig and their neighbours).
"""

import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import trio
from attrs import define, frozen

from provd.simulator.cluster import certificates, leaves
from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.membership import (
    JOIN_API_VERSION,
    AddRequest,
    Refused,
    add_node,
    check_ready,
    corosync_conf,
    delete_node,
    find_node,
    link_numbers,
    lock_failure,
)
from provd.simulator.cluster.options import COMMANDS, Check, boolean, fingerprint, link_address, text
from provd.simulator.cluster.pvecm import kill_corosync
from provd.simulator.cluster.state import ClusterNode, ClusterState
from provd.simulator.cluster.tasks import Upid, exit_status, process_start
from provd.simulator.cluster.tickets import ROOT, ApiError, Authority, Caller, token_in

type_of_missing = "property is missing and it is not optional"


class Tasks(Protocol):
    """Starts what outlives the request."""

    async def join(self, machine: Machine, words: list[str], password: str) -> Upid: ...


@frozen
class View:
    """What the answering node sees: the cluster, or itself alone."""

    state: ClusterState
    pve: Path
    node: str
    machine: Machine
    cluster: Cluster


@define(kw_only=True)
class Request:
    method: str
    path: str
    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    view: View
    caller: Caller
    tasks: Tasks
    arguments: Mapping[str, str]

    @property
    def state(self) -> ClusterState:
        return self.view.state


Handler = Callable[[Request], Any | Awaitable[Any]]


@frozen
class Route:
    method: str
    pattern: re.Pattern[str]
    access: str  # "world", "any", "root", or a privilege on /
    handler: Handler
