"""Nonsense from everywhere: each is answered with a clear error, changes nothing, and the daemon lives on.

One daemon hears a whole table of requests. After each of them the database is compared with what it
was, but for the history, which may tell of the attempt, and for when a credential was last used.
"""

import json
import re
import sqlite3
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from html.parser import HTMLParser
from subprocess import DEVNULL
from typing import Any

import httpx
import pytest
import trio
import yaml
from attrs import field, frozen

from endtoend.world import PATIENCE, TOKEN, Json, World
from provd.simulator.machine.hardware import HOSTILE, nuc
from provd.simulator.machine.reports import system_information
from provd.web.gate import BODY_SECONDS

MIB = 1 << 20
IDLE, DONE_WITH, BUSY = "02:00:00:00:02:01", "02:00:00:00:02:02", "02:00:00:00:02:03"
STRANGER = "02:00:00:00:02:99"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MANY = "9" * 30
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


@frozen
class House:
    """What a stranger has to aim at: an idle host, one given up, one that is being installed."""

    world: World
    pid: int
    anybody: httpx.AsyncClient
    cookie: str
    live: str
    """The machine token of the host that is being installed."""
    dead: str
    """The one of the operation that was cancelled."""


@frozen(kw_only=True)
class Bad:
    """A request, in which {live} and {dead} are machine tokens, and what must come of it."""

    status: int
    what: str
    body: bytes | Callable[[], AsyncIterator[bytes]] | None = None
    headers: Mapping[str, str] = field(factory=dict)
    words: tuple[str, ...] = ()
    field: str | None = None
    by: str = "token"
    """token, nobody, or browser."""
    form: str = "problem"
    """problem, machine (the one answer), plain, or redirect."""
    noted: bool = False
    """An unknown machine that is remembered as one."""


def post(status: int, path: str, body: object, *words: str, **more: Any) -> Bad:
    raw = body if isinstance(body, bytes) or callable(body) else json.dumps(body).encode()
    return Bad(status=status, what=f"POST {path}", body=raw, headers=JSON, words=words, **more)


def get(status: int, path: str, *words: str, **more: Any) -> Bad:
    return Bad(status=status, what=f"GET {path}", words=words, **more)


async def endless() -> AsyncIterator[bytes]:
    """Ten MiB without an announcement."""
    for _ in range(160):
        yield b" " * (64 << 10)


NEW = {"mac": STRANGER, "server_type": "nuc"}
MACHINE = {"by": "nobody"}
NOTHING: Mapping[str, Any] = {"by": "nobody", "form": "machine"}

REGISTRATIONS = (
    post(400, "/api/hosts", b'{"mac":', "the body is not JSON"),
    post(400, "/api/hosts", b"", "the body is not JSON"),
    post(400, "/api/hosts", b'{"mac":' + b"[" * 30_000, "nested deeper than 25"),
    post(400, "/api/hosts", b'{"mac": NaN}', "NaN, which is not JSON"),
    post(400, "/api/hosts", b'{"mac": 1e999}', "too big"),
    post(400, "/api/hosts", b'{"mac": "\xff"}', "not UTF-8"),
    post(400, "/api/hosts", b'{"mac": "a", "mac": "b"}', "same name twice"),
    post(400, "/api/hosts", b'{"mac": "\\u0000"}', "NUL"),
    post(400, "/api/hosts", b'{"mac": ' + b"1" * 5_000 + b"}", "more than 19 digits"),
    post(422, "/api/hosts", [], "a JSON object is expected"),
    post(422, "/api/hosts", "text", "a JSON object is expected"),
    post(422, "/api/hosts", {}, "mac is missing", field="mac"),
    post(422, "/api/hosts", {**NEW, "mac": 5}, "mac must be text", field="mac"),
    post(422, "/api/hosts", {**NEW, "mac": "52:54:00"}, "is not a MAC address like", field="mac"),
    post(422, "/api/hosts", {**NEW, "mac": "ff:ff:ff:ff:ff:ff"}, "group or null", field="mac"),
    post(422, "/api/hosts", {**NEW, "server_type": ["nuc"]}, "must be text", field="server_type"),
    post(422, "/api/hosts", {**NEW, "server_type": "toaster"}, "it has gpu-node, nuc", field="server_type"),
    post(422, "/api/hosts", {**NEW, "colour": "red"}, "there is no field colour", field="colour"),
    post(422, "/api/hosts", {**NEW, "hostname": HOSTILE}, "is not a host name", field="hostname"),
    post(422, "/api/hosts", {**NEW, "hostname": "1"}, "not digits alone", field="hostname"),
    post(422, "/api/hosts", {**NEW, "options": "zfs"}, "a JSON object is expected", field="options"),
    post(422, "/api/hosts", {**NEW, "options": {"disks": "/dev/sda"}}, "a list", field="options.disks"),
    post(422, "/api/hosts", {**NEW, "options": {"filesystem": "zfs", "raid": "raid1"}}, "raid1"),
    post(422, "/api/hosts", {**NEW, "options": {"timezone": "../../etc"}}, field="options.timezone"),
    post(
        422,
        "/api/hosts",
        {**NEW, "options": {"address": {"cidr": "10.0.0.5", "gateway": "10.0.0.1", "dns": "10.0.0.1"}}},
        "needs its prefix length",
        field="options.address.cidr",
    ),
    post(
        422,
        "/api/hosts",
        {**NEW, "options": {"address": {"cidr": "10.0.0.5/24", "gateway": "10.9.0.1", "dns": "10.0.0.1"}}},
        "is not in 10.0.0.0/24",
        field="options.address.gateway",
    ),
    post(409, "/api/hosts", {**NEW, "mac": IDLE}, IDLE),
    post(409, "/api/hosts", {**NEW, "hostname": "NUC1"}, "nuc1"),
    post(413, "/api/hosts", b" " * 10 * MIB, "at most 65536 bytes"),
    post(413, "/api/hosts", endless),
    Bad(status=415, what="POST /api/hosts", body=b"mac=1", headers=FORM, words=("application/json",)),
)

COMMANDS = (
    post(422, "/api/hosts/1/rebuild", [], "a JSON object is expected"),
    post(422, "/api/hosts/1/rebuild", {"password": "x"}, "there is no field password", field="password"),
    post(422, "/api/hosts/1/rebuild", {"cluster_password": "a\nb"}, "one line", field="cluster_password"),
    post(422, "/api/hosts/1/rebuild", {"cluster_password": 5}, "must be text", field="cluster_password"),
    post(409, "/api/hosts/3/rebuild", {}, "rebuild 2"),
    Bad(
        status=409, what="DELETE /api/hosts/3", words=("is being worked on by rebuild 2: cancel that first",)
    ),
    post(409, "/api/operations/1/cancel", {}, "operation 1 is over already: cancelled"),
    post(409, "/api/operations/1/cluster-password", {"cluster_password": "x"}, "operation 1 is over already"),
    post(422, "/api/operations/2/cluster-password", {}, "cluster_password is missing"),
    post(404, "/api/hosts/77/rebuild", {}, "77"),
    post(404, "/api/operations/77/cancel", {}, "77"),
    Bad(status=404, what="DELETE /api/hosts/77", words=("77",)),
    *(
        get(404, f"/api/{kind}/{number}")
        for kind in ("hosts", "operations")
        for number in ("77", MANY, "-1", "0", "text", "1.0", "%00", "1%0d%0aX", "9007199254740993")
    ),
    *(
        get(422, f"/api/{what}={value}", "must be a whole number", field=what.partition("?")[2])
        for what in ("activity?limit", "activity?host_id", "activity?operation_id", "operations?host_id")
        for value in ("-1", "text", MANY, "%D9%A1", "1.5", "")
    ),
    get(404, "/api/nothing"),
    *(get(404, f"/{kind}/77", form="page") for kind in ("hosts", "ops")),
    *(get(404, f"/{kind}/{number}", form="plain") for kind in ("hosts", "ops") for number in (MANY, "x")),
)

ACCESS = (
    get(401, "/api/hosts", "a token is needed", by="nobody"),
    get(401, "/events", "a token is needed", by="nobody"),
    get(302, "/", by="nobody", form="redirect"),
    get(302, "/hosts/1", by="nobody", form="redirect"),
    *(
        get(401, "/api/hosts", "a token is needed", by="nobody", headers={"Authorization": value})
        for value in ("Bearer", f"Bearer {TOKEN}x", "Bearer {live}", f"Basic {TOKEN}", TOKEN, "Bearer \xe9")
    ),
    get(401, "/api/hosts", "a token is needed", by="nobody", headers={"Cookie": "provd_session=x"}),
    Bad(status=405, what="PUT /api/hosts"),
    Bad(status=405, what="DELETE /api/operations/1"),
    Bad(status=405, what="POST /ipxe/{live}", by="nobody", form="plain"),
    get(421, "/api/hosts", "provd does not go by this name", headers={"Host": "evil.example"}, form="plain"),
    get(421, "/api/hosts", headers={"Host": ""}, form="plain"),
    post(403, "/api/hosts/1/rebuild", {}, "a page that is not provd's", by="browser"),
    *(
        Bad(
            status=403,
            what="POST /api/hosts/1/rebuild",
            headers=headers,
            by="browser",
            words=("a page that is not provd's",),
        )
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": ""},
            {"Sec-Fetch-Site": "cross-site"},
        )
    ),
    Bad(status=401, what="POST /sign-in", body=b"token=guess", headers=FORM, by="nobody", form="page"),
    Bad(
        status=413,
        what="POST /sign-in",
        body=b"token=" + b"x" * 10_000,
        headers=FORM,
        by="nobody",
        form="plain",
    ),
)

SYSTEM = system_information(nuc(STRANGER, "127.77.9.9"), "9.2")
CALL = {
    "ip": "127.77.1.9",
    "uuid": "",
    "mac": BUSY,
    "hostname": "x",
    "host_keys": [HOST_KEY],
    "reboot_needed": False,
}

MACHINES = (
    get(404, f"/ipxe/{STRANGER}", noted=True, **NOTHING),
    *(
        get(404, f"/ipxe/{mac}", **NOTHING)
        for mac in ("x", "ff:ff:ff:ff:ff:ff", "%0d%0a", "%3Cscript%3E", "1" * 99)
    ),
    post(404, "/api/boot/answer", SYSTEM, noted=True, **NOTHING),
    post(400, "/api/boot/answer", b"{", "the body is not JSON", **MACHINE),
    post(400, "/api/boot/answer", b"[" * 100_000, "nested deeper", **MACHINE),
    post(400, "/api/boot/answer", {}, "iso is not a JSON object", **MACHINE),
    post(400, "/api/boot/answer", {**SYSTEM, "network_interfaces": 5}, "not a JSON array", **MACHINE),
    post(413, "/api/boot/answer", b" " * 10 * MIB, "at most 262144 bytes", **MACHINE),
    post(413, "/api/boot/answer", endless, **MACHINE),
    *(
        bad
        for host, token in (
            (3, "wrong"),
            (3, "{dead}"),
            (3, ""),
            (2, "{dead}"),
            (2, "{live}"),
            (1, "{live}"),
            (77, "x"),
        )
        for bad in (
            get(404, f"/api/hosts/{host}/first-boot-script?token={token}", **NOTHING),
            post(404, f"/api/hosts/{host}/installed?token={token}", {}, **NOTHING),
            post(404, f"/api/hosts/{host}/phone-home?token={token}", CALL, **NOTHING),
        )
    ),
    post(400, "/api/hosts/3/installed?token={live}", b"nonsense", "the body is not JSON", **MACHINE),
    post(400, "/api/hosts/3/installed?token={live}", {"product": {}}, **MACHINE),
    post(413, "/api/hosts/3/installed?token={live}", b" " * 10 * MIB, "at most 1048576 bytes", **MACHINE),
    post(
        400, "/api/hosts/3/phone-home?token={live}", {**CALL, "host_keys": []}, "no SSH host keys", **MACHINE
    ),
    post(400, "/api/hosts/3/phone-home?token={live}", {**CALL, "host_keys": [HOSTILE]}, **MACHINE),
    *(
        post(400, "/api/hosts/3/phone-home?token={live}", {**CALL, "ip": ip}, **MACHINE)
        for ip in ("0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "fe80::1%eth0", HOSTILE, "", 5)
    ),
)


# --- the house, and how it looks ---------------------------------------------------------------------


async def open_house(world: World, anybody: httpx.AsyncClient) -> House:
    await world.start()
    tokens = []
    for mac in (IDLE, DONE_WITH, BUSY):
        host = await world.call("POST", "/api/hosts", {"mac": mac, "server_type": "nuc"}, expect=201)
        if mac == IDLE:
            continue
        operation = await world.rebuild(host)
        assert (await anybody.get(f"/ipxe/{mac}")).status_code == 200
        answer = await anybody.post(
            "/api/boot/answer", json=system_information(nuc(mac, "127.77.9.9"), "9.2")
        )
        url = tomllib.loads(answer.text)["post-installation-webhook"]["url"]
        tokens.append(httpx.URL(url).params["token"])
        if mac == DONE_WITH:
            await world.call("POST", f"/api/operations/{operation['id']}/cancel")
    dead, live = tokens
    link = re.search(r"/sign-in\?token=(\S+)", world.log.read_text())
    assert link is not None
    signed_in = await anybody.post("/sign-in", data={"token": link[1]})
    assert signed_in.status_code == 303
    cookie = anybody.cookies["provd_session"]
    anybody.cookies.clear()
    assert world.daemon is not None
    return House(world, world.daemon.pid, anybody, cookie, live, dead)


def open_client(world: World) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=world.lab.public_url, trust_env=False, timeout=PATIENCE)


CHANGES_BY_ITSELF = {"tokens": "last_used_at", "sessions": "last_seen_at"}


def contents(world: World, *leave_out: str) -> dict[str, list[Json]]:
    """Every row of every table but the history, without what changes by being looked at."""
    with closing(sqlite3.connect(world.lab.directory / "state" / "provd.db")) as db:
        db.row_factory = sqlite3.Row
        names = [row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: [
                {key: row[key] for key in row.keys() if key != CHANGES_BY_ITSELF.get(name)}  # noqa: SIM118
                for row in db.execute(f"SELECT * FROM {name}")
            ]
            for name in names
            if name not in ("activity", "sqlite_sequence", *leave_out)
        }


async def send(house: House, bad: Bad) -> httpx.Response:
    method, _, path = bad.what.partition(" ")

    def filled(text: str) -> str:
        return text.replace("{live}", house.live).replace("{dead}", house.dead)

    headers = [(name.encode(), filled(value).encode("latin-1")) for name, value in bad.headers.items()]
    if bad.by == "token":
        headers.append((b"Authorization", f"Bearer {TOKEN}".encode()))
    elif bad.by == "browser":
        headers.append((b"Cookie", f"provd_session={house.cookie}".encode()))
    content = bad.body() if callable(bad.body) else bad.body
    return await house.anybody.request(method, filled(path), content=content, headers=headers)


def assert_clear(bad: Bad, response: httpx.Response) -> None:
    """The form that was promised for such an error, with words that tell what is wrong."""
    where = f"{bad.what[:80]} -> {response.status_code} {response.text[:300]}"
    assert response.status_code == bad.status, where
    kind = response.headers.get("content-type", "")
    if bad.form == "problem":
        assert kind == "application/problem+json", where
        document = response.json()
        assert document["status"] == bad.status, where
        assert document["title"], where
        assert document.get("detail"), where
        assert bad.field is None or document["field"] == bad.field, where
        assert all(words in document["detail"] for words in bad.words), where
        assert document["detail"].isprintable(), where
    elif bad.form == "machine":
        assert "provd has nothing for this machine at the moment" in response.text, where
    elif bad.form == "redirect":
        assert response.headers["location"] == "/sign-in", where
    else:
        assert kind.startswith("text/html" if bad.form == "page" else "text/plain"), where
        assert all(words in response.text for words in bad.words), where
    if bad.status == 401:
        assert response.headers["www-authenticate"] == "Bearer", where
    if bad.status == 405:
        assert response.headers["allow"], where


LEVELS = re.compile(r"(debug|info|warning|error|critical) ")


def assert_orderly_log(world: World) -> None:
    """One record is one line, nothing in it acts on a terminal, and no bug was met."""
    log = world.log.read_text()
    for line in log.splitlines():
        assert LEVELS.match(line), line
        assert line.isprintable(), line
    assert log.count("\n") == len(log.splitlines())
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "table",
    [REGISTRATIONS, COMMANDS, ACCESS, MACHINES],
    ids=["registrations", "commands", "access", "machines"],
)
async def test_nonsense_is_told_so_and_changes_nothing(world: World, table: tuple[Bad, ...]) -> None:
    """Each request of the table: its status, its words, the same database, the same process, still there."""
    async with open_client(world) as anybody:
        house = await open_house(world, anybody)
        before = contents(world)
        for bad in table:
            response = await send(house, bad)
            assert_clear(bad, response)
            if bad.noted:
                assert [seen["mac"] for seen in contents(world)["sightings"]] == [STRANGER]
                before["sightings"] = contents(world)["sightings"]
            assert contents(world) == before, bad.what
            assert (await anybody.get("/healthz")).json() == {"status": "ok"}
        assert world.daemon is not None
        assert (world.daemon.pid, world.daemon.poll()) == (house.pid, None)
        said = world.log.read_text()
        assert house.live not in said
        assert house.cookie not in said
        assert TOKEN not in said
        assert_orderly_log(world)


async def test_machines_that_get_nothing_cannot_tell_why(world: World) -> None:
    """Unknown host, wrong or dead token, wrong state: the same bytes, but for the date."""
    async with open_client(world) as anybody:
        house = await open_house(world, anybody)
        told = set()

        async def ask(bad: Bad) -> None:
            response = await send(house, bad)
            headers = tuple(pair for pair in response.headers.raw if pair[0].lower() != b"date")
            told.add((response.status_code, response.reason_phrase, headers, response.content))

        async with trio.open_nursery() as nursery:
            for bad in MACHINES:
                if bad.form == "machine":
                    nursery.start_soon(ask, bad)
        assert len(told) == 1, told


async def test_a_body_that_drips_is_cut_off(world: World) -> None:
    """However slowly a body comes, it has its time as a whole; the others are served meanwhile."""
    await world.start()
    ends: list[float] = []

    async def drip(path: str, *headers: str) -> None:
        head = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Length: 1000", *headers, "", ""]
        async with await trio.open_tcp_stream("127.0.0.1", world.lab.ports.daemon) as stream:
            await stream.send_all("\r\n".join(head).encode())
            answer = b""
            began = trio.current_time()
            async with trio.open_nursery() as nursery:

                async def feed() -> None:
                    with trio.move_on_after(PATIENCE):
                        try:
                            while True:
                                await stream.send_all(b" ")
                                await trio.sleep(1)  # the pace of the drops, nothing is waited for
                        except trio.BrokenResourceError:
                            pass

                nursery.start_soon(feed)
                while b"\r\n\r\n" not in answer and (chunk := await stream.receive_some()):
                    answer += chunk
                nursery.cancel_scope.cancel()
            ends.append(trio.current_time() - began)
            assert answer.startswith(b"HTTP/1.1 408 "), answer

    with trio.fail_after(BODY_SECONDS + 10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, "/api/boot/answer")
            nursery.start_soon(drip, "/sign-in", "Content-Type: application/x-www-form-urlencoded")
            nursery.start_soon(
                drip, "/api/hosts", f"Authorization: Bearer {TOKEN}", "Content-Type: application/json"
            )
            assert (await world.call("GET", "/api/hosts"))["hosts"] == []
    assert all(BODY_SECONDS - 1 < end < BODY_SECONDS + 5 for end in ends), ends
    assert (await world.call("GET", "/api/hosts"))["hosts"] == []
    assert_orderly_log(world)


# --- texts that would like to be more than text ---------------------------------------------------------


class Markup(HTMLParser):
    """Collects what a browser would run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script" and not (given.get("src") or "").startswith("/static/"):
            self.active.append(f"<script> {given}")
        self.active += [f"<{tag} {name}>" for name in given if name.startswith("on")]
        if tag in ("iframe", "object", "embed", "base"):
            self.active.append(f"<{tag}>")


async def test_what_machines_call_themselves_stays_text(world: World) -> None:
    """Vendor strings, host names and links full of quotes, markup and line ends break out of nothing."""
    await world.start()
    machine = world.machine()
    machine.faults.hostile_strings = True
    host, over = await world.whole_rebuild(machine)
    assert (host["state"], over["outcome"]) == ("ready", "done"), await world.story(over)
    assert machine.wipes() == 1
    link = re.search(r"/sign-in\?token=(\S+)", world.log.read_text())
    assert link is not None
    async with open_client(world) as browser:
        await browser.post("/sign-in", data={"token": link[1]})
        hostile_body = {**SYSTEM, "dmi": {"system": {"name": HOSTILE}}, "product": {"product": HOSTILE[:40]}}
        assert (await browser.post("/api/boot/answer", json=hostile_body)).status_code == 404
        shown = ""
        for path in ("/", f"/hosts/{host['id']}", f"/ops/{over['id']}"):
            page = await browser.get(path)
            assert page.status_code == 200
            assert Markup(page.text).active == [], path
            assert "<script>alert" not in page.text
            shown += page.text
        assert "&lt;script&gt;alert(1)" in shown, "the hostile text is shown nowhere: this proves nothing"
        script = await browser.get(f"/ipxe/{machine.mac}")
        assert script.status_code == 200
        assert "alert" not in script.text
        for path in ("/sign-in?token=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "/hosts/%3Cscript%3Ealert(1)"):
            assert "<script>alert" not in (await browser.get(path)).text
    lines = await world.call("GET", "/api/activity?limit=1000")
    assert all(line["message"].isprintable() for line in lines["activity"])
    assert_orderly_log(world)


async def test_hostile_reports_stay_text(world: World) -> None:
    """The same for what is posted with a good token: an fqdn, a host name, links."""
    async with open_client(world) as anybody:
        house = await open_house(world, anybody)
        report = {
            "fqdn": HOSTILE,
            "machine-id": "\r\n",
            "product": {"version": HOSTILE[:40]},
            "network-interfaces": [{"name": HOSTILE, "mac": BUSY}],
            "ssh-public-host-keys": {"ed25519": HOST_KEY},
        }
        token = {"token": house.live}
        assert (await anybody.post("/api/hosts/3/installed", params=token, json=report)).status_code == 200
        cookie = {"Cookie": f"provd_session={house.cookie}"}
        for path in ("/", "/hosts/3", "/ops/2"):
            page = await anybody.get(path, headers=cookie)
            assert page.status_code == 200
            assert Markup(page.text).active == [], path
        assert "&lt;script&gt;alert(1)" in page.text
        call = {**CALL, "hostname": HOSTILE}
        assert (await anybody.post("/api/hosts/3/phone-home", params=token, json=call)).status_code == 200
        script = (await anybody.get(f"/ipxe/{BUSY}")).text
        assert "alert" not in script
    assert_orderly_log(world)


# --- files -------------------------------------------------------------------------------------------------


async def test_a_bad_edit_of_the_server_types_is_survived(world: World) -> None:
    """The old types stay in force, log and API say what is wrong and where, and a good edit heals it."""
    await world.start()
    file = world.lab.directory / "server-types.yaml"
    good = file.read_text()
    before = (await world.call("GET", "/api/server-types"))["server_types"]
    for text, words in (
        ("server_types: [\n", ("server-types.yaml",)),
        ("server_types: {nuc: 5}\n", ("server-types.yaml:1", "nuc")),
        (good.replace("gpu: false", "gpu: perhaps"), ("server-types.yaml:", "server_types.nuc.gpu")),
        (good.replace("boot_disk", "boot_disc", 1), ("server-types.yaml:", "boot_disc")),
        ("\0\xff", ("server-types.yaml",)),
        (None, ("server-types.yaml",)),
    ):
        if text is None:
            file.unlink()
        else:
            file.write_text(text, encoding="latin-1")
        types = await until_types(
            world, lambda types, words=words: all(w in (types["problem"] or "") for w in words)
        )
        assert types["server_types"] == before
        # The API knows it first; it is told when it is written down.
        with trio.fail_after(PATIENCE):
            while "error server-types.yaml cannot be used, the old one stays" not in world.log.read_text():
                await trio.sleep(0.05)
        file.write_text(good)
        types = await until_types(world, lambda types: types["problem"] is None)
        assert types["server_types"] == before
    document = yaml.safe_load(good)
    document["server_types"]["mini"] = document["server_types"]["nuc"] | {"hostname_prefix": "mini"}
    file.write_text(yaml.safe_dump(document))
    await until_types(world, lambda types: len(types["server_types"]) == 3)
    await world.call("POST", "/api/hosts", {"mac": STRANGER, "server_type": "mini"}, expect=201)
    assert_orderly_log(world)


async def until_types(world: World, wanted: Callable[[Json], bool]) -> Json:
    types: Json = {}
    with trio.move_on_after(PATIENCE / 3):
        while not wanted(types := await world.call("GET", "/api/server-types")):
            await trio.sleep(0.05)
        return types
    raise AssertionError(types)


async def run_daemon(world: World) -> tuple[int, str]:
    """Exit code and words of a daemon that cannot start."""
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "provd",
        "serve",
        "--config",
        str(world.lab.configuration),
    ]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command, stdin=DEVNULL, capture_stdout=True, capture_stderr=True, check=False
        )
    return done.returncode, done.stderr.decode()


def edited(world: World, change: Callable[[str], str]) -> None:
    world.lab.configuration.write_text(change(world.lab.configuration.read_text()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text + "colour: red\n", ("colour", "not a key")),
        (lambda text: text.replace("join_fingerprint", "join_fingerprnt"), ("proxmox.join_fingerprnt",)),
        (lambda text: re.sub(r"api_port: \d+", "api_port: many", text), ("proxmox.api_port",)),
        (
            lambda text: re.sub(r"existing_node: \S+", "existing_node: pve one", text),
            ("proxmox.existing_node",),
        ),
        (lambda text: text + "server: {\n", ()),
        (
            lambda text: re.sub(r"root_password_hash: \S+", "root_password_hash: secret", text),
            ("root_password_hash",),
        ),
    ],
    ids=["unknown key", "mistyped key", "wrong type", "no address", "no YAML", "no hash"],
)
async def test_a_bad_configuration_is_named(
    world: World, change: Callable[[str], str], words: tuple[str, ...]
) -> None:
    """Exit code 2, and file, line, key and reason, before anything is opened."""
    edited(world, change)
    code, said = await run_daemon(world)
    assert code == 2, said
    assert re.search(r"provisioning\.yaml:\d+", said), said
    assert all(part in said for part in words), said
    assert "secret" not in said
    assert "Traceback" not in said
    assert not (world.lab.directory / "state" / "provd.db").exists()


async def test_missing_files_are_named(world: World) -> None:
    """Without its files the daemon does not start, and says which one it misses."""
    (world.lab.directory / "server-types.yaml").unlink()
    code, said = await run_daemon(world)
    assert code == 2
    assert "server-types.yaml" in said
    world.lab.configuration.unlink()
    code, said = await run_daemon(world)
    assert code == 2
    assert str(world.lab.configuration) in said
    assert "Traceback" not in said


async def test_a_port_in_use_is_one_sentence(world: World) -> None:
    """Exit code 2 and the address that is taken, no traceback."""
    async with (await trio.open_tcp_listeners(world.lab.ports.daemon, host="127.0.0.1"))[0]:
        code, said = await run_daemon(world)
    assert code == 2
    assert f"provd: cannot listen on 127.0.0.1:{world.lab.ports.daemon}: address already in use" in said
    assert "Traceback" not in said


DIARY = b"this is no database, but somebody's diary\n" * 100


@pytest.mark.parametrize("newer", [True, False], ids=["newer", "no database"])
async def test_a_database_that_cannot_be_used_is_left_alone(world: World, newer: bool) -> None:
    """Exit code 1 and a sentence; the file stays as it is."""
    file = world.lab.directory / "state" / "provd.db"
    if newer:
        with closing(sqlite3.connect(file)) as db:
            db.execute("PRAGMA user_version = 999")
    else:
        file.write_bytes(DIARY)
    code, said = await run_daemon(world)
    assert code == 1, said
    assert ("written by a newer provd" if newer else f"the database {file} cannot be used") in said
    assert "Traceback" not in said
    if newer:
        with closing(sqlite3.connect(file)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (999,)
            assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    else:
        assert file.read_bytes() == DIARY
