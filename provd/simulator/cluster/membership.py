"""What adding and removing a node does to the cluster's configuration, and when it is refused.

Pure: changes the state it is handed and nothing else. Order of the checks and their texts are those of
pve-cluster 8.1 to 9.1 (PVE::API2::ClusterConfig, addnode and delnode).
"""

import re

from attrs import Factory, frozen

from provd.simulator.cluster.state import ClusterNode, ClusterState

JOIN_API_VERSION = 1
NO_CONFIG = "Error: Corosync config '/etc/pve/corosync.conf' does not exist - is this node part of a cluster?"
LOCK_TIMEOUT = "cfs-lock 'file-corosync_conf' error: got lock request timeout"
LOCK_NO_QUORUM = "cfs-lock 'file-corosync_conf' error: no quorum!"
LOCK_WAITING = "trying to acquire cfs lock 'file-corosync_conf' ..."
LOCAL_LOCK_TIMEOUT = "can't lock file '/var/lock/pvecm.lock' - got timeout"
NO_QUORUM = "cluster not ready - no quorum?"


class Refused(Exception):
    """The cluster says no. `errors` are the details, by parameter."""

    def __init__(self, message: str, errors: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or {}


@frozen(kw_only=True)
class AddRequest:
    name: str
    apiversion: int = 0
    links: dict[str, str] = Factory(dict)  # link number to address
    new_node_ip: str | None = None
    nodeid: int | None = None
    votes: int | None = None
    force: bool = False


def check_ready(state: ClusterState, apiversion: int = JOIN_API_VERSION) -> None:
    """What is looked at before the lock is asked for."""
    if apiversion < 0:
        raise Refused(
            f"error: unsupported old API version on joining node ({apiversion}), cluster node has"
            f" {JOIN_API_VERSION} and supports >= 0. Please upgrade node before joining"
        )
    if state.name is None:
        raise Refused(NO_CONFIG)
    if not state.quorate:
        raise Refused(NO_QUORUM)


def lock_failure(state: ClusterState) -> str:
    """The text for a lock that did not come free in time; a cluster of one has only the local lock."""
    if len(state.nodes) == 1:
        return LOCAL_LOCK_TIMEOUT
    return LOCK_TIMEOUT if state.quorate else LOCK_NO_QUORUM


def add_node(state: ClusterState, request: AddRequest) -> bool:
    """Enter the newcomer, offline; the votes it brings count at once. True: an old entry was overwritten."""
    links = _links_of_newcomer(state, request)
    old = state.nodes.get(request.name)
    nodeid = request.nodeid or (old.nodeid if old else _lowest_free_id(state))
    votes = request.votes if request.votes is not None else (old.votes if old else 1)
    if old and not (request.force and (nodeid, votes) == (old.nodeid, old.votes)):
        raise Refused(f"can't add existing node '{request.name}'")
    if not old and nodeid in {node.nodeid for node in state.nodes.values()}:
        raise Refused(f"corosync: nodeid {nodeid} already used")
    if state.faults.addnode_errors:
        raise Refused("invalid corosync.conf", dict(state.faults.addnode_errors))
    newcomer = ClusterNode(nodeid=nodeid, votes=votes, links=links)
    if old:  # known to the others, though its machine is a new one
        newcomer.seen = old.seen
    state.nodes[request.name] = newcomer
    _reconfigured(state)
    return old is not None


def _links_of_newcomer(state: ClusterState, request: AddRequest) -> dict[str, str]:
    wanted = {number for node in state.nodes.values() for number in node.links}
    # The fallback address is not looked up among the others: the original does not either.
    for number, address in sorted(request.links.items()):
        for name, node in state.nodes.items():
            if name != request.name and node.links.get(number) == address:
                raise Refused(
                    f"corosync: address '{address}' already used on link ring{number}_addr by node '{name}'"
                )
    if request.links:
        for number in sorted(wanted - set(request.links)):
            raise Refused(
                f"corosync: link {number} exists in cluster config but wasn't specified for new node"
            )
        for number in sorted(set(request.links) - wanted):
            raise Refused(f"corosync: link {number} specified for new node doesn't exist in cluster config")
        return dict(request.links)
    if request.new_node_ip is None:
        raise Refused("no links and no fallback ip (new_node_ip) given, cannot join cluster")
    if len(wanted) > 1:
        raise Refused(
            "no links given but multiple links found on other nodes,"
            " fallback only supported on single-link clusters"
        )
    return {next(iter(wanted), "0"): request.new_node_ip}


def find_node(state: ClusterState, here: str, wanted: str) -> str:
    """The name of the member to remove, given by name or address; `here` is who is asked."""
    for name, node in state.nodes.items():
        if wanted == name or wanted in node.links.values():
            if name == here:
                raise Refused("Cannot delete myself from cluster!")
            return name
    raise Refused(f"Node/IP: {wanted} is not a known host of the cluster.")


def delete_node(state: ClusterState, name: str) -> ClusterNode:
    """Strike the member out; its directory, keys and guests stay, as they do in the original."""
    removed = state.nodes.pop(name)
    _reconfigured(state)
    return removed


def corosync_conf(state: ClusterState) -> str:
    """The text of /etc/pve/corosync.conf."""
    nodes = "".join(
        "  node {\n"
        f"    name: {name}\n    nodeid: {node.nodeid}\n    quorum_votes: {node.votes}\n"
        + "".join(f"    ring{number}_addr: {address}\n" for number, address in sorted(node.links.items()))
        + "  }\n\n"
        for name, node in sorted(state.nodes.items())
    )
    interfaces = "".join(
        f"  interface {{\n    linknumber: {number}\n  }}\n" for number in link_numbers(state)
    )
    return (
        "logging {\n  debug: off\n  to_syslog: yes\n}\n\n"
        f"nodelist {{\n{nodes.removesuffix(chr(10))}}}\n\n"
        "quorum {\n  provider: corosync_votequorum\n}\n\n"
        f"totem {{\n  cluster_name: {state.name}\n  config_version: {state.config_version}\n{interfaces}"
        "  ip_version: ipv4-6\n  link_mode: passive\n  secauth: on\n  version: 2\n}\n"
    )


def config_version_of(corosync_conf_text: str) -> int:
    found = re.search(r"^\s*config_version: (\d+)$", corosync_conf_text, re.MULTILINE)
    return int(found[1]) if found else 0


def link_numbers(state: ClusterState) -> list[str]:
    return sorted({number for node in state.nodes.values() for number in node.links}) or ["0"]


def _lowest_free_id(state: ClusterState) -> int:
    taken = {node.nodeid for node in state.nodes.values()}
    return next(number for number in range(1, len(taken) + 2) if number not in taken)


def _reconfigured(state: ClusterState) -> None:
    state.config_version += 1
    state.expected_votes = state.configured_votes
