"""A homelab in a directory: a cluster, bare machines, one of them a member, and a daemon's configuration.

`prepare` writes everything down, `run` brings it to life and plays the operator's hands: it presses the
power button of a machine whose host waits for its boot.
"""

import json
import random
import socket
import uuid
from collections.abc import Callable
from getpass import getuser
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import trio
import yaml
from attrs import asdict, frozen
from hypercorn.config import Config
from hypercorn.trio import serve

from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.state import Guest, HaResource, HaRule, Storage, Token
from provd.simulator.machine.hardware import gpu_node, nuc
from provd.simulator.machine.machine import Machine
from provd.simulator.machine.member import Member
from provd.simulator.machine.veteran import make_veteran
from provd.simulator.operator import Operator
from provd.simulator.seats import SEATS, Seat

CLUSTER_IP = "127.77.0.1"
CLUSTER_PASSWORD = "lab-cluster-password"
TOKEN_NAME = "provd@pve!lab"
AUDITOR = ("Datastore.Audit", "Sys.Audit", "VM.Audit")
"""What the role PVEAuditor may, as far as this cluster has it."""
# crypt(3), SHA-512, of "lab-root-password"
ROOT_PASSWORD_HASH = (
    "$6$provdlab$zb19auskkzWU0zmKMyTTHANofiCs.RSF84d7J72Ftujcw0DEhFEirnS7vRfo2QNAgTjTe1w5UrPjfWOnIXm/G/"
)
FILES = {"vmlinuz": 16 << 10, "initrd.img": 64 << 10, "proxmox.iso": 256 << 10}
"""The installer's files: placeholders with a size in bytes, for a machine that only looks at their names."""

SERVER_TYPES = {
    "nuc": {
        "display_name": "NUC",
        "boot_disk": "/dev/nvme0n1",
        "management_nic": "enp2s0",
        "gpu": False,
        "hostname_prefix": "nuc",
    },
    "gpu-node": {
        "display_name": "GPU node",
        "boot_disk": "/dev/nvme0n1",
        "management_nic": "enp2s0",
        "gpu": True,
        "hostname_prefix": "gpu",
    },
}


@frozen(kw_only=True)
class Ports:
    daemon: int
    api: int
    files: int
    ssh: int
    images: int
    """Where the daemon would serve images of its own; the lab's lie at `files`."""


@frozen(kw_only=True)
class Lab:
    """A lab directory that `prepare` made."""

    directory: Path
    ports: Ports

    @property
    def public_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.daemon}"

    @property
    def cluster_dir(self) -> Path:
        return self.directory / "cluster"

    @property
    def configuration(self) -> Path:
        return self.directory / "provisioning.yaml"

    def machine(self, seat: Seat, *, pace: float, say: Callable[[str], None] | None) -> Machine:
        parts = {"nuc": nuc, "gpu-node": gpu_node}[seat.server_type]
        return Machine(
            mac=seat.mac,
            ip=seat.ip,
            ssh_port=self.ports.ssh,
            directory=self.directory / "machines" / seat.mac.replace(":", "-"),
            public_url=self.public_url,
            cluster_dir=self.cluster_dir,
            hardware=parts(seat.mac, seat.ip),
            pace=pace,
            on_event=say,
        )

    def members(self, say: Callable[[str], None]) -> list[Member]:
        """Those members of the cluster that are no machines of this lab."""
        cluster = Cluster.open(self.cluster_dir)
        nodes = cluster.read().nodes
        return [
            Member(cluster=cluster, name=name, ssh_port=self.ports.ssh, say=say)
            for name, node in nodes.items()
            if node.root and Path(node.root).is_relative_to(self.cluster_dir)
        ]

    @classmethod
    def open(cls, directory: Path) -> "Lab":
        """Raise FileNotFoundError where `prepare` has not been."""
        ports = json.loads((directory / "lab.json").read_text())
        return cls(directory=directory.resolve(), ports=Ports(**ports))


def prepare(
    directory: Path,
    *,
    port: int,
    members: int = 2,
    seats: tuple[Seat, ...] = SEATS,
    trusted: bool = True,
) -> Lab:
    """Make a lab for a daemon on 127.0.0.1 and `port`. Raises FileExistsError where there is one already.

    `members` are there beside those of `seats`: pve1 at `CLUSTER_IP`, pve2 behind it, and so on. `trusted`
    gives the daemon an API token and an SSH key beside the password.
    """
    directory = directory.resolve()
    if (directory / "lab.json").exists():
        raise FileExistsError(f"{directory} holds a lab already; remove it to start again")
    directory.mkdir(parents=True, exist_ok=True)
    lab = Lab(directory=directory, ports=_free_ports(port))
    cluster = Cluster.create(
        lab.cluster_dir, ip=CLUSTER_IP, api_port=lab.ports.api, root_password=CLUSTER_PASSWORD
    )
    for name, size in FILES.items():
        file = directory / "files" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(name.encode().ljust(size, b"."))
    for number in range(2, members + 1):
        cluster.add_member(f"pve{number}", member_ip(number), root_password=CLUSTER_PASSWORD)
    for seat in seats:
        if seat.hostname is not None:
            machine = lab.machine(seat, pace=0, say=None)
            make_veteran(machine, seat.hostname, root_password=CLUSTER_PASSWORD)
    (directory / "state").mkdir(mode=0o700, exist_ok=True)
    credentials = {"cluster_password_file": _secret(directory / "cluster-password", CLUSTER_PASSWORD)}
    if trusted:
        credentials |= _trust(cluster, directory)
    lab.configuration.touch(mode=0o600)
    lab.configuration.write_text(_yaml(_provisioning(lab, cluster.fingerprint("pve1"), credentials)))
    (directory / "server-types.yaml").write_text(_yaml({"server_types": SERVER_TYPES}))
    (directory / "lab.json").write_text(json.dumps(asdict(lab.ports)))
    return lab


def member_ip(number: int) -> str:
    """Of `pve<number>`."""
    return str(ip_address(CLUSTER_IP) + number - 1)


def _trust(cluster: Cluster, directory: Path) -> dict[str, str]:
    """Make a token and a key that the cluster knows; returns where they are, by the configuration's keys."""
    from provd.simulator.cluster import ssh_keys

    secret = str(uuid.uuid4())
    with cluster.edit() as state:
        state.tokens[TOKEN_NAME] = Token(secret=secret, privs={"/": list(AUDITOR)})
    key = directory / "cluster-key"
    cluster.authorize(ssh_keys.make_key(key, "provd"))
    return {
        "cluster_token_file": _secret(directory / "cluster-token", f"{TOKEN_NAME}={secret}"),
        "cluster_ssh_key_file": str(key),
    }


def _secret(file: Path, line: str) -> str:
    file.touch(mode=0o600)
    file.write_text(f"{line}\n")
    return str(file)


def add_life(cluster: Cluster) -> None:
    """Guests on pve1 and pve2, one of them with high availability, and storages for them."""
    with cluster.edit() as state:
        state.guests += [
            Guest(vmid=100, node="pve1", name="dns"),
            Guest(vmid=101, node="pve1", name="files", type="lxc"),
            Guest(vmid=102, node="pve2", name="media"),
        ]
        state.ha_resources.append(HaResource(sid="vm:100", node="pve1"))
        state.ha_rules.append(HaRule(rule="dns-stays", nodes=["pve1:2", "pve2"], resources=["vm:100"]))
        state.storages += [
            Storage(storage="local", content="iso,vztmpl,backup"),
            Storage(storage="local-lvm", type="lvmthin"),
            Storage(storage="nas", type="nfs", content="images,backup", shared=True),
        ]


def _provisioning(lab: Lab, fingerprint: str, credentials: dict[str, str]) -> dict[str, Any]:
    return {
        "server": {
            "public_url": lab.public_url,
            "listen": f"127.0.0.1:{lab.ports.daemon}",
            "image_listen": f"127.0.0.1:{lab.ports.images}",
        },
        "pxe": {"enabled": False},
        "proxmox": {
            "existing_node": CLUSTER_IP,
            "join_fingerprint": fingerprint,
            "api_port": lab.ports.api,
            "installer_url": f"http://127.0.0.1:{lab.ports.files}",
        },
        "credentials": {"root_password_hash": ROOT_PASSWORD_HASH, **credentials},
        "ssh": {"user": getuser(), "port": lab.ports.ssh},
        "infrastructure": {"base_url": ""},
        "paths": {"state_dir": str(lab.directory / "state")},
    }


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False)


def _free_ports(daemon: int) -> Ports:
    """The machines share the one of SSH, at an address each."""
    return Ports(daemon=daemon, api=free_port(), files=free_port(), ssh=free_port(), images=free_port())


def free_port() -> int:
    """One that nobody uses at any address, and that no other lab will be given while this process lives.

    It is from below those that the kernel gives to outgoing connections (ip(7), ip_local_port_range: 32768
    to 60999), and its number is taken as a name, for other labs run beside this one, and what listens on
    it may be away for a while.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0provd-lab-port-{port}")
            with socket.socket() as probe:
                probe.bind(("", port))
        except OSError:
            name.close()
            continue
        name.detach()  # the kernel closes it with this process
        return port


# --- a lab that runs -----------------------------------------------------------------------------


async def run(
    lab: Lab,
    *,
    token: str | None,
    pace: float,
    look_every: float = 1.0,
    say: Callable[[str], None],
    task_status: trio.TaskStatus[tuple[Machine, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the lab until cancelled; started with its machines once cluster and files can be reached.

    `pace` and `look_every` are seconds: of a visible moment, and between two looks at the daemon.
    """
    machines = tuple(lab.machine(seat, pace=pace, say=say) for seat in SEATS)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(base_url=lab.public_url, headers=headers, trust_env=False) as client,
        trio.open_nursery() as nursery,
    ):
        for member in lab.members(say):
            await nursery.start(member.run_until_off)
        await nursery.start(serve_files, lab.directory / "files", lab.ports.files)
        for machine in machines:
            if machine.has_system:
                nursery.start_soon(machine.run_until_off)
        task_status.started(machines)
        operator = Operator(machines=machines, client=client, nursery=nursery, say=say, look_every=look_every)
        await operator.work()


async def serve_files(
    directory: Path, port: int, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve `FILES` over HTTP on 127.0.0.1 until cancelled; started with the URLs it listens on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = (await receive())["type"]
                await send({"type": f"{event}.complete"})
        name = scope["path"].removeprefix("/")
        found = name in FILES and scope["method"] in ("GET", "HEAD")
        content = (directory / name).read_bytes() if found else b"no such file\n"
        length = (b"content-length", str(len(content)).encode())
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": [length]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    config.accesslog = None
    await serve(app, config, task_status=task_status)
