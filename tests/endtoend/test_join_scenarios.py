"""Joins that go wrong, oddly or well: the right outcome, and a sentence that an operator understands.

What a member or `pvecm add` can do to a join is played here through the whole daemon. What is wrong before a
rebuild begins stops it there (`REFUSED`); what goes wrong while the host is installed, when it would join.
"""

import fcntl
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from attrs import frozen

from endtoend.world import PATIENCE, Json, World
from provd.simulator.cluster import leaves
from provd.simulator.cluster.machine import Machine as PveRoot
from provd.simulator.cluster.state import ClusterState
from provd.simulator.machine.machine import Machine

ALONE = {"pve1": True}
"""The cluster as it was before."""


@frozen(kw_only=True)
class Scenario:
    name: str
    arrange: Callable[[World], None] = lambda world: None
    """Before the daemon starts."""
    on_host: Callable[[Machine], None] = lambda machine: None
    """In the new system, once its SSH answers."""
    words: tuple[str, ...] = ()
    """In the operation's detail; {fingerprint} is what the member shows."""
    members: dict[str, bool] = ALONE
    """Which nodes the cluster lists afterwards, and whether each is online."""


def fault(**faults: object) -> Callable[[World], None]:
    """Switch faults on; names that are no fault's are fields of the cluster itself."""

    def arrange(world: World) -> None:
        with world.cluster.edit() as cluster:
            for name, value in faults.items():
                target: object = cluster.faults if hasattr(cluster.faults, name) else cluster
                assert hasattr(target, name), name
                setattr(target, name, value)

    return arrange


def configured(section: str, key: str, value: str) -> Callable[[World], None]:
    return lambda world: world.configure(lambda document: document[section].update({key: value}))


def more_members(**online: bool) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        for number, (name, is_online) in enumerate(online.items(), start=50):
            world.cluster.add_member(name, f"127.77.0.{number}", online=is_online)

    return arrange


def both(*steps: Callable[[World], None]) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        for step in steps:
            step(world)

    return arrange


def wrong_password(world: World) -> None:
    (world.lab.directory / "cluster-password").write_text("not the cluster's\n")


def taken_address(world: World) -> None:
    for name, ip in (("pve2", "127.77.0.50"), ("old", "127.77.1.1")):
        world.cluster.add_member(name, ip)


def an_authkey(machine: Machine) -> None:
    (machine.root / "etc/corosync/authkey").write_bytes(b"of an earlier life")


def a_guest(machine: Machine) -> None:
    with PveRoot(machine.root).edit() as state:
        state.guests = [100]


async def rebuild(world: World, scenario: Scenario) -> tuple[Machine, Json, Json]:
    """Everything is well until the rebuild has begun; then the scenario comes true."""
    await world.start()
    machine = world.machine()

    async def prepare() -> None:
        await trio.lowlevel.checkpoint()
        scenario.on_host(machine)

    machine.before_pveproxy = prepare
    host = await world.register(machine)
    operation = await world.rebuild(host)
    scenario.arrange(world)
    world.power_on(machine)
    over = await world.until_over(operation)
    return machine, await world.host(host), over


async def assert_nothing_lingers(world: World, machine: Machine, *, retry: bool = False) -> None:
    """Our key is nowhere, no pvecm runs, nothing is locked, and no password was said aloud.

    `retry`: the key waits for another try of the join, in the one file that no cluster ever reads.
    """
    (public,) = world.rows("SELECT public_key FROM operations ORDER BY id DESC")[0]
    ours = public.split()[1]
    for file in (machine.root / "root/.ssh").iterdir():
        kept = retry and file.name == "authorized_keys2"
        assert not file.is_file() or (ours in file.read_text()) is kept, file
    assert bool(world.rows("SELECT * FROM retries")) is retry
    assert ours not in " ".join(world.cluster.authorized_keys())
    assert not any(map(is_running, (machine.root / "run/pvecm").glob("*.pid")))
    assert world.rows("SELECT * FROM locks") == []
    told = world.rows("SELECT group_concat(message) FROM activity")[0][0] + world.log.read_text()
    assert world.password not in told
    assert "not the cluster's" not in told


def is_running(pid_file: Path) -> bool:
    """A simulated pvecm holds a lock on its file for as long as it lives."""
    with pid_file.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# --- refused before anything was touched: the rehearsal says no ------------------------------------------

REFUSED = (
    Scenario(
        name="wrong password",
        arrange=wrong_password,
        words=("refused root's password", "cluster_password_file"),
    ),
    Scenario(
        name="wrong fingerprint",
        arrange=configured("proxmox", "join_fingerprint", ":".join(["AB"] * 32)),
        words=("proxmox.join_fingerprint is AB:AB:", "it presents {fingerprint}", "pvenode cert info"),
    ),
    Scenario(
        name="member's certificate renewed",
        arrange=fault(peer_other_cert=["pve1"]),
        words=("it presents {fingerprint}", "renewed now and then", "change the configuration"),
    ),
    Scenario(
        name="second factor", arrange=fault(tfa="totp"), words=("second factor", "Permissions > Two Factor")
    ),
    Scenario(name="second factor by key", arrange=fault(tfa="webauthn"), words=("second factor",)),
    Scenario(
        name="no quorum",
        arrange=both(more_members(pve2=False), fault(peer_no_quorum=True)),
        words=("has no quorum", "Bring members back"),
        members={"pve1": True, "pve2": False},
    ),
    Scenario(
        name="quorum would be lost on the way",
        arrange=more_members(pve2=True, pve3=False),
        words=("would have no majority", "Bring pve3 back first"),
        members={"pve1": True, "pve2": True, "pve3": False},
    ),
    Scenario(
        name="the member is in no cluster",
        arrange=fault(name=None),
        words=("pvecm create",),
    ),
    Scenario(
        name="the member is down",
        arrange=fault(peer_down=["pve1"]),
        words=("the cluster member 127.77.0.1:", "cannot be asked: Connection refused"),
    ),
)


# --- refused when it would join: the cluster is asked once more --------------------------------------------

BEFORE = (
    Scenario(
        name="the certificate was renewed meanwhile",
        arrange=fault(peer_other_cert=["pve1"]),
        words=("it presents {fingerprint}", "renewed now and then", "change the configuration"),
    ),
    Scenario(name="a second factor meanwhile", arrange=fault(tfa="totp"), words=("second factor",)),
    Scenario(
        name="the quorum was lost meanwhile",
        arrange=both(more_members(pve2=False), fault(peer_no_quorum=True)),
        words=("has no quorum and takes nobody in (offline: pve2)", "bring it back first"),
        members={"pve1": True, "pve2": False},
    ),
    Scenario(
        name="a member was lost meanwhile",
        arrange=more_members(pve2=True, pve3=False),
        words=("only 2 of the cluster's 3 votes", "lose its quorum while nuc1 joins"),
        members={"pve1": True, "pve2": True, "pve3": False},
    ),
    Scenario(
        name="another machine took the name meanwhile",
        arrange=more_members(pve2=True, nuc1=True),
        words=("has a node nuc1 already, which is online", "register this host under another name"),
        members={"pve1": True, "pve2": True, "nuc1": True},
    ),
    Scenario(
        name="the member went down meanwhile",
        arrange=fault(peer_down=["pve1"]),
        words=("the cluster member 127.77.0.1:", "cannot be asked: Connection refused"),
    ),
)


# --- refused by pvecm on the host, or by the cluster ---------------------------------------------------

BY_PVECM = (
    Scenario(name="authkey left over", on_host=an_authkey, words=("/etc/corosync/authkey is left over",)),
    Scenario(name="guests on the host", on_host=a_guest, words=("there are guests on the new node",)),
    Scenario(
        name="lock busy, one member",
        arrange=fault(lock_busy=True),
        words=("another pvecm is at work", "rebuild again"),
    ),
    Scenario(
        name="lock busy, three members",
        arrange=both(more_members(pve2=True, pve3=True), fault(lock_busy=True)),
        words=("another change to the cluster is under way", "rebuild again in two minutes"),
        members={"pve1": True, "pve2": True, "pve3": True},
    ),
    Scenario(
        name="address in use",
        arrange=taken_address,
        words=("lists 127.77.1.1 as the address of node old", "`pvecm delnode old`"),
        members={"pve1": True, "pve2": True, "old": True},
    ),
    Scenario(
        name="invalid corosync.conf",
        arrange=fault(addnode_errors={"warning0": "something", "link0": "is wrong"}),
        words=("corosync.conf would become invalid", "/etc/pve/corosync.conf on a member"),
    ),
)


# --- ended half-way ----------------------------------------------------------------------------------

STRIKE_OUT = "run `pvecm expected 1` and then `pvecm delnode nuc1` on another member"
HALF_WAY = (
    Scenario(
        name="pvecm killed",
        arrange=fault(drop_after_step=13),
        words=("stopped half-way, after it had said 'stopping pve-cluster service'", STRIKE_OUT),
        members={"pve1": True, "nuc1": False},
    ),
    Scenario(
        name="pvecm killed in a cluster with quorum",
        arrange=both(more_members(pve2=True, pve3=True), fault(drop_after_step=13)),
        words=("stopped half-way", "lists nuc1 now", "run `pvecm delnode nuc1` on another member"),
        members={"pve1": True, "pve2": True, "pve3": True, "nuc1": False},
    ),
    Scenario(
        name="old profile, database cannot be saved",
        arrange=fault(profile="pve81", bad_backup=True),
        words=("could not save its database", STRIKE_OUT),
        members={"pve1": True, "nuc1": False},
    ),
)


def by_name(scenario: Scenario) -> str:
    return scenario.name


@pytest.mark.parametrize("scenario", REFUSED, ids=by_name)
async def test_a_rebuild_that_cannot_end_well_does_not_begin(world: World, scenario: Scenario) -> None:
    """The rehearsal says why and what to do; nothing is armed, and the cluster is as it was."""
    scenario.arrange(world)
    await world.start()
    machine = world.machine()
    host = await world.register(machine)
    refused = await world.call("POST", f"/api/hosts/{host['id']}/rebuild", expect=409)
    told = " ".join(f"{check['what']} {check['evidence']} {check['mend']}" for check in refused["checks"])
    for words in scenario.words:
        assert words.format(fingerprint=world.cluster.fingerprint("pve1")) in told, told
    assert (await world.host(host))["state"] == "registered"
    assert world.rows("SELECT * FROM operations") == []
    assert world.member_states() == scenario.members
    assert world.password not in world.log.read_text()


@pytest.mark.parametrize("scenario", [*BEFORE, *BY_PVECM, *HALF_WAY], ids=by_name)
async def test_a_join_that_fails_says_why_and_what_to_do(world: World, scenario: Scenario) -> None:
    """The sentence names cause and way out, the cluster is as it was or the rest is named, no key stays."""
    machine, host, over = await rebuild(world, scenario)
    assert (host["state"], over["outcome"]) == ("failed", "failed"), await world.story(over)
    for words in scenario.words:
        assert words.format(fingerprint=world.cluster.fingerprint("pve1")) in over["detail"]
    assert over["detail"] in (await world.story(over))[-1], "the last line of history is cut off"
    assert world.member_states() == scenario.members
    asked = bool(list((machine.root / "var/log/pve/tasks").rglob("*clusterjoin*")))
    assert asked == (scenario not in BEFORE)
    assert ("delnode nuc1" in over["detail"]) == (scenario in HALF_WAY)
    assert "Retry from join" in over["detail"]
    await assert_nothing_lingers(world, machine, retry=True)


# --- well, in spite of everything ------------------------------------------------------------------------

WELL = (
    Scenario(name="old profile", arrange=fault(profile="pve81")),
    Scenario(
        name="8.4, database cannot be saved, quorate at once",
        arrange=fault(profile="pve84", bad_backup=True, quorate_at_first_look=True),
    ),
    Scenario(
        name="the host's firewall goes up with the join, and warnings",
        arrange=fault(profile="pve92", firewall_on_after_join=True, addnode_warnings=["link0: odd"]),
    ),
)


@pytest.mark.parametrize("scenario", WELL, ids=by_name)
async def test_a_join_that_succeeds(world: World, scenario: Scenario) -> None:
    """Whatever the release says on the way: a member with the cluster's certificate, and no key of ours."""
    alone = []
    machine, host, over = await rebuild(
        world,
        Scenario(
            name=scenario.name,
            arrange=both(scenario.arrange, restarting_slowly),
            on_host=lambda machine: alone.append(leaves.served_fingerprint(machine.root / "etc/pve", "nuc1")),
        ),
    )
    assert (host["state"], over["outcome"]) == ("ready", "done"), await world.story(over)
    assert world.member_states() == {"pve1": True, "nuc1": True}
    assert alone != [world.cluster.fingerprint("nuc1")]
    await assert_nothing_lingers(world, machine)


def restarting_slowly(world: World) -> None:
    """The newcomer's own API stays away after the join: nobody needs it."""
    with world.cluster.edit() as cluster:
        cluster.timings.api_restart = 60.0


# --- without end ------------------------------------------------------------------------------------------


async def test_udp_that_is_blocked_ends_at_the_deadline_and_what_is_said_then_helps(world: World) -> None:
    """pvecm is stopped, the rest is named, and a human who obeys the commands can rebuild at once."""
    fault(udp_blocked=True)(world)
    world.configure(lambda document: document.update(deadlines={"joining": "5s"}))
    await world.start()
    machine = world.machine()
    host, over = await world.whole_rebuild(machine)
    assert (host["state"], over["outcome"]) == ("failed", "failed")
    for words in (
        "waited 5 s for the cluster to accept it",
        "seen last: pvecm: waiting for quorum",
        STRIKE_OUT,
    ):
        assert words in over["detail"]
    assert over["detail"] in (await world.story(over))[-1], "the last line of history is cut off"
    assert world.member_states() == {"pve1": True, "nuc1": False}
    await assert_nothing_lingers(world, machine, retry=True)

    commands = re.findall(r"`(pvecm (?:expected|delnode) \w+)`", over["detail"])
    assert len(commands) == 2
    for command in commands:
        await on_member(world, command)
    assert world.member_states() == ALONE
    fault(udp_blocked=False)(world)
    world.configure(lambda document: document.pop("deadlines"))
    await world.restart_killed()
    again = await world.rebuild(host)
    await world.power_off(machine)
    world.power_on(machine)
    assert (await world.until_over(again))["outcome"] == "done", await world.story(again)


async def on_member(world: World, command: str) -> None:
    program, *arguments = command.split()
    root = world.cluster.machine_root("pve1")
    assert root is not None
    await trio.run_process([str(root / "usr/local/bin" / program), *arguments], capture_stdout=True)


async def test_a_cluster_that_changed_meanwhile_ends_at_the_deadline(world: World) -> None:
    """The newcomer's corosync stopped because of an old configuration: it is said that this may be."""
    world.configure(lambda document: document.update(deadlines={"joining": "5s"}))
    machine, host, over = await rebuild(
        world, Scenario(name="", arrange=both(fault(config_bump_between=True), more_members(pve2=True)))
    )
    assert (host["state"], over["outcome"]) == ("failed", "failed")
    for words in ("somebody else changed the cluster", "journalctl -u corosync", "`pvecm delnode nuc1`"):
        assert words in over["detail"]
    await assert_nothing_lingers(world, machine, retry=True)


# --- lost on the way ----------------------------------------------------------------------------------------


async def started(world: World, arrange: Callable[[World], None]) -> tuple[Machine, Json, Path]:
    """A rebuild whose machine is on; with it the file that pvecm's words will be in."""
    arrange(world)
    await world.start()
    machine = world.machine()
    operation = await world.rebuild(await world.register(machine))
    world.power_on(machine)
    return machine, operation, machine.root / f"run/provd-join-{operation['id']}/out"


async def said(file: Path, words: str) -> None:
    with trio.fail_after(PATIENCE):
        while not (file.exists() and words in file.read_text()):
            await trio.sleep(0.01)


async def test_a_join_goes_on_without_its_connection(world: World) -> None:
    """Every SSH session dies while pvecm works: it ends well, is found again, and was started once."""
    machine, operation, out = await started(world, fault(slow=0.2))
    await said(out, "Request addition of this node")
    assert machine.sshd_pid is not None
    children = Path(f"/proc/{machine.sshd_pid}/task/{machine.sshd_pid}/children").read_text().split()
    assert children, "nobody was logged in"
    for session in children:
        os.kill(int(session), signal.SIGKILL)
    await world.heard(operation, "lost the connection, trying again")
    assert (await world.until_over(operation))["outcome"] == "done", await world.story(operation)
    assert world.cluster.read().config_version == 2
    assert len(list((machine.root / "var/log/pve/tasks").rglob("*clusterjoin*"))) == 1
    await assert_nothing_lingers(world, machine)


async def test_a_member_that_is_away_is_waited_for(world: World) -> None:
    """It cannot confirm the join at first; when it is back, it does."""
    machine, operation, out = await started(world, fault(slow=0.1))
    await said(out, "stopping pve-cluster service")
    fault(peer_down=["pve1"])(world)
    await world.heard(operation, "not believed yet: the cluster member 127.77.0.1")
    fault(peer_down=[])(world)
    assert (await world.until_over(operation))["outcome"] == "done", await world.story(operation)
    await assert_nothing_lingers(world, machine)


async def test_a_cluster_of_one_has_no_quorum_while_it_grows(world: World) -> None:
    """Between the new entry and the new node's start the only member cannot decide; that is waited out."""
    _, operation, out = await started(world, fault(udp_blocked=True))
    await said(out, "waiting for quorum")
    state: ClusterState = world.cluster.read()
    assert (len(state.nodes), state.quorate) == (2, False)
    await world.heard(operation, "waiting for quorum (UDP 5405 to 5412")
    fault(udp_blocked=False)(world)
    assert (await world.until_over(operation))["outcome"] == "done", await world.story(operation)
    assert world.cluster.read().quorate


async def test_a_cancelled_join_keeps_its_turn_until_it_is_stopped(world: World) -> None:
    """The next host does not begin beside a pvecm that still runs; the cancelled one says what it left."""
    more_members(pve2=True, pve3=True)(world)
    first, operation, out = await started(world, fault(udp_blocked=True))
    await said(out, "waiting for quorum")
    second = world.machine(2)
    later = await world.rebuild(await world.register(second))
    world.power_on(second)
    await world.heard(later, "waits for its turn: nuc1 is joining")
    await world.call("POST", f"/api/operations/{operation['id']}/cancel")
    fault(udp_blocked=False)(world)
    assert (await world.until_over(later))["outcome"] == "done", await world.story(later)
    lines = (await world.call("GET", "/api/activity?limit=1000"))["activity"][::-1]
    stopped = next(line["id"] for line in lines if "took the temporary key off" in line["message"])
    begun = [line["id"] for line in lines if line["after"] == "joining" and line["before"] == "first_boot"]
    assert begun[0] < stopped < begun[1]
    await assert_nothing_lingers(world, first)


async def test_a_cancelled_join_says_what_it_left_behind(world: World) -> None:
    """The cluster lists the host; the history says so, with the commands."""
    machine, operation, out = await started(world, fault(udp_blocked=True))
    await said(out, "waiting for quorum")
    await world.call("POST", f"/api/operations/{operation['id']}/cancel")
    assert any(STRIKE_OUT in line for line in await world.story(operation))
    assert world.member_states() == {"pve1": True, "nuc1": False}
    await assert_nothing_lingers(world, machine)


# --- where keys go ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [False, True], ids=["other keys", "our own key"])
async def test_keys_in_a_regular_file_do_not_take_ours_into_the_cluster(world: World, ours: bool) -> None:
    """A join copies a regular authorized_keys to all nodes: ours is not in it, or is taken out again."""
    await world.start()
    machine = world.machine()

    async def shut_the_door() -> None:
        # The first-boot script, which comes next, then waits in front of it with its call home.
        await world.doorway.close()

    machine.before_pveproxy = shut_the_door
    operation = await world.rebuild(await world.register(machine))
    world.power_on(machine)
    home = machine.root / "root/.ssh"
    with trio.fail_after(PATIENCE):
        while not (home / "authorized_keys2").exists():
            await trio.sleep(0.01)
    line = (
        (home / "authorized_keys2").read_text() if ours else "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 human@desk\n"
    )
    (home / "authorized_keys").unlink()
    (home / "authorized_keys").write_text(line)
    world.doorway.open.set()
    assert (await world.until_over(operation))["outcome"] == "done", await world.story(operation)
    warned = "authorized_keys is no link to /etc/pve/priv/authorized_keys"
    assert any(warned in line for line in await world.story(operation))
    assert any("human@desk" in line for line in world.cluster.authorized_keys()) is not ours
    await assert_nothing_lingers(world, machine)
