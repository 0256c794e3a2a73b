"""Images over HTTP: the API, resumable uploads against a real server, and the page."""

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from quart_trio import QuartTrio

from iso_maker import make_iso
from provd.config import load_config
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.image_jobs import ImageJobs, open_image_jobs
from provd.orchestrator.uploads import LARGEST_CHUNK
from provd.server_types import ServerTypeBook
from provd.store.database import open_store
from provd.web import access, gate, images, problems, server
from provd.web.app import IdConverter
from provd.web.page import Pages

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
STATIC = Path(__file__).parents[2] / "static"
NAME = "proxmox-ve_9.2-1"
CHUNK = {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[ImageJobs]:
    config = load_config(EXAMPLES / "provisioning.yaml", {"STATE_DIRECTORY": str(tmp_path / "state")})
    with open_store(config.paths.state_dir / "provd.db") as store:
        async with open_image_jobs(config, Fleet(store, Bell())) as jobs:
            yield jobs


def app_of(jobs: ImageJobs, *, auth: bool = False) -> QuartTrio:
    app = QuartTrio("test", static_folder=None)
    app.url_map.converters["id"] = IdConverter
    problems.install(app)
    gate.install(app, gate.GateConfig(public_url="http://localhost", auth=auth), jobs.library.fleet.store)
    pages = Pages(ServerTypeBook(EXAMPLES / "server-types.yaml"), jobs.library.fleet.store)
    app.register_blueprint(images.blueprint(jobs, pages))
    assert gate.unclassified(app) == []
    return app


@pytest.fixture
def app(jobs: ImageJobs) -> QuartTrio:
    return app_of(jobs)


@pytest.fixture(scope="session")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = {"/pve-base.squashfs": bytes(range(256)) * 12_000}
    return make_iso(tmp_path_factory.mktemp("iso") / "a.iso", more=more)


async def ask(app: QuartTrio, method: str, path: str, **more: Any) -> tuple[int, Any]:
    response = await app.test_client().open(path, method=method, **more)
    return response.status_code, await response.get_json()


async def ended(jobs: ImageJobs, job_id: int) -> None:
    with trio.fail_after(20):
        await jobs.get(job_id).over.wait()


async def imported(app: QuartTrio, jobs: ImageJobs, iso: Path, **more: str) -> None:
    status, job = await ask(app, "POST", "/api/images", json={"path": str(iso)} | more)
    assert status == 202
    await ended(jobs, job["id"])


async def test_the_life_of_an_image(app: QuartTrio, jobs: ImageJobs, iso: Path) -> None:
    """Imported from a path, listed, checked, chosen and removed."""
    assert await ask(app, "GET", "/api/images") == (200, {"images": [], "problems": []})
    await imported(app, jobs, iso, sha256=sha256(iso.read_bytes()).hexdigest())
    await imported(app, jobs, iso, name="second")
    status, job = await ask(app, "GET", "/api/images/jobs/1")
    assert (status, job["state"], job["image"], job["seconds_left"]) == (200, "done", NAME, None)
    assert job["done"] == job["total"] > iso.stat().st_size

    status, listed = await ask(app, "GET", "/api/images")
    assert [(one["name"], one["is_default"]) for one in listed["images"]] == [("second", False), (NAME, True)]
    assert listed["images"][0]["memory_needed_mib"] == 8192
    assert (await ask(app, "GET", f"/api/images/{NAME}"))[1] == listed["images"][1]

    status, chosen = await ask(app, "POST", "/api/images/second/default")
    assert (status, chosen["is_default"]) == (200, True)
    status, job = await ask(app, "POST", "/api/images/second/verify")
    assert status == 202
    await ended(jobs, job["id"])
    status, listed = await ask(app, "GET", "/api/images/jobs")
    assert [(one["kind"], one["state"]) for one in listed["jobs"]] == [
        ("verify", "done"),
        ("import", "done"),
        ("import", "done"),
    ]
    status, problem = await ask(app, "DELETE", "/api/images/second")
    assert (status, "choose another one first" in problem["detail"]) == (409, True)
    assert (await ask(app, "DELETE", f"/api/images/{NAME}"))[0] == 204
    assert (await ask(app, "GET", f"/api/images/{NAME}"))[0] == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "path"),
        ({"path": "relative.iso"}, "path"),
        ({"path": "/x.iso", "sha256": "abc"}, "sha256"),
        ({"path": "/x.iso", "name": "../x"}, "name"),
        ({"path": "/x.iso", "name": "uploads"}, "name"),
        ({"path": 7}, "path"),
        ({"path": "/x.iso", "colour": "red"}, "colour"),
    ],
)
async def test_wrong_words_are_named(app: QuartTrio, body: dict[str, object], field: str) -> None:
    """422 with the culprit, before a job begins."""
    status, problem = await ask(app, "POST", "/api/images", json=body)
    assert (status, problem["field"]) == (422, field)
    assert (await ask(app, "GET", "/api/images/jobs"))[1] == {"jobs": []}


async def test_a_job_is_cancelled(app: QuartTrio, jobs: ImageJobs, iso: Path) -> None:
    """The answer comes when it has ended; a second time there is nothing to cancel."""
    status, job = await ask(app, "POST", "/api/images", json={"path": str(iso)})
    assert status == 202
    status, job = await ask(app, "POST", f"/api/images/jobs/{job['id']}/cancel")
    assert (status, job["state"] in ("cancelled", "done")) in ((200, True), (409, False))
    assert (await ask(app, "POST", "/api/images/jobs/1/cancel"))[0] == 409
    assert (await ask(app, "POST", "/api/images/jobs/9/cancel"))[0] == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "a.iso"}, "size"),
        ({"name": "a.iso", "size": "10"}, "size"),
        ({"name": "a.iso", "size": True}, "size"),
        ({"name": "a.iso", "size": 0}, "size"),
        ({"name": "a.iso", "size": 1 << 40}, "size"),
        ({"size": 10}, "name"),
        ({"name": "a.iso", "size": 10, "sha256": "z" * 64}, "sha256"),
        ({"name": "a.iso", "size": 10, "image_name": "a b"}, "image_name"),
    ],
)
async def test_an_upload_that_cannot_begin(app: QuartTrio, body: dict[str, object], field: str) -> None:
    """422 with the culprit."""
    status, problem = await ask(app, "POST", "/api/images/uploads", json=body)
    assert (status, problem["field"]) == (422, field)


async def test_an_upload_over_a_real_connection(app: QuartTrio, jobs: ImageJobs, iso: Path) -> None:
    """Interrupted, asked where it stands, resumed, and an image at the end."""
    content = iso.read_bytes()
    async with trio.open_nursery() as nursery:
        sock = server.listen("127.0.0.1:0")
        ((host, port),) = await nursery.start(server.serve, app, [sock])
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
            digest = sha256(content).hexdigest()
            about = {"name": "a.iso", "size": len(content), "sha256": digest}
            begun = await client.post("/api/images/uploads", json=about)
            assert (begun.status_code, begun.headers["Upload-Offset"]) == (201, "0")
            where = begun.headers["Location"]
            chunk = begun.json()["largest_chunk"]
            assert chunk == LARGEST_CHUNK

            async def send(offset: int, data: bytes) -> httpx.Response:
                return await client.patch(where, content=data, headers=CHUNK | {"Upload-Offset": str(offset)})

            first = await send(0, content[:chunk])
            assert (first.status_code, first.headers["Upload-Offset"]) == (200, str(chunk))
            again = await send(0, content[:chunk])
            assert (again.status_code, again.headers["Upload-Offset"]) == (409, str(chunk))
            assert again.json()["offset"] == chunk
            # On a connection of its own, which the server closes behind a body that it did not read.
            headers = CHUNK | {"Upload-Offset": str(chunk)}
            data = content[chunk : 2 * chunk + 1]
            too_large = await trio.to_thread.run_sync(
                lambda: httpx.patch(f"http://{host}:{port}{where}", content=data, headers=headers)
            )
            assert too_large.status_code == 413
            assert (await client.get(where)).headers["Upload-Offset"] == str(chunk)
            answer: dict[str, Any] = {}
            for start in range(chunk, len(content), chunk):
                answer = (await send(start, content[start : start + chunk])).json()
            assert (answer["complete"], answer["offset"]) == (True, len(content))
            await ended(jobs, answer["job_id"])
            assert (await client.get(where)).status_code == 404
            image = (await client.get(f"/api/images/{NAME}")).json()
            assert (image["sha256"], image["size"]) == (digest, len(content))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("offset", [None, "", "-1", "x", "1" * 30, "\u0661"])
async def test_a_chunk_says_where_it_begins(app: QuartTrio, offset: str | None) -> None:
    """In plain digits."""
    _, upload = await ask(app, "POST", "/api/images/uploads", json={"name": "a.iso", "size": 10})
    headers = CHUNK | ({"Upload-Offset": offset} if offset is not None else {})
    status, _ = await ask(app, "PATCH", f"/api/images/uploads/{upload['id']}", headers=headers, data=b"x")
    assert status == 422


async def test_a_chunk_has_its_type(app: QuartTrio) -> None:
    """Nothing that a form of another page could send."""
    _, upload = await ask(app, "POST", "/api/images/uploads", json={"name": "a.iso", "size": 10})
    for kind in ("text/plain", "application/json", "multipart/form-data"):
        headers = {"Content-Type": kind, "Upload-Offset": "0"}
        where = f"/api/images/uploads/{upload['id']}"
        assert (await ask(app, "PATCH", where, headers=headers, data=b"x"))[0] == 415


async def test_an_upload_is_cancelled(app: QuartTrio) -> None:
    """It is gone, and from the list too."""
    _, upload = await ask(app, "POST", "/api/images/uploads", json={"name": "a.iso", "size": 10})
    _, listed = await ask(app, "GET", "/api/images/uploads")
    assert [one["id"] for one in listed["uploads"]] == [upload["id"]]
    where = f"/api/images/uploads/{upload['id']}"
    assert (await ask(app, "DELETE", where))[0] == 204
    assert (await ask(app, "GET", where))[0] == 404
    assert (await ask(app, "DELETE", where))[0] == 404
    assert (await ask(app, "GET", "/api/images/uploads"))[1] == {"uploads": []}


async def test_a_name_that_is_taken_is_put_right(app: QuartTrio, jobs: ImageJobs, iso: Path) -> None:
    """The bytes are not sent again."""
    await imported(app, jobs, iso)
    content = iso.read_bytes()
    _, upload = await ask(app, "POST", "/api/images/uploads", json={"name": "a.iso", "size": len(content)})
    where = f"/api/images/uploads/{upload['id']}"
    assert (await ask(app, "POST", f"{where}/import"))[0] == 409
    for start in range(0, len(content), LARGEST_CHUNK):
        headers = CHUNK | {"Upload-Offset": str(start)}
        data = content[start : start + LARGEST_CHUNK]
        status, upload = await ask(app, "PATCH", where, headers=headers, data=data)
        assert status == 200
    await ended(jobs, upload["job_id"])
    status, job = await ask(app, "POST", f"{where}/import", json={"image_name": "second"})
    assert status == 202
    await ended(jobs, job["id"])
    assert (await ask(app, "GET", "/api/images/second"))[0] == 200


async def test_strangers_get_nothing(jobs: ImageJobs, iso: Path) -> None:
    """401 for programs, the way to sign in for people; a token is enough."""
    app = app_of(jobs, auth=True)
    where = "/api/images/uploads/0"
    for method, path in (
        ("GET", "/api/images"),
        ("POST", "/api/images"),
        ("PATCH", where),
        ("DELETE", where),
    ):
        assert (await ask(app, method, path))[0] == 401
    assert (await app.test_client().get("/images")).status_code == 302
    token = await access.create_token(jobs.library.fleet.store, "laptop")
    headers = {"Authorization": f"Bearer {token.reveal()}"}
    assert (await ask(app, "GET", "/api/images", headers=headers))[0] == 200


# --- the page ---------------------------------------------------------------------------------------


async def page(app: QuartTrio) -> str:
    response = await app.test_client().get("/images")
    assert response.status_code == 200
    return str(await response.get_data(as_text=True))


async def test_the_page_shows_what_there_is(app: QuartTrio, jobs: ImageJobs, iso: Path) -> None:
    """Empty, with images, with an upload, and with what is not as it should be."""
    assert re.search(r'id="empty">', await page(app))
    await imported(app, jobs, iso)
    await imported(app, jobs, iso)
    await ask(app, "POST", "/api/images/uploads", json={"name": "<b>.iso", "size": 10})
    (jobs.library.directory / "lost").mkdir()
    html = await page(app)
    assert re.search(r'id="empty" hidden>', html)
    assert f'data-image="{NAME}"' in html
    assert sha256(iso.read_bytes()).hexdigest() in html
    assert "there is an image proxmox-ve_9.2-1 already" in html
    assert "&lt;b&gt;.iso" in html
    assert "<b>.iso" not in html
    assert "belongs to no image" in html


async def test_the_script_finds_every_part_it_names(app: QuartTrio) -> None:
    """Ids, parts and actions in the script stand in the page or in the shapes to clone."""
    html = await page(app)
    script = (STATIC / "images.js").read_text()
    for name in re.findall(r'byId\("([a-z-]+)"\)', script) + re.findall(r'blank\("([a-z-]+)"\)', script):
        assert f'id="{name}"' in html, name
    for name in re.findall(r'part\([^()]+(?:\([^()]*\))?, "([a-z0-9-]+)"\)', script):
        assert f'data-part="{name}"' in html, name
    actions = set(re.findall(r'data-act="([a-z-]+)"', html))
    table = script[script.index("const ACTIONS") : script.index('byId("main")')]
    assert actions == set(re.findall(r'^  (?:async )?"?([a-z-]+)"?\(', table, re.MULTILINE))
    assert not re.search(r"<script(?![^>]*src=)|\son[a-z]+=|style=", html), "nothing inline"


SENDER = """
import { Sender } from "%s";
const size = 10;
let had = 3, drop = 1, cut = 1;
const sent = [];
globalThis.fetch = async (path, { method, headers, body }) => {
  const offset = Number(headers["Upload-Offset"]);
  sent.push([method, path, offset, await body.text()]);
  const answer = (status, json) => ({ status, ok: status < 300, json: async () => json });
  if (drop-- > 0) throw new TypeError("connection lost");
  if (offset !== had) return answer(409, { offset: had });
  had += body.size;
  if (cut-- > 0) return { status: 200, ok: true, json: async () => { throw new SyntaxError("cut off"); } };
  return answer(200, { offset: had, complete: had === size });
};
globalThis.setTimeout = (work) => queueMicrotask(work);
console.warn = () => {};
const upload = { id: "7", size, offset: 0, largest_chunk: 4 };
const sender = new Sender(upload, new Blob(["0123456789"]), () => {});
await sender.start();
console.log(JSON.stringify({ sent, had, sending: sender.sending, problem: sender.problem }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_sender_goes_on_where_the_server_stands(tmp_path: Path) -> None:
    """Lost connections and answers are tried again, wrong offsets put right, and no byte is left out."""
    shutil.copy(STATIC / "sender.js", tmp_path / "sender.mjs")
    (tmp_path / "run.mjs").write_text(SENDER % "./sender.mjs")
    done = subprocess.run(
        ["node", str(tmp_path / "run.mjs")], capture_output=True, text=True, check=True, timeout=30
    )
    path = '"/api/images/uploads/7"'
    sent = ((0, "0123"), (0, "0123"), (3, "3456"), (3, "3456"), (7, "789"))
    calls = [f'["PATCH",{path},{at},"{text}"]' for at, text in sent]
    expected = f'{{"sent":[{",".join(calls)}],"had":10,"sending":false,"problem":""}}'
    assert done.stdout.strip() == expected
