"""What stands around every page: header, drawer, keys, theme, and the one stream behind them."""

import re
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from provd.domain.activity import Level
from provd.domain.lifecycle import State
from provd.store import activity
from provd.web import assets, stream
from provd.web.app import create_app
from provd.web.page import DRAWER_LINES, ROOMS
from provd.web.parts import Parts
from web import node
from web.looking import EVIL, Page, get, host_in, html, note

STATIC = assets.static_folder()
HERE = Path(__file__).parent

PATHS = ("/", "/hosts/1", "/ops/1", "/cluster", "/images", "/doctor", "/hosts/99")


async def pages(parts: Parts) -> dict[str, Page]:
    """One of each kind, the last of them about something that is not there."""
    await host_in(parts, State.INSTALLING)
    return {path: Page(await (await get(parts, path)).get_data(as_text=True)) for path in PATHS}


def modules(name: str) -> set[str]:
    """`name` and all that it imports, directly or not."""
    found = {name}
    for other in re.findall(r'(?:from|import) "\./([\w-]+\.js)"', (STATIC / name).read_text()):
        found |= modules(other)
    return found


# --- the header -------------------------------------------------------------------------------------


async def test_every_page_has_the_frame(parts: Parts) -> None:
    """Landmarks, each once; the way to the content first; one module for all pages before the page's own."""
    for path, page in (await pages(parts)).items():
        tags = [tag for tag, _ in page.elements]
        assert [tags.count(tag) for tag in ("header", "main", "h1")] == [1, 1, 1], path
        assert page.by_id("drawer")["aria-label"] == "Activity of all hosts"
        body = page.elements[tags.index("body") :]
        assert next(attributes for tag, attributes in body if tag == "a") == {
            "class": "skip",
            "href": "#main",
        }
        scripts = [attributes["src"] for tag, attributes in page.elements if tag == "script"]
        assert scripts[0] == "/static/page.js"
        ids = page.all("id")
        assert len(ids) == len(set(ids)), path


@pytest.mark.parametrize(
    ("path", "room", "current"),
    [
        ("/", "/", "page"),
        ("/?show=failed", "/", "page"),
        ("/hosts/1", "/", "true"),
        ("/ops/1", "/", "true"),
        ("/cluster", "/cluster", "page"),
        ("/images", "/images", "page"),
        ("/doctor", "/doctor", "page"),
    ],
)
async def test_the_header_says_where_one_is(parts: Parts, path: str, room: str, current: str) -> None:
    """The room of this page and no other, also for a page that is only reached through it."""
    await host_in(parts, State.INSTALLING)
    source = await html(parts, path)
    nav = Page(source[source.index('<nav class="rooms"') : source.index("</nav>")] + "</nav>")
    links = [attributes for tag, attributes in nav.elements if tag == "a"]
    assert [link["href"] for link in links] == [href for href, _ in ROOMS]
    assert [(link["href"], link["aria-current"]) for link in links if "aria-current" in link] == [
        (room, current)
    ]


# --- the theme --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookie", "theme", "scheme"),
    [
        (None, "", "light dark"),
        ("dark", "dark", "dark"),
        ("light", "light", "light"),
        ('"><script>', "", "light dark"),
        ("purple", "", "light dark"),
    ],
)
async def test_the_theme_is_there_at_the_first_paint(
    parts: Parts, cookie: str | None, theme: str, scheme: str
) -> None:
    """Drawn by the server out of the cookie, on the sign-in page too; what is no theme is none."""
    jar = SimpleCookie({"theme": cookie} if cookie is not None else {})
    headers = {"Cookie": jar.output(header="", sep=";").strip()}
    for path in ("/", "/doctor", "/sign-in?token=x"):
        page = Page(await (await get(parts, path, **headers)).get_data(as_text=True))
        assert next(attributes for tag, attributes in page.elements if tag == "html")["data-theme"] == theme
        [meta] = [attributes for _, attributes in page.elements if attributes.get("name") == "color-scheme"]
        assert meta["content"] == scheme
    page = Page(await html(parts, "/"))
    assert page.by_id("theme").keys() >= {"autocomplete"}


# --- the drawer -------------------------------------------------------------------------------------


async def test_the_drawer_shows_the_newest_line_before_any_script_runs(parts: Parts) -> None:
    """On every page, as text, and it is the line where the page's stream goes on."""
    page = Page(await html(parts, "/doctor"))
    assert page.by_id("newest")["data-line"] == ""
    assert "Nothing yet." in page.text
    host = await host_in(parts, State.INSTALLING)
    await note(parts, EVIL, host, Level.WARNING)
    newest = parts.store.read(activity.bounds)[1]
    for path in PATHS:
        page = Page(await (await get(parts, path)).get_data(as_text=True))
        assert page.by_id("newest")["data-line"] == str(newest) == page.all("data-after")[0]
        assert page.by_id("newest")["data-level"] == "warning"
        assert "evil" not in [tag for tag, _ in page.elements]
        assert " ".join(EVIL.split()) in page.text


async def test_the_drawer_is_closed_and_says_so(parts: Parts) -> None:
    """Its button names what it opens; what it will ask for is what the API gives."""
    host = await host_in(parts, State.INSTALLING)
    for number in range(DRAWER_LINES):
        await note(parts, f"line {number}", host)
    page = Page(await html(parts, "/"))
    button = page.by_id("drawer-toggle")
    assert (button["aria-expanded"], button["aria-controls"]) == ("false", "drawer-body")
    assert "hidden" in page.by_id("drawer-body")
    log = page.by_id("drawer-lines")
    assert {"tabindex", "aria-label"} <= page.by_id("drawer-scroll").keys()
    answer = await (await get(parts, f"/api/activity?limit={log['data-keep']}")).get_json()
    assert len(answer["activity"]) == DRAWER_LINES
    assert answer["activity"][0]["message"] == f"line {DRAWER_LINES - 1}"


# --- keys -------------------------------------------------------------------------------------------


@node.needs_node
def test_which_keys_do_what(tmp_path: Path) -> None:
    """Alone or in pairs; never while somebody types, nor with Ctrl, Alt or Meta."""
    node.check(tmp_path, HERE / "keys_logic.mjs", "keys.js")


async def test_the_help_lists_the_keys_and_can_switch_them_off(parts: Parts) -> None:
    """What keys.js knows stands in the dialog, and nothing else but Escape, which is the browser's."""
    page = Page(await html(parts, "/doctor"))
    shown = [text for tag, text in page.texts if tag == "kbd"]
    table = (STATIC / "keys.js").read_text().partition("KEYS = new Map([")[2].partition("]);")[0]
    known = re.findall(r'\["([^"]+)", "\w+"\]', table)
    assert known
    assert [key for key in shown if key != "Esc"] == " ".join(sorted(known, key=" ".join(shown).find)).split()
    assert page.by_id("keys-off")["type"] == "checkbox"
    assert "keys-off" in page.all("for")


# --- scripts and pages fit together -----------------------------------------------------------------


async def test_the_frame_finds_what_it_looks_for(parts: Parts) -> None:
    """Every id and part that the common modules name is on every page, and the cluster's on its own."""
    code = {name: (STATIC / name).read_text() for name in modules("page.js")}
    # forms.js and view.js are handed what they work on.
    frame = "\n".join(text for name, text in code.items() if name not in ("forms.js", "view.js"))
    ids = set(re.findall(r'\b(?:byId|blank)\("([^"]+)"\)', frame)) | {"drawer-line"}
    found = set(re.findall(r'\bpart\((?:[^"`()]|byId\("\w+"\))*"([^"]+)"\)', frame))
    assert {"live", "drawer-lines", "theme", "keys-off"} <= ids
    assert {"words", "contact", "message"} <= found
    for path, page in (await pages(parts)).items():
        assert ids <= set(page.all("id")), f"{path}: {ids - set(page.all('id'))}"
        assert found <= set(page.all("data-part")), f"{path}: {found - set(page.all('data-part'))}"
    for name in ("cluster.js", "look-again.js"):
        page = Page(await html(parts, "/cluster"))
        assert f"/static/{name}" in page.all("src")
        assert set(re.findall(r'byId\("([^"]+)"\)', (STATIC / name).read_text())) <= set(page.all("id"))


# --- the stream -------------------------------------------------------------------------------------


@node.needs_node
def test_one_stream_serves_all_pages(tmp_path: Path) -> None:
    """Nothing lost and nothing twice, whoever comes, goes, lacks something or loses its connection."""
    node.check(tmp_path, HERE / "hub_logic.mjs", "stream.js")


def test_the_script_knows_how_often_the_stream_beats() -> None:
    """Or it would take a quiet connection for a dead one."""
    [beat] = re.findall(r"export const BEAT = ([\d_]+);", (STATIC / "stream.js").read_text())
    assert int(beat) == stream.HEARTBEAT_SECONDS * 1000


def test_the_worker_knows_no_page() -> None:
    """What it is made of would fail in a worker where it touched a document."""
    assert modules("stream-worker.js") == {"stream-worker.js", "stream.js"}
    for name in modules("stream-worker.js"):
        assert not re.search(r"\b(document|window|location|localStorage)\b", (STATIC / name).read_text())


async def test_pages_of_another_version_have_another_worker(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest on the page is that of all files, names and contents."""
    [here] = Page(await html(parts, "/")).all("data-assets")
    assert here == assets.version()
    seen = {here}
    for name, content in (("a.js", "1"), ("a.js", "2"), ("b.js", "2")):
        folder = tmp_path / name / content
        folder.mkdir(parents=True)
        (folder / name).write_text(content)
        with monkeypatch.context() as patch:
            patch.setattr(assets, "ours", lambda folder=folder: assets.read_assets(folder))
            seen.add(assets.version.__wrapped__())
    assert len(seen) == 4


async def test_a_worker_may_be_ours_alone(parts: Parts) -> None:
    """Said by the page, and by the worker's own answer what it may load and call."""
    for path in ("/", "/static/stream-worker.js"):
        response = await create_app(parts).test_client().get(path)
        policy = response.headers["Content-Security-Policy"].split("; ")
        assert {"worker-src 'self'", "script-src 'self'", "connect-src 'self'"} <= set(policy)
