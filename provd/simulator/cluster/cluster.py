"""One simulated cluster: a directory that its members' processes and the tests share.

`cluster.json` is the state, `pve/` what every quorate member sees as /etc/pve, `authkey` corosync's key,
`members/` the machines that were there from the start. Corosync's messages do not exist: whoever would have
sent one changes the state.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provd.simulator.cluster import leaves
from provd.simulator.cluster.locked import exclusive, read_document, replace_file, write_document
from provd.simulator.cluster.machine import install_pve_tools
from provd.simulator.cluster.membership import corosync_conf
from provd.simulator.cluster.state import ClusterNode, ClusterState


class Cluster:
    """A handle, cheap to make; any number of them, in any number of processes, see the same cluster."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pve = directory / "pve"

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        name: str | None = "lab",
        first_node: str = "pve1",
        ip: str,
        api_port: int = 0,
        root_password: str = "secret",
        profile: str = "pve91",
    ) -> "Cluster":
        """A cluster of one online member; `name=None` is a machine that is in no cluster.

        `api_port` 0 lets the first API server choose a free port, which all members then use.
        """
        from provd.simulator.cluster import certificates

        cluster = cls(directory.resolve())
        (cluster.pve / "priv").mkdir(mode=0o700, parents=True)
        (cluster.pve / "nodes").mkdir()
        certificates.create_authority(cluster.pve)
        replace_file(cluster.pve / "priv" / "authkey.key", secrets.token_bytes(32), 0o600)
        replace_file(cluster.pve / "priv" / "authorized_keys", b"", 0o600)
        replace_file(cluster.directory / "authkey", secrets.token_bytes(256), 0o600)
        state = ClusterState(name=name, api_port=api_port, profile=profile)
        write_document(cluster.document, state.dump())
        cluster.add_member(first_node, ip, root_password=root_password)
        return cluster

    @classmethod
    def open(cls, directory: Path) -> "Cluster":
        """Raise FileNotFoundError where there is no cluster."""
        cluster = cls(directory.resolve())
        cluster.read()
        return cluster

    @property
    def document(self) -> Path:
        return self.directory / "cluster.json"

    def read(self) -> ClusterState:
        """The state now, as a copy: to change it changes nothing."""
        return ClusterState.load(read_document(self.document))

    @contextmanager
    def edit(self) -> Iterator[ClusterState]:
        """Change the state; others see all of it when the block ends, or nothing if it raises.

        The block holds a lock across processes: no await inside.
        """
        with exclusive(self.document):
            state = self.read()
            yield state
            self._write_files(state)
            write_document(self.document, state.dump())

    def add_member(self, name: str, ip: str, *, root_password: str = "secret", online: bool = True) -> Path:
        """Add a member that has always been there; returns its machine root, where `pvecm` is installed."""
        from provd.simulator.cluster import certificates

        root = self.directory / "members" / name
        certificates.issue_leaf(self.pve, name, ip)
        with self.edit() as state:
            taken = {node.nodeid for node in state.nodes.values()}
            state.nodes[name] = ClusterNode(
                nodeid=0 if state.name is None else max(taken, default=0) + 1,
                links={"0": ip},
                online=online,
                seen=True,
                root=str(root),
                root_password=root_password,
            )
            state.config_version += bool(taken)
            state.expected_votes = state.configured_votes
        install_pve_tools(root, cluster_dir=self.directory, hostname=name, ip=ip, joined=True)
        return root

    def fingerprint(self, node: str) -> str:
        """Of the certificate that `node` serves now. Raises FileNotFoundError for a node without one."""
        return leaves.served_fingerprint(self.pve, node)

    def authorized_keys(self) -> list[str]:
        """The lines of the file that makes someone root on every member."""
        return (self.pve / "priv" / "authorized_keys").read_text().splitlines()

    def machine_root(self, node: str) -> Path | None:
        root = self.read().nodes[node].root
        return Path(root) if root else None

    def _write_files(self, state: ClusterState) -> None:
        if state.name is not None:
            replace_file(self.pve / "corosync.conf", corosync_conf(state).encode())
        for name, node in state.nodes.items():
            directory = self.pve / "nodes" / name
            directory.mkdir(exist_ok=True)
            # The marker tells this fault's file from one that a test or an earlier life of the node left.
            marker = directory / ".simulated-acme"
            if (name in state.faults.peer_other_cert) == marker.exists():
                continue
            node.cert_changed_at = time.time()
            if marker.exists():
                for file in (marker, directory / "pveproxy-ssl.pem", directory / "pveproxy-ssl.key"):
                    file.unlink(missing_ok=True)
            else:
                from provd.simulator.cluster import certificates

                certificates.issue_foreign_leaf(self.pve, name, node.ring0_addr)
                os.close(os.open(marker, os.O_CREAT | os.O_WRONLY))
