"""The lab that people start: prepared once, run as a program, ended without leftovers."""

import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio
import yaml

from provd.simulator import lab
from provd.simulator.cluster import Cluster
from provd.simulator.lab import Lab, free_port, prepare, serve_files
from provd.simulator.operator import PATIENCE
from provd.simulator.seats import SEATS
from simulator.scripted_daemon import scripted_daemon

FIRST, SECOND, THIRD, MEMBER = (seat.mac for seat in SEATS)


def processes_of(directory: Path) -> list[str]:
    """Command lines of all processes that name the directory."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if str(directory) in line]


def test_what_is_prepared(tmp_path: Path) -> None:
    """The daemon's files hold the keys it reads; secrets are their owner's; there is no second time."""
    made = prepare(tmp_path / "lab", port=18080)
    document = yaml.safe_load(made.configuration.read_text())
    assert document["server"] == {
        "public_url": "http://127.0.0.1:18080",
        "listen": "127.0.0.1:18080",
        "image_listen": f"127.0.0.1:{made.ports.images}",
    }
    assert document["pxe"] == {"enabled": False}
    assert document["proxmox"]["existing_node"] == lab.CLUSTER_IP
    assert len(document["proxmox"]["join_fingerprint"].split(":")) == 32
    assert document["credentials"]["root_password_hash"].startswith("$6$")
    password = Path(document["credentials"]["cluster_password_file"])
    assert password.read_text().strip() == lab.CLUSTER_PASSWORD
    for secret in (password, made.configuration):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    types = yaml.safe_load((tmp_path / "lab/server-types.yaml").read_text())["server_types"]
    assert [(name, one["gpu"]) for name, one in types.items()] == [("nuc", False), ("gpu-node", True)]
    assert Lab.open(tmp_path / "lab") == made
    with pytest.raises(FileExistsError):
        prepare(tmp_path / "lab", port=18080)


def test_the_cluster_of_the_lab(tmp_path: Path) -> None:
    """Three nodes, one of them a machine that is off; token and key open what they shall; there is life."""
    made = prepare(tmp_path / "lab", port=18080)
    cluster = Cluster.open(made.cluster_dir)
    state = cluster.read()
    assert {name: node.online for name, node in state.nodes.items()} == {
        "pve1": True,
        "pve2": True,
        "pve3": False,
    }
    credentials = yaml.safe_load(made.configuration.read_text())["credentials"]
    name, _, secret = Path(credentials["cluster_token_file"]).read_text().strip().partition("=")
    assert state.tokens[name].secret == secret
    key = Path(credentials["cluster_ssh_key_file"])
    public = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True)
    assert any(public.stdout.split()[1] in line for line in cluster.authorized_keys())
    for secret_file in (key, Path(credentials["cluster_token_file"])):
        assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600
    lab.add_life(cluster)
    state = cluster.read()
    assert {guest.node for guest in state.guests} == {"pve1", "pve2"}
    assert [resource.node for resource in state.ha_resources] == ["pve1"]


def test_a_lab_without_trust(tmp_path: Path) -> None:
    """A daemon can be given the password alone, and a cluster of one."""
    made = prepare(tmp_path / "lab", port=18080, members=1, seats=(), trusted=False)
    credentials = yaml.safe_load(made.configuration.read_text())["credentials"]
    assert set(credentials) == {"root_password_hash", "cluster_password_file"}
    assert list(Cluster.open(made.cluster_dir).read().nodes) == ["pve1"]


async def test_the_installers_files(tmp_path: Path) -> None:
    """Three files and nothing else are served, with their length, also for HEAD."""
    made = prepare(tmp_path / "lab", port=1)
    async with trio.open_nursery() as nursery, httpx.AsyncClient(trust_env=False) as client:
        [url] = await nursery.start(serve_files, made.directory / "files", made.ports.files)
        for name, size in lab.FILES.items():
            assert len((await client.get(f"{url}/{name}")).content) == size
            assert (await client.head(f"{url}/{name}")).headers["content-length"] == str(size)
        assert (await client.get(f"{url}/../lab.json")).status_code == 404
        assert (await client.post(f"{url}/vmlinuz")).status_code == 404
        nursery.cancel_scope.cancel()


async def test_a_lab_that_runs(tmp_path: Path) -> None:
    """It waits for the daemon, registers three machines, shows one, boots on demand, and ends cleanly."""
    made = prepare(tmp_path / "lab", port=free_port())
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "provd.simulator",
        "run",
        str(made.directory),
        *("--pace", "0", "--look-every", "0.05"),
    ]
    program = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    said = b""

    async def read_until(text: str) -> None:
        nonlocal said
        assert program.stdout is not None
        while text.encode() not in said:
            chunk = await program.stdout.receive_some()
            print(chunk.decode(), end="")  # for whoever reads a failure
            assert chunk
            said += chunk
        said = said.partition(text.encode())[2]

    try:
        with trio.fail_after(30):
            await read_until("waits for the daemon")
            async with scripted_daemon(made.ports.daemon) as daemon:
                daemon.armed = False
                await daemon.wait_for("/api/hosts", 4)
                await daemon.wait_for(f"/ipxe/{THIRD.replace(':', '-')}")
                assert set(daemon.hosts) == {FIRST, SECOND, MEMBER}
                registered = [one.json for one in daemon.of("/api/hosts")[:3]]
                assert [one["server_type"] for one in registered] == ["nuc", "gpu-node", "nuc"]
                assert [one.get("hostname") for one in registered] == [None, None, "pve3"]
                assert not daemon.of(f"/ipxe/{FIRST.replace(':', '-')}")
                power = made.directory / "machines" / FIRST.replace(":", "-") / "root/run/initctl"
                for times in (1, 2, 3):
                    daemon.armed = True
                    daemon.hosts[FIRST] = "pxe_ready"
                    if times == 3:  # it restarts by itself, and the operator leaves its button alone
                        power.write_text("reboot\n")
                        await read_until(f"{FIRST}  was told to reboot")
                    await daemon.wait_for("/api/hosts/1/installed", times)
                    await read_until(f"{FIRST}  has nothing left to do")
                    seen = len(daemon.of("/api/hosts"))
                    await daemon.wait_for("/api/hosts", seen + PATIENCE + 3)
                    # Two boots each time, and none more although the host is still said to be pxe_ready.
                    assert len(daemon.of(f"/ipxe/{FIRST.replace(':', '-')}")) == 2 * times
                    daemon.hosts[FIRST] = "ready"
                    await daemon.wait_for("/api/hosts", seen + PATIENCE + 5)
            assert processes_of(made.directory / "machines")
            program.terminate()
            await read_until("the lab is off")
            assert await program.wait() == 0
    finally:
        program.terminate()  # SIGKILL would leave its sshd processes behind
        with trio.move_on_after(5, shield=True):
            await program.wait()
            assert program.stdout is not None
            await program.stdout.aclose()
    assert Cluster.open(made.cluster_dir).read().nodes["pve3"].online is False
    wipes = made.directory / "machines" / FIRST.replace(":", "-") / "disks/nvme0n1.wipes"
    assert wipes.read_text() == "3"
    assert not processes_of(made.directory)
