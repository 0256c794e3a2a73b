"""Who is asking: API tokens for programs, sign-in links and sessions for people.

There are no passwords. Whoever may run `provd token` on the box may make a token or a link, and a
link opens one session in one browser. All three are 256 random bits of which the database keeps
only a hash, so that a stolen backup opens nothing.

This file refuses to know which paths need a credential; that is the gate's business.
"""

import logging
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from urllib.parse import parse_qs

from attrs import frozen
from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from provd.domain.errors import ConfigError, Invalid, StoreError
from provd.domain.secrets import Secret
from provd.store import access as rows
from provd.store.access import Token
from provd.store.database import Db, Store, now
from provd.web.page import chosen_theme
from provd.web.problems import Hesitation

log = logging.getLogger(__name__)

TOKEN_PREFIX = "provd_"  # noqa: S105  # lets secret scanners and people recognise one
COOKIE = "provd_session"

LINK_LIFETIME = timedelta(minutes=15)
LONGEST_LINK_LIFETIME = timedelta(hours=24)
SESSION_LIFETIME = timedelta(days=30)
SESSION_IDLE = timedelta(days=7)
"""A browser that was not seen for so long signs in again, however young its session is."""
TOUCH_EVERY = timedelta(minutes=1)
"""How fine "last used" is: one write a minute, not one for each request."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
_FOREIGN_TOKEN = re.compile(r"[!-~]{32,200}")


@frozen(kw_only=True)
class Visitor:
    """Who was recognised, as the activity will name them."""

    name: str
    by_cookie: bool = False
    """A browser sends its cookie whoever asks it to: the gate looks where the request comes from."""
    by_token: bool = False
    still_welcome: Callable[[], bool] = lambda: True
    """Whether the credential is good even now; for what goes on after the answer has begun."""


NOBODY = Visitor(name="nobody (auth off)")


# --- for the command line and the daemon's start ---


async def create_token(store: Store, name: str) -> Secret:
    """Make an API token; it is never shown again. Raises `Invalid` or `Conflict` about the name."""
    if _NAME.fullmatch(name) is None:
        raise Invalid(
            f"{name[:70]!r} is not a name for a token: 1 to 64 letters, digits, spaces and . _ @ -", "name"
        )
    token = Secret(TOKEN_PREFIX + Secret.random().reveal())
    await store.write(lambda db: rows.add_token(db, name, token.digest(), now()))
    return token


async def accept_token(store: Store, name: str, token: Secret) -> bool:
    """Make good a token that was given from outside. Doing so again changes nothing.

    Another token of that name makes room for it. False when this very token was revoked: it stays
    so, or a restart would undo a revocation. Raises `ConfigError` for one that could be guessed.
    """
    if _FOREIGN_TOKEN.fullmatch(token.reveal()) is None:
        raise ConfigError(
            f"the token {name!r} must be 32 to 200 visible ASCII characters; try: openssl rand -hex 32"
        )

    def work(db: Db) -> bool:
        known = rows.token_of(db, token.digest())
        if known is None:
            rows.replace_token(db, name, token.digest(), now())
        return known is None or known.revoked_at is None

    return await store.write(work)


def list_tokens(store: Store) -> list[Token]:
    return store.read(rows.tokens)


async def revoke_token(store: Store, name: str) -> None:
    """From the next request on it is worth nothing. Raises `NotFound`."""
    await store.write(lambda db: rows.revoke_token(db, name, now()))


async def create_sign_in_link(store: Store, public_url: str, lifetime: timedelta = LINK_LIFETIME) -> Secret:
    """A URL that opens one session, once. A `Secret`, to be revealed where it is printed."""
    token = Secret.random()
    at = now()
    expires_at = at + min(lifetime, LONGEST_LINK_LIFETIME)
    await store.write(lambda db: rows.add_link(db, token.digest(), at, expires_at))
    return Secret(f"{public_url.rstrip('/')}/sign-in?token={token.reveal()}")


# --- for the gate ---


class Access:
    """Recognises visitors, and opens and ends sessions."""

    def __init__(self, store: Store, *, auth: bool, clock: Callable[[], datetime] = now) -> None:
        self.auth = auth
        self._store = store
        self._clock = clock

    async def recognise(self, authorization: str | None, cookie: str | None) -> Visitor | None:
        """None for a stranger. A bad bearer token is not saved by a good cookie."""
        if not self.auth:
            return NOBODY
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            return await self._by_token(token.strip()) if scheme.lower() == "bearer" else None
        return await self._by_cookie(cookie) if cookie else None

    async def open_session(self, link_token: Secret) -> Secret | None:
        """Use a sign-in link up. None when it is unknown, was used before, or is too old."""
        session, at = Secret.random(), self._clock()

        def work(db: Db) -> bool:
            if not rows.use_link(db, link_token.digest(), at):
                return False
            rows.forget_sessions(db, created_before=at - SESSION_LIFETIME, seen_before=at - SESSION_IDLE)
            rows.add_session(db, session.digest(), at)
            return True

        return session if await self._store.write(work) else None

    async def end_session(self, session: Secret) -> None:
        await self._store.write(lambda db: rows.end_session(db, session.digest()))

    async def _by_token(self, text: str) -> Visitor | None:
        digest = Secret(text).digest()
        token = self._store.read(lambda db: rows.token_of(db, digest))
        if token is None or token.revoked_at is not None:
            return None

        def living() -> bool:
            known = self._store.read(lambda db: rows.token_of(db, digest))
            return known is not None and known.revoked_at is None

        at, number = self._clock(), token.id
        await self._touch(token.last_used_at, at, lambda db: rows.touch_token(db, number, at))
        return Visitor(name=f"token {token.name}", by_token=True, still_welcome=living)

    async def _by_cookie(self, text: str) -> Visitor | None:
        digest = Secret(text).digest()

        def living() -> rows.Session | None:
            session = self._store.read(lambda db: rows.session(db, digest))
            at = self._clock()
            if session is None or at - session.created_at > SESSION_LIFETIME:
                return None
            return session if at - session.last_seen_at <= SESSION_IDLE else None

        session = living()
        if session is None:
            return None
        at = self._clock()
        await self._touch(session.last_seen_at, at, lambda db: rows.touch_session(db, digest, at))
        return Visitor(name="browser session", by_cookie=True, still_welcome=lambda: living() is not None)

    async def _touch(self, last: datetime | None, at: datetime, work: Callable[[Db], None]) -> None:
        if last is not None and at - last < TOUCH_EVERY:
            return
        try:
            await self._store.write(work)
        except StoreError as exc:
            # On a full disk the operator must still be let in: somebody has to make room.
            log.warning("when a credential was last used could not be written down: %s", exc)


# --- the pages ---


def blueprint(access: Access, hesitate: Hesitation, *, secure: bool) -> Blueprint:
    """`/sign-in` and `/sign-out`. They work without scripts.

    A GET uses nothing up: mail and chat programs fetch a link before its reader does. The page it
    shows posts the token back. `secure`: the cookie travels over https alone.
    """
    pages = Blueprint("access", __name__, template_folder="templates")

    @pages.get("/sign-in")
    async def show() -> ResponseReturnValue:
        token = request.args.get("token", "")
        cookie = request.cookies.get(COOKIE)
        if not token and await access.recognise(None, cookie) is not None:
            return redirect("/")
        return await _page(token=token)

    @pages.post("/sign-in")
    async def sign_in() -> ResponseReturnValue:
        session = await access.open_session(Secret(await _posted("token")))
        if session is None:
            log.warning("a sign-in from %s was refused", request.remote_addr)
            await hesitate()
            return await _page(refused=True), 401, {"WWW-Authenticate": "Bearer"}
        log.info("signed in from %s", request.remote_addr)
        response = redirect("/", 303)
        response.set_cookie(
            COOKIE,
            session.reveal(),
            max_age=SESSION_LIFETIME,
            path="/",
            secure=secure,
            httponly=True,
            samesite="Strict",
        )
        return response

    @pages.post("/sign-out")
    async def sign_out() -> ResponseReturnValue:
        cookie = request.cookies.get(COOKIE)
        if cookie:
            await access.end_session(Secret(cookie))
        response = redirect("/sign-in", 303)
        response.delete_cookie(COOKIE, path="/", secure=secure, httponly=True, samesite="Strict")
        return response

    return pages


async def _page(*, token: str = "", refused: bool = False) -> str:
    return await render_template("sign-in.html", token=token, refused=refused, theme=chosen_theme())


async def _posted(name: str) -> str:
    # Not `request.form`: in Quart 0.23 it is empty once the body was read, and the gate has read it.
    body = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=10)
    except ValueError:
        return ""
    return fields.get(name, [""])[0]
