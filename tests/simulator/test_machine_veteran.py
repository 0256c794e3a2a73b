"""A machine that is a member from the start: it comes and goes with its power, and is installed anew."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define

from provd.simulator.cluster import Machine as PveRoot
from provd.simulator.machine.machine import Machine, Phase
from provd.simulator.machine.veteran import make_veteran
from simulator.cluster_lab import PASSWORD, Lab, eventually
from simulator.member_lab import Members, open_members
from simulator.scripted_daemon import ANSWER, ScriptedDaemon, scripted_daemon

IP = "127.77.0.3"
ALL_ON = {"pve1": True, "pve2": True, "pve3": True}
PVE3_OFF = ALL_ON | {"pve3": False}


@define
class Scene:
    members: Members
    machine: Machine
    daemon: ScriptedDaemon

    def press(self) -> None:
        self.members.nursery.start_soon(self.machine.run_until_off)

    async def idle(self) -> None:
        with trio.fail_after(30):
            await self.machine.wait_phase(Phase.IDLE)

    async def off(self) -> None:
        self.machine.power_off()
        with trio.fail_after(10):
            await self.machine.wait_phase(Phase.OFF)


@asynccontextmanager
async def open_scene(directory: Path) -> AsyncIterator[Scene]:
    """Two members that run, pve3 that is off, and a daemon that will say: boot your own disk."""
    async with scripted_daemon() as daemon, open_members(directory, 2) as members:
        daemon.armed = False
        daemon.answer = ANSWER.replace("nuc1.lab.example", "pve3.lab.example")
        daemon.keys = [(directory / "operator.pub").read_text().strip()]
        machine = Machine(
            mac="02:00:00:00:00:13",
            ip=IP,
            ssh_port=members.cluster.read().ssh_port,
            directory=directory / "machine",
            public_url=daemon.url,
            cluster_dir=members.cluster.directory,
            on_event=print,
        )
        make_veteran(machine, "pve3", root_password=PASSWORD)
        yield Scene(members, machine, daemon)
        machine.power_off()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with open_scene(tmp_path) as scene:
        yield scene


async def test_it_is_a_member_when_it_runs(scene: Scene) -> None:
    """Off it is offline; on it is a member like every other; nothing was wiped."""
    assert scene.members.online() == PVE3_OFF
    scene.press()
    await scene.idle()
    assert scene.members.online() == ALL_ON
    seen = await scene.members.ssh(IP, "pvecm status; cat $PROVD_ROOT/etc/pve/local/host.fw; hostname")
    assert seen.status == 0
    assert "Quorate:          Yes\n" in seen.out
    assert f"0x00000003          1 {IP} (local)\n" in seen.out
    assert seen.out.endswith("pve3\n")
    assert (await scene.members.ssh("pve1", "pvecm nodes | grep -c pve")).out == "3\n"
    api = Lab(
        scene.members.cluster.directory, scene.members.cluster, scene.members.nursery, scene.machine.root
    )
    async with api.root_session(IP, PASSWORD) as session:
        assert (await session.get("/cluster/status")).is_success
    assert scene.machine.wipes() == 0
    await scene.off()
    assert scene.members.online() == PVE3_OFF
    scene.press()
    await scene.idle()
    assert scene.members.online() == ALL_ON


async def test_struck_out_and_booted_again(scene: Scene) -> None:
    """Its old system finds a cluster that has gone on without it."""
    assert (await scene.members.ssh("pve1", "pvecm delnode pve3")).status == 0
    scene.press()
    await scene.idle()
    assert list(scene.members.online()) == ["pve1", "pve2"]
    assert PveRoot(scene.machine.root).read().failed_units == ["corosync"]


async def test_disarmed_over_ssh_and_restarted(scene: Scene) -> None:
    """Whoever is in may disable its services and reboot it in one go; from the disk it is no member then."""
    scene.press()
    await scene.idle()
    boots = scene.machine.boots
    script = (
        "systemctl disable --now pve-ha-lrm pve-ha-crm corosync pve-cluster;"
        " rm -f $PROVD_ROOT/etc/corosync/corosync.conf $PROVD_ROOT/etc/corosync/authkey; systemctl reboot"
    )
    await scene.members.ssh(IP, script)
    with trio.fail_after(20):
        await scene.machine.wait_phase(Phase.FIRMWARE)
    await scene.idle()
    assert scene.machine.boots == boots + 1
    assert scene.members.online() == PVE3_OFF
    assert (await scene.members.ssh(IP, "true")).status == 255


@pytest.mark.parametrize("forced", [False, True])
async def test_a_whole_rebuild_by_hand(scene: Scene, forced: bool) -> None:
    """Member, network boot, installer, new system, member again: struck out before, or by force."""
    scene.press()
    await scene.idle()
    cluster = scene.members.cluster
    old_key = (scene.machine.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    before = cluster.read()
    scene.daemon.armed = True
    await scene.members.ssh(IP, "reboot")
    with trio.fail_after(20):
        await scene.machine.wait_phase(Phase.INSTALLER)
    assert scene.members.online() == PVE3_OFF
    if not forced:
        assert (await scene.members.ssh("pve1", "pvecm delnode pve3")).status == 0
    await scene.idle()
    assert scene.machine.wipes() == 1
    assert (scene.machine.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text() != old_key
    root = PveRoot(scene.machine.root)
    assert (root.read().joined, root.read().corosync) == (False, False)
    assert scene.members.online() == (PVE3_OFF if forced else {"pve1": True, "pve2": True})
    # Its system is a new one and in no cluster, though the cluster may list its name.
    alone = await scene.members.ssh(IP, "pvecm status")
    assert "does not exist - is this node part of a cluster?" in alone.err
    lab = Lab(cluster.directory, cluster, scene.members.nursery, scene.machine.root)
    joined = await lab.add()
    if forced:
        assert "An error occurred on the cluster node: can't add existing node 'pve3'" in joined.out
        joined = await lab.add("--force", "1")
    assert joined.out.endswith("successfully added node 'pve3' to cluster.\n"), joined
    assert scene.members.online() == ALL_ON
    after = cluster.read()
    assert after.nodes["pve3"].nodeid == before.nodes["pve3"].nodeid
    assert after.config_version == before.config_version + (1 if forced else 2)
    assert all(moment.quorate for moment in cluster.history())
    # It survives its next boot as what it is now.
    await scene.off()
    scene.daemon.armed = False
    scene.press()
    await scene.idle()
    assert scene.members.online() == ALL_ON


async def test_a_host_key_of_its_own(scene: Scene) -> None:
    """Its host key is the one the cluster has pinned."""
    rsa = (scene.machine.root / "etc/ssh/ssh_host_rsa_key.pub").read_text().split()[1]
    assert rsa in (scene.members.cluster.pve / "nodes/pve3/ssh_known_hosts").read_text()
    scene.press()
    await scene.idle()
    scanned = await trio.run_process(
        ["ssh-keyscan", "-t", "rsa", "-p", str(scene.machine.ssh_port), IP],
        capture_stdout=True,
        stderr=subprocess.DEVNULL,
    )
    assert rsa in scanned.stdout.decode()
    await eventually(lambda: scene.machine.phase is Phase.IDLE)
