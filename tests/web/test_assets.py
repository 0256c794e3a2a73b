"""The dashboard's files: from memory, validated, compressed, and nothing else."""

import gzip
from pathlib import Path

import pytest
from quart import Response
from quart_trio import QuartTrio

from provd.web import assets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "page.css").write_text("body { color: red; }\n" * 50)
    (folder / "tiny.js").write_text("1")
    (folder / "photo.png").write_bytes(b"\x89PNG" + bytes(500))
    (folder / "notes.txt").write_text("not for the browser")
    (folder / ".hidden.css").mkdir()
    (tmp_path / "secret.css").write_text("secret")
    return folder


async def get(folder: Path, path: str, **headers: str) -> Response:
    app = QuartTrio("test", static_folder=None)
    app.register_blueprint(assets.blueprint(folder))
    return await app.test_client().get(path, headers={k.replace("_", "-"): v for k, v in headers.items()})


async def test_every_file_of_the_dashboard_is_served_whole_with_its_type() -> None:
    """What lies in static/ arrives byte for byte, with the type that nosniff makes binding."""
    app = QuartTrio("test", static_folder=None)
    app.register_blueprint(assets.blueprint())
    files = list(assets.static_folder().iterdir())
    assert {file.name for file in files} >= {"base.css", "icon.svg", "hosts.js", "host.js", "operation.js"}
    for file in files:
        response = await app.test_client().get(f"/static/{file.name}")
        assert response.status_code == 200
        assert await response.get_data() == file.read_bytes()
        assert response.content_type == assets.CONTENT_TYPES[file.suffix]


async def test_an_unchanged_file_is_not_sent_again(folder: Path) -> None:
    """A browser asks each time, and is told 304 for the very representation that it has."""
    first = await get(folder, "/static/page.css")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await get(folder, "/static/page.css", If_None_Match=first.headers["ETag"])
    assert (again.status_code, await again.get_data()) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    packed = await get(
        folder, "/static/page.css", If_None_Match=first.headers["ETag"], Accept_Encoding="gzip"
    )
    assert packed.status_code == 200
    (folder / "page.css").write_text("body { color: blue; }\n")
    changed = await get(folder, "/static/page.css", If_None_Match=first.headers["ETag"])
    assert changed.status_code == 200


async def test_text_is_compressed_for_who_can_read_it(folder: Path) -> None:
    """gzip where it is accepted and gains something, the plain bytes otherwise."""
    whole = (folder / "page.css").read_bytes()
    packed = await get(folder, "/static/page.css", Accept_Encoding="br, gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Vary"] == "Accept-Encoding"
    body = await packed.get_data(as_text=False)
    assert len(body) < len(whole)
    assert gzip.decompress(body) == whole
    for accepted in ("", "br", "gzip;q=0"):
        plain = await get(folder, "/static/page.css", Accept_Encoding=accepted)
        assert "Content-Encoding" not in plain.headers
        assert await plain.get_data() == whole
        assert plain.headers["ETag"] != packed.headers["ETag"]
    for name in ("tiny.js", "photo.png"):
        assert (
            "Content-Encoding" not in (await get(folder, f"/static/{name}", Accept_Encoding="gzip")).headers
        )


@pytest.mark.parametrize(
    "name",
    [
        "../secret.css",
        "..%2fsecret.css",
        "%2e%2e/secret.css",
        "..\\secret.css",
        "page.css%00.js",
        "page.css/",
        "./page.css/../page.css",
        "PAGE.CSS",
        "notes.txt",
        ".hidden.css",
        "",
    ],
)
async def test_nothing_else_is_served(folder: Path, name: str) -> None:
    """A name that is not one of the files is a 404, whatever path it would make."""
    assert (await get(folder, f"/static/{name}")).status_code == 404


async def test_no_file_is_opened_for_a_request(folder: Path) -> None:
    """What was read at the start is served even when the folder is gone."""
    app = QuartTrio("test", static_folder=None)
    app.register_blueprint(assets.blueprint(folder))
    whole = (folder / "page.css").read_bytes()
    (folder / "page.css").unlink()
    response = await app.test_client().get("/static/page.css")
    assert await response.get_data() == whole


async def test_pages_without_an_icon_get_ours() -> None:
    """What browsers ask for unasked is answered, and no 404 stands in their consoles."""
    app = QuartTrio("test", static_folder=None)
    app.register_blueprint(assets.blueprint())
    response = await app.test_client().get("/favicon.ico")
    assert (response.status_code, response.content_type) == (200, assets.CONTENT_TYPES[".svg"])
