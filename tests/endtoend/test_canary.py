"""No secret is anywhere but where it must be: a search through everything that a rebuild leaves or shows.

What is found must be exactly what is expected, so that a search which finds nothing at all fails, too.
"""

import base64
import html
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import trio
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from endtoend.canary import Evidence
from endtoend.event_reader import EventReader, open_reader
from endtoend.inventory import TOKEN as INVENTORY_TOKEN
from endtoend.inventory import TYPE_ID, new_inventory, plain, use_inventory
from endtoend.world import PATIENCE, TOKEN, Json, World
from provd.remote.keys import Seal
from provd.simulator.machine.machine import Machine, Phase

CLUSTER_PASSWORD = 'canary/cluster+password & "100%"=<b>'
WRONG_PASSWORD = 'canary/wrong+password & "100%"=<i>'
ROOT_PASSWORD_HASH = "$6$canaryroot$" + "canary/hash.of/root.password" * 3 + "./"

SHOWN = (
    *("/api/hosts", "/api/hosts/1", "/api/operations", "/api/operations?host_id=1", "/api/operations/1"),
    *("/api/activity?limit=1000", "/api/sightings", "/api/images", "/api/server-types", "/healthz"),
    *("/api/hosts/1/answer", "/api/hosts/1/standing", "/api/hosts/1/trail", "/api/readiness", "/api/cluster"),
    *("/", "/hosts/1", "/ops/1", "/sign-in", "/api/hosts/2", "/api/nothing", "/hosts/2"),
)
"""Every page, every answer of the API that a GET can have, and what they say of things that there are not."""

WHERE_THEY_BELONG = {
    ("cluster password", "cluster-password"),
    # The simulated cluster checks passwords against this; it is to it what /etc/shadow is to a real one.
    ("cluster password", "cluster/cluster.json"),
    ("root password hash", "provisioning.yaml"),
    ("inventory token", "inventory-token"),
    ("sealing key", "state/sealing.key"),
    # It has to prove itself with it; at the end it is not there any more.
    ("machine token", "first-boot script at its start"),
}


@define(eq=False)
class Detective:
    """Writes down what can be seen of one host's rebuild, and learns the secrets that provd makes itself."""

    world: World
    evidence: Evidence = field(factory=Evidence)
    secrets: dict[str, bytes] = field(factory=dict)

    async def look(self, client: httpx.AsyncClient) -> None:
        """At everything that an operator may see, and at the database while it is in use."""
        for path in SHOWN:
            await client.get(path)
        self.look_at_files("state")

    async def knock_once_more(self) -> None:
        """As a machine that shows its token when the operation is over; nothing may say it again."""
        token = self.secrets["machine token"].decode()
        path = f"/api/hosts/1/first-boot-script?token={token}"
        assert (await self.world.client.get(path, headers={"Authorization": ""})).status_code == 404
        headers = {"Authorization": f"Bearer {token}"}
        for where in ("/api/hosts/1/installed", "/api/hosts/1/phone-home"):
            knocked = await self.world.client.post(where, json={"token": token}, headers=headers)
            assert knocked.status_code == 404

    async def write_down(self, response: httpx.Response) -> None:
        """For the client: whatever it is answered, with all headers."""
        body = await response.aread()
        place = f"{response.request.method} {response.request.url.path}"
        self.evidence.add(
            place, b"\n".join(b": ".join(pair) for pair in response.headers.raw) + b"\n\n" + body
        )

    async def look_at_processes(self) -> None:
        """At the arguments of every process, again and again."""
        seen = set()
        while True:
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):  # it ended meanwhile
                    if (arguments := file.read_bytes()) not in seen:
                        seen.add(arguments)
                        self.evidence.add("process arguments", arguments)
            await trio.sleep(0.01)

    async def seen_at_work(self, program: bytes) -> None:
        """Until a process was seen that has `program` among its arguments."""
        with trio.fail_after(PATIENCE):
            while "process arguments" not in self.evidence.places_of(program):
                await trio.sleep(0.01)

    def look_at_files(self, directory: str = ".") -> None:
        """At every file there is; pipes and sockets hold nothing."""
        top = self.world.lab.directory
        for file in (top / directory).rglob("*"):
            if file.is_file() and not file.is_symlink() and file != self.world.log:
                with suppress(FileNotFoundError):
                    self.evidence.add(str(file.relative_to(top)), file.read_bytes())

    def look_at_log(self) -> None:
        """But for the one line that is meant to hold a link, which is checked here."""
        log = self.world.log.read_text()
        first = [
            line for line in log.splitlines() if line.startswith("info first start: sign in, once, at http")
        ]
        assert len(first) == 1
        assert self.secrets["sign-in link"].decode() in first[0]
        self.evidence.add("log", log.replace(first[0], "").encode())

    async def look_as_a_browser(self) -> None:
        """Sign in with the link of the first start, and look with the cookie."""
        [link] = re.findall(r"sign-in\?token=(\S+)", self.world.log.read_text())
        headers = {"Origin": self.world.lab.public_url}
        async with httpx.AsyncClient(trust_env=False, base_url=self.world.lab.public_url) as browser:
            await browser.post("/sign-in", data={"token": link}, headers=headers)
            self.secrets |= {
                "sign-in link": link.encode(),
                "session": browser.cookies["provd_session"].encode(),
            }
            browser.event_hooks["response"].append(self.write_down)
            await self.look(browser)

    def open_seals(self) -> None:
        """Learn the secrets of the operation that is under way, as only the daemon can."""
        sealing_key = (self.world.lab.directory / "state/sealing.key").read_bytes()
        [(key, answer)] = self.world.rows("SELECT sealed_key, sealed_answer FROM operations")
        seal = Seal(sealing_key)
        [token] = set(re.findall(rb"token=([\w-]+)", seal.open(answer, "operations/1/answer")))
        self.secrets |= {
            "sealing key": sealing_key,
            "private key": seal.open(key, "operations/1/key"),
            "machine token": token,
        }

    def finds(self) -> set[tuple[str, str]]:
        found = self.evidence.search(self.secrets)
        for find in found:
            print(find)
        return {(find.secret, find.place) for find in found}


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[Detective]:
    """Start the daemon and look on while the caller leads its only host through a rebuild."""
    detective = Detective(world)
    detective.secrets |= {
        "cluster password": CLUSTER_PASSWORD.encode(),
        "wrong password": WRONG_PASSWORD.encode(),
        "root password hash": ROOT_PASSWORD_HASH.encode(),
        "API token": TOKEN.encode(),
        "inventory token": INVENTORY_TOKEN.encode(),
    }
    world.client.event_hooks["response"].append(detective.write_down)
    with world.cluster.edit() as cluster:
        cluster.nodes["pve1"].root_password = CLUSTER_PASSWORD
        cluster.faults.slow = 0.1
    world.configure(lambda document: document["credentials"].update(root_password_hash=ROOT_PASSWORD_HASH))
    await world.start()
    async with open_reader(world.lab.ports.daemon, last_id=0) as events, trio.open_nursery() as nursery:
        nursery.start_soon(events.read)
        nursery.start_soon(detective.look_at_processes)
        nursery.start_soon(look_whenever_something_happens, detective, events)
        yield detective
        await detective.knock_once_more()
        await detective.look_as_a_browser()
        await world.kill()  # so that the write-ahead log is still there
        with trio.fail_after(PATIENCE):
            await events.ended.wait()
        nursery.cancel_scope.cancel()
    detective.evidence.add("events", bytes(events.raw))
    detective.look_at_log()
    detective.look_at_files()


async def look_whenever_something_happens(detective: Detective, events: EventReader) -> None:
    with suppress(httpx.HTTPError):  # the daemon is killed in the end
        while True:
            await events.more()
            await detective.look(detective.world.client)


async def lead_to_the_cluster(detective: Detective, machine: Machine, **password: str) -> Json:
    """Register and rebuild until the join begins, or the operation ends; returns the operation."""
    world = detective.world
    host = await world.register(machine)
    operation = await world.rebuild(host, **password)
    world.power_on(machine)
    await world.until(host, "installing", "installed")
    detective.open_seals()
    # The call home has to wait before the door, where its process can be looked at.
    await machine.wait_phase(Phase.INSTALLED_SYSTEM)
    await world.doorway.close()
    script = machine.root / "var/lib/proxmox-first-boot/proxmox-first-boot"
    detective.evidence.add("first-boot script at its start", script.read_bytes())
    await detective.seen_at_work(f"/api/hosts/{host['id']}/phone-home".encode())
    world.doorway.open.set()
    return operation


def password_in_file(world: World, password: str) -> None:
    (world.lab.directory / "cluster-password").write_text(password + "\n")


def no_password_file(world: World) -> None:
    (world.lab.directory / "cluster-password").unlink()
    world.configure(lambda document: document["credentials"].pop("cluster_password_file"))


@pytest.mark.parametrize("given", ["from a file", "in the call"])
async def test_a_whole_rebuild_leaves_no_secret_behind(world: World, given: str) -> None:
    """With a password from a file; with one from the call, and an inventory that echoes its token."""
    inventory, machine = new_inventory(), world.machine(pace=0.15)
    use_inventory(world, inventory, nuc=TYPE_ID)
    belong, password, told = WHERE_THEY_BELONG, {}, "nuc1 is in the inventory"
    if given == "from a file":
        password_in_file(world, CLUSTER_PASSWORD)
    else:
        no_password_file(world)
        inventory.answer = lambda shown: plain("401 Unauthorized", f"{shown}: {shown}")
        belong = belong - {("cluster password", "cluster-password")}
        password, told = {"cluster_password": CLUSTER_PASSWORD}, "answered 401 Unauthorized"
    async with inventory.up(), watched(world) as detective:
        operation = await lead_to_the_cluster(detective, machine, **password)
        await detective.seen_at_work(b"main('pvecm', sys.argv[1:]))\0add\0")
        assert (await world.until_over(operation))["outcome"] == "done", await world.story(operation)
        await world.heard(operation, told)
    assert detective.finds() == belong
    # What is no secret is found everywhere, so everything was looked at.
    named = detective.evidence.places_of(b"nuc1")
    assert named >= {"log", "events", "state/provd.db-wal", "machines/1/root/etc/hostname", "POST /api/hosts"}
    assert named >= {f"GET {path}" for path in ("/api/hosts", "/api/operations/1", "/api/activity")}
    assert named >= {"GET /", "GET /hosts/1", "GET /ops/1"}
    assert "process arguments" in detective.evidence.places_of(machine.ip.encode())


@pytest.mark.parametrize("what", ["wrong password", "other host keys", "cancelled in the join"])
async def test_a_rebuild_that_goes_wrong_leaves_no_secret_behind(world: World, what: str) -> None:
    """Errors quote what they met; no secret is part of that."""
    belong = WHERE_THEY_BELONG - {("inventory token", "inventory-token")}
    password_in_file(world, CLUSTER_PASSWORD)
    machine = world.machine(pace=0.15)
    if what == "wrong password":
        password_in_file(world, WRONG_PASSWORD)
        belong = belong - {("cluster password", "cluster-password")} | {(what, "cluster-password")}
    elif what == "other host keys":
        machine.faults.wrong_host_keys_in_webhook = True
    else:
        with world.cluster.edit() as cluster:
            cluster.faults.udp_blocked = True
    async with watched(world) as detective:
        # The rehearsal, which asks with that password, would say no.
        force = {"force": "nuc1"} if what == "wrong password" else {}
        operation = await lead_to_the_cluster(detective, machine, **force)
        if what == "cancelled in the join":
            await world.heard(operation, "waiting for quorum")
            await world.call("POST", f"/api/operations/{operation['id']}/cancel")
        assert ENDS[what] in (await world.until_over(operation))["detail"]
    assert detective.finds() == belong


ENDS = {
    "wrong password": "the cluster refused root's password",
    "other host keys": "host key",
    "cancelled in the join": "cancelled by",
}


# --- the search itself ---


SECRETS = st.text("abcXYZ019-_", min_size=16, max_size=64).map(str.encode)


@given(SECRETS, st.binary(max_size=20), st.binary(max_size=20))
def test_a_secret_is_found_in_every_form(secret: bytes, before: bytes, after: bytes) -> None:
    """Plain, escaped, in hexadecimal, and in base64 wherever in something longer it stands."""
    whole = before + secret + after
    text = whole.decode("latin-1")
    written = [
        whole,
        whole.hex().encode(),
        base64.b64encode(whole),
        base64.urlsafe_b64encode(whole).rstrip(b"="),
        base64.encodebytes(whole * 3),
        quote(whole, safe="").encode(),
        json.dumps({"detail": text}).encode(),
        html.escape(text).encode("latin-1"),
        repr(whole).encode(),
    ]
    for number, content in enumerate(written):
        evidence = Evidence()
        evidence.add("here", content)
        assert {find.place for find in evidence.search({"it": secret})} == {"here"}, number


def test_what_is_not_there_is_not_found() -> None:
    """Neither another secret nor a part of this one."""
    evidence = Evidence()
    evidence.add("here", CLUSTER_PASSWORD.encode()[:-1] + WRONG_PASSWORD.encode()[1:])
    assert evidence.search({"it": CLUSTER_PASSWORD.encode(), "other": WRONG_PASSWORD.encode()}) == []
