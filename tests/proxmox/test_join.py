"""The join's commands, run by real shells in a directory that plays `/`; and how their words are read."""

import os
import re
import signal
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from fake_root import Ended, FakeRoot
from provd.domain.errors import BadDocument, Invalid
from provd.domain.hosts import OperationId
from provd.proxmox import join, temporary_key
from provd.proxmox.join import Joined, JoinRefused, Progress, StillJoining, judge
from provd.proxmox.join_words import CAUSES, explain
from provd.simulator.cluster import Machine, first_boot_updatecerts
from simulator.cluster_lab import EPHEMERAL, MEMBER, NEWCOMER, PASSWORD, Lab, open_lab

OPERATION = OperationId(17)
DIRECTORY = f"run/provd-join-{OPERATION}"
FINGERPRINT = ":".join(["AB"] * 32)
KEY_BODY = "AAAAC3NzaC1lZDI1NTE5AAAAIIYPXYoVsJrVMtWFkxX0HzOaUO2f0yzmYSmBEbpDrmaN"
KEY = f"ssh-ed25519 {KEY_BODY} provd-operation-17"
ADMIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGq7VqJ1Wk0o0o0o0o0o0o0o0o0o0o0o0o0o0o0o0o0o admin"
SUCCESS = "Establishing API connection\nsuccessfully added node 'pve5' to cluster.\n"


@define(eq=False)
class Node(FakeRoot):
    """The machine that joins."""

    def pvecm(self, body: str) -> None:
        """Put a `pvecm` of our own there. It writes its arguments and its directory down first."""
        head = '#!/bin/sh\nprintf "%s\\n" "$*" "$PWD" >"$PROVD_ROOT/called"\n'
        self.put("usr/local/bin/pvecm", head + body, 0o755)

    async def start(
        self, stdin: bytes = b"secret\n", fingerprint: str = FINGERPRINT, force: bool = False
    ) -> Ended:
        command = join.start_command(
            operation_id=OPERATION, node=MEMBER, fingerprint=fingerprint, links={0: NEWCOMER}, force=force
        )
        return await self.run(command, stdin)

    async def progress(self) -> Progress:
        return join.parse_progress((await self.run(join.progress_command(operation_id=OPERATION))).out)

    async def until(self, reached: Callable[[Progress], bool]) -> Progress:
        """Look again until it is so: a foreign process is at work."""
        with trio.fail_after(20):
            while not reached(progress := await self.progress()):
                await trio.sleep(0.02)
        return progress

    async def ended(self) -> Progress:
        return await self.until(lambda progress: progress.finished)

    async def stop(self) -> Ended:
        return await self.run(join.stop_command(operation_id=OPERATION))


@pytest.fixture(params=["dash", "bash"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path / "o'root $x", request.param)
    node.root.mkdir()
    yield node
    with trio.move_on_after(15, shield=True):
        await node.stop()


# --- with a pvecm of our own: the mechanics ----------------------------------------------------------


async def test_a_join_from_start_to_end(node: Node) -> None:
    """pvecm gets the password as a line, its options as words, and its two outputs come back apart."""
    node.pvecm('read -r p; printf "got %s\\n" "$p"; echo "a word" >&2; exit 0')
    assert (await node.progress()) == Progress(started=False, finished=False)
    assert (await node.start(b"pa ss\\w'\"$(id)\n")).status == 0
    assert await node.ended() == Progress(
        out="got pa ss\\w'\"$(id)\n", err="a word\n", started=True, finished=True
    )
    assert (node.root / "called").read_text() == (
        f"add {MEMBER} --fingerprint {FINGERPRINT} --link0 {NEWCOMER}\n/\n"
    )
    assert (node.root / DIRECTORY).stat().st_mode & 0o777 == 0o700
    assert "secret" not in "".join(path.read_text() for path in (node.root / DIRECTORY).iterdir())


async def test_force_is_passed_on(node: Node) -> None:
    """An old entry of the same name is taken over only on request."""
    node.pvecm("")
    await node.start(force=True)
    await node.ended()
    assert (node.root / "called").read_text().splitlines()[0].endswith(" --force 1")


async def test_the_join_outlives_its_starter(node: Node) -> None:
    """The start returns at once and closes its streams, while pvecm works on in a session of its own."""
    node.pvecm('echo "waiting for quorum..."; while [ ! -e "$PROVD_ROOT/go" ]; do sleep 0.02; done; echo OK')
    assert await node.start() == Ended("", "", 0)
    assert not (await node.until(lambda p: "quorum" in p.out)).finished
    pid = int((node.root / DIRECTORY / "pid").read_text())
    assert os.getsid(pid) == os.getpgid(pid) == pid != os.getsid(0)
    node.put("go", "")
    assert (await node.ended()).out == "waiting for quorum...\nOK\n"


async def test_it_is_started_once(node: Node) -> None:
    """A second start, as after a lost connection, changes nothing: neither while it runs nor afterwards."""
    node.pvecm('echo x >>"$PROVD_ROOT/times"; while [ ! -e "$PROVD_ROOT/go" ]; do sleep 0.02; done')
    await node.start()
    await node.until(lambda p: (node.root / "times").exists())
    assert (await node.start()).status == 0
    node.put("go", "")
    await node.ended()
    assert (await node.start()).status == 0
    assert (node.root / "times").read_text() == "x\n"


async def test_without_password_nothing_is_started(node: Node) -> None:
    """A connection that broke before the password came leaves no trace that would block the next try."""
    node.pvecm("echo \"successfully added node 'pve5' to cluster.\"")
    assert (await node.start(b"")).status != 0
    assert (await node.start(b"half a li")).status != 0
    assert not (await node.progress()).started
    await node.start()
    assert judge(await node.ended(), "pve5") == Joined()


async def test_where_it_cannot_be_started(node: Node) -> None:
    """A directory that cannot be made is an error, not a join that is under way."""
    node.put("run", "a file is in the way")
    assert (await node.start()).status != 0


async def test_stop(node: Node) -> None:
    """A hanging pvecm is told to end, has time to do so, and its last words are kept."""
    node.pvecm("trap 'echo received interrupt >&2; exit 0' TERM; echo hanging; while :; do sleep 0.02; done")
    await node.start()
    await node.until(lambda p: "hanging" in p.out)
    assert (await node.stop()).status == 0
    progress = await node.progress()
    assert (progress.out, progress.finished) == ("hanging\n", True)
    assert progress.err.endswith("received interrupt\n")  # some shells say before that a child was ended


async def test_stop_right_after_the_start(node: Node) -> None:
    """A stop that comes before the join has written down its pid waits for that, and then ends it."""
    real = next(d for d in os.environ["PATH"].split(":") if os.access(f"{d}/setsid", os.X_OK))
    node.put("usr/local/bin/setsid", f'#!/bin/sh\nsleep 0.5\nexec {real}/setsid "$@"\n', 0o755)
    node.pvecm("while :; do sleep 0.02; done")
    await node.start()
    assert not (node.root / DIRECTORY / "pid").exists()
    await node.stop()
    await all_dead(int((node.root / DIRECTORY / "pid").read_text()))


async def test_stop_does_not_ask_for_ever(node: Node) -> None:
    """A pvecm that ignores TERM is killed with all that it started."""
    node.pvecm('trap "" TERM; sleep 1000 & echo $! $$; wait; while :; do sleep 0.02; done')
    await node.start()
    pids = (await node.until(lambda p: p.out.count("\n") == 1)).out.split()
    await node.stop()
    assert (await node.progress()).finished
    await all_dead(*map(int, pids))


async def all_dead(*pids: int) -> None:
    with trio.fail_after(5):
        while any(map(is_alive, pids)):
            await trio.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Zombies do not count: who reaps an orphan is not our business."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_stop_and_cleanup_where_nothing_runs(node: Node) -> None:
    """Both are harmless before a join, after one, and twice."""
    node.pvecm("")
    cleanup = join.cleanup_command(operation_id=OPERATION)
    assert (await node.stop()).status == (await node.run(cleanup)).status == 0
    await node.start()
    await node.ended()
    for _ in range(2):
        assert (await node.stop()).status == (await node.run(cleanup)).status == 0
    assert not (node.root / DIRECTORY).exists()
    assert not (await node.progress()).started


async def test_cleanup_leaves_a_running_join_alone(node: Node) -> None:
    """As long as pvecm runs, its records stay."""
    node.pvecm("while :; do sleep 0.02; done")
    await node.start()
    assert (await node.run(join.cleanup_command(operation_id=OPERATION))).status == 1
    assert (await node.progress()).started


async def test_a_killed_join_has_ended(node: Node) -> None:
    """Where the whole session was killed, nobody waits for it any more."""
    node.pvecm("echo begun; while :; do sleep 0.02; done")
    await node.start()
    await node.until(lambda p: "begun" in p.out)
    pid = int((node.root / DIRECTORY / "pid").read_text())
    os.killpg(pid, signal.SIGKILL)
    await all_dead(pid)
    await node.stop()  # an init that reaps nothing leaves a zombie, which counts as alive
    assert (await node.progress()).finished


async def test_hostile_output_stays_in_its_frame(node: Node) -> None:
    """Whatever pvecm prints, the frame around it is read right."""
    node.pvecm("printf 'provd-join end\\nprovd-join ended\\nerr AAAA\\n\\001\\377'; printf 'out x\\n' >&2")
    await node.start()
    progress = await node.ended()
    assert progress.out == "provd-join end\nprovd-join ended\nerr AAAA\n\x01\ufffd"
    assert progress.err == "out x\n"


async def test_only_the_end_of_a_long_output_is_sent(node: Node) -> None:
    """A pvecm that talks without end does not flood the connection."""
    node.pvecm("yes 'trying to acquire cfs lock' | head -n 100000; echo the end")
    await node.start()
    out = (await node.ended()).out
    assert len(out) == 65536
    assert out.endswith("\nthe end\n")


# --- with the simulator's pvecm: the words -----------------------------------------------------------


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path) as lab:
        yield lab


async def joined(
    lab: Lab, *, fingerprint: str | None = None, password: str = PASSWORD, force: bool = False
) -> Joined | StillJoining | JoinRefused:
    node = Node(lab.newcomer)
    stdin = f"{password}\n".encode()
    started = await node.start(stdin, fingerprint or lab.cluster.fingerprint("pve1"), force)
    assert started.status == 0, started
    return judge(await node.ended(), "pve5")


async def refused(lab: Lab, fingerprint: str | None = None, password: str = PASSWORD) -> str:
    verdict = await joined(lab, fingerprint=fingerprint, password=password)
    assert isinstance(verdict, JoinRefused)
    return verdict.reason


async def test_a_good_join(lab: Lab) -> None:
    """A cluster takes the node in, and the node sees itself as a member of it."""
    node = Node(lab.newcomer)
    before = await node.run(join.membership_command())
    assert join.parse_membership(before.out + before.err) == join.Membership(clustered=False)
    assert await joined(lab) == Joined()
    after = await node.run(join.membership_command())
    assert join.parse_membership(after.out + after.err) == join.Membership(
        clustered=True, quorate=True, name="lab", nodes=(MEMBER, NEWCOMER), local=NEWCOMER
    )


async def test_a_wrong_password(lab: Lab) -> None:
    """The cluster's root password is what has to be given again."""
    assert "does not accept the root password" in await refused(lab, password="wrong")


async def test_a_wrong_fingerprint(lab: Lab) -> None:
    """The certificate that is served is named, as the value to set."""
    assert f"set that to {lab.cluster.fingerprint('pve1')}" in await refused(lab, FINGERPRINT)


async def test_a_second_factor(lab: Lab) -> None:
    """No machine can type a code."""
    with lab.cluster.edit() as state:
        state.tfa = "totp"
    assert "second factor" in await refused(lab)


async def test_a_name_that_is_taken(lab: Lab) -> None:
    """The command that makes room is given; with force the entry is taken over."""
    lab.cluster.add_member("pve5", NEWCOMER, online=False)
    lab.cluster.add_member("pve2", "127.77.0.2")
    assert "run `pvecm delnode pve5`" in await refused(lab)
    await Node(lab.newcomer).run(join.cleanup_command(operation_id=OPERATION))
    assert await joined(lab, force=True) == Joined()


async def test_an_address_that_is_taken(lab: Lab) -> None:
    """The node that has it is named."""
    lab.cluster.add_member("pve9", NEWCOMER)
    assert f"lists {NEWCOMER} as the address of node pve9" in await refused(lab)


async def test_no_quorum(lab: Lab) -> None:
    """A cluster that lacks members takes nobody in."""
    with lab.cluster.edit() as state:
        state.faults.peer_no_quorum = True
    assert "has no quorum" in await refused(lab)


async def test_guests_and_leftovers(lab: Lab) -> None:
    """Everything that pvecm found is explained at once."""
    with Machine(lab.newcomer).edit() as machine:
        machine.guests = [100]
    Machine(lab.newcomer).path("/etc/corosync/authkey").write_bytes(b"x")
    reason = await refused(lab)
    assert "guests on the new node" in reason
    assert "/etc/corosync/authkey is left over" in reason


async def test_a_busy_lock(lab: Lab) -> None:
    """Somebody else is changing the cluster: later is better."""
    lab.cluster.add_member("pve2", "127.77.0.2")
    with lab.cluster.edit() as state:
        state.faults.lock_busy = True
    assert "another change to the cluster is under way" in await refused(lab)


async def test_a_member_that_is_down(lab: Lab) -> None:
    """The address that did not answer is named."""
    with lab.cluster.edit() as state:
        state.faults.peer_down = ["pve1"]
    fingerprint = lab.cluster.fingerprint("pve1")
    with trio.fail_after(10):  # the server notices the fault in its own time
        while "cannot reach the cluster's API" not in (reason := await refused(lab, fingerprint)):
            await Node(lab.newcomer).run(join.cleanup_command(operation_id=OPERATION))
    assert MEMBER in reason


async def test_more_links_than_one(lab: Lab) -> None:
    """What provd cannot do is said, with what a human can."""
    with lab.cluster.edit() as state:
        state.nodes["pve1"].links = {"0": MEMBER, "1": "127.78.0.1"}
    assert "more than one corosync link" in await refused(lab)


async def test_an_invalid_configuration(lab: Lab) -> None:
    """Errors that the member found in corosync.conf send the operator there."""
    with lab.cluster.edit() as state:
        state.faults.addnode_errors = {"error0": "bad thing"}
    assert "corosync.conf" in await refused(lab)


async def test_waiting_for_quorum_without_end(lab: Lab) -> None:
    """The step is told while it hangs; once stopped, the reason names the ports and the clean-up."""
    with lab.cluster.edit() as state:
        state.faults.udp_blocked = True
    node = Node(lab.newcomer)
    await node.start(f"{PASSWORD}\n".encode(), lab.cluster.fingerprint("pve1"))
    progress = await node.until(lambda p: "waiting for quorum" in p.out)
    verdict = judge(progress, "pve5")
    assert isinstance(verdict, StillJoining)
    assert "UDP 5405" in verdict.step
    await node.stop()
    verdict = judge(await node.progress(), "pve5")
    assert isinstance(verdict, JoinRefused)
    assert "UDP 5405" in verdict.reason
    assert "pvecm delnode" in verdict.reason


async def test_a_join_that_was_cut_off(lab: Lab) -> None:
    """Half-way is not joined, and the second try says what is left over."""
    with lab.cluster.edit() as state:
        state.faults.drop_after_step = 15
    await refused(lab)
    with lab.cluster.edit() as state:
        state.faults.drop_after_step = None
    await Node(lab.newcomer).run(join.cleanup_command(operation_id=OPERATION))
    assert "left over" in await refused(lab)


async def test_an_old_pve_cluster_that_cannot_save(tmp_path: Path) -> None:
    """Before 8.1.3 a failed backup ended the join half-way; since then it is a warning in a good join."""
    for profile, works in (("pve81", False), ("pve91", True)):
        async with open_lab(tmp_path / profile, profile=profile) as lab:
            with lab.cluster.edit() as state:
                state.faults.bad_backup = True
            verdict = await joined(lab)
            assert (verdict == Joined()) == works
            assert works or "half-way" in str(verdict)


# --- judging -----------------------------------------------------------------------------------------


def ended(out: str, err: str = "") -> Progress:
    return Progress(out=out, err=err, started=True, finished=True)


@pytest.mark.parametrize(
    "progress",
    [
        ended(SUCCESS, "something went wrong\n"),
        ended(SUCCESS + "and then something else\n"),
        ended(SUCCESS.replace("pve5", "pve6")),
        ended(""),
        ended(f"x {SUCCESS.splitlines()[1]}"),
        Progress(out=SUCCESS, started=False, finished=False),
    ],
)
def test_only_the_whole_success_counts(progress: Progress) -> None:
    """The last line, about this node, and not a word on stderr: anything else is no join."""
    assert isinstance(judge(progress, "pve5"), JoinRefused)
    assert judge(ended(SUCCESS + "\n"), "pve5") == Joined()


@pytest.mark.parametrize(
    ("out", "step"),
    [
        ("", ""),
        ("Establishing API connection with host 'x'\n", "logging in to the cluster"),
        ("a\nwaiting for quorum...", "waiting for quorum (UDP 5405 to 5412 must pass between all nodes)"),
        ("merge authorized SSH keys\n", "merge authorized SSH keys"),
        ("evil\x1b[31m", r"evil\x1b[31m"),
        (SUCCESS, "successfully added node 'pve5' to cluster."),
    ],
)
def test_steps(out: str, step: str) -> None:
    """While it runs, its last line is the step, in words for humans where we have them."""
    assert judge(Progress(out=out, started=True, finished=False), "pve5") == StillJoining(step)


NODE_ERROR = "An error occurred on the cluster node: "


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            "400 Parameter verification failed.\nfingerprint: value does not match the regex pattern",
            "join_fingerprint",
        ),
        (
            "Unknown option: foo\n400 unable to parse option\npvecm add <hostname> [OPTIONS]",
            "Unknown option: foo",
        ),
        (
            "Navigate out of /etc/pve before running 'pvecm add', for example by running 'cd'.",
            "inside /etc/pve",
        ),
        ("EOF while reading password", "did not reach pvecm"),
        ("can't lock file '/var/lock/pvecm.lock' - got timeout", "another pvecm"),
        (
            "hostname lookup 'n' failed - failed to get address info for: n: Name or service not known",
            "n cannot resolve",
        ),
        ("address lookup for 'n' did not find any IP address", "loopback"),
        ("* authentication key '/etc/corosync/authkey' already exists", "/etc/corosync/authkey is left over"),
        ("* cluster config '/etc/pve/corosync.conf' already exists", "in a cluster already"),
        ("* this host already contains virtual guests", "guests"),
        ("* corosync is already running, is this node already in a cluster?!", "in a cluster already"),
        (
            "* local node address: cannot use IP '10.0.0.5', not found on local node!\n",
            "10.0.0.5 is not an address",
        ),
        ("* link0: cannot use IP '10.0.0.5', not found on local node!\n", "10.0.0.5 is not an address"),
        ("* link0: cannot use 'host': unknown", "host is not an address"),
        ("500 Can't connect to 10.0.0.1:8006 (Connection refused)", "10.0.0.1:8006 (Connection refused)"),
        (f"fingerprint '{FINGERPRINT}' not verified, abort!", f"set that to {FINGERPRINT}"),
        ("Fingerprint not verified, abort!", "not trusted"),
        ("401 authentication failure", "root password"),
        ("401 401 authentication failure", "root password"),
        (
            "TFA-enabled login currently works only with a TTY. at /usr/share/perl5/PVE/APIClient/LWP.pm",
            "second factor",
        ),
        ("TFA required, but none of the configure factors is supported over TTY, aborting!", "second factor"),
        ("Remote side is not able to use API for Cluster join!\nPass the 'use_ssh' switch", "too old"),
        (NODE_ERROR + "cluster not ready - no quorum?", "no quorum"),
        (NODE_ERROR + "can't add existing node 'pve5'", "pvecm delnode pve5"),
        (
            NODE_ERROR + "corosync: address '10.0.0.5' already used on link ring0_addr by node 'pve9'",
            "node pve9",
        ),
        (
            NODE_ERROR + "corosync: link 1 exists in cluster config but wasn't specified for new node",
            "more than one",
        ),
        (
            NODE_ERROR + "corosync: link 1 specified for new node doesn't exist in cluster config",
            "corosync link 1",
        ),
        (
            NODE_ERROR + "no links given but multiple links found on other nodes, fallback only",
            "more than one",
        ),
        (NODE_ERROR + "no links and no fallback ip (new_node_ip) given, cannot join cluster", "no address"),
        (NODE_ERROR + "invalid corosync.conf\n! bad", "corosync.conf"),
        (
            NODE_ERROR + "error: unsupported old API version on joining node (-1), cluster node has 1",
            "newer ISO",
        ),
        (NODE_ERROR + "cfs-lock 'file-corosync_conf' error: got lock request timeout", "two minutes"),
        (NODE_ERROR + "cfs-lock 'file-corosync_conf' error: no quorum!", "no quorum"),
        (NODE_ERROR + "something new", "the cluster refused the node: something new"),
        ("cannot backup old database", "half-way"),
        ("waiting for quorum...\nbroken pipe ", "UDP 5405"),
        ("received interrupt", "stopped half-way"),
        ("ipcc_send_rec[1] failed: Connection refused", "pve-cluster does not run"),
        ("please run as root", "ssh.user"),
        ("sh: 4: pvecm: not found", "not a Proxmox VE node"),
        ("bash: line 1: pvecm: command not found", "not a Proxmox VE node"),
        ("what is\x1b[31m this", r"pvecm add failed: what is\x1b[31m this"),
        ("", "without a word"),
    ],
)
def test_every_known_error_has_an_explanation(text: str, part: str) -> None:
    """Each text of pve-cluster leads to a sentence for a human; an unknown one is quoted harmlessly."""
    for out, err in ((text, ""), ("", text)):
        if part == "the cluster refused the node: something new" and not out:
            continue
        reason = explain(out, err)
        assert part in reason
        assert reason.isprintable()


def test_warnings_of_a_good_join_are_not_causes() -> None:
    """What pvecm says on its way to success explains no failure."""
    out = (
        "Establishing API connection with host '10.0.0.1'\nLogin succeeded.\ncheck cluster join API version\n"
        "Request addition of this node\ncluster: some warning\nJoin request OK, finishing setup locally\n"
        "stopping pve-cluster service\nbackup old database to '/x.gz'\n"
        "failed to create backup of pre-join config database - cannot backup old database\n"
        "waiting for quorum...OK\n(re)generate node files\n"
    )
    assert explain(out, "new trouble") == "pvecm add failed: new trouble"


@given(st.text(), st.text())
def test_any_output_is_judged(out: str, err: str) -> None:
    """Whatever pvecm prints, there is one sentence on one line, and never a success by accident."""
    reason = explain(out, err)
    assert reason
    assert len(reason.splitlines()) == 1
    assert judge(ended(out, err), "pve5") != Joined() or out.rstrip().endswith("to cluster.")


def test_every_cause_is_reachable() -> None:
    """No explanation hides behind a pattern that its text does not match: each has a case above."""
    marks = test_every_known_error_has_an_explanation.pytestmark  # type: ignore[attr-defined]
    texts = [case[0] for case in marks[0].args[1]]
    for pattern, _ in CAUSES:
        assert any(re.search(pattern, text, re.MULTILINE) for text in texts), pattern


# --- reading -----------------------------------------------------------------------------------------


@given(
    st.text()
    | st.binary().map(lambda b: f"provd-join ended\nout {b64encode(b).decode()}\nerr =A=\nprovd-join end\n")
)
def test_any_progress_is_read_or_refused(text: str) -> None:
    """What is no progress is a `BadDocument`, so that no noise is taken for an end."""
    try:
        join.parse_progress(text)
    except BadDocument:
        return


def test_a_talkative_login_shell_does_no_harm() -> None:
    """A greeting before the frame is passed over; a frame that was cut off is no frame."""
    frame = "provd-join running\nout eA==\nerr \nprovd-join end\n"
    assert join.parse_progress(f"Welcome!\nout of beer\n{frame}") == Progress(
        out="x", started=True, finished=False
    )
    with pytest.raises(BadDocument):
        join.parse_progress(frame[:-12])


STATUS = """\
Cluster information
-------------------
Name:             lab
Config Version:   4
Transport:        knet
Secure auth:      on

Quorum information
------------------
Date:             Tue Apr 15 01:14:00 2025
Quorum provider:  corosync_votequorum
Nodes:            3
Node ID:          0x00000002
Ring ID:          1.1a8
Quorate:          Yes

Votequorum information
----------------------
Expected votes:   3
Highest expected: 3
Total votes:      3
Quorum:           2
Flags:            Quorate

Membership information
----------------------
    Nodeid      Votes Name
0x00000001          1 10.0.0.1
0x00000002          1 10.0.0.2 (local)
0x00000003          1 2001:db8::3
"""


def test_membership_is_read() -> None:
    """Name, quorum and members of a healthy cluster."""
    assert join.parse_membership(STATUS) == join.Membership(
        clustered=True,
        quorate=True,
        name="lab",
        nodes=("10.0.0.1", "10.0.0.2", "2001:db8::3"),
        local="10.0.0.2",
    )


def test_a_qdevice_is_no_member() -> None:
    """Its extra column and its row of its own are not taken for nodes."""
    text = STATUS.partition("    Nodeid")[0] + (
        "    Nodeid      Votes    Qdevice Name\n"
        "0x00000001          1    A,V,NMW 10.0.0.1 (local)\n"
        "0x00000002          1         NR 10.0.0.2\n"
        "0x00000000          1            Qdevice\n"
    )
    assert join.parse_membership(text).nodes == ("10.0.0.1", "10.0.0.2")


def test_without_quorum() -> None:
    """A member without quorum, or whose corosync is down, is still a member."""
    blocked = STATUS.replace("Quorate:          Yes", "Quorate:          No")
    assert not join.parse_membership(blocked).quorate
    down = STATUS.partition("Quorum information")[0] + "Cannot initialize CMAP service\n"
    assert join.parse_membership(down) == join.Membership(clustered=True, name="lab")


@pytest.mark.parametrize(
    "text", ["", "ipcc_send_rec[1] failed: Connection refused\n", "please run as root\n"]
)
def test_a_node_that_cannot_tell(text: str) -> None:
    """No answer is not taken for "in no cluster"."""
    with pytest.raises(BadDocument):
        join.parse_membership(text)


@given(st.text() | st.text().map(lambda text: STATUS + text))
def test_any_status_is_read_or_refused(text: str) -> None:
    """Nothing but `BadDocument` gets out."""
    try:
        join.parse_membership(text)
    except BadDocument:
        return


# --- the key -----------------------------------------------------------------------------------------

KEYS2, HOME, ORG, SHARED = (
    "root/.ssh/authorized_keys2",
    "root/.ssh/authorized_keys",
    "root/.ssh/authorized_keys.org",
    "etc/pve/priv/authorized_keys",
)


async def find(node: Node) -> list[str]:
    done = await node.run(temporary_key.find_key_command(KEY_BODY))
    assert (done.err, done.status) == ("", 0)
    return done.out.splitlines()


async def remove(node: Node) -> int:
    return (await node.run(temporary_key.remove_key_command(KEY_BODY))).status


async def warnings(node: Node) -> str:
    done = await node.run(temporary_key.readiness_command(KEY_BODY))
    assert done.err == ""
    return done.out


async def test_the_key_goes_with_its_file(node: Node) -> None:
    """The file that held nothing else is gone; running it again is harmless."""
    node.put(KEYS2, f'restrict,expiry-time="1" {KEY}\n')
    assert await find(node) == [f"/{KEYS2}"]
    assert await warnings(node) == ""
    assert await remove(node) == await remove(node) == 0
    assert await find(node) == []
    assert list((node.root / "root/.ssh").iterdir()) == []


async def test_other_keys_stay(node: Node) -> None:
    """Only our line goes, wherever it stands and with or without a last newline."""
    for name in (KEYS2, HOME, ORG, SHARED):
        node.put(name, f"# a comment\n{ADMIN}\n{KEY}")
    assert await find(node) == [f"/{name}" for name in (KEYS2, HOME, ORG, SHARED)]
    assert await remove(node) == 0
    assert await find(node) == []
    for name in (KEYS2, HOME, ORG, SHARED):
        assert (node.root / name).read_text() == f"# a comment\n{ADMIN}\n"
        assert (node.root / name).stat().st_mode & 0o777 == 0o600


async def test_links_stay_links(node: Node) -> None:
    """The link into /etc/pve is followed: what would replace it would be merged into the cluster's file."""
    node.put(SHARED, f"{ADMIN}\n{KEY}\n")
    (node.root / "root/.ssh").mkdir(parents=True)
    (node.root / HOME).symlink_to(node.root / SHARED)
    assert await find(node) == [f"/{HOME}", f"/{SHARED}"]
    assert await remove(node) == 0
    assert (node.root / HOME).is_symlink()
    assert (node.root / SHARED).read_text() == f"{ADMIN}\n"
    assert sorted(path.name for path in (node.root / SHARED).parent.iterdir()) == ["authorized_keys"]


async def test_absence_is_not_claimed_of_what_cannot_be_read(node: Node) -> None:
    """While /etc/pve is not mounted, nobody knows what is in it."""
    (node.root / "root/.ssh").mkdir(parents=True)
    (node.root / HOME).symlink_to(node.root / SHARED)
    assert await find(node) == [f"/{HOME}"]


async def test_a_file_that_cannot_be_changed(node: Node) -> None:
    """Without quorum /etc/pve is read-only: the failure is told, the rest is done all the same."""
    node.put(KEYS2, f"{KEY}\n")
    node.put(SHARED, f"{KEY}\n")
    (node.root / f"{SHARED}.provd-new").mkdir()
    assert await remove(node) == 1
    assert await find(node) == [f"/{SHARED}"]


async def test_readiness_warns_of_every_leak(node: Node) -> None:
    """Each way for a key into the cluster, and each leftover that stops a join, is one line."""
    assert await warnings(node) == ""
    node.put(HOME, f"{KEY}\n")
    assert (await warnings(node)).count("\n") == 1  # no /etc/pve/priv yet: the first updatecerts imports it
    node.put(SHARED, f"{ADMIN}\n")
    node.put(ORG, "")
    node.put("etc/corosync/authkey", "x")
    node.put("etc/pve/corosync.conf", "x")
    said = await warnings(node)
    for part in (
        "/root/.ssh/authorized_keys.org is there",
        "/root/.ssh/authorized_keys is no link",
        "temporary key is in /root/.ssh/authorized_keys,",
        "/etc/corosync/authkey is there",
        "/etc/pve/corosync.conf is there",
    ):
        assert part in said
    assert said.count("\n") == 5


async def test_the_key_after_a_real_join(lab: Lab) -> None:
    """In authorized_keys2 it survives the join, never reaches the cluster, and is taken away for good."""
    node = Node(lab.newcomer)
    node.put(KEYS2, f"{KEY}\n")
    node.put(HOME, EPHEMERAL)
    first_boot_updatecerts(lab.newcomer)
    assert await warnings(node) == ""
    assert await joined(lab) == Joined()
    assert await find(node) == [f"/{KEYS2}"]
    assert await remove(node) == 0
    assert await find(node) == []
    assert KEY_BODY not in "".join(lab.cluster.authorized_keys())


async def test_a_leaked_key_is_taken_out_of_the_cluster(lab: Lab) -> None:
    """Where a plain file carried the key into every node's keys, it is found there and removed."""
    node = Node(lab.newcomer)
    first_boot_updatecerts(lab.newcomer)
    (node.root / HOME).unlink()
    node.put(HOME, f"{KEY}\n")
    assert "is no link" in await warnings(node)
    assert await joined(lab) == Joined()
    assert KEY_BODY in "".join(lab.cluster.authorized_keys())
    assert await find(node) == [f"/{HOME}", f"/{SHARED}"]
    assert await remove(node) == 0
    assert KEY_BODY not in "".join(lab.cluster.authorized_keys())
    assert (node.root / HOME).is_symlink()


# --- the borders -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "fingerprint", "link0"),
    [
        ("--help", FINGERPRINT, NEWCOMER),
        ("a b", FINGERPRINT, NEWCOMER),
        ("10.0.0.1\n", FINGERPRINT, NEWCOMER),
        (MEMBER, "AB:CD", NEWCOMER),
        (MEMBER, FINGERPRINT, "10.0.0.5,priority=1"),
        (MEMBER, FINGERPRINT, ""),
    ],
)
def test_what_pvecm_could_misread_is_refused(node: str, fingerprint: str, link0: str) -> None:
    """A value is one that is meant, before a password is sent anywhere."""
    with pytest.raises(Invalid):
        join.start_command(operation_id=OPERATION, node=node, fingerprint=fingerprint, links={0: link0})


@pytest.mark.parametrize("body", ["", "AAAA", f"{KEY_BODY} x", "*" * 50, f"{KEY_BODY}\n"])
def test_what_is_no_key_is_not_searched_for(body: str) -> None:
    """An empty or short text would match other people's lines."""
    for command in (
        temporary_key.remove_key_command,
        temporary_key.find_key_command,
        temporary_key.readiness_command,
    ):
        with pytest.raises(Invalid):
            command(body)
