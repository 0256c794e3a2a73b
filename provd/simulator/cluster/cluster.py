"""One simulated cluster: a directory that its members' processes and the tests share.

`cluster.json` is the state, `pve/` what every quorate member sees as /etc/pve, `authkey` corosync's key,
`members/` the machines that were there from the start, `cluster.log` its history. Corosync's messages do not
exist: whoever would have sent one changes the state.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provd.simulator.cluster import ha, history, leaves
from provd.simulator.cluster.history import Moment
from provd.simulator.cluster.locked import exclusive, read_document, replace_file, write_document
from provd.simulator.cluster.machine import Machine, install_pve_tools
from provd.simulator.cluster.membership import corosync_conf
from provd.simulator.cluster.state import ClusterNode, ClusterState, Guest


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
        state = ClusterState.load(read_document(self.document))
        ha.settle(state, time.time())
        return state

    def history(self) -> list[Moment]:
        """Every change of members, votes and quorum since the first member, oldest first."""
        return history.read(self._log)

    @property
    def _log(self) -> Path:
        return self.directory / "cluster.log"

    @contextmanager
    def edit(self) -> Iterator[ClusterState]:
        """Change the state; others see all of it when the block ends, or nothing if it raises.

        The block holds a lock across processes: no await inside.
        """
        with exclusive(self.document):
            written = ClusterState.load(read_document(self.document))
            state = self.read()
            yield state
            self._write_files(state, reconfigured=state.config_version != written.config_version)
            _move_guests(self.pve / "nodes", written, state)
            now = time.time()
            history.record(self._log, history.moment_of(written, now), history.moment_of(state, now))
            write_document(self.document, state.dump())

    def add_member(
        self,
        name: str,
        ip: str,
        *,
        root_password: str = "secret",
        online: bool = True,
        root: Path | None = None,
    ) -> Path:
        """Add a member that has always been there; returns its machine root, where `pvecm` is installed.

        `root` is where its system lies already, by default there is a new one among the cluster's own.
        Whether anybody can reach it, at its API or by SSH, is another matter: see `machine.member`.
        """
        from provd.simulator.cluster import certificates, ssh_keys

        root = (root or self.directory / "members" / name).resolve()
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
        install_pve_tools(
            root,
            cluster_dir=self.directory,
            hostname=name,
            ip=ip,
            root_password=root_password,
            joined=True,
        )
        host_keys = ssh_keys.make_host_keys(root / "etc/ssh", f"root@{name}")
        self.authorize(ssh_keys.make_root_key(root / "root/.ssh", f"root@{name}"))
        home = root / "root/.ssh/authorized_keys"
        home.unlink(missing_ok=True)
        home.symlink_to(root / "etc/pve/priv/authorized_keys")
        own = self.pve / "nodes" / name
        replace_file(own / "ssh_known_hosts", f"{name} {host_keys['rsa']}\n".encode())
        replace_file(own / "lrm_status", b'{"mode":"active","results":{},"state":"wait_for_agent_lock"}')
        replace_file(own / "host.fw", b"[OPTIONS]\n\nenable: 1\n")
        with self.edit():
            pass  # its links follow its place in the cluster
        return root

    def renew_certificate(self, name: str, *, days: float) -> None:
        """Give `name` a new leaf that is valid for so many days; its fingerprint changes with it."""
        from provd.simulator.cluster import certificates

        with self.edit() as state:
            certificates.issue_leaf(self.pve, name, state.nodes[name].ring0_addr, days=days)
            state.nodes[name].cert_changed_at = time.time()

    def authorize(self, line: str) -> None:
        """Make the owner of a public key root on every member."""
        file = self.pve / "priv" / "authorized_keys"
        with exclusive(self.document):
            replace_file(file, f"{file.read_text()}{line}\n".encode(), 0o600)

    def repair_configuration(self, name: str) -> None:
        """What an operator does for a member that missed a change of members: copy corosync.conf to it."""
        root = self.machine_root(name)
        assert root is not None
        replace_file(root / "etc/corosync/corosync.conf", (self.pve / "corosync.conf").read_bytes())

    def fingerprint(self, node: str) -> str:
        """Of the certificate that `node` serves now. Raises FileNotFoundError for a node without one."""
        return leaves.served_fingerprint(self.pve, node)

    def authorized_keys(self) -> list[str]:
        """The lines of the file that makes someone root on every member."""
        return (self.pve / "priv" / "authorized_keys").read_text().splitlines()

    def machine_root(self, node: str) -> Path | None:
        root = self.read().nodes[node].root
        return Path(root) if root else None

    def _write_files(self, state: ClusterState, *, reconfigured: bool) -> None:
        if state.name is not None:
            content = corosync_conf(state).encode()
            replace_file(self.pve / "corosync.conf", content)
            for node in state.nodes.values():
                if node.root is not None:
                    machine = Machine(Path(node.root))
                    if node.online:
                        _copy_to_corosync(machine, content, even_if_removed=reconfigured)
                    _show_quorum(machine, quorate=node.online and state.quorate)
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


def _copy_to_corosync(machine: Machine, corosync_conf: bytes, *, even_if_removed: bool) -> None:
    """What pmxcfs does on every member that is there when the cluster's corosync.conf changes."""
    own = machine.path("/etc/corosync/corosync.conf")
    if own.exists() or (even_if_removed and own.parent.is_dir()):
        replace_file(own, corosync_conf)


def _show_quorum(machine: Machine, *, quorate: bool) -> None:
    if machine.sees_cluster:
        local = machine.pve / "local"
        if not quorate:
            local.unlink(missing_ok=True)
        elif not local.is_symlink():
            local.symlink_to(Path("nodes") / machine.read().hostname)


def _move_guests(nodes: Path, before: ClusterState, after: ClusterState) -> None:
    """A guest is where its configuration is; a directory that somebody removed takes it along for good."""
    was, is_now = ({_configuration(guest): guest for guest in state.guests} for state in (before, after))
    for file in was.keys() - is_now.keys():
        (nodes / file).unlink(missing_ok=True)
    for file in is_now.keys() - was.keys():
        if is_now[file].node in after.nodes:
            (nodes / file).parent.mkdir(parents=True, exist_ok=True)
            replace_file(nodes / file, b"memory: 2048\n")


def _configuration(guest: Guest) -> str:
    directory = "lxc" if guest.type == "lxc" else "qemu-server"
    return f"{guest.node}/{directory}/{guest.vmid}.conf"
