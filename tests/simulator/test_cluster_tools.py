"""The small programs of a simulated machine: command line errors, tables, and the other sub-commands."""

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.simulator.cluster import Cluster, Machine, install_pve_tools
from provd.simulator.cluster.options import Usage, parse
from simulator.cluster_lab import MEMBER, NEWCOMER, PASSWORD, Lab, open_lab, read_until

ADD = "pvecm add <hostname> [OPTIONS]\n"
FAILED = "400 Parameter verification failed.\n"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path) as lab:
        yield lab


# --- the command line -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "err"),
    [
        ("add", f"400 not enough arguments\n{ADD}"),
        ("add a b", f"400 too many arguments\n{ADD}"),
        ("add a --foo", f"Unknown option: foo\n400 unable to parse option\n{ADD}"),
        ("add a --fingerprint AB", f"{FAILED}fingerprint: value does not match the regex pattern\n{ADD}"),
        ("add a --nodeid 0", f"{FAILED}nodeid: value must have a minimum value of 1\n{ADD}"),
        (
            "add a --votes=x -nodeid 0",
            f"{FAILED}nodeid: value must have a minimum value of 1\nvotes: type check",
        ),
        ("", "ERROR: no command specified\nUSAGE: pvecm <COMMAND> [ARGS] [OPTIONS]\n"),
        ("x", "ERROR: unknown command 'pvecm x'\nUSAGE: pvecm <COMMAND> [ARGS] [OPTIONS]\n"),
        ("a h", "ERROR: unknown command 'pvecm a'\n"),
    ],
)
def test_refused_command_lines(line: str, err: str) -> None:
    """A command line that cannot be used is told in Proxmox's words."""
    with pytest.raises(Usage) as refused:
        parse(line.split())
    assert str(refused.value).startswith(err)


@pytest.mark.parametrize(
    ("line", "force"),
    [
        ("add h --force", True),
        ("add --force h", True),
        ("add h --force 1 --votes 2", True),
        ("add h -force=yes", True),
        ("add h --force off", False),
        ("add h --use_ssh on", False),
    ],
)
def test_booleans(line: str, force: bool) -> None:
    """A boolean stands alone or takes a word that means one."""
    assert parse(line.split()).flag("force") is force


@given(
    st.lists(
        st.text() | st.sampled_from(["add", "addnode", "--force", "-link0", "--nodeid=3", "x"]), max_size=6
    )
)
def test_any_command_line(words: list[str]) -> None:
    """Any words are a call, or a usage error."""
    try:
        parse(words)
    except Usage as refused:
        assert str(refused).endswith("\n")  # noqa: PT017 - either end is right


async def test_usage_errors_are_on_stderr_with_255(lab: Lab) -> None:
    """Errors of the command line are the ones with a status."""
    ended = await lab.run(lab.newcomer, "pvecm", "add")
    assert (ended.out, ended.err, ended.status) == ("", f"400 not enough arguments\n{ADD}", 255)


async def test_not_inside_etc_pve(lab: Lab) -> None:
    """A join is not started from a directory that it takes away."""
    ended = await lab.run(lab.newcomer, "pvecm", "add", MEMBER, cwd=lab.newcomer / "etc/pve/nodes")
    assert ended.err == (
        "Navigate out of /etc/pve before running 'pvecm add', for example by running 'cd'.\n"
    )
    assert ended.status == 255


async def test_wrapper_ignores_its_surroundings(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the working directory nor PYTHON* nor another PROVD_ROOT leads the programs astray."""
    (tmp_path / "json.py").write_text("raise SystemExit('wrong json')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PROVD_ROOT", "/nonexistent")
    ended = await lab.run(lab.newcomer, "pvecm", "apiver", cwd=tmp_path)
    assert (ended.out, ended.err, ended.status) == ("1\n", "", 0)


# --- tables -----------------------------------------------------------------------------------------

STATUS = """\
Cluster information
-------------------
Name:             lab
Config Version:   3
Transport:        knet
Secure auth:      on

Quorum information
------------------
Date:             DATE
Quorum provider:  corosync_votequorum
Nodes:            2
Node ID:          0x00000001
Ring ID:          1.14
Quorate:          Yes

Votequorum information
----------------------
Expected votes:   3
Highest expected: 3
Total votes:      2
Quorum:           2 \x20
Flags:            Quorate\x20

Membership information
----------------------
    Nodeid      Votes Name
0x00000001          1 127.77.0.1 (local)
0x00000003          1 127.77.0.3
"""


async def test_status_of_a_member(lab: Lab) -> None:
    """The table has its exact columns; whoever is offline is not in it."""
    lab.cluster.add_member("pve2", "127.77.0.2", online=False)
    lab.cluster.add_member("pve3", "127.77.0.3")
    ended = await lab.run(lab.member, "pvecm", "status")
    assert re.sub(r"(Date: +).*", r"\1DATE", ended.out) == STATUS
    assert (ended.err, ended.status) == ("", 0)
    ended = await lab.run(lab.member, "pvecm", "nodes")
    assert ended.out.endswith("         1          1 pve1 (local)\n         3          1 pve3\n")
    ended = await lab.run(lab.member, "corosync-cfgtool", "-s")
    assert ended.out == (
        "Local node ID 1, transport knet\nLINK ID 0 udp\n\taddr\t= 127.77.0.1\n\tstatus:\n"
        "\t\tnodeid:          1:\tlocalhost\n\t\tnodeid:          2:\tdisconnected\n"
        "\t\tnodeid:          3:\tconnected\n"
    )


async def test_status_without_cluster_and_without_quorum(lab: Lab) -> None:
    """Both end with 2; only the words tell a machine alone from a member without quorum."""
    alone = await lab.run(lab.newcomer, "pvecm", "status")
    assert (alone.out, alone.err, alone.status) == (
        "",
        "Error: Corosync config '/etc/pve/corosync.conf' does not exist - is this node part of a cluster?\n",
        2,
    )
    lab.cluster.add_member("pve2", "127.77.0.2", online=False)
    blocked = await lab.run(lab.member, "pvecm", "status")
    assert blocked.status == 2
    assert "Quorate:          No\n" in blocked.out
    assert "Quorum:           2 Activity blocked\nFlags:            \n" in blocked.out


async def test_status_with_qdevice(lab: Lab) -> None:
    """A QDevice is a flag, a column, and a row with a vote."""
    with lab.cluster.edit() as state:
        state.qdevice = {"Model": "Net", "State": "Connected"}
        state.expected_votes = state.configured_votes
    out = (await lab.run(lab.member, "pvecm", "status")).out
    assert "Flags:            Quorate Qdevice \n" in out
    assert "    Nodeid      Votes    Qdevice Name\n" in out
    assert "0x00000001          1    A,V,NMW 127.77.0.1 (local)\n" in out
    assert "0x00000000          1            Qdevice\n" in out


async def test_corosync_stopped(lab: Lab) -> None:
    """Without corosync the status is 1, and what was read from the file is still shown."""
    await lab.run(lab.member, "systemctl", "stop", "corosync")
    ended = await lab.run(lab.member, "pvecm", "status")
    assert ended.out.startswith("Cluster information\n")
    assert "Quorum information" not in ended.out
    assert (ended.err, ended.status) == ("Cannot initialize CMAP service\n", 1)
    assert (await lab.run(lab.member, "corosync-quorumtool", "-l")).status == 1


async def test_systemctl(lab: Lab) -> None:
    """A machine alone has everything but corosync; other verbs succeed quietly."""
    units = ("corosync", "pve-cluster.service", "pveproxy", "pvedaemon")
    ended = await lab.run(lab.newcomer, "systemctl", "is-active", *units)
    assert ended.out == "inactive\nactive\nactive\nactive\n"
    assert (await lab.run(lab.newcomer, "systemctl", "is-active", "corosync")).status == 3
    ended = await lab.run(lab.newcomer, "systemctl", "reload-or-restart", "pveproxy")
    assert (ended.out, ended.err, ended.status) == ("", "", 0)
    assert (await lab.add()).err == ""
    assert (await lab.run(lab.newcomer, "systemctl", "is-active", *units)).out == "active\n" * 4


# --- other sub-commands -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("victim", "err"),
    [
        ("pve1", "Cannot delete myself from cluster!\n"),
        ("pve9", "Node/IP: pve9 is not a known host of the cluster.\n"),
    ],
)
async def test_delnode_refused(lab: Lab, victim: str, err: str) -> None:
    """A member deletes neither itself nor a stranger."""
    ended = await lab.run(lab.member, "pvecm", "delnode", victim)
    assert (ended.out, ended.err, ended.status) == ("", err, 255)


async def test_delnode(lab: Lab) -> None:
    """An offline victim cannot be killed and goes all the same, by its address too; its directory stays."""
    lab.cluster.add_member("pve2", "127.77.0.2")
    lab.cluster.add_member("pve3", "127.77.0.3", online=False)
    offline = await lab.run(lab.member, "pvecm", "delnode", "pve3")
    assert (offline.out, offline.status) == ("Killing node 3\n", 0)
    assert offline.err == "Could not kill node (error = CS_ERR_NOT_EXIST)\n"
    root = lab.cluster.machine_root("pve2")
    online = await lab.run(lab.member, "pvecm", "delnode", "127.77.0.2")
    assert (online.out, online.err, online.status) == ("Killing node 2\n", "", 0)
    assert root is not None
    assert not Machine(root).read().corosync
    state = lab.cluster.read()
    assert (list(state.nodes), state.expected_votes, state.config_version) == (["pve1"], 1, 5)
    assert (lab.cluster.pve / "nodes/pve2/pve-ssl.pem").exists()


async def test_delnode_without_quorum_and_expected(lab: Lab) -> None:
    """In a cluster of two the survivor must lower the expected votes before it may delete the other."""
    lab.cluster.add_member("pve2", "127.77.0.2", online=False)
    ended = await lab.run(lab.member, "pvecm", "delnode", "pve2")
    assert (ended.err, ended.status) == ("cluster not ready - no quorum?\n", 255)
    ended = await lab.run(lab.member, "pvecm", "expected", "0")
    assert (ended.err, ended.status) == ("Unable to set expected votes: CS_ERR_INVALID_PARAM\n", 1)
    ended = await lab.run(lab.member, "pvecm", "expected", "1")
    assert (ended.out, ended.err, ended.status) == ("", "", 0)
    assert (await lab.run(lab.member, "pvecm", "delnode", "pve2")).status == 0


async def test_delnode_lock_busy(lab: Lab) -> None:
    """A busy lock is waited for aloud, and then given up."""
    lab.cluster.add_member("pve2", "127.77.0.2")
    with lab.cluster.edit() as state:
        state.faults.lock_busy = True
    ended = await lab.run(lab.member, "pvecm", "delnode", "pve2")
    assert ended.err == (
        "trying to acquire cfs lock 'file-corosync_conf' ...\n"
        "cfs-lock 'file-corosync_conf' error: got lock request timeout\n"
    )
    assert ended.status == 255


async def test_addnode(lab: Lab) -> None:
    """The member's side of a join by SSH prints nothing, unless it takes an old name over."""
    words = ("pvecm", "addnode", "pve5", "--link0", NEWCOMER, "--apiversion", "1")
    ended = await lab.run(lab.member, *words)
    assert (ended.out, ended.err, ended.status) == ("", "", 0)
    with lab.cluster.edit() as state:
        state.nodes["pve5"].online = True
    ended = await lab.run(lab.member, *words)
    assert (ended.err, ended.status) == ("can't add existing node 'pve5'\n", 255)
    ended = await lab.run(lab.member, *words, "--force", "1")
    assert ended.out == "forcing overwrite of configured node 'pve5'\n"


async def test_updatecerts(lab: Lab) -> None:
    """It tells what it does; without quorum it waits, and gives up."""
    ended = await lab.run(lab.member, "pvecm", "updatecert", "--force")
    assert ended.out == (
        "(re)generate node files\ngenerate new node certificate\nmerge authorized SSH keys\n"
    )
    with lab.cluster.edit() as state:
        state.faults.peer_no_quorum = True
    ended = await lab.run(lab.member, "pvecm", "updatecerts")
    assert ended.out.startswith("waiting for pmxcfs mount to appear and get quorate...\n")
    assert ended.err.startswith("got timeout when trying to ensure cluster certificates")
    assert ended.status == 255


async def test_reinstalled_machine(lab: Lab) -> None:
    """A machine installed again stands alone again, with another key and no trace of corosync."""
    assert (await lab.add()).err == ""
    key = (lab.newcomer / "root/.ssh/id_rsa.pub").read_text()
    with lab.cluster.edit() as state:
        state.nodes["pve5"].online = False
        state.expected_votes = 1
    lab.machine("pve5", NEWCOMER)
    assert not (lab.newcomer / "etc/corosync/authkey").exists()
    assert (lab.cluster.pve / "nodes/pve5/pve-ssl.pem").exists()
    ended = await lab.add("--force")
    assert ended.out.endswith("successfully added node 'pve5' to cluster.\n")
    keys = [line for line in lab.cluster.authorized_keys() if line.endswith("root@pve5")]
    assert len(keys) == 2
    assert key.rstrip() == keys[0]


async def test_slow(lab: Lab) -> None:
    """With the switch on, every step takes its time."""
    with lab.cluster.edit() as state:
        state.faults.slow = 0.05
    process = await lab.start_add()
    await read_until(process.stdout, "successfully added")
    assert await process.wait() == 0


def test_cluster_is_shared_by_its_directory(tmp_path: Path) -> None:
    """Two handles see one cluster; a copy that was read changes nothing; a block that raises, neither."""
    cluster = Cluster.create(tmp_path / "c", ip=MEMBER, root_password=PASSWORD)
    cluster.read().faults.slow = 5.0
    with suppress(ZeroDivisionError), cluster.edit() as state:
        state.faults.slow = 1 / 0
    assert Cluster.open(tmp_path / "c").read().faults.slow == 0.0
    with cluster.edit() as state:
        state.faults.slow = 9.0
    assert Cluster.open(tmp_path / "c").read() == cluster.read()
    with pytest.raises(FileNotFoundError):
        Cluster.open(tmp_path / "nowhere")


def test_member_root(tmp_path: Path) -> None:
    """A quorate member sees the cluster's files, and passes Proxmox's own test for quorum."""
    cluster = Cluster.create(tmp_path / "c", ip=MEMBER)
    root = tmp_path / "m"
    install_pve_tools(root, cluster_dir=cluster.directory, hostname="pve1", ip=MEMBER, joined=True)
    assert (root / "etc/pve/local").is_symlink()
    assert (root / "etc/pve/local").lstat().st_mode & 0o200
    assert (root / "etc/pve/local/pve-ssl.pem").read_bytes() == (
        cluster.pve / "nodes/pve1/pve-ssl.pem"
    ).read_bytes()
