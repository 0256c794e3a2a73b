"""One machine with Proxmox VE on it: its root directory, its services, and what it sees as /etc/pve.

ROOT plays `/`. Where the original mounts /etc/pve, ROOT/etc/pve changes its content: a directory of its own
while the machine stands alone, empty while pmxcfs is stopped, links into the cluster's directory once the
machine is a member. A link's own mode has the write bit, so the test that Proxmox itself uses for quorum
(lstat of /etc/pve/local, bit 0200) holds for a quorate member; for others the link is absent. That is all
that they miss: these are plain files, so that a member without quorum can write where the original could
not, and whoever changes something below /etc/pve has to look first.
"""

import fcntl
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from attrs import Factory, asdict, define

from provd.simulator.cluster.locked import exclusive, read_document, replace_file, write_document

SHARED = ("corosync.conf", "nodes", "priv", "pve-root-ca.pem")
PROGRAMS = (
    *("pvecm", "systemctl", "corosync-quorumtool", "corosync-cfgtool"),
    *("ha-manager", "pmxcfs", "killall", "pkill"),
)
PROJECT = Path(__file__).parents[3]


@define(kw_only=True)
class MachineState:
    hostname: str
    ip: str
    cluster_dir: str
    joined: bool = False  # /etc/pve is the cluster's
    pve_cluster: bool = True  # pmxcfs runs
    corosync: bool = False
    failed_units: list[str] = Factory(list)  # `systemctl is-active` says "failed"
    stopped_units: list[str] = Factory(list)  # of those that have no field of their own
    disabled_units: list[str] = Factory(list)  # which do not start with the machine
    local_mode: bool = False  # `pmxcfs -l`: /etc/pve is this machine's own, whatever corosync says
    guests: list[int] = Factory(list)  # ids, of a machine that stands alone
    addresses: list[str] = Factory(list)  # further ones, beside `ip`
    root_password: str = ""  # for the API of a machine that stands alone


class Machine:
    """A handle on a machine root, cheap to make."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def document(self) -> Path:
        return self.root / ".machine.json"

    @property
    def pve(self) -> Path:
        return self.root / "etc" / "pve"

    @property
    def database(self) -> Path:
        """Where the content of a stand-alone /etc/pve is while pmxcfs is stopped."""
        return self.root / "var" / "lib" / "pve-cluster" / "config.db"

    def path(self, absolute: str) -> Path:
        """`/etc/x` as a file of this machine."""
        return self.root / absolute.lstrip("/")

    def read(self) -> MachineState:
        return MachineState(**read_document(self.document))

    @contextmanager
    def edit(self) -> Iterator[MachineState]:
        """Change the machine's state; holds a lock across processes, so no await inside."""
        with exclusive(self.document):
            state = self.read()
            yield state
            write_document(self.document, asdict(state))

    @property
    def sees_cluster(self) -> bool:
        """Whether /etc/pve consists of links into the cluster's directory."""
        return (self.pve / "nodes").is_symlink()

    def unmount(self) -> None:
        """Stop pmxcfs: /etc/pve is empty, and every key that was authorised there is refused.

        What a member saw is copied, so for a member the caller holds the cluster's lock.
        """
        shutil.rmtree(self.database, ignore_errors=True)
        if self.sees_cluster:
            shared = Path(self.read().cluster_dir) / "pve"
            shutil.copytree(shared, self.database, symlinks=True, ignore=shutil.ignore_patterns(".*"))
            self._clear()
        self.database.mkdir(parents=True, mode=0o700, exist_ok=True)
        with self.edit() as state:
            state.pve_cluster = state.local_mode = False
        for item in list(self.pve.iterdir()):
            item.rename(self.database / item.name)

    def mount(self, *, local_mode: bool = False) -> None:
        """Start pmxcfs with its own database; without a corosync.conf in there the machine stands alone."""
        if self.database.is_dir():
            for item in list(self.database.iterdir()):
                item.rename(self.pve / item.name)
        with self.edit() as state:
            state.pve_cluster, state.local_mode = True, local_mode
            alone = not (self.pve / "corosync.conf").exists()
            state.joined = state.joined and not (alone and not local_mode)
            local = self.pve / "local"
            local.unlink(missing_ok=True)
            if alone or local_mode:
                (self.pve / "nodes" / state.hostname).mkdir(parents=True, exist_ok=True)
                local.symlink_to(Path("nodes") / state.hostname)

    def mount_alone(self) -> None:
        """Start pmxcfs beside a corosync that has met nobody: nothing but the configuration is there."""
        replace_file(self.pve / "corosync.conf", self.path("/etc/corosync/corosync.conf").read_bytes())
        with self.edit() as state:
            state.pve_cluster = state.corosync = True

    def mount_cluster(self, shared: Path) -> None:
        """See what all quorate members see."""
        with self.edit() as state:
            self._clear()
            for name in SHARED:
                (self.pve / name).symlink_to(shared / name)
            (self.pve / "local").symlink_to(Path("nodes") / state.hostname)
            state.joined = state.pve_cluster = True

    def _clear(self) -> None:
        for item in list(self.pve.iterdir()):
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()


def install_pve_tools(
    root: Path,
    *,
    cluster_dir: Path,
    hostname: str,
    ip: str,
    root_password: str = "",
    joined: bool = False,
) -> None:
    """Make a machine of `root`: state file, /etc/pve, and the programs in ROOT/usr/local/bin.

    `joined` is for machines that are members already. To call it again is a reinstallation: what Proxmox
    keeps in /etc/pve, /etc/corosync and /root/.ssh is gone, but a regular authorized_keys stays, since it is
    the installer's.
    """
    machine = Machine(root.resolve())
    for directory in ("etc/pve", "etc/corosync"):
        shutil.rmtree(machine.root / directory, ignore_errors=True)
    for directory in (
        "etc/pve",
        "etc/corosync",
        "usr/local/bin",
        "var/lock",
        "var/log/pve/tasks",
    ):
        (machine.root / directory).mkdir(parents=True, exist_ok=True)
    for directory in ("root", "root/.ssh", "var/lib/pve-cluster/backup"):
        (machine.root / directory).mkdir(parents=True, exist_ok=True, mode=0o700)
    ssh = machine.root / "root" / ".ssh"
    for name in ("id_rsa", "id_rsa.pub", "authorized_keys.org"):
        (ssh / name).unlink(missing_ok=True)
    if (ssh / "authorized_keys").is_symlink():
        (ssh / "authorized_keys").unlink()
    state = MachineState(
        hostname=hostname, ip=ip, cluster_dir=str(cluster_dir.resolve()), root_password=root_password
    )
    write_document(machine.document, asdict(state))
    if joined:
        _install_member(machine, cluster_dir.resolve())
    else:
        _install_stand_alone(machine, hostname, ip)
    for name in PROGRAMS:
        replace_file(machine.root / "usr/local/bin" / name, _wrapper(machine.root, name).encode(), 0o755)


def stop_pvecm(root: Path) -> None:
    """Kill every `pvecm` that still runs on the machine, as pulling its plug does."""
    for file in sorted((root / "run" / "pvecm").glob("*.pid")):
        with file.open() as running:
            try:
                fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its process holds the lock, so the number is still its own
                os.kill(int(file.stem), signal.SIGKILL)
        file.unlink(missing_ok=True)


def _install_stand_alone(machine: Machine, hostname: str, ip: str) -> None:
    from provd.simulator.cluster import certificates

    certificates.create_authority(machine.pve)
    certificates.issue_leaf(machine.pve, hostname, ip)
    replace_file(machine.pve / "priv" / "authkey.key", secrets.token_bytes(32), 0o600)
    (machine.pve / "local").symlink_to(Path("nodes") / hostname)


def _install_member(machine: Machine, cluster_dir: Path) -> None:
    shutil.copyfile(cluster_dir / "authkey", machine.path("/etc/corosync/authkey"))
    if (cluster_dir / "pve" / "corosync.conf").exists():
        shutil.copyfile(cluster_dir / "pve" / "corosync.conf", machine.path("/etc/corosync/corosync.conf"))
    machine.mount_cluster(cluster_dir / "pve")
    with machine.edit() as state:
        state.corosync = (cluster_dir / "pve" / "corosync.conf").exists()


def _wrapper(root: Path, program: str) -> str:
    """A program of the machine. Isolated mode, so that neither the caller's directory nor PYTHON* matter."""
    start = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r});"
        f" from provd.simulator.cluster.programs import main; sys.exit(main({program!r}, sys.argv[1:]))"
    )
    return (
        "#!/bin/sh\n"
        f"PROVD_ROOT={quote(str(root))}\nexport PROVD_ROOT\n"
        f'exec {quote(sys.executable)} -I -c {quote(start)} "$@"\n'
    )
