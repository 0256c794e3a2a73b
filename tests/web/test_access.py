"""Tokens, links and sessions: who is recognised, for how long, and what is kept of it."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from quart_trio import QuartTrio

from provd.domain.errors import ConfigError, Conflict, Invalid, NotFound, StoreError
from provd.domain.secrets import Secret
from provd.store.database import Store, now, open_store
from provd.web import access
from provd.web.access import (
    NOBODY,
    Access,
    accept_token,
    create_sign_in_link,
    create_token,
    list_tokens,
    revoke_token,
)
from provd.web.gate import GateConfig, install

SECOND = timedelta(seconds=1)


class Clock:
    def __init__(self) -> None:
        self.at = now()

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "provd.db") as store:
        yield store


def token_in(link: Secret) -> Secret:
    return Secret(parse_qs(urlsplit(link.reveal()).query)["token"][0])


def bearer(token: Secret) -> str:
    return f"Bearer {token.reveal()}"


# --- tokens ---


async def test_token_is_recognised_by_its_name(store: Store) -> None:
    """A made token is a visitor whose actions are noted under its name."""
    token = await create_token(store, "laptop")
    assert re.fullmatch(r"provd_[A-Za-z0-9_-]{43}", token.reveal())
    visitor = await Access(store, auth=True).recognise(bearer(token), None)
    assert visitor is not None
    assert (visitor.name, visitor.by_token, visitor.by_cookie) == ("token laptop", True, False)
    assert visitor.still_welcome()


async def test_revoked_token_is_nobodys(store: Store) -> None:
    """Revoking works at once, for new requests and for what goes on behind an old one."""
    token = await create_token(store, "laptop")
    visitor = await Access(store, auth=True).recognise(bearer(token), None)
    await revoke_token(store, "laptop")
    assert await Access(store, auth=True).recognise(bearer(token), None) is None
    assert visitor is not None
    assert not visitor.still_welcome()
    with pytest.raises(NotFound):
        await revoke_token(store, "laptop")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer x", "Basic eDp5", "provd_x", "Bearer \udcff", "Bearer ÿ"]
)
async def test_anything_else_is_nobodys(store: Store, header: str) -> None:
    """No other header is recognised, nor does a good cookie save it."""
    keeper = Access(store, auth=True)
    session = await keeper.open_session(token_in(await create_sign_in_link(store, "http://x")))
    assert session is not None
    assert await keeper.recognise(header, session.reveal()) is None


async def test_names_of_tokens_are_short_and_plain(store: Store) -> None:
    """A name that would not print well is refused; a taken one is a conflict."""
    for name in ("", " x", "a" * 65, "a\nb", "<b>"):
        with pytest.raises(Invalid):
            await create_token(store, name)
    await create_token(store, "laptop")
    with pytest.raises(Conflict):
        await create_token(store, "laptop")


async def test_no_secret_is_in_the_database(store: Store) -> None:
    """Of token, link and session the files of the database hold not one byte sequence."""
    token = await create_token(store, "laptop")
    link = token_in(await create_sign_in_link(store, "http://x"))
    session = await Access(store, auth=True).open_session(link)
    assert session is not None
    held = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    assert b"laptop" in held
    for secret in (token, link, session):
        assert secret.reveal().encode() not in held


async def test_last_use_is_noted_once_a_minute(store: Store) -> None:
    """`last_used_at` is at most a minute old, and not written for each request."""
    clock = Clock()
    keeper = Access(store, auth=True, clock=clock)
    token = await create_token(store, "laptop")
    start = clock.at
    for later, noted in ((0, 0), (59, 0), (60, 60), (61, 60)):
        clock.at = start + later * SECOND
        await keeper.recognise(bearer(token), None)
        assert list_tokens(store)[0].last_used_at == start + noted * SECOND


async def test_full_disk_locks_nobody_out(store: Store) -> None:
    """Where the last use cannot be written down the visitor is recognised all the same."""
    token = await create_token(store, "laptop")
    await store.write(lambda db: db.execute("PRAGMA query_only = ON"))
    with pytest.raises(StoreError):
        await create_token(store, "another")
    assert await Access(store, auth=True).recognise(bearer(token), None) is not None


async def test_given_token_is_accepted_again_and_again(store: Store) -> None:
    """The same token at every start is one row; another of that name takes its place."""
    keeper = Access(store, auth=True)
    first, second = Secret("a" * 40), Secret("b" * 40)
    for _ in range(2):
        assert await accept_token(store, "environment", first)
    assert len(list_tokens(store)) == 1
    assert await keeper.recognise(bearer(first), None) is not None
    assert await accept_token(store, "environment", second)
    assert await keeper.recognise(bearer(first), None) is None
    assert await keeper.recognise(bearer(second), None) is not None


async def test_restart_does_not_undo_a_revocation(store: Store) -> None:
    """A given token that was revoked stays so."""
    token = Secret("a" * 40)
    await accept_token(store, "environment", token)
    await revoke_token(store, "environment")
    assert not await accept_token(store, "environment", token)
    assert await Access(store, auth=True).recognise(bearer(token), None) is None


@pytest.mark.parametrize("text", ["", "secret", "a" * 31, "a" * 201, "a" * 40 + "\n", "ä" * 40, "a " * 20])
async def test_given_token_must_not_be_guessable(store: Store, text: str) -> None:
    """A short token, or one that no header can carry, is a mistake in the configuration."""
    with pytest.raises(ConfigError) as caught:
        await accept_token(store, "environment", Secret(text))
    assert not text or text not in str(caught.value)


# --- links and sessions ---


async def test_link_opens_one_session(store: Store) -> None:
    """A link is good once, within its lifetime, and its session is a visitor."""
    keeper = Access(store, auth=True)
    link = await create_sign_in_link(store, "http://192.168.1.100:8080/")
    assert link.reveal().startswith("http://192.168.1.100:8080/sign-in?token=")
    session = await keeper.open_session(token_in(link))
    assert session is not None
    visitor = await keeper.recognise(None, session.reveal())
    assert visitor is not None
    assert (visitor.name, visitor.by_cookie, visitor.by_token) == ("browser session", True, False)
    assert await keeper.open_session(token_in(link)) is None
    assert await keeper.open_session(Secret("x")) is None


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (access.LINK_LIFETIME, timedelta(minutes=15)),
        (timedelta(days=300), access.LONGEST_LINK_LIFETIME),
    ],
)
async def test_link_has_an_end(store: Store, asked: timedelta, given: timedelta) -> None:
    """No link outlives a day, whatever was asked for."""
    clock = Clock()
    keeper = Access(store, auth=True, clock=clock)
    link = await create_sign_in_link(store, "http://x", asked)
    clock.at = now() + given
    assert await keeper.open_session(token_in(link)) is None
    clock.at = now() + given - 5 * SECOND
    assert await keeper.open_session(token_in(link)) is not None


async def test_session_ends_with_idleness_age_or_sign_out(store: Store) -> None:
    """Seven days unseen, thirty days in all, or a sign-out."""
    clock = Clock()
    keeper = Access(store, auth=True, clock=clock)
    start = clock.at

    async def opened() -> str:
        clock.at = start
        session = await keeper.open_session(token_in(await create_sign_in_link(store, "http://x")))
        assert session is not None
        return session.reveal()

    idle = await opened()
    clock.at = start + access.SESSION_IDLE + SECOND
    assert await keeper.recognise(None, idle) is None

    seen_daily = await opened()
    for day in range(30):
        clock.at = start + timedelta(days=day)
        visitor = await keeper.recognise(None, seen_daily)
        assert visitor is not None
    clock.at = start + access.SESSION_LIFETIME + SECOND
    assert await keeper.recognise(None, seen_daily) is None
    assert visitor is not None
    assert not visitor.still_welcome()

    left = await opened()
    await keeper.end_session(Secret(left))
    assert await keeper.recognise(None, left) is None


async def test_without_auth_everybody_is_nobody(store: Store) -> None:
    """`auth: off` recognises whoever comes, and says so in their name."""
    keeper = Access(store, auth=False)
    assert await keeper.recognise(None, None) is NOBODY
    assert await keeper.recognise("Bearer nonsense", None) is NOBODY


# --- the pages ---


def app(store: Store, *, public_url: str = "http://provd.lan:8080", auth: bool = True) -> QuartTrio:
    app = QuartTrio("test", static_folder=None)
    install(app, GateConfig(public_url=public_url, auth=auth), store)
    return app


HOST = {"Host": "provd.lan:8080"}
ORIGIN = {**HOST, "Origin": "http://provd.lan:8080"}


async def test_sign_in_by_link_and_form(store: Store) -> None:
    """The page of a link posts its token and gets a cookie; opening it alone uses nothing up."""
    client = app(store).test_client()
    link = urlsplit((await create_sign_in_link(store, "http://provd.lan:8080")).reveal())
    for _ in range(3):
        page = await client.get(f"{link.path}?{link.query}", headers=HOST)
        assert page.status_code == 200
    html = await page.get_data(as_text=True)
    assert '<form method="post" action="/sign-in">' in html
    assert "<script" not in html
    assert page.headers["Cache-Control"] == "no-store"
    [token] = re.findall(r'name="token" value="([^"]+)"', html)

    signed_in = await client.post("/sign-in", form={"token": token}, headers=ORIGIN)
    assert (signed_in.status_code, signed_in.headers["Location"]) == (303, "/")
    cookie = signed_in.headers["Set-Cookie"]
    for attribute in ("provd_session=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=2592000"):
        assert attribute in cookie
    assert "Secure" not in cookie
    again = await client.get("/sign-in", headers=HOST)
    assert (again.status_code, again.headers["Location"]) == (302, "/")

    other = app(store).test_client()
    refused = await other.post("/sign-in", form={"token": token}, headers=ORIGIN)
    assert refused.status_code == 401
    assert "Set-Cookie" not in refused.headers
    assert "provd sign-in" in await refused.get_data(as_text=True)


async def test_sign_out_ends_the_session_itself(store: Store) -> None:
    """Not only the browser forgets: the same cookie is worth nothing afterwards."""
    client = app(store).test_client()
    link = token_in(await create_sign_in_link(store, "http://x"))
    signed_in = await client.post("/sign-in", form={"token": link.reveal()}, headers=ORIGIN)
    session = signed_in.headers["Set-Cookie"].partition(";")[0].partition("=")[2]
    assert await Access(store, auth=True).recognise(None, session) is not None
    left = await client.post("/sign-out", headers=ORIGIN)
    assert (left.status_code, left.headers["Location"]) == (303, "/sign-in")
    assert "Max-Age=0" in left.headers["Set-Cookie"]
    assert await Access(store, auth=True).recognise(None, session) is None


async def test_cookie_is_secure_where_the_site_is(store: Store) -> None:
    """With an https public URL the cookie never travels in the clear."""
    client = app(store, public_url="https://provd.lan").test_client()
    link = token_in(await create_sign_in_link(store, "https://provd.lan"))
    response = await client.post(
        "/sign-in",
        form={"token": link.reveal()},
        headers={"Host": "provd.lan", "Origin": "https://provd.lan"},
    )
    assert "Secure" in response.headers["Set-Cookie"]


async def test_token_in_the_url_is_escaped(store: Store) -> None:
    """What stands in the link is text on the page, never markup."""
    client = app(store).test_client()
    page = await client.get("/sign-in?token=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", headers=HOST)
    assert b"<script" not in await page.get_data()


async def test_sign_in_page_without_a_token_explains(store: Store) -> None:
    """A stranger learns how to get a link; with `auth: off` there is nothing to sign in to."""
    page = await app(store).test_client().get("/sign-in", headers=HOST)
    assert "provd sign-in" in await page.get_data(as_text=True)
    open_house = await app(store, auth=False).test_client().get("/sign-in", headers=HOST)
    assert open_house.headers["Location"] == "/"


@pytest.mark.parametrize("body", [b"", b"token", b"token=", b"\xff", b"&".join([b"a=b"] * 50), b"token=%ff"])
async def test_nonsense_in_the_form_is_a_refusal(store: Store, body: bytes) -> None:
    """Whatever is posted, it is a plain 401."""
    response = (
        await app(store)
        .test_client()
        .post(
            "/sign-in",
            data=body,
            headers={**ORIGIN, "Content-Type": "application/x-www-form-urlencoded"},
        )
    )
    assert response.status_code == 401
