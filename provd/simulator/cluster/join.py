"""`pvecm add`: the steps by which a machine becomes a member, each with its text and its lasting effect.

Order, texts and side effects are those of pve-cluster 8.1 and 9.1 (PVE::CLI::pvecm and
PVE::Cluster::Setup); the numbers are what `Faults.drop_after_step` refers to. The original runs a parent
that copies what its worker says; here one process does both, with the same words on the same streams.
"""

import fcntl
import gzip
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import NoReturn

from provd.simulator.cluster import keys
from provd.simulator.cluster.admission import Admission, Petition
from provd.simulator.cluster.client import resolve
from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.console import Console, Died
from provd.simulator.cluster.locked import replace_file
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.membership import (
    LOCAL_LOCK_TIMEOUT,
    config_version_of,
)
from provd.simulator.cluster.options import Call


def run_add(machine: Machine, cluster: Cluster, call: Call) -> int:
    """The whole program. The exit status is 0 whether the machine joined or not, as in the original."""
    console = Console()
    host = call.arguments[0]
    died = None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupted)
    try:
        password = ""
        if not call.flag("use_ssh"):
            password = console.read_password(f"Please enter superuser (root) password for '{host}': ")
        console.open_log(machine.root, machine.read().hostname, "clusterjoin")
        with running_here(machine):
            Join(machine, cluster, call, console, password).run()
    except Died as exc:
        died = exc
    console.end(died)
    return 0


@contextmanager
def running_here(machine: Machine) -> Iterator[None]:
    """Let `stop_pvecm` find this process: the lock says that the number in the file's name is still ours."""
    file = machine.root / f"run/pvecm/{os.getpid()}.pid"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise Died("received interrupt")


class Join:
    def __init__(
        self, machine: Machine, cluster: Cluster, call: Call, console: Console, password: str
    ) -> None:
        self.machine = machine
        self.cluster = cluster
        self.call = call
        self.say = console.say
        self.console = console
        self.password = password
        self.name = machine.read().hostname
        hosts = machine.path("/etc/hosts")
        self.hosts = hosts.read_text() if hosts.exists() else f"{machine.read().ip} {self.name}\n"

    def run(self) -> None:
        over_ssh = self.call.flag("use_ssh")
        with ExitStack() as held:
            if not over_ssh:
                self.take_lock(held)
            self.done(2)
            ip = self.find_own_address()
            self.done(3)
            self.check_joinable(ip)
            self.done(4)
            self.prepare_ssh()
            self.done(5)
            petition = Petition(
                machine=self.machine,
                cluster=self.cluster,
                call=self.call,
                console=self.console,
                password=self.password,
                name=self.name,
                hosts=self.hosts,
                done=self.done,
            )
            admission = petition.over_ssh(ip) if over_ssh else petition.over_api(ip)
            self.done(12)
            self.bump_config_if_wanted()
            self.replace_configuration(admission)
            self.done(13)
            self.drop_database()
            self.done(14)
            self.start_corosync()
            self.done(15)
            self.become_member()
            self.say("generated new node certificate, restart pveproxy and pvedaemon services\n")
            self.restart_api()
            self.done(18)
            self.say(f"successfully added node '{self.name}' to cluster.\n")

    def done(self, step: int) -> None:
        """The end of a step: a good moment to be slow, or to be killed."""
        faults = self.cluster.read().faults
        if faults.slow:
            time.sleep(faults.slow)
        if faults.drop_after_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    # --- on this machine alone --------------------------------------------------------------------

    def take_lock(self, held: ExitStack) -> None:
        lock = held.enter_context(self.machine.path("/var/lock/pvecm.lock").open("a"))
        deadline = time.monotonic() + self.cluster.read().timings.lock_wait
        waiting = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waiting:
                    self.say("trying to acquire lock...")
                waiting = True
                if time.monotonic() > deadline:
                    raise Died(LOCAL_LOCK_TIMEOUT) from None
                time.sleep(0.02)
            else:
                if waiting:
                    self.say(" OK\n")
                return

    def find_own_address(self) -> str:
        address = resolve(self.name, self.hosts)
        if address is None:
            raise Died(f"hostname lookup '{self.name}' failed - {_lookup_failure(self.name)}")
        # The simulation lives in 127.0.0.0/8; only its first corner counts as loopback inside of it.
        if address != self.machine.read().ip and (address.startswith("127.0.") or address == "::1"):
            raise Died(f"address lookup for '{self.name}' did not find any IP address")
        return address

    def check_joinable(self, ip: str) -> None:
        state = self.machine.read()
        mine = {state.ip, *state.addresses}
        problems = []
        if self.machine.path("/etc/corosync/authkey").exists():
            problems.append("authentication key '/etc/corosync/authkey' already exists")
        if (self.machine.pve / "corosync.conf").exists():
            problems.append("cluster config '/etc/pve/corosync.conf' already exists")
        if state.guests:
            problems.append("this host already contains virtual guests")
        if state.corosync:
            problems.append("corosync is already running, is this node already in a cluster?!")
        links = {f"link{number}": address for number, address in sorted(self.call.links.items())}
        for what, wanted in {"local node address": ip, **links}.items():
            address = resolve(wanted, self.hosts)
            if address is None:
                problems.append(f"{what}: cannot use '{wanted}': {_lookup_failure(wanted)}\n")
            elif address not in mine:
                problems.append(f"{what}: cannot use IP '{address}', not found on local node!\n")
        if not problems:
            return
        self.say("detected the following error(s):\n" + "".join(f"* {problem}\n" for problem in problems))
        if not self.call.flag("force"):
            raise Died("Check if node may join a cluster failed!")
        self.say("\nWARNING : detected error but forced to continue!\n\n")

    def prepare_ssh(self) -> None:
        """These effects stay, whatever becomes of the join."""
        config = self.machine.path("/etc/ssh/sshd_config")
        lines = config.read_text().splitlines() if config.exists() else []
        if "PermitRootLogin yes" not in lines:
            # sshd takes the first value it meets.
            others = [line for line in lines if not re.match(r"\s*PermitRootLogin\b", line)]
            config.parent.mkdir(parents=True, exist_ok=True)
            replace_file(config, "".join(f"{line}\n" for line in ["PermitRootLogin yes", *others]).encode())
        keys.create_root_key(self.machine)
        keys.take_over_keys(self.machine)

    # --- from here on the machine is changed for good -----------------------------------------------

    def bump_config_if_wanted(self) -> None:
        """As if somebody else had added or removed a node just now."""
        if self.cluster.read().faults.config_bump_between:
            with self.cluster.edit() as state:
                state.faults.config_bump_between = False
                state.config_version += 1

    def replace_configuration(self, admission: Admission) -> None:
        corosync = self.machine.path("/etc/corosync")
        replace_file(corosync / "authkey", admission.authkey, 0o400)
        replace_file(corosync / "corosync.conf", admission.corosync_conf)
        self.say("stopping pve-cluster service\n")
        self.machine.unmount()

    def drop_database(self) -> None:
        """The old content of /etc/pve, keys included, lives on in the backup."""
        state = self.cluster.read()
        name = f"/var/lib/pve-cluster/backup/config-{int(time.time())}.sql.gz"
        self.say(f"backup old database to '{name}'\n")
        database = self.machine.database
        if not state.faults.bad_backup:
            files = sorted(path for path in database.rglob("*") if path.is_file() and not path.is_symlink())
            dump = b"".join(b"-- %b\n%b\n" % (bytes(path), path.read_bytes()) for path in files)
            replace_file(self.machine.path(name), gzip.compress(dump), 0o600)
            shutil.rmtree(database)
        elif state.release.backup_may_fail:
            self.say("failed to create backup of pre-join config database - cannot backup old database\n")
            database.rename(database.with_name(f"config.db.{int(time.time())}"))
        else:
            raise Died("cannot backup old database")

    def start_corosync(self) -> None:
        """Start it and wait for quorum, for ever if need be."""
        self.machine.mount_alone()
        if self.meets_the_others(first_look=True):
            return
        self.say("waiting for quorum...")
        while not self.meets_the_others():
            time.sleep(self.cluster.read().timings.quorum_poll)
        self.say("OK\n")

    def meets_the_others(self, *, first_look: bool = False) -> bool:
        """Do what corosync's messages would: come online, or die of a configuration that is not theirs."""
        own = config_version_of(self.machine.path("/etc/corosync/corosync.conf").read_text())
        alive = self.machine.read().corosync
        with self.cluster.edit() as state:
            faults, node = state.faults, state.nodes.get(self.name)
            if not alive or node is None or faults.udp_blocked:
                return False
            if not node.online and own != state.config_version:
                with self.machine.edit() as machine:
                    machine.corosync = False
                    machine.failed_units.append("corosync")
                return False
            if first_look and not faults.quorate_at_first_look:
                return False
            node.online = node.seen = True
            return state.quorate

    def become_member(self) -> None:
        from provd.simulator.cluster import certificates  # slow to import, needed once in a join

        self.say("(re)generate node files\n")
        self.say("generate new node certificate\n")
        known_hosts = self.cluster.read().release.merges_known_hosts
        self.say(f"merge authorized SSH keys{' and known hosts' if known_hosts else ''}\n")
        self.done(16)
        with self.cluster.edit() as state:
            self.machine.mount_cluster(self.cluster.pve)
            machine = self.machine.read()
            certificates.issue_leaf(self.cluster.pve, self.name, machine.ip)
            keys.merge_keys(self.machine)
            host_key = self.machine.path("/etc/ssh/ssh_host_rsa_key.pub")
            if host_key.exists():
                pinned = self.machine.pve / "nodes" / self.name / "ssh_known_hosts"
                replace_file(pinned, f"{self.name} {host_key.read_text()}".encode())
            lrm_status = self.machine.pve / "nodes" / self.name / "lrm_status"
            replace_file(lrm_status, b'{"mode":"active","results":{},"state":"wait_for_agent_lock"}')
            node = state.nodes[self.name]
            node.root, node.root_password = str(self.machine.root), machine.root_password
            node.cert_changed_at = time.time()
            node.firewalled = state.faults.firewall_on_after_join
        self.done(17)

    def restart_api(self) -> None:
        with self.cluster.edit() as state:
            state.nodes[self.name].restarted_at = time.time()


def _lookup_failure(name: str) -> str:
    return f"failed to get address info for: {name}: Name or service not known"
