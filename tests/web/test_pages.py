"""The dashboard's pages: drawn from a real database for every state, nothing inline, all text escaped."""

import re
from pathlib import Path

import pytest

from provd.config import load_config
from provd.daemon import open_parts
from provd.domain.activity import Level
from provd.domain.hosts import Mac, OperationId
from provd.domain.lifecycle import ROAD, SETTLED, State
from provd.domain.secrets import Secret
from provd.orchestrator.fleet import Change
from provd.store import operations
from provd.web import access, assets
from provd.web.grid import GROUPS
from provd.web.page import due, duration, environment
from provd.web.parts import Parts
from web.looking import (
    EVIL,
    HASH,
    Page,
    config_in,
    every_page,
    get,
    host_in,
    html,
    note,
)

# --- what is shown ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
async def test_a_host_in_any_state_can_be_looked_at(parts: Parts, state: State) -> None:
    """All pages say the state in a word beside a shape that exists, and what is expected next."""
    host = await host_in(parts, state)
    paths = ["/", f"/hosts/{host.id}", *(["/ops/1"] if state is not State.REGISTERED else [])]
    for path in paths:
        page = Page(await html(parts, path))
        assert state in page.text
        if state not in SETTLED:
            assert "Waiting for" in page.text
            assert f"step {ROAD.index(state) + 1} of {len(ROAD)}" in page.text
        shapes = {attributes["href"] for tag, attributes in page.elements if tag == "use"}
        assert shapes - {"#icon-"} <= {f"#{name}" for name in page.all("id")}
    overview = Page(await html(parts, "/"))
    assert overview.tiles == ["pve1"]
    assert "no luck" in overview.text or state is not State.FAILED


async def test_the_password_is_asked_for_only_when_nobody_has_it(parts: Parts) -> None:
    """The dialog does not ask for what a credential file has; what was given was for one operation."""
    host = await host_in(parts, State.FIRST_BOOT)
    assert "rebuild-password" in Page(await html(parts, f"/hosts/{host.id}")).all("id")
    parts.passwords.give(OperationId(1), Secret("hunter2"))
    assert "rebuild-password" in Page(await html(parts, f"/hosts/{host.id}")).all("id")
    parts.passwords.standing = Secret("hunter2")
    assert "rebuild-password" not in Page(await html(parts, f"/hosts/{host.id}")).all("id")


async def test_banners_say_what_is_wrong(parts: Parts) -> None:
    """A broken server-types.yaml and an open door stand on every page."""
    page = Page(await html(parts, "/"))
    assert "Sign-in is off" in page.text
    assert "hidden" in page.by_id("types-banner")
    parts.book.path.write_text("server_types: {compute: {boot_dsk: x}}")
    assert not parts.book.reload()
    page = Page(await html(parts, "/"))
    assert "hidden" not in page.by_id("types-banner")
    assert "boot_dsk" in page.text


async def test_whoever_is_signed_in_can_sign_out(tmp_path: Path) -> None:
    """With auth on the page names its reader; a stranger is sent to the sign-in page."""
    config = load_config(config_in(tmp_path, auth="on"), {"STATE_DIRECTORY": str(tmp_path / "state")})
    async with open_parts(config, {}) as parts:
        assert (await get(parts, "/")).headers["Location"] == "/sign-in"
        token = await access.create_token(parts.store, "me")
        response = await get(parts, "/", Authorization=f"Bearer {token.reveal()}")
        page = Page(await response.get_data(as_text=True))
        assert "token me" in page.text
        assert "/sign-out" in page.all("action")
        assert "Sign-in is off" not in page.text


async def test_what_does_not_exist_has_a_page_that_says_so(parts: Parts) -> None:
    """An unknown host or operation is a 404 for people."""
    for path, words in (("/hosts/7", "There is no host 7"), ("/ops/8", "There is no operation 8")):
        response = await get(parts, path)
        assert response.status_code == 404
        assert response.content_type == "text/html; charset=utf-8"
        assert words in Page(await response.get_data(as_text=True)).text


async def test_the_stream_goes_on_where_the_page_ends(parts: Parts) -> None:
    """A page names the newest line it can have shown, so that its stream leaves nothing out."""
    empty = re.search(r'data-after="(\d+)"', await html(parts, "/"))
    assert empty is not None
    assert empty[1] == "0"
    await host_in(parts, State.READY)
    page = Page(await html(parts, "/"))
    [after] = page.all("data-after")
    assert int(after) == max(int(number) for number in page.all("data-line") if number)


# --- what a page must never do ---------------------------------------------------------------------


async def test_what_strangers_say_is_text(parts: Parts) -> None:
    """Markup from machines, rows and requests reaches no page as markup, and is readable there."""
    host = await host_in(parts, State.FAILED)
    other = await host_in(parts, State.INSTALLING, "pve2", 2)
    for one in (host, other):
        for level in Level:
            await note(parts, EVIL, one, level)
    await parts.fleet.sighted(Mac.parse("52:54:00:aa:00:01"), EVIL, EVIL)

    def poison(change: Change) -> None:
        db = change.db
        db.execute("UPDATE hosts SET hardware_id = ?, server_type = ?", (EVIL, EVIL))
        db.execute("UPDATE hosts SET hostname = ? || id", (EVIL,))
        db.execute("UPDATE operations SET started_by = ?, hostname = ?, detail = ?", (EVIL, EVIL, EVIL))
        db.execute("UPDATE activity SET hostname = ?", (EVIL,))

    await parts.fleet.change(poison)
    parts.book.problem = EVIL
    assert "evil" in [tag for tag, _ in Page(EVIL.partition("</script>")[0] + "</evil>").elements]
    for path in ("/", "/?show=" + "%22%3E%3Cevil%3E", "/hosts/1", "/hosts/2", "/ops/1", "/ops/2"):
        page = Page(await html(parts, path))
        assert "evil" not in [tag for tag, _ in page.elements]
        assert not page.all("onclick")
        assert all(attributes.get("src") for tag, attributes in page.elements if tag == "script")
        assert " ".join(EVIL.split()) in page.text


async def test_nothing_is_inline(parts: Parts) -> None:
    """The policy forbids inline scripts and styles: no page needs one, and all it loads is ours."""
    known = assets.read_assets(assets.static_folder())
    for name, source in (await every_page(parts)).items():
        page = Page(source)
        assert not [text for tag, text in page.texts if tag in ("script", "style") and text.strip()]
        for tag, attributes in page.elements:
            assert tag not in ("style", "iframe", "object", "base"), name
            assert not [one for one in attributes if one == "style" or one.startswith("on")], name
            for link in (attributes.get(one) for one in ("href", "src", "action")):
                assert link is None or re.match(r"/(?!/)|#", link), f"{name}: {link}"
                if link and link.startswith("/static/"):
                    assert link.removeprefix("/static/") in known
            posts = attributes.get("method") == "post" or attributes.get("role") == "search"
            assert tag != "form" or posts, "a GET shows its fields in the URL"


async def test_pages_show_no_secret(parts: Parts) -> None:
    """Neither the root hash nor a password nor the operation's key is on any page."""
    parts.passwords.standing = Secret("hunter2")
    sources = await every_page(parts)
    parts.passwords.give(OperationId(1), Secret("correct-horse"))
    sources["again"] = await html(parts, "/ops/1")
    keys = parts.store.read(lambda db: [operations.key(db, one.id) for one in operations.active(db)])
    lines = [key.public_line for key in keys if key is not None]
    assert lines
    for source in sources.values():
        for secret in (HASH, "hunter2", "correct-horse", *lines):
            assert secret not in source


async def test_pages_are_usable_without_eyes_and_mouse(parts: Parts) -> None:
    """Each field has a label, each dialog and region a name, and no id stands twice."""
    for name, source in (await every_page(parts)).items():
        page = Page(source)
        ids = page.all("id")
        assert len(ids) == len(set(ids)), name
        labelled = set(page.all("for"))
        for tag, attributes in page.elements:
            if tag in ("input", "select") and attributes.get("type") != "hidden":
                assert attributes.get("aria-label") or attributes.get("id") in labelled, name
            if tag == "dialog":
                assert attributes["aria-labelledby"] in ids
        for reference in ("aria-labelledby", "aria-describedby", "data-opens"):
            assert set(" ".join(page.all(reference)).split()) <= set(ids), name


# --- the scripts and the pages fit together --------------------------------------------------------

SCRIPTS = {path.name: path.read_text() for path in assets.static_folder().glob("*.js")}


def modules(name: str) -> set[str]:
    """`name` and all that it imports, directly or not."""
    found = {name}
    for other in re.findall(r'from "\./([\w-]+\.js)"', SCRIPTS[name]):
        found |= modules(other) if other != name else set()
    return found


async def test_scripts_find_what_they_look_for(parts: Parts) -> None:
    """Every id and every part that a page's scripts name is on that page, and they name some."""
    for name, source in (await every_page(parts)).items():
        if name == "missing":
            continue
        page = Page(source)
        assert f"/static/{name}s.js" in page.all("src") or f"/static/{name}.js" in page.all("src")
        own = "hosts.js" if name == "hosts" else f"{name}.js"
        code = "\n".join(SCRIPTS[one] for one in modules(own))
        ids = set(re.findall(r'\b(?:byId|blank)\("([^"]+)"\)', code))
        ids |= {f"count-{group}" for group in GROUPS if "count-${name}" in code}
        found = set(re.findall(r'\bpart\((?:[^"`()]|byId\("\w+"\))*"([^"]+)"\)', code))
        assert len(ids) > 10
        assert len(found) > 10
        assert ids <= set(page.all("id")), f"{name}: {ids - set(page.all('id'))}"
        optional = {"busy"}
        assert found - optional <= set(page.all("data-part")), f"{name}: {found - set(page.all('data-part'))}"


def test_scripts_make_no_markup() -> None:
    """What arrives is shown as text: nothing in the scripts can turn a string into elements or code."""
    assert SCRIPTS
    for name, code in SCRIPTS.items():
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|DOMParser|\.style\b|srcdoc",
            code,
        )
        assert found is None, f"{name}: {found}"
        for path in re.findall(r'from "([^"]+)"', code):
            assert path.removeprefix("./") in SCRIPTS


def test_styles_load_nothing() -> None:
    """No style sheet names another file, here or elsewhere."""
    for sheet in assets.static_folder().glob("*.css"):
        css = sheet.read_text()
        assert "url(" not in css, sheet
        assert "@import" not in css, sheet


# --- small decisions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3_599, "59 min 59 s"),
        (3_600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    """Two units, the largest that say something."""
    assert duration(seconds) == words


def test_what_is_late_says_so() -> None:
    """Before the deadline it is time left, after it time lost."""
    assert due(61) == "1 min 1 s left"
    assert due(-61) == "overdue for 1 min 1 s"


def test_templates_are_strict() -> None:
    """A name that nobody gave is an error, not an empty place; every value is escaped."""
    made = environment()
    assert made.from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"
    with pytest.raises(Exception, match="'y' is undefined"):
        made.from_string("{{ y }}").render()
