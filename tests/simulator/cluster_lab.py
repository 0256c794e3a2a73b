"""A small cluster on loopback for the tests: a real HTTPS server, and programs started as real processes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
from attrs import Factory, define, frozen

from provd.simulator.cluster import Cluster, install_pve_tools, stop_pvecm
from provd.simulator.cluster.api import serve_api

PASSWORD = "correct horse"
MEMBER = "127.77.0.1"
NEWCOMER = "127.77.0.5"
EPHEMERAL = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEphemeral provd-ephemeral"


@frozen
class Ended:
    out: str
    err: str
    status: int


@define
class Lab:
    directory: Path
    cluster: Cluster
    nursery: trio.Nursery
    newcomer: Path
    processes: list[trio.Process] = Factory(list)

    @property
    def member(self) -> Path:
        root = self.cluster.machine_root("pve1")
        assert root is not None
        return root

    def machine(self, name: str, ip: str) -> Path:
        root = self.directory / name
        install_pve_tools(
            root, cluster_dir=self.cluster.directory, hostname=name, ip=ip, root_password="local"
        )
        return root

    def pinned(self) -> list[str]:
        return ["--fingerprint", self.cluster.fingerprint("pve1")]

    async def run(
        self, root: Path, program: str, *words: str, stdin: bytes = b"", cwd: Path | None = None
    ) -> Ended:
        done = await trio.run_process(
            [root / "usr/local/bin" / program, *words],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=cwd or Path("/"),
        )
        return Ended(done.stdout.decode(), done.stderr.decode(), done.returncode)

    async def add(
        self, *words: str, stdin: bytes = f"{PASSWORD}\n".encode(), root: Path | None = None
    ) -> Ended:
        """`pvecm add` on the newcomer, with the right password and fingerprint where nothing else is said."""
        options = list(words) if "--fingerprint" in words else [*self.pinned(), *words]
        return await self.run(root or self.newcomer, "pvecm", "add", MEMBER, *options, stdin=stdin)

    async def start_add(self, *words: str) -> trio.Process:
        """The same, still running, with its standard output to be read."""
        process = await trio.lowlevel.open_process(
            [self.newcomer / "usr/local/bin/pvecm", "add", MEMBER, *self.pinned(), *words],
            stdin=-1,
            stdout=-1,
            stderr=-1,
        )
        self.processes.append(process)
        assert process.stdin is not None
        await process.stdin.send_all(f"{PASSWORD}\n".encode())
        return process

    @asynccontextmanager
    async def root_session(
        self, ip: str = MEMBER, password: str = PASSWORD
    ) -> AsyncIterator[httpx.AsyncClient]:
        """A client with root@pam's ticket."""
        async with self.client(ip) as client:
            answer = await client.post("/access/ticket", data={"username": "root@pam", "password": password})
            login = answer.raise_for_status().json()["data"]
            client.cookies["PVEAuthCookie"] = login["ticket"].replace(":", "%3A").replace("=", "%3D")
            client.headers["CSRFPreventionToken"] = login["CSRFPreventionToken"]
            yield client

    def client(self, ip: str = MEMBER, token: str | None = None) -> httpx.AsyncClient:
        port = self.cluster.read().api_port
        headers = {"Authorization": f"PVEAPIToken={token}"} if token else {}
        return httpx.AsyncClient(
            base_url=f"https://{ip}:{port}/api2/json", verify=False, headers=headers, trust_env=False
        )


async def read_until(stream: trio.abc.ReceiveStream | None, text: str) -> str:
    """Everything up to and with `text`, from a process that may then wait for ever."""
    assert stream is not None
    seen = b""
    with trio.fail_after(20):
        while text.encode() not in seen:
            chunk = await stream.receive_some()
            assert chunk, f"ended without {text!r}: {seen!r}"
            seen += chunk
    return seen.decode()


async def eventually(happened: Callable[[], bool]) -> None:
    """Wait for something that another process does to a file."""
    with trio.fail_after(10):
        while not happened():
            await trio.sleep(0.01)


@asynccontextmanager
async def open_lab(directory: Path, **options: Any) -> AsyncIterator[Lab]:
    """A cluster of pve1, whose API listens, and a machine pve5 that stands alone."""
    cluster = Cluster.create(directory / "cluster", ip=MEMBER, root_password=PASSWORD, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_api, cluster, "pve1")
        lab = Lab(directory, cluster, nursery, directory / "pve5")
        lab.machine("pve5", NEWCOMER)
        try:
            yield lab
        finally:
            stop_pvecm(lab.newcomer)
            with trio.move_on_after(5, shield=True):
                for process in lab.processes:
                    process.kill()
                    await process.wait()
                    for stream in (process.stdin, process.stdout, process.stderr):
                        if stream is not None:
                            await stream.aclose()
            nursery.cancel_scope.cancel(reason="the test is over")
