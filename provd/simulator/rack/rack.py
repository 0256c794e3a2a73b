"""The rack: a LAN, its DHCP server, a cluster of one, provd as a process, and machines with real firmware.

The DHCP server is dnsmasq, which hands out addresses and says nothing about booting, as a household's
router does. provd is started as its users start it, from a configuration file, and is known here by its
command line and its REST API alone.
"""

import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import trio
import yaml
from attrs import define, field

from provd.simulator.cluster.cluster import Cluster
from provd.simulator.lab import CLUSTER_PASSWORD, ROOT_PASSWORD_HASH
from provd.simulator.rack import processes
from provd.simulator.rack.lan import INTERFACE, LEASES, MEMBER, ROUTER6, SERVER, SUBNET, Lan, open_lan
from provd.simulator.rack.machine import Firmware, VirtualMachine
from provd.simulator.vm.iso import build_iso
from provd.simulator.vm.packages import default_cache

HTTP_PORT = 8080
IMAGE_PORT = 8081
API_PORT = 8006

NIC = "ens3"
"""What udev calls the machines' NIC: it is in the first free slot of QEMU's PCI bus."""

SERVER_TYPES = {
    "vm": {
        "display_name": "Virtual machine",
        "boot_disk": "/dev/vda",
        "management_nic": NIC,
        "gpu": False,
        "hostname_prefix": "vm",
    }
}

Json = dict[str, Any]


@define(eq=False, kw_only=True)
class Rack:
    directory: Path
    lan: Lan
    cluster: Cluster
    client: httpx.AsyncClient
    """Speaks to provd through the gate, as whoever has `token`."""
    gate_url: str
    token: str
    machines: list[VirtualMachine] = field(factory=list)
    daemon: trio.Process | None = None

    @property
    def configuration(self) -> Path:
        return self.directory / "provisioning.yaml"

    @property
    def log(self) -> Path:
        return self.directory / "provd.log"

    # --- provd ---

    async def start_provd(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError with its last words if it ends instead."""
        command = [sys.executable, "-m", "provd", "serve", "--config", str(self.configuration)]
        self.daemon = await processes.start(
            self.lan.inside(self.lan.server, command), self.log, environ={"PROVD_API_TOKEN": self.token}
        )
        while not await self._answers():
            if self.daemon.poll() is not None:
                raise RuntimeError(
                    f"provd ended with {self.daemon.returncode}: {self.log.read_text()[-2000:]}"
                )
            await trio.sleep(0.2)

    async def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return (await self.client.get("/healthz")).status_code == 200
        return False

    async def kill_provd(self) -> None:
        assert self.daemon is not None
        self.daemon.kill()
        await self.daemon.wait()

    async def stop_provd(self) -> None:
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            await processes.end(self.daemon)

    async def provd(self, *words: str) -> str:
        """Run one of provd's commands, in provd's namespace, and return what it printed."""
        command = [sys.executable, "-m", "provd", *words, "--config", str(self.configuration)]
        done = await trio.run_process(
            self.lan.inside(self.lan.server, command), capture_stdout=True, capture_stderr=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"provd {words[0]}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode()

    async def import_stand_in(self) -> None:
        """Make a stand-in for Proxmox's ISO and import it, as an operator does. Once for a directory."""
        iso = self.directory / "stand-in.iso"
        if not iso.exists():
            await trio.to_thread.run_sync(build_iso, iso, default_cache())
            await self.provd("image", "import", str(iso))

    async def call(self, method: str, path: str, body: object = None) -> Json:
        response = await self.client.request(method, path, json=body)
        if response.status_code >= 400:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text}")
        answer: Json = response.json() if response.content else {}
        return answer

    # --- machines ---

    def add_machine(self, firmware: Firmware) -> VirtualMachine:
        number = len(self.machines) + 1
        name = f"machine{number}"
        machine = VirtualMachine(
            name=name,
            mac=f"02:00:00:00:02:{number:02x}",
            uuid=str(uuid4()),
            firmware=firmware,
            directory=self.directory / name,
            lan=self.lan,
            tap=self.lan.add_tap(),
            cluster_dir=self.cluster.directory,
        )
        self.machines.append(machine)
        return machine

    async def register(self, machine: VirtualMachine, **more: object) -> Json:
        return await self.call("POST", "/api/hosts", {"mac": machine.mac, "server_type": "vm", **more})

    async def rebuild(self, host: Json) -> Json:
        return await self.call("POST", f"/api/hosts/{host['id']}/rebuild")

    async def host(self, host: Json) -> Json:
        return await self.call("GET", f"/api/hosts/{host['id']}")

    async def operation(self, operation: Json) -> Json:
        return await self.call("GET", f"/api/operations/{operation['id']}")

    async def story(self, host: Json) -> list[Json]:
        """The host's activity, oldest first."""
        lines = (await self.call("GET", f"/api/activity?host_id={host['id']}&limit=1000"))["activity"]
        return list(reversed(lines))

    async def until_heard(self, host: Json, words: str, times: int = 1) -> None:
        """Until so many lines of the host's activity have these words."""
        while True:
            if sum(words in line["message"] for line in await self.story(host)) >= times:
                return
            await trio.sleep(0.1)

    async def until(self, host: Json, *states: str) -> Json:
        while True:
            now = await self.host(host)
            if now["state"] in states:
                return now
            await trio.sleep(0.2)

    async def until_over(self, operation: Json) -> Json:
        while True:
            now = await self.operation(operation)
            if not now["active"]:
                return now
            await trio.sleep(0.5)


@asynccontextmanager
async def open_rack(
    directory: Path, *, port: int, token: str, configure: Callable[[Json], None] = lambda _: None
) -> AsyncIterator[Rack]:
    """Everything but provd is up, with an image not yet imported; all that runs is gone at the end.

    `port` on 127.0.0.1 leads to provd. `configure` may change its configuration beforehand.
    """
    async with AsyncExitStack() as stack:
        lan = stack.enter_context(open_lan())
        cluster = _prepare(directory, configure)
        await stack.enter_async_context(
            processes.started(lan.inside(lan.lan, dnsmasq(directory)), directory / "dnsmasq.log")
        )
        member = [sys.executable, "-m", "provd.simulator.rack.member", str(cluster.directory)]
        await stack.enter_async_context(
            processes.started(lan.inside(lan.lan, member), directory / "cluster.log")
        )
        await stack.enter_async_context(_gate(lan, directory, port))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {token}"},
                trust_env=False,
                timeout=30,
            )
        )
        rack = Rack(
            directory=directory,
            lan=lan,
            cluster=cluster,
            client=client,
            gate_url=f"http://127.0.0.1:{port}",
            token=token,
        )
        try:
            yield rack
        finally:
            with trio.move_on_after(20, shield=True):
                for machine in rack.machines:
                    await machine.power_off()
                await rack.stop_provd()


@asynccontextmanager
async def _gate(lan: Lan, directory: Path, port: int) -> AsyncIterator[None]:
    with socket.create_server(("127.0.0.1", port)) as outside:
        gate = [
            sys.executable,
            "-m",
            "provd.simulator.rack.gate",
            str(outside.fileno()),
            SERVER,
            str(HTTP_PORT),
        ]
        async with processes.started(
            lan.inside(lan.lan, gate), directory / "gate.log", pass_fds=(outside.fileno(),)
        ):
            yield


def dnsmasq(directory: Path) -> list[str]:
    """The LAN's router as far as it speaks DHCP: addresses, IPv6 prefixes, and not a word about booting."""
    return [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--interface=br0",
        "--bind-interfaces",
        f"--dhcp-range={LEASES[0]},{LEASES[1]},255.255.255.0,1h",
        *("--enable-ra", f"--dhcp-range={ROUTER6},ra-only,64"),
        "--dhcp-authoritative",
        # Without this its first offer to each client waits three seconds for a ping.
        "--no-ping",
        "--user=root",
        f"--dhcp-leasefile={directory / 'leases'}",
        f"--pid-file={directory / 'dnsmasq.pid'}",
        "--log-facility=-",
        "--log-dhcp",
    ]


def _prepare(directory: Path, configure: Callable[[Json], None]) -> Cluster:
    if (directory / "cluster" / "cluster.json").exists():
        cluster = Cluster.open(directory / "cluster")
    else:
        cluster = Cluster.create(
            directory / "cluster", ip=MEMBER, api_port=API_PORT, root_password=CLUSTER_PASSWORD
        )
    (directory / "state").mkdir(mode=0o700, exist_ok=True)
    password = directory / "cluster-password"
    _write_private(password, CLUSTER_PASSWORD + "\n")
    document = provisioning(directory, cluster.fingerprint("pve1"), password)
    configure(document)
    _write_private(directory / "provisioning.yaml", yaml.safe_dump(document, sort_keys=False))
    (directory / "server-types.yaml").write_text(yaml.safe_dump({"server_types": SERVER_TYPES}))
    return cluster


def provisioning(directory: Path, fingerprint: str, password: Path) -> Json:
    return {
        "server": {
            "public_url": f"http://{SERVER}:{HTTP_PORT}",
            "listen": f"0.0.0.0:{HTTP_PORT}",
            "image_listen": f"0.0.0.0:{IMAGE_PORT}",
        },
        "pxe": {"enabled": True, "interface": INTERFACE, "subnet": SUBNET},
        "proxmox": {"existing_node": MEMBER, "join_fingerprint": fingerprint, "api_port": API_PORT},
        "credentials": {
            "root_password_hash": ROOT_PASSWORD_HASH,
            "cluster_password_file": str(password),
        },
        "paths": {"state_dir": str(directory / "state")},
    }


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def describe(story: list[Mapping[str, Any]]) -> str:
    return "\n".join(f"{line['at'][11:19]}  {line['message']}" for line in story)
