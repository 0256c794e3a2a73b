"""`pvecm add`: what it says, where, with which status, and what is left behind, in health and in failure."""

import fcntl
import os
import pty
import re
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from provd.simulator.cluster import Machine, install_pve_tools, stop_pvecm
from provd.simulator.cluster.keys import create_root_key
from provd.simulator.cluster.leaves import fingerprint_of
from simulator.cluster_lab import EPHEMERAL, MEMBER, NEWCOMER, PASSWORD, Lab, eventually, open_lab, read_until
from simulator.member_lab import open_members

ESTABLISHING = f"Establishing API connection with host '{MEMBER}'\n"
SUCCESS = (
    ESTABLISHING
    + f"""\
Login succeeded.
check cluster join API version
No cluster network links passed explicitly, fallback to local node IP '{NEWCOMER}'
Request addition of this node
Join request OK, finishing setup locally
stopping pve-cluster service
backup old database to '/var/lib/pve-cluster/backup/config-EPOCH.sql.gz'
waiting for quorum...OK
(re)generate node files
generate new node certificate
merge authorized SSH keys
generated new node certificate, restart pveproxy and pvedaemon services
successfully added node 'pve5' to cluster.
"""
)
UNTIL_REQUEST = SUCCESS.partition("Join request OK")[0]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path) as lab:
        yield lab


def same_epoch(text: str) -> str:
    return re.sub(r"config-\d+\.sql", "config-EPOCH.sql", text)


async def served_by(ip: str, port: int) -> str:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with await trio.open_ssl_over_tcp_stream(ip, port, ssl_context=context) as stream:
        await stream.do_handshake()
        return fingerprint_of(stream.getpeercert(binary_form=True))


async def test_success_transcript(lab: Lab) -> None:
    """A good join prints the documented transcript, ends with 0, and the member sees the newcomer online."""
    ended = await lab.add()
    assert (same_epoch(ended.out), ended.err, ended.status) == (SUCCESS, "", 0)
    state = lab.cluster.read()
    assert state.nodes["pve5"].online
    assert (state.config_version, state.expected_votes, state.quorate) == (2, 2, True)
    log = next(lab.newcomer.glob("var/log/pve/tasks/*/UPID:pve5:*:clusterjoin::root@pam:"))
    assert log.read_text() == f"{ended.out}TASK OK\n"
    assert log.parent.name == log.name.split(":")[4][-1]


async def test_explicit_link_and_lower_case_fingerprint(lab: Lab) -> None:
    """With --link0 there is no fallback line; fingerprints come in either case, options with one dash."""
    fingerprint = lab.cluster.fingerprint("pve1").lower()
    ended = await lab.add("--fingerprint", fingerprint, "-link0", f"address={NEWCOMER},priority=2")
    assert ended.out.endswith("successfully added node 'pve5' to cluster.\n")
    assert "fallback" not in ended.out
    assert lab.cluster.read().nodes["pve5"].links == {"0": NEWCOMER}


@pytest.mark.parametrize(
    ("profile", "line"),
    [("pve81", "merge authorized SSH keys and known hosts\n"), ("pve84", "merge authorized SSH keys\n")],
)
async def test_profiles(tmp_path: Path, profile: str, line: str) -> None:
    """Releases before 8.2 also merge known hosts, and say so."""
    async with open_lab(tmp_path, profile=profile) as lab:
        assert f"\n{line}" in (await lab.add()).out


# --- refused before anything happened ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "stdin", "out", "err"),
    [
        pytest.param([], b"wrong\n", ESTABLISHING, "401 authentication failure\n", id="wrong password"),
        pytest.param([], b"\n", ESTABLISHING, "401 authentication failure\n", id="empty password"),
        pytest.param([], b"", "", "EOF while reading password\n", id="stdin closed"),
    ],
)
async def test_password_failures(lab: Lab, words: list[str], stdin: bytes, out: str, err: str) -> None:
    """A password that fails leaves status 0, one line on stderr, and the cluster as it was."""
    before = lab.cluster.read()
    ended = await lab.add(*words, stdin=stdin)
    assert (ended.out, ended.err, ended.status) == (out, err, 0)
    assert lab.cluster.read() == before


async def test_wrong_fingerprint(lab: Lab) -> None:
    """A pinned fingerprint that differs is answered with the one that is served."""
    ended = await lab.add("--fingerprint", "AB:" * 31 + "AB")
    served = lab.cluster.fingerprint("pve1")
    assert (ended.out, ended.err, ended.status) == (
        ESTABLISHING,
        f"fingerprint '{served}' not verified, abort!\n",
        0,
    )


@pytest.mark.parametrize(
    ("answer", "joins"), [(b"", False), (b"no\n", False), (b"y\n", False), (b" YES \n", True)]
)
async def test_fingerprint_question(lab: Lab, answer: bytes, joins: bool) -> None:
    """Without --fingerprint the certificate is shown, and only `yes` goes on."""
    stdin = f"{PASSWORD}\n".encode() + answer
    ended = await lab.run(lab.newcomer, "pvecm", "add", MEMBER, stdin=stdin)
    question = (
        f"{ESTABLISHING}The authenticity of host '{MEMBER}' can't be established.\n"
        f"X509 SHA256 key fingerprint is {lab.cluster.fingerprint('pve1')}.\n"
        "Are you sure you want to continue connecting (yes/no)? "
    )
    assert ended.out.startswith(question)
    if joins:
        assert "successfully added" in ended.out
    else:
        assert (ended.out, ended.err) == (question, "Fingerprint not verified, abort!\n")
    assert ended.status == 0


async def test_replaced_certificate(lab: Lab) -> None:
    """A member whose certificate was replaced fails a pin that was right a moment ago."""
    pinned = lab.cluster.fingerprint("pve1")
    with lab.cluster.edit() as state:
        state.faults.peer_other_cert = ["pve1"]
    replaced = lab.cluster.fingerprint("pve1")
    assert replaced != pinned
    ended = await lab.add("--fingerprint", pinned)
    assert ended.err == f"fingerprint '{replaced}' not verified, abort!\n"
    with lab.cluster.edit() as state:
        state.faults.peer_other_cert = []
    assert lab.cluster.fingerprint("pve1") == pinned
    assert (await lab.add()).err == ""


@pytest.mark.parametrize("kind", ["totp", "webauthn"])
async def test_second_factor_needs_a_terminal(lab: Lab, kind: str) -> None:
    """Without a terminal, a second factor on root@pam ends the join."""
    with lab.cluster.edit() as state:
        state.tfa = kind
    ended = await lab.add()
    assert ended.out == ESTABLISHING
    assert ended.err.startswith("TFA-enabled login currently works only with a TTY.")
    assert ended.status == 0


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.77.0.9", "Connection refused"),
        ("pve-unknown", "Name or service not known"),
        ("192.0.2.1", "No route to host"),
    ],
)
async def test_unreachable(lab: Lab, host: str, reason: str) -> None:
    """A member that cannot be reached is told in libwww's words; nothing but loopback is ever tried."""
    ended = await lab.run(lab.newcomer, "pvecm", "add", host, *lab.pinned(), stdin=b"x\n")
    assert (ended.err, ended.status) == (f"500 Can't connect to {host}:8006 ({reason})\n", 0)


async def test_peer_down_and_back(lab: Lab) -> None:
    """The switch closes the member's port, and opens it again."""

    def refused() -> bool:
        try:
            socket.create_connection((MEMBER, lab.cluster.read().api_port)).close()
        except ConnectionRefusedError:
            return True
        return False

    with lab.cluster.edit() as state:
        state.faults.peer_down = ["pve1"]
    await eventually(refused)
    assert (await lab.add()).err == f"500 Can't connect to {MEMBER}:8006 (Connection refused)\n"
    with lab.cluster.edit() as state:
        state.faults.peer_down = []
    await eventually(lambda: not refused())
    assert (await lab.add()).err == ""


# --- the newcomer's own checks ----------------------------------------------------------------------


def with_guests(lab: Lab) -> None:
    with Machine(lab.newcomer).edit() as machine:
        machine.guests = [100]


def with_authkey(lab: Lab) -> None:
    (lab.newcomer / "etc/corosync/authkey").write_bytes(b"left over")


@pytest.mark.parametrize(
    ("spoil", "words", "line"),
    [
        (with_guests, [], "* this host already contains virtual guests\n"),
        (with_authkey, [], "* authentication key '/etc/corosync/authkey' already exists\n"),
        (
            None,
            ["--link0", "127.77.0.99"],
            "* link0: cannot use IP '127.77.0.99', not found on local node!\n\n",
        ),
    ],
)
async def test_local_checks(lab: Lab, spoil: Any, words: list[str], line: str) -> None:
    """What the newcomer finds wrong with itself is listed on stdout, and ends the join."""
    if spoil:
        spoil(lab)
    ended = await lab.add(*words)
    assert ended.out == f"detected the following error(s):\n{line}"
    assert (ended.err, ended.status) == ("Check if node may join a cluster failed!\n", 0)


async def test_force_turns_checks_into_warnings(lab: Lab) -> None:
    """With --force the same list is followed by a warning and by the join."""
    with_guests(lab)
    ended = await lab.add("--force")
    assert ended.out.startswith(
        "detected the following error(s):\n* this host already contains virtual guests\n"
        f"\nWARNING : detected error but forced to continue!\n\n{ESTABLISHING}"
    )
    assert ended.out.endswith("successfully added node 'pve5' to cluster.\n")


@pytest.mark.parametrize(
    ("hosts", "err"),
    [
        ("127.0.1.1 pve5\n", "address lookup for 'pve5' did not find any IP address\n"),
        (
            "127.0.0.1 localhost\n",
            "hostname lookup 'pve5' failed - failed to get address info for: pve5:"
            " Name or service not known\n",
        ),
    ],
)
async def test_own_name_must_resolve(lab: Lab, hosts: str, err: str) -> None:
    """An /etc/hosts that does not give the node's address stops the join before any check."""
    (lab.newcomer / "etc/hosts").write_text(hosts)
    ended = await lab.add()
    assert (ended.out, ended.err, ended.status) == ("", err, 0)


async def test_second_join_on_one_machine_waits_for_the_lock(lab: Lab) -> None:
    """While something else on the machine holds the local lock, `pvecm add` waits, and then gives up."""
    with (lab.newcomer / "var/lock/pvecm.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = await lab.add()
    assert ended.out == "trying to acquire lock..."
    assert (ended.err, ended.status) == ("can't lock file '/var/lock/pvecm.lock' - got timeout\n", 0)


# --- the member's refusals --------------------------------------------------------------------------


async def aborted(lab: Lab, message: str, *words: str) -> None:
    ended = await lab.add(*words)
    assert ended.out.endswith(
        f"Request addition of this node\nAn error occurred on the cluster node: {message}\n"
    )
    assert (ended.err, ended.status) == ("Cluster join aborted!\n", 0)


async def test_name_exists(lab: Lab) -> None:
    """A name that is a member already is refused, and taken over with --force, id and votes kept."""
    lab.cluster.add_member("pve5", NEWCOMER, online=False)
    lab.cluster.add_member("pve6", "127.77.0.6")
    before = lab.cluster.read()
    await aborted(lab, "can't add existing node 'pve5'")
    ended = await lab.add("--force", "1")
    assert ended.out.endswith("successfully added node 'pve5' to cluster.\n")
    after = lab.cluster.read()
    assert after.nodes["pve5"].nodeid == before.nodes["pve5"].nodeid
    assert after.expected_votes == before.expected_votes
    assert after.nodes["pve5"].online


async def test_member_not_quorate(lab: Lab) -> None:
    """A cluster without quorum takes nobody."""
    with lab.cluster.edit() as state:
        state.faults.peer_no_quorum = True
    await aborted(lab, "cluster not ready - no quorum?")


async def test_address_in_use(lab: Lab) -> None:
    """A re-used address is noticed when it was given as a link, and only then."""
    lab.cluster.add_member("old", NEWCOMER)
    message = f"corosync: address '{NEWCOMER}' already used on link ring0_addr by node 'old'"
    await aborted(lab, message, "--link0", NEWCOMER)
    assert (await lab.add()).out.endswith("successfully added node 'pve5' to cluster.\n")


async def test_link_mismatch(lab: Lab) -> None:
    """The set of links must be that of the cluster."""
    await aborted(
        lab,
        "corosync: link 0 exists in cluster config but wasn't specified for new node",
        "--link1",
        NEWCOMER,
    )


async def test_details_of_a_refusal(lab: Lab) -> None:
    """Details come after the message, sorted, warnings with another mark."""
    with lab.cluster.edit() as state:
        state.faults.addnode_errors = {"warning0": "odd", "error0": "bad"}
    await aborted(lab, "invalid corosync.conf\n! bad\n* odd")


async def test_warnings_are_passed_on(lab: Lab) -> None:
    """Warnings of the member appear before the newcomer goes on."""
    with lab.cluster.edit() as state:
        state.faults.addnode_warnings = ["link speed unknown"]
    assert "\ncluster: link speed unknown\nJoin request OK" in (await lab.add()).out


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (2, "cfs-lock 'file-corosync_conf' error: got lock request timeout"),
        (1, "can't lock file '/var/lock/pvecm.lock' - got timeout"),
    ],
)
async def test_lock_busy(lab: Lab, members: int, message: str) -> None:
    """A busy cluster lock ends the second of two joins; a cluster of one has only its local lock."""
    for number in range(2, members + 1):
        lab.cluster.add_member(f"pve{number}", f"127.77.0.{number}")
    with lab.cluster.edit() as state:
        state.faults.lock_busy = True
    await aborted(lab, message)


# --- half-way ---------------------------------------------------------------------------------------


async def test_udp_blocked_waits_for_ever(lab: Lab) -> None:
    """Without corosync's traffic the join stops at an open line; the votes are raised, the newcomer offline.

    In a cluster of one that costs the quorum. When the traffic flows at last, the join goes on by itself.
    """
    with lab.cluster.edit() as state:
        state.faults.udp_blocked = True
    process = await lab.start_add()
    seen = await read_until(process.stdout, "waiting for quorum...")
    assert seen.endswith("sql.gz'\nwaiting for quorum...")
    state = lab.cluster.read()
    assert (state.nodes["pve5"].online, state.expected_votes, state.quorate) == (False, 2, False)
    status = await lab.run(lab.newcomer, "pvecm", "status")
    assert status.status == 2
    assert "Quorate:          No\n" in status.out
    assert "Quorum:           2 Activity blocked\n" in status.out
    assert not (lab.newcomer / "etc/pve/local").exists()
    with lab.cluster.edit() as changed:
        changed.faults.udp_blocked = False
    assert (await read_until(process.stdout, "to cluster.\n")).startswith("OK\n")
    with trio.fail_after(10):
        assert await process.wait() == 0
    assert lab.cluster.read().quorate


async def test_stop_pvecm_kills_a_hanging_join(lab: Lab) -> None:
    """A machine that loses its power takes its hanging join with it."""
    with lab.cluster.edit() as state:
        state.faults.udp_blocked = True
    process = await lab.start_add()
    await read_until(process.stdout, "waiting for quorum...")
    stop_pvecm(lab.newcomer)
    with trio.fail_after(10):
        assert await process.wait() == -9


async def test_killed_after_addnode(lab: Lab) -> None:
    """Killed right after the member agreed: the name is taken, nothing else tells."""
    with lab.cluster.edit() as state:
        state.faults.drop_after_step = 11
    assert (await lab.add()).status == -9
    with lab.cluster.edit() as state:
        state.faults.drop_after_step = None
        state.expected_votes = 1
    assert not lab.cluster.read().nodes["pve5"].online
    await aborted(lab, "can't add existing node 'pve5'")


async def test_killed_while_pmxcfs_is_stopped(lab: Lab) -> None:
    """Killed between stop and start of pve-cluster, the machine's tools do not work any more."""
    with lab.cluster.edit() as state:
        state.faults.drop_after_step = 14
    assert (await lab.add()).status == -9
    ended = await lab.add()
    assert ended.status != 0
    assert ended.err.startswith("ipcc_send_rec[1] failed: Connection refused\n")
    assert list((lab.newcomer / "etc/pve").iterdir()) == []


async def test_reader_gone(lab: Lab) -> None:
    """When nobody reads its output any more, the join stops where it is, and a retry finds what is left."""
    with lab.cluster.edit() as state:
        state.faults.udp_blocked = True
    process = await lab.start_add()
    await read_until(process.stdout, "waiting for quorum...")
    assert process.stdout is not None
    await process.stdout.aclose()
    with lab.cluster.edit() as state:
        state.faults.udp_blocked = False
    assert await read_until(process.stderr, "\n") == "broken pipe \n"
    with trio.fail_after(10):
        assert await process.wait() == 0
    log = next(lab.newcomer.glob("var/log/pve/tasks/*/UPID*"))
    assert log.read_text().endswith("TASK ERROR: broken pipe\n")
    ended = await lab.add()
    assert ended.out == (
        "detected the following error(s):\n"
        "* authentication key '/etc/corosync/authkey' already exists\n"
        "* cluster config '/etc/pve/corosync.conf' already exists\n"
        "* corosync is already running, is this node already in a cluster?!\n"
    )


async def test_terminated(lab: Lab) -> None:
    """SIGTERM ends the join with its own last words, and still with status 0."""
    with lab.cluster.edit() as state:
        state.faults.udp_blocked = True
    process = await lab.start_add()
    await read_until(process.stdout, "waiting for quorum...")
    process.terminate()
    assert await read_until(process.stderr, "\n") == "received interrupt\n"
    with trio.fail_after(10):
        assert await process.wait() == 0


async def test_config_version_changed_in_between(lab: Lab) -> None:
    """A membership change between addnode and the start of corosync kills the newcomer's corosync."""
    with lab.cluster.edit() as state:
        state.faults.config_bump_between = True
    process = await lab.start_add()
    await read_until(process.stdout, "waiting for quorum...")
    await eventually(lambda: not Machine(lab.newcomer).read().corosync)
    active = await lab.run(lab.newcomer, "systemctl", "is-active", "corosync")
    assert (active.out, active.status) == ("failed\n", 3)
    assert not lab.cluster.read().nodes["pve5"].online


@pytest.mark.parametrize(
    ("profile", "out", "err"),
    [
        ("pve91", "successfully added node 'pve5' to cluster.\n", ""),
        ("pve81", "config-EPOCH.sql.gz'\n", "cannot backup old database\n"),
    ],
)
async def test_bad_backup(tmp_path: Path, profile: str, out: str, err: str) -> None:
    """A failing backup is a warning today, and was the end, half-way, before 8.1.3."""
    async with open_lab(tmp_path, profile=profile) as lab:
        with lab.cluster.edit() as state:
            state.faults.bad_backup = True
        ended = await lab.add()
        assert same_epoch(ended.out).endswith(out)
        assert ended.err == err
        warned = "failed to create backup of pre-join config database - cannot backup old database\n"
        assert (warned in ended.out) is (not err)


# --- afterwards -------------------------------------------------------------------------------------


async def test_certificate_of_the_newcomer(lab: Lab) -> None:
    """The newcomer serves another certificate after the join than before, issued by the cluster's CA."""
    from provd.simulator.cluster.api import serve_api

    port = lab.cluster.read().api_port
    await lab.nursery.start(
        lambda task_status: serve_api(lab.cluster, "pve5", root=lab.newcomer, task_status=task_status)
    )
    before = await served_by(NEWCOMER, port)
    assert (await lab.add()).err == ""
    after = ""
    with trio.fail_after(10):
        while not after:
            try:
                after = await served_by(NEWCOMER, port)
            except (OSError, trio.BrokenResourceError):  # it restarts
                await trio.sleep(0.01)
    assert after == lab.cluster.fingerprint("pve5") != before


@pytest.mark.parametrize("form", ["{ip} {key}", "[{ip}]:{port} {key}"])
async def test_join_without_password(tmp_path: Path, form: str) -> None:
    """--use_ssh needs a known host and an accepted key, both for real, and says no line about the API."""
    async with open_members(tmp_path, 2) as members:
        root = tmp_path / "pve5"
        install_pve_tools(root, cluster_dir=members.cluster.directory, hostname="pve5", ip=NEWCOMER)
        lab = Lab(tmp_path, members.cluster, members.nursery, root)
        words = ("pvecm", "add", "127.77.0.2", "--use_ssh")
        refused = "unable to copy ssh ID: exit code 1\n"
        assert (await lab.run(root, *words)).err == refused
        members.cluster.authorize((root / "root/.ssh/id_rsa.pub").read_text().strip())
        assert (await lab.run(root, *words)).err == refused
        key = (members.members["pve2"].root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        line = form.format(ip="127.77.0.2", port=members.cluster.read().ssh_port, key=key)
        (root / "root/.ssh/known_hosts").write_text(line)
        ended = await lab.run(root, *words)
        assert same_epoch(ended.out) == (
            f"No cluster network links passed explicitly, fallback to local node IP '{NEWCOMER}'\n"
            "copy corosync auth key\n" + SUCCESS.partition("finishing setup locally\n")[2]
        )
        assert (ended.err, ended.status) == ("", 0)
        assert members.online() == {"pve1": True, "pve2": True, "pve5": True}
        conf = (members.members["pve1"].root / "etc/corosync/corosync.conf").read_text()
        assert (root / "etc/corosync/corosync.conf").read_text() == conf


async def test_join_without_password_refused(tmp_path: Path) -> None:
    """What the member's own pvecm says is passed on, and a member that is off lets nobody copy anything."""
    async with open_members(tmp_path, 2) as members:
        root = tmp_path / "pve5"
        install_pve_tools(root, cluster_dir=members.cluster.directory, hostname="pve5", ip=NEWCOMER)
        lab = Lab(tmp_path, members.cluster, members.nursery, root)
        create_root_key(Machine(root))
        members.cluster.authorize((root / "root/.ssh/id_rsa.pub").read_text().strip())
        key = (members.members["pve1"].root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        (root / "root/.ssh/known_hosts").write_text(f"{MEMBER} {key}")
        await members.members["pve2"].power_off()
        words = ("pvecm", "add", MEMBER, "--use_ssh", "--link0", NEWCOMER)
        ended = await lab.run(root, *words)
        assert ended.out == "cluster not ready - no quorum?\n"
        assert ended.err == (
            "unable to add node: command failed (ssh 127.77.0.1 -o BatchMode=yes pvecm addnode pve5"
            f" --force 1 --apiversion 1 --link0 {NEWCOMER})\n"
        )
        await members.members["pve1"].power_off()
        assert (await lab.run(root, *words)).err == "unable to copy ssh ID: exit code 1\n"
        assert list(members.online()) == ["pve1", "pve2"]


# --- on a terminal ----------------------------------------------------------------------------------


async def on_terminal(lab: Lab, *typed: tuple[str, bytes]) -> str:
    """Run `pvecm add` on a terminal; each text is typed when its prompt has appeared."""
    ours, theirs = pty.openpty()
    process = await trio.lowlevel.open_process(
        [lab.newcomer / "usr/local/bin/pvecm", "add", MEMBER, *lab.pinned()],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    with trio.fail_after(20):
        for prompt, text in [*typed, (None, b"")]:
            while prompt is None or prompt.encode() not in seen:
                try:
                    chunk = await trio.to_thread.run_sync(os.read, ours, 4096, abandon_on_cancel=True)
                except OSError:  # EIO: the other end is closed
                    break
                seen += chunk
            os.write(ours, text)
        await process.wait()
    os.close(ours)
    return seen.decode()


PROMPT = f"Please enter superuser (root) password for '{MEMBER}': "


async def test_password_on_a_terminal(lab: Lab) -> None:
    """On a terminal the password is asked for, and shown as stars that backspace takes away."""
    seen = await on_terminal(lab, (PROMPT, PASSWORD.encode() + b"x\x7f\r"))
    stars = "*" * (len(PASSWORD) + 1)
    assert seen.startswith(f"{PROMPT}{stars}\b \b\r\nEstablishing API connection")
    assert "successfully added node 'pve5' to cluster." in seen


async def test_interrupted_on_a_terminal(lab: Lab) -> None:
    """^C at the prompt ends it."""
    assert (await on_terminal(lab, (PROMPT, b"ab\x03"))).endswith("password input aborted\r\n")


async def test_second_factor_on_a_terminal(lab: Lab) -> None:
    """With a terminal the one-time code is asked for."""
    with lab.cluster.edit() as state:
        state.tfa = "totp"
    code = ("Enter totp code for user root@pam: ", b"123456\n")
    seen = await on_terminal(lab, (PROMPT, PASSWORD.encode() + b"\t\r"), code)
    assert "Enter totp code for user root@pam: 123456\r\nLogin succeeded." in seen


async def test_ephemeral_key_is_not_in_the_cluster(lab: Lab) -> None:
    """The installer's key ends with the join: no link leads to it, and the cluster does not have it."""
    home = lab.newcomer / "root/.ssh/authorized_keys"
    home.write_text(EPHEMERAL)
    assert (await lab.add()).err == ""
    assert home.readlink() == lab.newcomer / "etc/pve/priv/authorized_keys"
    assert EPHEMERAL not in lab.cluster.authorized_keys()
    assert home.read_text().splitlines()[-1].endswith(" root@pve5")
