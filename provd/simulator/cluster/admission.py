"""How a machine asks a member to be taken in: over the API with root's password, or over SSH without.

Changes nothing on the machine itself. Texts and order after PVE::Cluster::Setup and PVE::CLI::pvecm of
pve-cluster 8.1 and 9.1.
"""

import json
from collections.abc import Callable
from urllib.parse import unquote

from attrs import frozen

from provd.simulator.cluster.client import REAL_PORT, Answer, ApiClient, CannotConnect, resolve
from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.console import Console, Died
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.membership import JOIN_API_VERSION
from provd.simulator.cluster.options import Call
from provd.simulator.cluster.peer import Peer

FALLBACK = "No cluster network links passed explicitly, fallback to local node IP '{ip}'\n"
NO_TTY_FOR_TFA = (
    "TFA-enabled login currently works only with a TTY. at /usr/share/perl5/PVE/APIClient/LWP.pm line 121."
)
NO_TFA_ON_TTY = "TFA required, but none of the configure factors is supported over TTY, aborting!"


@frozen
class Admission:
    """What a member hands to the newcomer."""

    corosync_conf: bytes
    authkey: bytes


@frozen(kw_only=True)
class Petition:
    """`done` is called with the number of every step that is behind us."""

    machine: Machine
    cluster: Cluster
    call: Call
    console: Console
    password: str
    name: str
    hosts: str
    done: Callable[[int], None]

    @property
    def host(self) -> str:
        return self.call.arguments[0]

    def over_api(self, ip: str) -> Admission:
        self.console.say(f"Establishing API connection with host '{self.host}'\n")
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
            self.console.say(
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
        self.console.say("Login succeeded.\n")
        self.done(8)
        self.console.say("check cluster join API version\n")
        _succeeded(client.call("GET", "/cluster/config/apiversion"))
        self.done(9)
        if not self.call.links:
            self.console.say(FALLBACK.format(ip=ip))
        self.done(10)
        self.console.say("Request addition of this node\n")
        answer = client.call("POST", f"/cluster/config/nodes/{self.name}", self.parameters(ip))
        if not answer.ok:
            details = "".join(
                f"{'*' if key.startswith('warning') else '!'} {str(text).rstrip()}\n"
                for key, text in sorted((answer.document.get("errors") or {}).items())
            )
            self.console.say(f"An error occurred on the cluster node: {answer.reason}\n{details}")
            raise Died("Cluster join aborted!")
        self.done(11)
        for warning in answer.data["warnings"]:
            self.console.say(f"cluster: {warning}\n")
        self.console.say("Join request OK, finishing setup locally\n")
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
        self.console.say("Enter totp code for user root@pam: ")
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

    def over_ssh(self, ip: str) -> Admission:
        """Without a password, by root's own key, and for real: the member's sshd decides who comes in."""
        peer = Peer(self.machine, self.host, resolve(self.host, self.hosts), self.cluster.read().ssh_port)
        if peer.run("exit 0").returncode != 0:
            raise Died("unable to copy ssh ID: exit code 1")
        if peer.run("pvecm apiver").returncode != 0:
            raise Died("Could not do version check on remote side")
        if not self.call.links:
            self.console.say(FALLBACK.format(ip=ip))
        words = " ".join(
            f"--{name} {value}" for name, value in self.parameters(ip).items() if name != "force"
        )
        command = f"pvecm addnode {self.name} --force 1 {words}"
        added = peer.run(command)
        self.console.say((added.stdout + added.stderr).decode(errors="replace"))
        if added.returncode != 0:
            raise Died(f"unable to add node: command failed (ssh {self.host} -o BatchMode=yes {command})")
        self.console.say("copy corosync auth key\n")
        # The original has rsync fetch /etc/corosync; not every computer has one.
        conf, authkey = (
            peer.run(f'cat "$PROVD_ROOT/etc/corosync/{name}"') for name in ("corosync.conf", "authkey")
        )
        if conf.returncode or authkey.returncode:
            raise Died(f"can't rsync data from host '{self.host}'")
        return Admission(conf.stdout, authkey.stdout)


def _succeeded(answer: Answer) -> Answer:
    if not answer.ok:
        raise Died(f"{answer.status} {answer.reason}")
    return answer
