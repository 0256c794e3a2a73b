"""`provd cluster …` and the watch behind it: simulated members over HTTPS, a real sshd, a real database."""

import argparse
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, evolve

from provd import cluster_cli
from provd.cluster_watch import ClusterWatch, Look, look_view
from provd.config import ProxmoxSection, SshSection, load_config
from provd.credentials import ClusterCredentials
from provd.doctor.findings import Finding, Result
from provd.domain.errors import Conflict, NotFound
from provd.domain.secrets import Secret
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.membership.link import ClusterLink
from provd.orchestrator.membership.member_keys import MemberKeys
from provd.proxmox.api_token import ApiToken
from provd.remote.keys import KeyPair
from provd.simulator.cluster import Cluster
from provd.simulator.cluster.api import serve_api
from provd.simulator.cluster.state import Token
from provd.store import activity, members
from provd.store.database import Store, now, open_store

NET = "127.78.6"
PIN = ":".join(["AA"] * 32)
TOKEN = "provd@pve!reads=6650a1b2-0000-4000-8000-000000000001"
CREDENTIALS = ClusterCredentials(token=ApiToken.parse(Secret(TOKEN)))
EXAMPLES = Path(__file__).parents[1] / "deploy" / "examples"


@define
class Lab:
    cluster: Cluster
    store: Store
    watch: ClusterWatch
    open_watch: Callable[..., ClusterWatch]

    def told(self) -> list[str]:
        return [line.message for line in self.store.read(lambda db: activity.after(db, 0, 100))]

    async def look(self) -> Look:
        return await self.watch.look()


@asynccontextmanager
async def open_lab(directory: Path) -> AsyncIterator[Lab]:
    """Three members that answer, and a token that may look at everything."""
    cluster = Cluster.create(directory / "cluster", ip=f"{NET}.1")
    for number in (2, 3):
        cluster.add_member(f"pve{number}", f"{NET}.{number}")
    name, _, secret = TOKEN.partition("=")
    with cluster.edit() as state:
        state.tokens[name] = Token(secret=secret, privs={"/": ["Sys.Audit", "VM.Audit", "Datastore.Audit"]})
    with open_store(directory / "provd.db") as store, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in (1, 2, 3):
                await nursery.start(serve_api, cluster, f"pve{number}")
            section = ProxmoxSection(
                existing_node=ip_address(f"{NET}.1"),
                join_fingerprint=cluster.fingerprint("pve1"),
                api_port=cluster.read().api_port,
            )

            def open_watch(
                credentials: ClusterCredentials = CREDENTIALS, ssh_port: int = 22, **changes: Any
            ) -> ClusterWatch:
                fleet, ours = Fleet(store, Bell()), evolve(section, **changes)
                link = ClusterLink(ours, store, fleet, credentials.token, credentials.password)
                ssh = SshSection(port=ssh_port)
                return ClusterWatch(ours, ssh, credentials, link, MemberKeys(fleet, ssh_port), fleet)

            yield Lab(cluster, store, open_watch(), open_watch)
            nursery.cancel_scope.cancel(reason="the test is over")


def of(look: Look, check: str) -> list[Finding]:
    return [each for each in look.findings if each.check == check]


# --- the watch -------------------------------------------------------------------------------------


async def test_a_look_at_a_healthy_cluster(tmp_path: Path) -> None:
    """Its members, with release and certificate, and no problem."""
    async with open_lab(tmp_path) as lab:
        look = await lab.look()
        view = look_view(look, ())
    assert Result.PROBLEM not in {each.result for each in look.findings}
    assert (view["name"], view["votes"], view["spare_votes"], view["quorate"]) == ("lab", 3, 1, True)
    rows = view["members"]
    assert isinstance(rows, list)
    assert [row["name"] for row in rows] == ["pve1", "pve2", "pve3"]
    assert all(row["online"] and row["fingerprint"] and row["certificate_ends"] for row in rows)
    json.dumps(view)


async def test_what_changes_is_told_once(tmp_path: Path) -> None:
    """A member goes and comes, quorum is lost and regained, nobody answers: one line each, at each change."""
    async with open_lab(tmp_path) as lab:
        await lab.look()
        assert lab.told() == []
        with lab.cluster.edit() as state:
            state.nodes["pve3"].online = False
        for _ in range(2):
            await lab.look()
        assert lab.told() == ["the cluster's member pve3 is offline"]
        with lab.cluster.edit() as state:
            state.faults.peer_no_quorum = True
        await lab.look()
        with lab.cluster.edit() as state:
            state.faults.peer_down = ["pve1", "pve2", "pve3"]
        for _ in range(2):
            await lab.look()
        with lab.cluster.edit() as state:
            state.faults.peer_down = []
            state.faults.peer_no_quorum = False
            state.nodes["pve3"].online = True
        await trio.sleep(0.2)  # the simulated API looks at the faults every 0.02 s
        await lab.look()
        _, lost, silent, *ended = lab.told()
        assert lost == "the cluster has lost its quorum"
        assert "cannot be asked" in silent
        assert len(ended) == 3
        assert {"the cluster has its quorum again", "the cluster can be asked again"} < set(ended)


async def test_one_look_at_a_time(tmp_path: Path) -> None:
    """The second is refused; a cancelled one leaves nothing in the way."""
    async with open_lab(tmp_path) as lab:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.look)
            while not lab.watch.busy:
                await trio.lowlevel.checkpoint()
            with pytest.raises(Conflict, match="already"):
                await lab.look()
            nursery.cancel_scope.cancel()
        assert not lab.watch.busy
        assert (await lab.look()).survey is not None


async def test_it_looks_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon after the start, and then again; without a cluster or a login it ends at once."""
    monkeypatch.setattr("provd.cluster_watch.SOON", 0.0)
    monkeypatch.setattr("provd.cluster_watch.EVERY", 0.05)
    async with open_lab(tmp_path) as lab:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.watch.serve)
            seen = set()
            while len(seen) < 2:
                await trio.sleep(0.01)
                if lab.watch.last is not None:
                    seen.add(lab.watch.last.at)
            nursery.cancel_scope.cancel()
        await lab.open_watch(ClusterCredentials()).serve()
        await lab.open_watch(existing_node=None, join_fingerprint="").serve()


async def test_without_a_login(tmp_path: Path) -> None:
    """Nobody is asked; what is missing is said, with the commands."""
    async with open_lab(tmp_path) as lab:
        look = await lab.open_watch(ClusterCredentials()).look()
        assert look.survey is None
        assert "pveum user token add" in of(look, "access")[0].mend
        assert lab.told() == []


# --- SSH -------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_sshd(directory: Path, key: KeyPair) -> AsyncIterator[int]:
    """A real sshd on all members' addresses, which lets `key` in as this user."""
    port = await free_port()
    directory.mkdir()
    directory.chmod(0o700)
    await trio.run_process(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "host"])
    (directory / "keys").write_text(key.public_line + "\n")
    (directory / "config").write_text(
        f"Port {port}\n"
        + "".join(f"ListenAddress {NET}.{number}\n" for number in (1, 2))
        + f"HostKey {directory}/host\nAuthorizedKeysFile {directory}/keys\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
    )
    program = next(path for path in ("/usr/sbin/sshd", "/usr/bin/sshd") if os.path.exists(path))
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process, [program, "-D", "-e", "-f", directory / "config"], stderr=-3, check=False
        )
        await nursery.start(run)
        while True:
            try:
                await (await trio.open_tcp_stream(f"{NET}.1", port)).aclose()
                break
            except OSError:
                await trio.sleep(0.02)
        yield port
        nursery.cancel_scope.cancel(reason="the test is over")


async def free_port() -> int:
    [listener] = await trio.open_tcp_listeners(0, host=f"{NET}.1")
    async with listener:
        return int(listener.socket.getsockname()[1])


@pytest.mark.skipif(not os.path.exists("/usr/sbin/sshd"), reason="needs openssh-server")
@pytest.mark.skipif(os.geteuid() != 0, reason="logs in as root")
async def test_ssh_is_tried_and_the_host_keys_are_pinned(tmp_path: Path) -> None:
    """The first contact pins; from then on another key is refused until the member is forgotten."""
    key = KeyPair.generate("provd")
    credentials = evolve(CREDENTIALS, key=key)
    async with open_lab(tmp_path) as lab:
        async with open_sshd(tmp_path / "ssh", key) as port:
            watch = lab.open_watch(credentials, port)
            look = await watch.look(knock=True)
            assert "provd's key opens pve1, pve2" in of(look, "SSH")[-1].what
            assert of(look, "SSH")[0].what.startswith("pve3 does not let provd in")
            assert any("host key SHA256:" in line for line in lab.told())
            pinned = {one.name: one.ssh_host_keys for one in lab.store.read(members.everyone)}
            assert len(pinned["pve1"]) == 1
            assert pinned["pve3"] == ()
        async with open_sshd(tmp_path / "other", key) as port:
            look = await lab.open_watch(credentials, port).look(knock=True)
            assert {each.result for each in of(look, "SSH")} == {Result.WARNING, Result.PROBLEM}
            assert "presented the host key" in of(look, "SSH")[0].what
            await lab.store.write(lambda db: members.forget(db, ["pve1"]))
            look = await lab.open_watch(credentials, port).look(knock=True)
            assert "provd's key opens pve1" in of(look, "SSH")[-1].what


# --- the command -----------------------------------------------------------------------------------


def set_up(directory: Path, section: ProxmoxSection) -> Path:
    """A configuration beside which the daemon's database lies."""
    text = (EXAMPLES / "provisioning.yaml").read_text()
    text = text.replace("192.168.1.10\n", f"{section.existing_node}\n  api_port: {section.api_port}\n")
    start = text.index("join_fingerprint: ") + len("join_fingerprint: ")
    text = text[:start] + section.join_fingerprint + text[start + 95 :]
    (directory / "provisioning.yaml").write_text(text)
    (directory / "server-types.yaml").write_text((EXAMPLES / "server-types.yaml").read_text())
    (directory / "given").mkdir()
    (directory / "given" / "cluster-token").write_text(TOKEN)
    return directory / "provisioning.yaml"


async def run(config: Path, *words: str) -> tuple[int, str, str]:
    done = await trio.run_process(
        [sys.executable, "-W", "error", "-m", "provd", "cluster", *words, "--config", config],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={
            **os.environ,
            "STATE_DIRECTORY": str(config.parent / "state"),
            "CREDENTIALS_DIRECTORY": str(config.parent / "given"),
        },
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_check_prints_members_and_findings(tmp_path: Path) -> None:
    """For people and as JSON; the exit code says whether there is a problem."""
    async with open_lab(tmp_path) as lab:
        (tmp_path / "etc").mkdir()
        section = ProxmoxSection(
            existing_node=ip_address(f"{NET}.1"),
            join_fingerprint=lab.cluster.fingerprint("pve1"),
            api_port=lab.cluster.read().api_port,
        )
        config = set_up(tmp_path / "etc", section)
        code, out, err = await run(config, "check")
        assert (code, err) == (0, "")
        assert f"pve2    {NET}.2" in out
        assert "3 of 3 votes are there, 2 are needed, 1 to spare: quorate" in out
        assert "→ ssh-keygen -t ed25519" in out

        with lab.cluster.edit() as state:
            state.faults.peer_down = ["pve1"]
            state.faults.peer_no_quorum = True
        code, out, err = await run(config, "check", "--json")
        document = json.loads(out)
        assert (code, err, document["quorate"], document["healthy"]) == (1, "", False, False)
        assert {one["name"] for one in document["remembered"]} == {"pve1", "pve2", "pve3"}

        with lab.cluster.edit() as state:
            state.faults.peer_down = ["pve1", "pve2", "pve3"]
        code, out, _ = await run(config, "check")
        assert code == 1
        assert "remembered: " in out
        assert "Connection refused" in out


def commanded(store: Store, config: Path, *words: str) -> None:
    commands = argparse.ArgumentParser().add_subparsers(required=True)

    def add(one: argparse.ArgumentParser, command: Any, *names: str) -> None:
        for name in names:
            one.add_argument(name)
        one.set_defaults(command=command)

    cluster_cli.add_commands(commands, add, lambda config: nullcontext(store))
    options = commands.choices["cluster"].parse_args(words)
    options.command(load_config(config, {}), options)


def test_forget_drops_a_member_with_its_host_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By name in any case; the configured one is unpinned only, an unknown one is a clear error."""
    with open_store(tmp_path / "provd.db") as store:
        config = set_up(tmp_path, ProxmoxSection(existing_node=ip_address("10.0.0.1"), join_fingerprint=PIN))
        one = members.RememberedMember(name="pve1", address="10.0.0.1", fingerprint="AA", seen_at=now())

        async def remember() -> None:
            others = [one, evolve(one, name="pve2", address="10.0.0.2")]
            await store.write(lambda db: members.remember(db, others))
            for each in others:
                await store.write(lambda db, name=each.name: members.pin_host_keys(db, name, ["ssh-rsa AA"]))

        trio.run(remember)
        for name in ("PVE1", "pve2"):
            commanded(store, config, "forget", name)
            assert f"{name.lower()} is forgotten" in capsys.readouterr().out
        assert [(each.name, each.ssh_host_keys) for each in store.read(members.everyone)] == [("pve1", ())]
        with pytest.raises(NotFound, match="there are: pve1"):
            commanded(store, config, "forget", "pve2")
