"""What every request passes on its way in, and what every answer takes along on its way out.

A table says who a path is for: machines, operators or anybody. A rule that stands in no class is
refused, so that a route which nobody thought about is closed and not open. The order of the checks
is the order of this file: whom was it sent to, what is it for, how large is it, who asks, and does
it really come from our own page.

Machines have no cookie and no account; what they may have is decided where they are answered.
"""

import logging
import re
from collections.abc import Callable, Collection, Coroutine
from enum import StrEnum
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from quart import Quart, Request, Response, g, redirect, request
from quart.typing import ResponseReturnValue
from werkzeug.wrappers import Response as WerkzeugResponse

from provd.store.database import Store
from provd.web import access
from provd.web.access import Access, Visitor
from provd.web.problems import Hesitation, problem, refusal

log = logging.getLogger(__name__)

App = Callable[[Scope, ASGIReceiveCallable, ASGISendCallable], Coroutine[Any, Any, None]]

KIB = 1024
BODY_SECONDS = 20
"""For the whole of a body, however it drips."""
LARGEST_BODY = 1024 * KIB
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": under that a browser posts our own forms with "Origin: null" (Fetch, "append a
    # request Origin header"), and on plain http there is no Sec-Fetch-Site to tell them from a stranger's.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


MISDIRECTED = b"""\
421 Misdirected Request

provd does not go by this name. Names it shall go by are listed in server.allowed_hosts.
"""
MISDIRECTED_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", str(len(MISDIRECTED)).encode()),
    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
]


class Plane(StrEnum):
    MACHINE = "machine"
    """Firmware, installers, first-boot scripts: no cookie, no bearer token of ours, no Origin."""
    OPERATOR = "operator"
    PUBLIC = "public"
    """The sign-in page, and what it needs to look like one."""


class Body(StrEnum):
    """What a body may be. None of it is trusted before somebody has parsed it."""

    ANYTHING = ""
    JSON = "application/json"
    FORM = "application/x-www-form-urlencoded"
    CHUNK = "application/offset+octet-stream"


@frozen
class RouteClass:
    rules: str
    """A pattern for whole URL rules, in which each <placeholder> is written {}."""
    plane: Plane
    largest_body: int
    body: Body = Body.ANYTHING
    page: bool = False
    """A stranger is shown the way to the sign-in page instead of a problem document."""


ROUTES = (
    RouteClass(r"/ipxe/{}(/hello)?|/boot/{}", Plane.MACHINE, 0),
    RouteClass(r"/api/boot/answer", Plane.MACHINE, 256 * KIB),
    RouteClass(r"/api/boot/.+", Plane.MACHINE, 16 * KIB),
    RouteClass(r"/api/hosts/{}/installed", Plane.MACHINE, 1024 * KIB),
    RouteClass(r"/api/hosts/{}/first-boot-script", Plane.MACHINE, 0),
    RouteClass(r"/api/hosts/{}/phone-home", Plane.MACHINE, 16 * KIB),
    RouteClass(r"/sign-in|/sign-out", Plane.PUBLIC, 4 * KIB, Body.FORM),
    RouteClass(r"/static/.+|/favicon\.ico|/healthz", Plane.PUBLIC, 0),
    RouteClass(r"/api/images/uploads/{}", Plane.OPERATOR, 1024 * KIB, Body.CHUNK),
    RouteClass(r"/api/.+", Plane.OPERATOR, 64 * KIB, Body.JSON),
    RouteClass(r"/events", Plane.OPERATOR, 0),
    RouteClass(
        r"/|/hosts/.+|/ops/.+|/images|/doctor|/cluster", Plane.OPERATOR, 64 * KIB, Body.FORM, page=True
    ),
)
"""The first that fits a rule decides."""


@frozen(kw_only=True)
class GateConfig:
    public_url: str
    """Its host is always allowed."""
    allowed_hosts: Collection[str] = ()
    """More names and addresses by which provd may be called; a port is not compared."""
    auth: bool = True


def install(app: Quart, config: GateConfig, store: Store) -> None:
    """Put the gate before every route of `app`, and the sign-in pages beside it.

    Handlers find `g.actor` (who acts, for the activity), `g.auth_off`, and `g.still_welcome` for
    what outlives its request. A body has been read and measured when they are called.
    """
    app.config["BODY_TIMEOUT"] = BODY_SECONDS
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    public = urlsplit(config.public_url)
    hosts = allowed_names([*config.allowed_hosts, public.netloc])
    ours = f"{public.scheme}://{public.netloc}".lower()
    keeper, hesitate = Access(store, auth=config.auth), Hesitation()

    # Around Quart, which parses the Host header before any of its hooks and dies of some.
    app.asgi_app = called_by_name(app.asgi_app, hosts)  # type: ignore[assignment,method-assign]

    @app.before_request
    async def before() -> ResponseReturnValue | None:
        if request.routing_exception is not None:
            raise request.routing_exception
        route = class_of(request.url_rule.rule if request.url_rule is not None else "")
        if route is None:
            log.error("%s stands in no class of provd/web/gate.py and is closed", request.url_rule)
            return refusal(404, "There is nothing here.")
        g.route, g.actor, g.auth_off = route, "", not config.auth
        if (request.content_length or 0) > route.largest_body:
            return too_large(route)
        visitor: Visitor | None = None
        if route.plane is Plane.OPERATOR:
            credentials = request.headers.get("Authorization"), request.cookies.get(access.COOKIE)
            visitor = await keeper.recognise(*credentials)
            if visitor is None:
                if any(credentials):
                    await hesitate()
                return stranger(route)
            g.actor, g.still_welcome = visitor.name, visitor.still_welcome
        if route.plane is not Plane.MACHINE and not from_our_page(request, visitor, ours):
            return refusal(403, "this request comes from a page that is not provd's")
        return await read_body(route)

    @app.after_request
    async def after(response: Response) -> Response:
        response.headers.update(HEADERS)
        route: RouteClass | None = g.get("route")
        if route is None or route.plane is not Plane.PUBLIC or request.path == "/sign-in":
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    app.register_blueprint(access.blueprint(keeper, hesitate, secure=public.scheme == "https"))


def unclassified(app: Quart) -> list[str]:
    """The rules that stand in no class: closed by mistake. Worth a test that it is empty."""
    return [rule.rule for rule in app.url_map.iter_rules() if class_of(rule.rule) is None]


# --- whom was it sent to ---


def allowed_names(hosts: Collection[str]) -> frozenset[bytes]:
    """Names without ports. Loopback is always allowed: no stranger's page can be called by it."""
    names = (name_of(host.encode()) for host in hosts)
    return frozenset({*names, b"localhost", b"127.0.0.1", b"[::1]"})


def name_of(host: bytes) -> bytes:
    return re.sub(rb":[0-9]{0,5}\Z", b"", host.lower())


def called_by_name(app: App, allowed: frozenset[bytes]) -> App:
    """`app` for requests with exactly one Host header, and one of our names in it; 421 for others.

    Against DNS rebinding: a stranger's page can have its name resolve to us, but not call us by ours.
    The port is left aside, since UEFI's HTTP boot omits it and forwarded ports change it. Compared as
    bytes: there is nothing to decode.
    """

    async def gate(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or name_of(hosts[0]) not in allowed:
                await send({"type": "http.response.start", "status": 421, "headers": MISDIRECTED_HEADERS})
                await send({"type": "http.response.body", "body": MISDIRECTED, "more_body": False})
                return
        await app(scope, receive, send)

    return gate


# --- what is it for, who asks ---


@cache
def class_of(rule: str) -> RouteClass | None:
    plain = re.sub(r"<[^>]*>", "{}", rule)
    return next((route for route in ROUTES if _pattern(route).fullmatch(plain)), None)


def _pattern(route: RouteClass) -> re.Pattern[str]:
    return re.compile(route.rules.replace("{}", r"\{\}"))


def stranger(route: RouteClass) -> Response | WerkzeugResponse:
    if route.page:
        return redirect("/sign-in", 302)
    response = problem(
        401, detail="a token is needed: Authorization: Bearer provd_…, made by `provd token create`"
    )
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


# --- does it come from our own page ---


def from_our_page(request: Request, visitor: Visitor | None, ours: str) -> bool:
    """Whether no other site's page is behind this request.

    A browser sends cookies, and reaches an unguarded provd, for whatever page asks it to, but it
    names that page: always in Origin where something may change, and in Sec-Fetch-Site over https.
    Programs send neither. Those with a token need not: no page can make a browser add one.
    """
    if visitor is not None and visitor.by_token:
        return True
    unsafe = request.method not in SAFE_METHODS
    if unsafe and request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    origin = request.headers.get("Origin")
    if origin is None:
        return not (unsafe and visitor is not None and visitor.by_cookie)
    scheme, _, authority = origin.lower().partition("://")
    here = scheme in ("http", "https") and authority == request.headers["Host"].lower()
    return here or origin.lower() == ours


# --- how large is it ---


async def read_body(route: RouteClass) -> Response | None:
    """Read the body, so that its time and size are bounded before any handler runs."""
    announced = bool(request.content_length) or "Transfer-Encoding" in request.headers
    if request.method in SAFE_METHODS and not announced:
        return None
    body = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    if len(body) > route.largest_body:
        return too_large(route)
    if body and route.body and request.mimetype != route.body:
        return refusal(415, f"a body here is {route.body}")
    return None


def too_large(route: RouteClass) -> Response:
    return refusal(413, f"a body here has at most {route.largest_body} bytes")
