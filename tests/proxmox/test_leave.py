"""What is run when a node leaves, and before one joins, by real shells in a directory that plays `/`."""

import shlex
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fake_root import FakeRoot
from provd.domain.errors import Invalid
from provd.proxmox import join, leave

KEYS = "etc/pve/priv/authorized_keys"
NODES = "etc/pve/nodes"
COROSYNC = "etc/corosync"
DISARMED = f"{COROSYNC}/disarmed-by-provd"
OWN = "root/.ssh/id_rsa.pub"

OTHERS = (
    "ssh-rsa AAAAB3Nza+1 root@pve1\n"
    "ssh-rsa AAAAB3Nza+13 root@pve33\n"
    "ssh-rsa AAAAB3Nza+4 root@xpve3\n"
    "ssh-rsa AAAAB3Nza+5 root@pve3.example.org\n"
    "# root@pve3 was here\n"
    'from="10.0.0.0/8" ssh-ed25519 AAAAC3Nz admin of root@pve3\'s\n'
)
"""Lines of everybody else, some of which look as if they were pve3's."""
PVE3 = "ssh-rsa AAAAB3Nza+3 root@pve3\n"


@pytest.fixture(params=["dash", "bash"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> FakeRoot:
    node = FakeRoot(tmp_path / "o'root $x", request.param)
    node.root.mkdir()
    for program in ("systemctl", "pvecm", "ha-manager", "ssh-keygen"):
        node.program(program)
    # A pmxcfs that takes two looks to end.
    node.program("pmxcfs", 'printf "" >"$PROVD_ROOT/run/pmxcfs"')
    node.program(
        "killall",
        'p="$PROVD_ROOT/run/pmxcfs"\ncase "$1" in -0) [ -e "$p" ];; *) (sleep 0.1; rm -f "$p") & esac',
    )
    return node


async def twice(node: FakeRoot, command: str) -> None:
    """The second time changes nothing that the first time did."""
    assert (await node.run(command)).status == 0
    once = node.files("run/")
    assert (await node.run(command)).status == 0
    assert node.files("run/") == once


# --- on the node that leaves ----------------------------------------------------------------------


def clustered(node: FakeRoot) -> None:
    node.put(f"{COROSYNC}/corosync.conf", "config_version: 7\n")
    node.put(f"{COROSYNC}/authkey", "the key")
    node.put(f"{COROSYNC}/uidgid.d/x", "somebody's")


async def test_a_disarmed_node_starts_no_cluster_again(node: FakeRoot) -> None:
    """Key and configuration are put aside, HA is stopped, and neither corosync nor pve-cluster is."""
    clustered(node)
    await twice(node, leave.disarm_command())
    assert node.files("run/", "usr/") == {
        f"{DISARMED}/corosync.conf": "config_version: 7\n",
        f"{DISARMED}/authkey": "the key",
        f"{COROSYNC}/uidgid.d/x": "somebody's",
    }
    assert set(node.calls()) == {
        "systemctl disable --now pve-ha-lrm pve-ha-crm",
        "systemctl disable corosync",
    }


async def test_arming_takes_disarming_back(node: FakeRoot) -> None:
    """Every file is where it was, and the services start again; on a node that is armed nothing happens."""
    clustered(node)
    before = node.files("run/")
    await node.run(leave.disarm_command())
    node.put("run/calls", "")
    await twice(node, leave.arm_command())
    assert node.files("run/") == before
    assert node.calls() == [
        "systemctl enable --now corosync",
        "systemctl enable --now pve-ha-crm pve-ha-lrm",
    ]
    assert not (node.root / DISARMED).exists()


async def test_what_came_meanwhile_is_newer(node: FakeRoot) -> None:
    """pmxcfs writes a missing corosync.conf anew when the cluster's changes: that one counts, either way."""
    clustered(node)
    await node.run(leave.disarm_command())
    node.put(f"{COROSYNC}/corosync.conf", "config_version: 8\n")
    await node.run(leave.disarm_command())
    assert node.read(f"{DISARMED}/corosync.conf") == "config_version: 8\n"
    node.put(f"{COROSYNC}/corosync.conf", "config_version: 9\n")
    await twice(node, leave.arm_command())
    assert node.read(f"{COROSYNC}/corosync.conf") == "config_version: 9\n"
    assert node.read(f"{COROSYNC}/authkey") == "the key"
    assert not (node.root / DISARMED).exists()


async def test_a_node_that_cannot_be_disarmed_says_so(node: FakeRoot) -> None:
    """A file in the way of the directory: the status tells, and nothing is lost."""
    clustered(node)
    node.put(DISARMED, "in the way")
    assert (await node.run(leave.disarm_command())).status != 0
    assert node.read(f"{COROSYNC}/authkey") == "the key"


@pytest.mark.parametrize(
    ("command", "word"), [(leave.restart_command(), "reboot"), (leave.power_off_command(), "poweroff")]
)
async def test_the_answer_comes_before_the_end(node: FakeRoot, command: str, word: str) -> None:
    """The command returns at once; the machine goes down a moment later, once."""
    with trio.fail_after(0.9):
        assert (await node.run(command)).status == 0
    assert node.calls() == []
    with trio.fail_after(10):
        while not node.calls():
            await trio.sleep(0.05)
    assert node.calls() == [f"systemctl {word}"]


# --- on a node that stays -------------------------------------------------------------------------


def struck_out(node: FakeRoot) -> None:
    """What `pvecm delnode pve3` leaves."""
    node.put(KEYS, OTHERS + PVE3)
    node.put(f"{NODES}/pve3/lrm_status", "{}")
    (node.root / NODES / "pve3/qemu-server").mkdir()
    (node.root / NODES / "pve3/lxc").mkdir()
    node.put(f"{NODES}/pve1/qemu-server/100.conf", "pve1's guest")
    node.put(f"{NODES}/pve33/lrm_status", "{}")


async def copy_of(node: FakeRoot, said: str) -> dict[str, str]:
    name = said.removeprefix("copy ")
    with tarfile.open(f"{node.root}{name}") as archive:
        return {
            member.name: content.read().decode()
            for member in archive.getmembers()
            if (content := archive.extractfile(member)) is not None
        }


async def test_what_a_node_left_is_removed_after_it_was_saved(node: FakeRoot) -> None:
    """Its directory and its key, and nobody else's, however alike; the copy has both, for root alone."""
    struck_out(node)
    done = await node.run(leave.tidy_command("pve3", "17"))
    assert (done.out, done.status) == ("copy /var/lib/pve-cluster/backup/provd-pve3-17.tar.gz\n", 0)
    assert node.read(KEYS) == OTHERS
    assert sorted(path.name for path in (node.root / NODES).iterdir()) == ["pve1", "pve33"]
    assert node.read(f"{NODES}/pve1/qemu-server/100.conf") == "pve1's guest"
    assert await copy_of(node, done.out.strip()) == {
        "nodes/pve3/lrm_status": "{}",
        "priv/authorized_keys": OTHERS + PVE3,
    }
    copy = node.root / "var/lib/pve-cluster/backup/provd-pve3-17.tar.gz"
    assert copy.stat().st_mode & 0o077 == 0
    assert (node.root / KEYS).stat().st_mode & 0o077 == 0


async def test_to_tidy_up_twice_is_to_do_it_once(node: FakeRoot) -> None:
    """The second time there is nothing to say, and the first copy is as it was."""
    struck_out(node)
    await twice(node, leave.tidy_command("pve3", "17"))
    assert await node.run(leave.tidy_command("pve3", "17")) == await node.run(
        leave.tidy_command("stranger", "17")
    )


async def test_a_copy_that_is_there_is_kept(node: FakeRoot) -> None:
    """It may be the whole one, from before an interruption; what is found now is less."""
    struck_out(node)
    copy = node.put("var/lib/pve-cluster/backup/provd-pve3-17.tar.gz", "the first one")
    assert (await node.run(leave.tidy_command("pve3", "17"))).status == 0
    assert copy.read_text() == "the first one"
    assert not (node.root / NODES / "pve3").exists()


async def test_configurations_of_guests_are_never_removed(node: FakeRoot) -> None:
    """They are named, the directory stays, all else is tidied; also the second time."""
    struck_out(node)
    node.put(f"{NODES}/pve3/qemu-server/100.conf", "a machine")
    node.put(f"{NODES}/pve3/lxc/205.conf", "a container")
    command = leave.tidy_command("pve3", "17")
    for _ in range(2):
        done = await node.run(command)
        assert done.status == leave.GUESTS_THERE
        copy, guests = sorted(done.out.splitlines())
        assert copy == "copy /var/lib/pve-cluster/backup/provd-pve3-17.tar.gz"
        assert sorted(guests.split()) == ["100", "205", "guests"]
        assert node.read(f"{NODES}/pve3/qemu-server/100.conf") == "a machine"
        assert node.read(f"{NODES}/pve3/lxc/205.conf") == "a container"
        assert node.read(KEYS) == OTHERS


async def test_only_the_key_is_left(node: FakeRoot) -> None:
    """A directory that somebody removed by hand is none to save."""
    struck_out(node)
    for path in sorted((node.root / NODES / "pve3").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (node.root / NODES / "pve3").rmdir()
    done = await node.run(leave.tidy_command("pve3", "17"))
    assert done.status == 0
    assert list(await copy_of(node, done.out.strip())) == ["priv/authorized_keys"]
    assert node.read(KEYS) == OTHERS


async def test_nothing_is_removed_that_cannot_be_saved(node: FakeRoot) -> None:
    """A full disk, say: the status tells, and all is as it was."""
    struck_out(node)
    before = node.files("run/", "var/")
    node.put("var/lib/pve-cluster/backup", "no directory")
    assert (await node.run(leave.tidy_command("pve3", "17"))).status not in (0, leave.GUESTS_THERE)
    assert node.files("run/", "var/") == before


async def test_maintenance_votes_and_delnode_are_programs(node: FakeRoot) -> None:
    """With these words; what the program says and how it ends comes back."""
    node.program("pvecm", "echo no quorum >&2; exit 255")
    for command in (
        leave.maintenance_command("pve3", on=True),
        leave.maintenance_command("pve3", on=False),
        leave.stop_corosync_command(),
    ):
        assert (await node.run(command)).status == 0
    for command in (leave.expected_command(1), leave.delnode_command("pve3")):
        done = await node.run(command)
        assert (done.err, done.status) == ("no quorum\n", 255)
    assert node.calls() == [
        "ha-manager crm-command node-maintenance enable pve3",
        "ha-manager crm-command node-maintenance disable pve3",
        "systemctl stop corosync",
        "pvecm expected 1",
        "pvecm delnode pve3",
    ]


@pytest.mark.parametrize("end", ["\n", ""])
async def test_a_key_is_admitted_once(node: FakeRoot, end: str) -> None:
    """In a line of its own, also after one that somebody did not end; the others stay."""
    node.put(KEYS, OTHERS.removesuffix("\n") + end)
    await twice(node, leave.admit_command(PVE3.strip()))
    assert node.read(KEYS) == OTHERS + PVE3
    assert (node.root / KEYS).stat().st_mode & 0o077 == 0


async def test_without_the_clusters_file_nobody_is_admitted(node: FakeRoot) -> None:
    """A file of one key would lock all others out: /etc/pve is not mounted, say."""
    (node.root / KEYS).parent.mkdir(parents=True)
    assert (await node.run(leave.admit_command(PVE3.strip()))).status != 0
    assert not (node.root / KEYS).exists()


# --- on the node that joins -----------------------------------------------------------------------


async def test_root_has_a_key(node: FakeRoot) -> None:
    """Made where there is none, with the name that PVE gives it; afterwards it is the same one."""
    (node.root / "usr/local/bin/ssh-keygen").unlink()  # the real one
    node.program("hostname", "echo pve5")
    first = await node.run(join.root_key_command())
    assert first.status == 0
    assert first.out.startswith("ssh-rsa ")
    assert first.out.endswith(" root@pve5\n")
    leave.admit_command(first.out.strip())  # is one that can be admitted
    assert await node.run(join.root_key_command()) == first
    assert (node.root / "root/.ssh/id_rsa").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("end", ["\n", ""])
async def test_a_member_is_known_once(node: FakeRoot, end: str) -> None:
    """Each of its keys, in a line of its own beside what is there."""
    known = node.put("root/.ssh/known_hosts", "pve9 ssh-rsa AAAA" + end)
    await twice(node, join.know_host_command("192.0.2.1", ["ssh-ed25519 BBBB", "ssh-rsa CCCC"]))
    assert known.read_text() == "pve9 ssh-rsa AAAA\n192.0.2.1 ssh-ed25519 BBBB\n192.0.2.1 ssh-rsa CCCC\n"


async def test_the_key_of_a_former_life_is_forgotten(node: FakeRoot) -> None:
    """Of this host and of no other; its own present one stays."""
    node.put(OWN, PVE3)
    node.put(
        KEYS, OTHERS + "ssh-rsa AAAAB3Nza+old root@pve3\n" + PVE3 + "ssh-rsa AAAAB3Nza+older root@pve3\n"
    )
    await twice(node, join.forget_former_key_command("pve3"))
    assert node.read(KEYS) == OTHERS + PVE3


@pytest.mark.parametrize("own", [None, "", "\n"])
async def test_without_a_present_key_no_former_one_is_known(node: FakeRoot, own: str | None) -> None:
    """Nothing is taken out on a guess."""
    if own is not None:
        node.put(OWN, own)
    node.put(KEYS, OTHERS + PVE3)
    await node.run(join.forget_former_key_command("pve3"))
    assert node.read(KEYS) == OTHERS + PVE3


async def test_half_a_member_is_a_node_of_no_cluster_again(node: FakeRoot) -> None:
    """Both copies of the configuration and the key are gone; what else is in /etc/pve stays."""
    clustered(node)
    node.put("etc/pve/corosync.conf", "config_version: 7\n")
    node.put("etc/pve/storage.cfg", "dir: local\n")
    node.put("var/lib/corosync/ringid_1", "1")
    done = await node.run(join.separate_command())
    assert (done.out, done.status) == ("separated\n", 0)
    assert node.files("run/", "usr/") == {"etc/pve/storage.cfg": "dir: local\n"}
    calls = node.calls()
    assert calls[:3] == ["systemctl stop pve-cluster corosync", "pmxcfs -l", "killall pmxcfs"]
    assert calls[-2:] == ["systemctl start pve-cluster", "pvecm updatecerts"]
    assert calls.count("killall -0 pmxcfs") >= 2  # it was waited for

    node.put("run/calls", "")
    assert (await node.run(join.separate_command())).out == ""
    assert node.calls() == []
    assert (await node.run(join.leftovers_command())).out == ""


@pytest.mark.parametrize("program", ["pmxcfs", "systemctl"])
async def test_a_separation_that_fails_says_so(node: FakeRoot, program: str) -> None:
    """By its status, and not a word of success."""
    clustered(node)
    node.program(program, "exit 1")
    done = await node.run(join.separate_command())
    assert (done.out, done.status) == ("", 1)


async def test_each_leftover_is_named(node: FakeRoot) -> None:
    """As on the node itself; these three, and no other file."""
    assert (await node.run(join.leftovers_command())).out == ""
    clustered(node)
    node.put("etc/pve/corosync.conf", "")
    assert (await node.run(join.leftovers_command())).out.split() == [
        "/etc/corosync/authkey",
        "/etc/corosync/corosync.conf",
        "/etc/pve/corosync.conf",
    ]


# --- names ----------------------------------------------------------------------------------------

NAMED: list[Callable[[str], str]] = [
    leave.delnode_command,
    lambda name: leave.maintenance_command(name, on=True),
    lambda name: leave.tidy_command(name, "17"),
    lambda name: leave.tidy_command("pve3", name),
    join.forget_former_key_command,
    lambda name: join.know_host_command(name, []),
]


@pytest.mark.parametrize("command", NAMED)
@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../pve1", "pve3/", "/etc", "-rf", "--all", "pve3 pve1", "pve*", "pve3\n", "\npve3",
     "pvé3", "٣", "$(id)", "`id`", "pve3;id", "'", '"', "\\", "pve3\0", "a" * 300],
)  # fmt: skip
def test_names_that_could_be_misread_are_refused(command: Callable[[str], str], name: str) -> None:
    """A path, an option, a pattern, two words, or nothing at all."""
    with pytest.raises(Invalid, match=r"is not the name of a node|cannot be given"):
        command(name)


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("pve1-.: /'\"$`\\*\n;é"), max_size=8) | st.text(max_size=4))
@example("pve3")
def test_a_name_is_refused_or_arrives_as_it_is(name: str) -> None:
    """Through the shell of the other side, as one word."""
    for command in NAMED:
        try:
            line = command(name)
        except Invalid:
            continue
        shell, option, _, *words = shlex.split(line)
        said = subprocess.run(
            ["sh", "-c", shlex.join([shell, option, 'printf "%s\\0" "$@"', *words])],
            capture_output=True,
            check=True,
        )
        assert name in said.stdout.decode().split("\0")
        assert not name.startswith(("-", "."))
        assert "/" not in name


@pytest.mark.parametrize(
    "line",
    [
        "",
        PVE3,  # with its line end
        "ssh-rsa AAAA root@pve3\nssh-rsa BBBB root@pve4",
        "ssh-rsa AAAA admin@pve3",
        'command="id" ssh-rsa AAAA root@pve3',
        "ssh-ed25519 AAAA root@pve3",
        "ssh-rsa AA'AA root@pve3",
        "ssh-rsa AAAA root@pve3 ",
    ],
)
def test_only_the_key_of_a_nodes_root_is_admitted(line: str) -> None:
    """One RSA key in one line, without options."""
    with pytest.raises(Invalid, match="not the public RSA key"):
        leave.admit_command(line)
