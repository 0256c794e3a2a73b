"""The tables of `pvecm status` and `pvecm nodes`, byte for byte: automation reads them."""

import time

from attrs import frozen

from provd.simulator.cluster.state import ClusterNode, ClusterState


@frozen
class Partition:
    """The part of the cluster that one member sees: everybody online, or itself alone."""

    state: ClusterState
    me: str

    @property
    def nodes(self) -> dict[str, ClusterNode]:
        everybody = self.state.nodes
        if self.me not in everybody or not everybody[self.me].online:
            return {self.me: everybody[self.me]} if self.me in everybody else {}
        return {name: node for name, node in everybody.items() if node.online}

    @property
    def votes(self) -> int:
        return sum(node.votes for node in self.nodes.values()) + bool(self.state.qdevice)

    @property
    def quorate(self) -> bool:
        return self.votes >= self.state.quorum and not self.state.faults.peer_no_quorum


def cluster_information(state: ClusterState) -> str:
    return (
        "Cluster information\n-------------------\n"
        f"Name:             {state.name}\n"
        f"Config Version:   {state.config_version}\n"
        "Transport:        knet\n"
        "Secure auth:      on\n\n"
    )


def quorum_information(partition: Partition) -> str:
    state, nodes = partition.state, partition.nodes
    lowest = min((node.nodeid for node in nodes.values()), default=0)
    flags = [*(["Quorate"] if partition.quorate else []), *(["Qdevice"] if state.qdevice else [])]
    return (
        "Quorum information\n------------------\n"
        f"Date:             {time.ctime()}\n"
        "Quorum provider:  corosync_votequorum\n"
        f"Nodes:            {len(nodes)}\n"
        f"Node ID:          0x{nodes[partition.me].nodeid if nodes else 0:08x}\n"
        f"Ring ID:          {lowest:x}.{4 * (state.config_version + len(nodes)):x}\n"
        f"Quorate:          {'Yes' if partition.quorate else 'No'}\n\n"
        "Votequorum information\n----------------------\n"
        f"Expected votes:   {state.expected_votes}\n"
        f"Highest expected: {state.expected_votes}\n"
        f"Total votes:      {partition.votes}\n"
        f"Quorum:           {state.quorum} {' ' if partition.quorate else 'Activity blocked'}\n"
        f"Flags:            {''.join(f'{flag} ' for flag in flags)}\n\n"
    )


def membership(partition: Partition, *, by_address: bool) -> str:
    """With hexadecimal ids and addresses (`status`), or decimal ids and names (`nodes`)."""
    qdevice = bool(partition.state.qdevice)
    extra = f" {'Qdevice':>10}" if qdevice else ""
    lines = [f"    Nodeid      Votes{extra} Name"]
    for name, node in partition.nodes.items():
        nodeid = f"0x{node.nodeid:08x}" if by_address else f"{node.nodeid:>10}"
        shown = node.ring0_addr if by_address else name
        column = f" {'A,V,NMW':>10}" if qdevice else ""
        local = " (local)" if name == partition.me else ""
        lines.append(f"{nodeid} {node.votes:>10}{column} {shown}{local}")
    if qdevice:
        lines.append(f"{'0x00000000' if by_address else '         0'} {1:>10}            Qdevice")
    return "Membership information\n----------------------\n" + "".join(f"{line}\n" for line in lines)


def links(partition: Partition) -> str:
    """`corosync-cfgtool -s`."""
    state, me = partition.state, partition.me
    text = f"Local node ID {state.nodes[me].nodeid}, transport knet\n"
    for number, address in sorted(state.nodes[me].links.items()):
        text += f"LINK ID {number} udp\n\taddr\t= {address}\n\tstatus:\n"
        for name, node in state.nodes.items():
            met = "connected" if name in partition.nodes else "disconnected"
            text += f"\t\tnodeid:          {node.nodeid}:\t{'localhost' if name == me else met}\n"
    return text
