"""`pvecm add`: the steps by which a machine becomes a member, each with its text and its lasting effect.

Order, texts and side effects are those of pve-cluster 8.1 and 9.1 (PVE::CLI::pvecm and
PVE::Cluster::Setup); the numbers are what `Faults.drop_after_step` refers to. The original runs a parent
that copies what its worker says; here one process does both, with the same words on the same streams.
"""

import fcntl
import gzip
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import NoReturn
from urllib.parse import unquote

from attrs import frozen

from provd.simulator.cluster import keys
from provd.simulator.cluster.client import REAL_PORT, Answer, ApiClient, CannotConnect, resolve
from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.console import Console, Died
from provd.simulator.cluster.locked import replace_file
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.membership import (
    JOIN_API_VERSION,
    LOCAL_LOCK_TIMEOUT,
    AddRequest,
    Refused,
    add_node,
    check_ready,
    config_version_of,
    corosync_conf,
)
from provd.simulator.cluster.options import Call

NO_TTY_FOR_TFA = (
    "TFA-enabled login currently works only with a TTY. at /usr/share/perl5/PVE/APIClient/LWP.pm line 121."
)
NO_TFA_ON_TTY = "TFA required, but none of the configure factors is supported over TTY, aborting!"


@frozen
class Admission:
    """What a member hands to the newcomer."""

    corosync_conf: bytes
    authkey: bytes


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
        self.host = call.arguments[0]
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
            admission = self.ask_over_ssh(ip) if over_ssh else self.ask_over_api(ip)
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

    # --- asking a member --------------------------------------------------------------------------

    def ask_over_api(self, ip: str) -> Admission:
        self.say(f"Establishing API connection with host '{self.host}'\n")
        try:
            client = self.connect()
            try:
                return self.ask(client, ip)
            finally:
                client.close()
        except CannotConnect as exc:
            raise Died(f"500 Can't connect to {self.host}:{REAL_PORT} ({exc})") from exc

    def connect(self) -> ApiClient:
        address = resolve(self.host, self.hosts)
        if address is None:
            raise CannotConnect("Name or service not known")
        client = ApiClient(address, self.cluster.read().api_port, self.verify)
        self.done(7)
        return client

    def verify(self, served: str) -> None:
        pinned = self.call.text("fingerprint")
        if pinned is None:
            self.say(
                f"The authenticity of host '{self.host}' can't be established.\n"
                f"X509 SHA256 key fingerprint is {served}.\n"
                "Are you sure you want to continue connecting (yes/no)? "
            )
            if (self.console.read_line() or "").strip().lower() != "yes":
                raise Died("Fingerprint not verified, abort!")
        elif pinned.upper() != served:
            raise Died(f"fingerprint '{served}' not verified, abort!")

    def ask(self, client: ApiClient, ip: str) -> Admission:
        login = self.log_in(client)
        client.use_ticket(login["ticket"], login["CSRFPreventionToken"])
        self.say("Login succeeded.\n")
        self.done(8)
        self.say("check cluster join API version\n")
        _succeeded(client.call("GET", "/cluster/config/apiversion"))
        self.done(9)
        if not self.call.links:
            self.say(f"No cluster network links passed explicitly, fallback to local node IP '{ip}'\n")
        self.done(10)
        self.say("Request addition of this node\n")
        answer = client.call("POST", f"/cluster/config/nodes/{self.name}", self.parameters(ip))
        if not answer.ok:
            details = "".join(
                f"{'*' if key.startswith('warning') else '!'} {str(text).rstrip()}\n"
                for key, text in sorted((answer.document.get("errors") or {}).items())
            )
            self.say(f"An error occurred on the cluster node: {answer.reason}\n{details}")
            raise Died("Cluster join aborted!")
        self.done(11)
        for warning in answer.data["warnings"]:
            self.say(f"cluster: {warning}\n")
        self.say("Join request OK, finishing setup locally\n")
        return Admission(
            answer.data["corosync_conf"].encode(), answer.data["corosync_authkey"].encode("latin-1")
        )

    def log_in(self, client: ApiClient) -> dict[str, str]:
        who = {"username": "root@pam"}
        login: dict[str, str] = _succeeded(
            client.call("POST", "/access/ticket", {**who, "password": self.password})
        ).data
        if not login.get("NeedTFA"):
            return login
        if not self.console.interactive:
            raise Died(NO_TTY_FOR_TFA)
        challenge = json.loads(unquote(login["ticket"].split(":")[1].removeprefix("!tfa!")))
        if not challenge.get("totp"):
            raise Died(NO_TFA_ON_TTY)
        self.say("Enter totp code for user root@pam: ")
        code = self.console.read_line() or ""
        second = {**who, "password": f"totp:{code.strip()}", "tfa-challenge": login["ticket"]}
        finished: dict[str, str] = _succeeded(client.call("POST", "/access/ticket", second)).data
        return finished

    def parameters(self, ip: str) -> dict[str, str]:
        own = {"apiversion": str(JOIN_API_VERSION)}
        if not self.call.links:
            own["new_node_ip"] = ip
        for name, value in self.call.options.items():
            if name in ("force", "nodeid", "votes") or name.startswith("link"):
                own[name] = str(int(value)) if isinstance(value, bool) else str(value)
        return own

    def ask_over_ssh(self, ip: str) -> Admission:
        """Without a password; the peer's sshd is not asked, only whether it would let this key in."""
        public = self.machine.path("/root/.ssh/id_rsa.pub").read_text().split()[1]
        state = self.cluster.read()
        peers = {address for node in state.nodes.values() if node.online for address in node.links.values()}
        if resolve(self.host, self.hosts) not in peers or not any(
            public in line.split() for line in self.cluster.authorized_keys()
        ):
            raise Died("unable to copy ssh ID: exit code 1")
        links = self.call.links
        if not links:
            self.say(f"No cluster network links passed explicitly, fallback to local node IP '{ip}'\n")
        request = AddRequest(
            name=self.name,
            apiversion=JOIN_API_VERSION,
            links=links,
            new_node_ip=None if links else ip,
            nodeid=self.call.number("nodeid"),
            votes=self.call.number("votes"),
            force=True,
        )
        try:
            with self.cluster.edit() as state:
                check_ready(state)
                if add_node(state, request):
                    self.say(f"forcing overwrite of configured node '{self.name}'\n")
        except Refused as exc:
            self.say(f"{exc}\n")
            words = " ".join(
                f"--{name} {value}" for name, value in self.parameters(ip).items() if name != "force"
            )
            command = f"pvecm addnode {self.name} --force 1 {words}"
            raise Died(
                f"unable to add node: command failed (ssh {self.host} -o BatchMode=yes {command})"
            ) from exc
        self.say("copy corosync auth key\n")
        return Admission(corosync_conf(state).encode(), (self.cluster.directory / "authkey").read_bytes())

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
            node = state.nodes[self.name]
            node.root, node.root_password = str(self.machine.root), machine.root_password
            node.cert_changed_at = time.time()
            node.firewalled = state.faults.firewall_on_after_join
        self.done(17)

    def restart_api(self) -> None:
        with self.cluster.edit() as state:
            state.nodes[self.name].restarted_at = time.time()


def _succeeded(answer: Answer) -> Answer:
    if not answer.ok:
        raise Died(f"{answer.status} {answer.reason}")
    return answer


def _lookup_failure(name: str) -> str:
    return f"failed to get address info for: {name}: Name or service not known"
