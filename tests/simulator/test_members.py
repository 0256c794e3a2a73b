"""Members that run: reached over real SSH, switched off and on, taken apart and put together again."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from provd.simulator.cluster import HaResource, Machine, install_pve_tools
from provd.simulator.cluster.state import Guest
from simulator.cluster_lab import NEWCOMER, PASSWORD, Lab, eventually
from simulator.member_lab import Members, open_members


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Members]:
    async with open_members(tmp_path, 3) as lab:
        yield lab


async def api_answers(lab: Members, name: str) -> bool:
    client = Lab(lab.cluster.directory, lab.cluster, lab.nursery, lab.cluster.directory)
    try:
        async with client.root_session(lab.members[name].ip, PASSWORD) as session:
            rows = (await session.get("/cluster/status")).raise_for_status().json()["data"]
    except httpx.ConnectError:
        return False
    return any(row["type"] == "node" and row["local"] and row["name"] == name for row in rows)


async def test_seven_members(tmp_path: Path) -> None:
    """Seven members run at once, each with host keys of its own, in a time that a test can spend."""
    began = trio.current_time()
    async with open_members(tmp_path, 7) as lab:
        assert trio.current_time() - began < 20  # two seconds on an idle computer
        said = [(await lab.ssh(name, "hostname; pvecm nodes | grep -c pve")).out for name in lab.members]
        assert said == [f"pve{number}\n7\n" for number in range(1, 8)]
        keys = {
            (member.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text() for member in lab.members.values()
        }
        assert len(keys) == 7


async def test_who_may_log_in(three: Members, tmp_path: Path) -> None:
    """One file says who is root on every member; a stranger is refused, and a key that is removed."""
    stranger = tmp_path / "stranger"
    from provd.simulator.cluster.ssh_keys import make_key

    line = make_key(stranger, "stranger")
    assert (await three.ssh("pve2", "true", key=stranger)).status == 255
    three.cluster.authorize(line)
    assert (await three.ssh("pve2", "true", key=stranger)).status == 0
    remove = "f=$PROVD_ROOT/etc/pve/priv/authorized_keys; grep -v stranger $f > $f.new; mv $f.new $f"
    assert (await three.ssh("pve1", remove)).status == 0
    assert (await three.ssh("pve3", "true", key=stranger)).status == 255
    owners = {line.split()[-1] for line in three.cluster.authorized_keys()}
    assert owners == {"operator", "root@pve1", "root@pve2", "root@pve3"}


async def test_power(three: Members) -> None:
    """A member that is off answers nowhere and is offline; it comes back. `reboot` on it does both."""
    assert await api_answers(three, "pve2")
    pid = three.members["pve2"].sshd_pid
    await three.members["pve2"].power_off()
    assert three.online() == {"pve1": True, "pve2": False, "pve3": True}
    assert (await three.ssh("pve2", "true")).status == 255
    assert not await api_answers(three, "pve2")
    await three.up("pve2")
    assert three.online()["pve2"]
    assert await api_answers(three, "pve2")
    assert three.members["pve2"].sshd_pid != pid
    pid = three.members["pve3"].sshd_pid
    assert (await three.ssh("pve3", "systemctl reboot")).status in (0, 255)
    await eventually(lambda: three.members["pve3"].sshd_pid not in (pid, None) and three.online()["pve3"])
    await three.ssh("pve3", "poweroff")
    await eventually(lambda: not three.members["pve3"].is_on)
    assert three.online() == {"pve1": True, "pve2": True, "pve3": False}


async def test_corosync_by_systemctl(three: Members) -> None:
    """A member whose corosync is stopped is offline, has no quorum, and says so when it is asked."""
    assert (await three.ssh("pve3", "systemctl stop corosync; test -e $PROVD_ROOT/etc/pve/local")).status == 1
    assert not three.online()["pve3"]
    assert (await three.ssh("pve3", "systemctl is-active corosync pve-cluster pveproxy")).out == (
        "inactive\nactive\nactive\n"
    )
    client = Lab(three.cluster.directory, three.cluster, three.nursery, three.cluster.directory)
    async with client.root_session("127.77.0.3", PASSWORD) as session:
        rows = (await session.get("/cluster/status")).json()["data"]
        assert [row["quorate"] for row in rows if row["type"] == "cluster"] == [0]
        assert {row["name"]: row["online"] for row in rows if row["type"] == "node"} == {
            "pve1": 0,
            "pve2": 0,
            "pve3": 1,
        }
        refused = await session.delete("/cluster/config/nodes/pve1")
        assert (refused.status_code, refused.reason_phrase) == (500, "cluster not ready - no quorum?")
    assert (
        await three.ssh("pve3", "systemctl start corosync; test -e $PROVD_ROOT/etc/pve/local")
    ).status == 0
    assert three.online()["pve3"]


async def test_quorumtool(three: Members) -> None:
    """`-s` is the status; its exit status tells the quorum."""
    shown = await three.ssh("pve1", "corosync-quorumtool -s")
    assert shown.status == 0
    assert "Quorate:          Yes\n" in shown.out
    assert "Expected votes:   3\n" in shown.out
    for name in ("pve2", "pve3"):
        await three.members[name].power_off()
    shown = await three.ssh("pve1", "corosync-quorumtool -s")
    assert shown.status == 2
    assert "Quorum:           2 Activity blocked\n" in shown.out


async def test_pmxcfs_stops_and_starts(three: Members) -> None:
    """Without pve-cluster /etc/pve is empty, its tools fail and no key opens; started again all is back."""
    both = "systemctl stop pve-cluster; ls $PROVD_ROOT/etc/pve; pvecm status"
    stopped = await three.ssh("pve2", both)
    assert (stopped.out, stopped.status) == ("", 111)
    assert stopped.err.startswith("ipcc_send_rec[1] failed")
    assert (await three.ssh("pve2", "true")).status == 255
    assert three.online()["pve2"]  # corosync is another service
    root = three.members["pve2"].root
    done = await trio.run_process([root / "usr/local/bin/systemctl", "restart", "pve-cluster"])
    assert done.returncode == 0
    assert (await three.ssh("pve2", "cat $PROVD_ROOT/etc/pve/nodes/pve1/host.fw")).out.startswith("[OPTIONS]")
    assert (three.cluster.pve / "nodes/pve3/pve-ssl.pem").exists()


async def test_disarmed_member_does_not_come_back(three: Members) -> None:
    """Disabled services stay off when the old system boots again; nobody gets in, since its keys are away."""
    disarm = (
        "systemctl disable --now pve-ha-lrm pve-ha-crm corosync pve-cluster"
        " && rm $PROVD_ROOT/etc/corosync/corosync.conf $PROVD_ROOT/etc/corosync/authkey"
        " && systemctl is-enabled corosync pve-ha-lrm pveproxy"
    )
    ended = await three.ssh("pve3", disarm)
    assert (ended.out, ended.status) == ("disabled\ndisabled\nenabled\n", 0)
    assert not three.online()["pve3"]
    await three.members["pve3"].power_off()
    await three.up("pve3")
    assert not three.online()["pve3"]
    assert list(Machine(three.members["pve3"].root).pve.iterdir()) == []
    assert (await three.ssh("pve3", "true")).status == 255


async def test_removed_corosync_conf(three: Members) -> None:
    """Without corosync.conf corosync does not start and does not fail; the rest of the system runs."""
    await three.ssh("pve3", "rm $PROVD_ROOT/etc/corosync/corosync.conf; reboot")
    await eventually(lambda: not three.online()["pve3"])
    await three.members["pve3"].power_off()
    await three.up("pve3")
    assert (await three.ssh("pve3", "systemctl is-active corosync")).out == "inactive\n"
    assert not three.online()["pve3"]


async def test_struck_out_while_it_was_off(three: Members) -> None:
    """The corosync of a node that was struck out exits when its old system boots: no quorum for it."""
    await three.members["pve3"].power_off()
    assert (await three.ssh("pve1", "pvecm delnode pve3")).status == 0
    await three.up("pve3")
    assert list(three.online()) == ["pve1", "pve2"]
    assert (await three.ssh("pve3", "systemctl is-active corosync")).out == "failed\n"
    status = await three.ssh("pve3", "pvecm status; test -e $PROVD_ROOT/etc/pve/local")
    assert status.err == "Cannot initialize CMAP service\n"
    assert status.status == 1
    # What it writes now is its own affair.
    await three.ssh("pve3", "rm -r $PROVD_ROOT/etc/pve/nodes/pve1")
    assert (three.cluster.pve / "nodes/pve1/pve-ssl.pem").exists()


async def test_struck_out_while_it_runs(three: Members) -> None:
    """Its corosync is killed from afar; it still answers, and knows of nobody."""
    ended = await three.ssh("pve1", "pvecm delnode pve3")
    assert (ended.out, ended.err) == ("Killing node 3\n", "")
    assert (await three.ssh("pve3", "systemctl is-active corosync")).out == "inactive\n"
    client = Lab(three.cluster.directory, three.cluster, three.nursery, three.cluster.directory)
    async with client.root_session("127.77.0.3", PASSWORD) as session:
        rows = (await session.get("/cluster/status")).json()["data"]
        assert [row["quorate"] for row in rows if row["type"] == "cluster"] == [0]
    three_left = "ls $PROVD_ROOT/etc/pve/nodes"
    assert (await three.ssh("pve1", three_left)).out == "pve1\npve2\npve3\n"


async def test_what_is_left_of_a_struck_out_node(three: Members) -> None:
    """Its directory is complete and stays; a quorate member can save and remove it, like its key's line."""
    await three.members["pve3"].power_off()
    await three.ssh("pve1", "pvecm delnode pve3")
    listed = (await three.ssh("pve2", "ls $PROVD_ROOT/etc/pve/nodes/pve3")).out.split()
    assert listed == ["host.fw", "lrm_status", "pve-ssl.key", "pve-ssl.pem", "ssh_known_hosts"]
    tidy = (
        "cd $PROVD_ROOT/etc/pve && tar -C nodes -cf $PROVD_ROOT/tmp/pve3.tar pve3 && rm -r nodes/pve3"
        " && grep -v root@pve3 priv/authorized_keys > priv/keys.new && mv priv/keys.new priv/authorized_keys"
        " && tar -tf $PROVD_ROOT/tmp/pve3.tar | grep -c /"
    )
    assert (await three.ssh("pve2", tidy)).out == "6\n"
    assert not (three.cluster.pve / "nodes/pve3").exists()
    with three.cluster.edit():
        pass
    assert not (three.cluster.pve / "nodes/pve3").exists()
    assert not any("root@pve3" in line for line in three.cluster.authorized_keys())


async def test_guests_are_files(three: Members) -> None:
    """A guest's configuration lies with its node, moves with it, and is gone when somebody removes it."""
    with three.cluster.edit() as state:
        state.guests = [Guest(vmid=100, node="pve3"), Guest(vmid=101, node="pve3", type="lxc")]
    listed = "cd $PROVD_ROOT/etc/pve/nodes; ls pve*/qemu-server/* pve*/lxc/* 2>/dev/null"
    assert (await three.ssh("pve1", listed)).out == "pve3/lxc/101.conf\npve3/qemu-server/100.conf\n"
    with three.cluster.edit() as state:
        state.guests[0].node = "pve2"
    assert (await three.ssh("pve1", listed)).out == "pve2/qemu-server/100.conf\npve3/lxc/101.conf\n"
    await three.ssh("pve1", "rm -r $PROVD_ROOT/etc/pve/nodes/pve3/lxc")
    with three.cluster.edit() as state:
        state.ha_maintenance = []
    assert (await three.ssh("pve1", listed)).out == "pve2/qemu-server/100.conf\n"


async def test_removed_configuration_comes_back_with_a_change(three: Members) -> None:
    """pmxcfs writes corosync.conf anew when the cluster's changes, though somebody removed it."""
    await three.ssh("pve2", "rm $PROVD_ROOT/etc/corosync/corosync.conf")
    conf = three.members["pve2"].root / "etc/corosync/corosync.conf"
    with three.cluster.edit() as state:
        state.ha_maintenance = []
    assert not conf.exists()
    assert (await three.ssh("pve1", "pvecm delnode pve3")).status == 0
    assert conf.read_bytes() == (three.cluster.pve / "corosync.conf").read_bytes()


async def test_missed_change_of_members(three: Members) -> None:
    """Corosync exits on a member that was off while another left, until it gets the new corosync.conf.

    Those that were there have got it by themselves.
    """
    await three.members["pve2"].power_off()
    with three.cluster.edit() as state:
        state.expected_votes = 1
    assert (await three.ssh("pve1", "pvecm delnode pve3")).status == 0
    conf = (three.members["pve1"].root / "etc/corosync/corosync.conf").read_text()
    assert "name: pve3" not in conf
    await three.up("pve2")
    assert not three.online()["pve2"]
    assert (await three.ssh("pve2", "systemctl is-active corosync")).out == "failed\n"
    assert (await three.ssh("pve2", "systemctl restart corosync")).status == 1
    three.cluster.repair_configuration("pve2")
    assert (await three.ssh("pve2", "systemctl restart corosync")).status == 0
    assert three.online() == {"pve1": True, "pve2": True}


# --- a node by itself ---------------------------------------------------------------------------------

SEPARATION = """
systemctl stop pve-cluster corosync
pmxcfs -l
rm $PROVD_ROOT/etc/pve/corosync.conf
rm -r $PROVD_ROOT/etc/corosync/*
killall pmxcfs
systemctl start pve-cluster
pvecm updatecerts
"""


async def test_separation_of_a_member(three: Members) -> None:
    """The documented way out of a cluster leaves a machine alone, and the cluster as it was."""
    ended = await three.ssh("pve3", SEPARATION + "pvecm status; ls $PROVD_ROOT/etc/pve")
    assert "Corosync config '/etc/pve/corosync.conf' does not exist" in ended.err
    assert "local" in ended.out.split()
    assert three.online() == {"pve1": True, "pve2": True, "pve3": False}
    assert (three.cluster.pve / "corosync.conf").exists()
    machine = Machine(three.members["pve3"].root)
    assert not machine.read().joined
    assert not machine.sees_cluster


async def test_local_mode(three: Members) -> None:
    """`pmxcfs -l` makes /etc/pve the machine's own without quorum; a second pmxcfs finds the first."""
    await three.ssh("pve3", "systemctl stop pve-cluster corosync && pmxcfs -l")
    again = await three.ssh("pve3", "killall -0 pmxcfs && pmxcfs -l")
    assert again.status == 255
    assert "unable to acquire pmxcfs lock" in again.err
    assert (await three.ssh("pve3", "systemctl is-active pve-cluster")).out == "inactive\n"
    await three.ssh("pve3", "rm -r $PROVD_ROOT/etc/pve/nodes/pve1")
    assert (three.cluster.pve / "nodes/pve1").exists()
    # Back in the cluster, the others' word counts.
    script = "pkill pmxcfs; systemctl start pve-cluster corosync; ls $PROVD_ROOT/etc/pve/nodes; pkill nobody"
    back = await three.ssh("pve3", script)
    assert (back.out, back.status) == ("pve1\npve2\npve3\n", 1)
    assert three.online()["pve3"]
    assert (await three.ssh("pve3", "killall nobody")).err == "nobody: no process found\n"


@pytest.mark.parametrize("step", [12, 13, 14])
async def test_separation_after_half_a_join(three: Members, tmp_path: Path, step: int) -> None:
    """However far a join came, the documented separation leaves a machine that can join again."""
    root = tmp_path / "pve5"
    install_pve_tools(root, cluster_dir=three.cluster.directory, hostname="pve5", ip=NEWCOMER)
    lab = Lab(tmp_path, three.cluster, three.nursery, root)
    with three.cluster.edit() as state:
        state.faults.drop_after_step = step
    assert (await lab.add()).status == -9
    with three.cluster.edit() as state:
        state.faults.drop_after_step = None
    assert (await three.ssh("pve1", "pvecm delnode pve5")).status == 0
    environment = {"PROVD_ROOT": str(root), "PATH": f"{root}/usr/local/bin:/usr/bin:/bin"}
    await trio.run_process(["/bin/sh", "-c", SEPARATION], env=environment, check=False, capture_stderr=True)
    assert sorted(item.name for item in (root / "etc/pve").iterdir()) == [
        "local",
        "nodes",
        "priv",
        "pve-root-ca.pem",
    ]
    assert stat.S_ISLNK((root / "etc/pve/local").lstat().st_mode)
    again = await lab.add()
    assert again.out.endswith("successfully added node 'pve5' to cluster.\n"), again
    assert three.online()["pve5"]


# --- high availability ----------------------------------------------------------------------------------


async def test_maintenance(three: Members) -> None:
    """Services leave a node in maintenance after a moment, guests with them, and come back afterwards."""
    with three.cluster.edit() as state:
        state.guests = [Guest(vmid=100, node="pve3"), Guest(vmid=101, node="pve3")]
        state.ha_resources = [HaResource(sid="vm:100", node="pve3")]
        state.timings.ha_move = 0.3
    assert (await three.ssh("pve1", "ha-manager crm-command node-maintenance enable pve3")).status == 0
    state = three.cluster.read()
    assert (state.ha_resources[0].node, state.ha_maintenance) == ("pve3", ["pve3"])
    shown = (await three.ssh("pve2", "ha-manager status")).out
    assert "\nlrm pve3 (maintenance mode, " in shown
    await eventually(lambda: three.cluster.read().ha_resources[0].node == "pve1")
    assert [guest.node for guest in three.cluster.read().guests] == ["pve1", "pve3"]
    assert "\nservice vm:100 (pve1, started)\n" in (await three.ssh("pve2", "ha-manager status")).out
    assert (await three.ssh("pve1", "ha-manager crm-command node-maintenance disable pve3")).status == 0
    await eventually(lambda: three.cluster.read().ha_resources[0].node == "pve3")
    assert three.cluster.read().ha_maintenance == []


@pytest.mark.parametrize(
    ("words", "err"),
    [
        ("crm-command node-maintenance enable pve9", "no such cluster node 'pve9'\n"),
        ("crm-command node-maintenance enable", "400 not enough arguments\n"),
        ("crm-command node-maintenance enable 'a b'", "400 Parameter verification failed.\n"),
        ("", "ERROR: no command specified\n"),
        ("dance", "ERROR: unknown command 'ha-manager dance'\n"),
    ],
)
async def test_maintenance_refused(three: Members, words: str, err: str) -> None:
    """What cannot be done is told, and changes nothing."""
    ended = await three.ssh("pve1", f"ha-manager {words}")
    assert ended.err.startswith(err)
    assert ended.status == 255
    assert three.cluster.read().ha_maintenance == []


async def test_maintenance_needs_quorum_and_somewhere_to_go(three: Members) -> None:
    """Without another node that is online the services stay; without quorum nobody even asks."""
    with three.cluster.edit() as state:
        state.ha_resources = [HaResource(sid="ct:100", node="pve1")]
        state.timings.ha_move = 0.0
    await three.members["pve3"].power_off()
    with three.cluster.edit() as state:
        state.ha_maintenance = ["pve2"]
    await three.ssh("pve1", "ha-manager crm-command node-maintenance enable pve1")
    assert three.cluster.read().ha_resources[0].node == "pve1"
    await three.members["pve2"].power_off()
    ended = await three.ssh("pve1", "ha-manager crm-command node-maintenance disable pve1")
    assert (ended.err, ended.status) == ("cfs-lock 'domain-ha' error: no quorum!\n", 255)
