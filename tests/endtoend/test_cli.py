"""The commands, as processes: what they print, how they end, and that they and a daemon share one state."""

import os
import pwd
import re
import shlex
import signal
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import trio
import yaml

from endtoend.command import Ended, provd
from endtoend.world import PATIENCE, Json, World
from provd import __version__
from provd.simulator.lab import CLUSTER_PASSWORD, ROOT_PASSWORD_HASH, Lab, free_port, prepare


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Files for a daemon; nothing runs."""
    return prepare(tmp_path / "lab", port=free_port())


def edit(lab: Lab, change: Callable[[Json], object]) -> None:
    document = yaml.safe_load(lab.configuration.read_text())
    change(document)
    lab.configuration.write_text(yaml.safe_dump(document))


async def test_version_and_help() -> None:
    """They need no configuration; a command that there is not ends with the usage and 2."""
    assert await provd("--version") == Ended(0, f"provd {__version__}\n", "")
    usage = await provd("--help")
    assert usage.status == 0
    for command in ("serve", "check-config", "sign-in", "token"):
        assert command in usage.out
    for wrong in ((), ("token", "create")):
        ended = await provd(*wrong)
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith("usage: provd")


async def test_a_good_configuration_is_shown_without_its_secrets(lab: Lab) -> None:
    """check-config prints what is in force, defaults included, and ends with 0."""
    shown = await provd("check-config", config=lab.configuration)
    assert (shown.status, shown.err) == (0, "")
    assert "2 server types: gpu-node, nuc" in shown.out
    assert "join_fingerprint" in shown.out
    assert "timezone: UTC" in shown.out
    assert ROOT_PASSWORD_HASH not in shown.out
    assert CLUSTER_PASSWORD not in shown.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lab: edit(lab, lambda d: d["server"].update(colour="red")), ["provisioning.yaml:", "colour"]),
        (lambda lab: lab.configuration.unlink(), ["provisioning.yaml"]),
        (lambda lab: (lab.directory / "cluster-password").unlink(), ["cluster-password"]),
        (lambda lab: (lab.directory / "cluster-password").chmod(0o644), ["cluster-password"]),
        (lambda lab: (lab.directory / "server-types.yaml").write_text("nuc: ["), ["server-types.yaml:"]),
    ],
    ids=["unknown key", "no file", "no password", "open password", "server types"],
)
async def test_a_wrong_configuration(lab: Lab, change: Callable[[Lab], object], words: list[str]) -> None:
    """check-config and serve name the file and end with 2, after which systemd does not try again."""
    change(lab)

    async def check(command: str) -> None:
        ended = await provd(command, config=lab.configuration)
        assert (ended.status, ended.out) == (2, ""), command
        assert all(word in ended.err for word in words), ended.err
        assert "Traceback" not in ended.err

    async with trio.open_nursery() as nursery:
        nursery.start_soon(check, "check-config")
        nursery.start_soon(check, "serve")


async def test_what_keeps_the_daemon_from_starting(lab: Lab) -> None:
    """A port that is taken, or a database that is too new: one sentence, and the status that fits."""
    with socket.create_server(("127.0.0.1", lab.ports.daemon)):
        ended = await provd("serve", config=lab.configuration)
    assert ended.status == 2
    assert f"cannot listen on 127.0.0.1:{lab.ports.daemon}: address already in use" in ended.err
    with closing(sqlite3.connect(lab.directory / "state" / "provd.db")) as db:
        db.execute("PRAGMA user_version = 999")
    ended = await provd("serve", config=lab.configuration)
    assert ended.status == 1
    assert "it was written by a newer provd" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


async def test_signals(world: World) -> None:
    """SIGHUP reads the server types anew, SIGINT ends the daemon like SIGTERM does."""
    await world.start()
    assert world.daemon is not None
    types = world.lab.directory / "server-types.yaml"

    async def hang_up() -> Json:
        """Until the next line of history, which tells what became of it."""
        before = len((await world.call("GET", "/api/activity"))["activity"])
        assert world.daemon is not None
        world.daemon.send_signal(signal.SIGHUP)
        with trio.fail_after(PATIENCE):
            while len(lines := (await world.call("GET", "/api/activity"))["activity"]) == before:
                await trio.sleep(0.02)
        newest: Json = lines[0]
        return newest

    # The file is as it was, so that it was the signal and not the file's change.
    assert (await hang_up())["event"] == "server_types.reloaded"
    document = yaml.safe_load(types.read_text())
    document["server_types"]["tower"] = {**document["server_types"]["nuc"], "hostname_prefix": "tower"}
    types.write_text(yaml.safe_dump(document))
    await hang_up()
    known = (await world.call("GET", "/api/server-types"))["server_types"]
    assert {one["key"] for one in known} == {"nuc", "gpu-node", "tower"}
    world.daemon.send_signal(signal.SIGINT)
    with trio.fail_after(PATIENCE):
        assert await world.daemon.wait() == 0


async def test_a_token_made_and_revoked_beside_a_running_daemon(world: World) -> None:
    """It works from the moment it is printed to the moment it is revoked, and is shown once."""
    await world.start()
    config = world.lab.configuration
    made = await provd("token", "create", "laptop", config=config)
    token = made.out.strip()
    assert made.status == 0
    assert re.fullmatch(r"provd_[A-Za-z0-9_-]{43}", token)
    headers = {"Authorization": f"Bearer {token}"}

    again = await provd("token", "create", "laptop", config=config)
    assert (again.status, again.out) == (1, "")
    assert again.err == "provd: there is a token 'laptop' already: revoke it first, or take another name\n"

    assert (await world.client.get("/api/hosts", headers=headers)).status_code == 200
    listed = await provd("token", "list", config=config)
    lines = {line.split()[0]: line for line in listed.out.splitlines()}
    assert set(lines) == {"environment", "laptop"}
    assert re.fullmatch(r"laptop +valid +made \S+ \S+  last used \d{4}-\d\d-\d\d \d\d:\d\d", lines["laptop"])
    assert token not in listed.out

    assert (await provd("token", "revoke", "laptop", config=config)).status == 0
    assert (await world.client.get("/api/hosts", headers=headers)).status_code == 401
    gone = await provd("token", "revoke", "laptop", config=config)
    assert (gone.status, gone.err) == (1, "provd: there is no token 'laptop' that could be revoked\n")
    # A restart, given the same token again, does not undo a revocation either.
    assert (await provd("token", "revoke", "environment", config=config)).status == 0
    await world.restart_killed()
    assert (await world.client.get("/api/hosts")).status_code == 401


def browser_of(world: World) -> httpx.AsyncClient:
    """It keeps no connection, since the daemon may be killed between two requests."""
    return httpx.AsyncClient(
        trust_env=False, base_url=world.public_url, limits=httpx.Limits(max_keepalive_connections=0)
    )


async def test_a_sign_in_link_works_once(world: World) -> None:
    """Opening it uses nothing up; the button does, and then there is a session in this browser alone."""
    await world.start()
    async with browser_of(world) as stranger:
        page = (await stranger.get("/", follow_redirects=True)).text
    [command] = re.findall(r"<code>runuser -u provd -- provd (.*)</code>", page)
    link = (await provd(*shlex.split(command), config=world.lab.configuration)).out.strip()
    where, _, token = link.partition("?token=")
    origin = {"Origin": world.public_url}
    async with browser_of(world) as browser, browser_of(world) as other:
        assert (await browser.get("/")).headers["Location"] == "/sign-in"
        for _ in range(2):
            assert token in (await browser.get(link)).text
        signed_in = await browser.post(where, data={"token": token}, headers=origin)
        assert (signed_in.status_code, signed_in.headers["Location"]) == (303, "/")
        cookie = signed_in.headers["Set-Cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
        assert (await browser.get("/")).status_code == 200
        assert (await browser.get("/api/hosts")).status_code == 200

        refused = await other.post(where, data={"token": token}, headers=origin)
        assert (refused.status_code, "Set-Cookie" in refused.headers) == (401, False)
        assert (await other.get("/")).status_code == 302

        body = {"mac": "02:00:00:00:09:09", "server_type": "nuc"}
        assert (await browser.post("/api/hosts", json=body)).status_code == 403
        assert (await browser.post("/api/hosts", json=body, headers=origin)).status_code == 201
        await world.restart_killed()
        assert (await browser.get("/")).status_code == 200
        assert (await browser.post("/sign-out", headers=origin)).status_code == 303
        assert (await browser.get("/")).status_code == 302


async def test_the_first_start_prints_a_link_and_no_other_does(world: World) -> None:
    """Exactly one line in the life of a database, and the link in it works."""
    for _ in range(3):
        await world.start()
        await world.stop()
    log = world.log.read_text()
    [token] = re.findall(r"first start: sign in, once, at \S+/sign-in\?token=(\S+)", log)
    assert log.count("sign-in") == 2, log  # the link, and the command for later ones
    await world.start()
    async with browser_of(world) as browser:
        headers = {"Origin": world.public_url}
        assert (await browser.post("/sign-in", data={"token": token}, headers=headers)).status_code == 303


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write what others cannot open")
async def test_root_leaves_no_file_that_the_daemon_cannot_open(lab: Lab) -> None:
    """Where the state belongs to another user nothing is touched, and the right command is named."""
    state = lab.directory / "state"
    nobody = pwd.getpwnam("nobody")
    os.chown(state, nobody.pw_uid, nobody.pw_gid)
    for command in (["serve"], ["sign-in"], ["token", "create", "my laptop"]):
        refused = await provd(*command, config=lab.configuration)
        assert (refused.status, refused.out) == (1, ""), command
        assert f"run runuser -u nobody -- provd {shlex.join(command)} --config " in refused.err
        assert list(state.iterdir()) == []
    assert (await provd("check-config", config=lab.configuration)).status == 0
