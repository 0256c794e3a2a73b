"""What is let in, and what goes out with it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import g, request
from quart_trio import QuartTrio

from provd.domain.secrets import Secret
from provd.store.database import Store, open_store
from provd.web import gate, problems
from provd.web.access import Access, create_sign_in_link, create_token
from provd.web.gate import GateConfig, Plane, allowed_names, class_of, install, name_of, unclassified

HERE = "provd.lan:8080"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "provd.db") as store:
        yield store


def make_app(store: Store, *, auth: bool = True) -> QuartTrio:
    app = QuartTrio("test", static_folder=None)
    problems.install(app)
    install(app, GateConfig(public_url=f"http://{HERE}", allowed_hosts=["10.0.0.5"], auth=auth), store)

    async def who(**_: object) -> dict[str, Any]:
        body = await request.get_data(cache=True, as_text=False, parse_form_data=False)
        return {"actor": g.actor, "auth_off": g.auth_off, "body": len(body)}

    for number, (rule, methods) in enumerate(
        {
            "/ipxe/<mac>": ["GET"],
            "/api/boot/answer": ["POST"],
            "/api/hosts/<int:id>/installed": ["POST"],
            "/api/hosts/<int:id>/phone-home": ["POST"],
            "/api/hosts/<int:id>/first-boot-script": ["GET"],
            "/api/hosts": ["GET", "POST"],
            "/api/hosts/<int:id>": ["GET", "DELETE"],
            "/api/hosts/<int:id>/rebuild": ["POST"],
            "/events": ["GET"],
            "/": ["GET"],
            "/hosts/<int:id>": ["GET"],
            "/ops/<int:id>": ["GET"],
            "/healthz": ["GET"],
            "/static/<path:name>": ["GET"],
            "/forgotten": ["GET"],
        }.items()
    ):
        app.add_url_rule(rule, f"r{number}", who, methods=methods)
    return app


async def ask(app: QuartTrio, method: str, path: str, **more: Any) -> Any:
    headers = {"Host": HERE, **more.pop("headers", {})}
    return await app.test_client().open(path, method=method, headers=headers, **more)


async def cookie_of(store: Store) -> dict[str, str]:
    link = await create_sign_in_link(store, f"http://{HERE}")
    session = await Access(store, auth=True).open_session(Secret(link.reveal().partition("=")[2]))
    assert session is not None
    return {"Cookie": f"provd_session={session.reveal()}"}


async def bearer_of(store: Store) -> dict[str, str]:
    return {"Authorization": f"Bearer {(await create_token(store, 'laptop')).reveal()}"}


OPERATORS = [("GET", "/api/hosts"), ("POST", "/api/hosts"), ("DELETE", "/api/hosts/1"), ("GET", "/events")]
PAGES = ["/", "/hosts/1", "/ops/1"]
MACHINES = [
    ("GET", "/ipxe/52:54:00:00:00:01"),
    ("POST", "/api/boot/answer"),
    ("POST", "/api/hosts/1/installed"),
    ("POST", "/api/hosts/1/phone-home"),
    ("GET", "/api/hosts/1/first-boot-script"),
]


# --- whom was it sent to ---


@pytest.mark.parametrize(
    "name",
    [
        HERE,
        "PROVD.LAN",
        "10.0.0.5",
        "10.0.0.5:99",
        "localhost:1",
        "127.0.0.1",
        "[::1]:8",
        "localhost:",
        "localhost:99999",
    ],
)
async def test_our_names_are_ours_with_any_port(store: Store, name: str) -> None:
    """Configured names and loopback are let in; firmware omits ports and forwarding changes them."""
    assert (await ask(make_app(store), "GET", "/healthz", headers={"Host": name})).status_code == 200


async def test_other_names_are_misdirected(store: Store) -> None:
    """Whoever calls us by another name, on any path, gets 421: a page whose name was rebound to us."""
    app = make_app(store, auth=False)
    for name in (
        "evil.example",
        "provd.lan.evil",
        "",
        ":80",
        f"{HERE}x",
        "a@provd.lan",
        "\xff",
        "::1",
        "a:b:c",
    ):
        for path in ("/healthz", "/api/hosts", "/ipxe/52:54:00:00:00:01", "/nowhere"):
            response = await ask(app, "GET", path, headers={"Host": name})
            assert response.status_code == 421
            assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("hosts", [[], [HERE, HERE], [HERE, "evil.example"]])
async def test_one_host_header_is_needed(store: Store, hosts: list[str]) -> None:
    """None, or more than one, is not to be believed."""
    app = make_app(store)
    answers: list[int] = []

    async def receive() -> Any:
        await trio.sleep_forever()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answers.append(message["status"])

    scope: Any = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/healthz",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", name.encode()) for name in hosts],
    }
    await app(scope, receive, send)
    assert answers == [421]


def test_names_are_compared_without_ports() -> None:
    """A port is cut off, the end of an IPv6 address is not."""
    assert name_of(b"Provd.LAN:8080") == b"provd.lan"
    assert name_of(b"[fe80::1]:80") == b"[fe80::1]"
    assert name_of(b"[fe80::1]") == b"[fe80::1]"
    assert allowed_names(["a:1"]) == {b"a", b"localhost", b"127.0.0.1", b"[::1]"}


# --- what is it for ---


async def test_rule_without_a_class_is_closed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A route that nobody thought about answers 404, even to an operator, and the log says why."""
    app = make_app(store)
    assert (await ask(app, "GET", "/forgotten", headers=await bearer_of(store))).status_code == 404
    assert "/forgotten stands in no class" in caplog.text
    assert unclassified(app) == ["/forgotten"]


@pytest.mark.parametrize(
    ("rule", "plane"),
    [
        ("/ipxe/<mac>", Plane.MACHINE),
        ("/api/boot/answer", Plane.MACHINE),
        ("/api/hosts/<id:host_id>/installed", Plane.MACHINE),
        ("/api/hosts/<id:host_id>/installed/more", Plane.OPERATOR),
        ("/api/hosts/installed", Plane.OPERATOR),
        ("/api/hosts/<id:host_id>", Plane.OPERATOR),
        ("/api/hosts/<path:anything>", Plane.OPERATOR),
        ("/events", Plane.OPERATOR),
        ("/", Plane.OPERATOR),
        ("/sign-in", Plane.PUBLIC),
        ("/sign-in/more", None),
        ("/static/<path:name>", Plane.PUBLIC),
        ("/ipxe", None),
        ("//api/hosts", None),
        ("", None),
    ],
)
def test_class_of_a_rule(rule: str, plane: Plane | None) -> None:
    """The table as it is meant, at its edges."""
    route = class_of(rule)
    assert (route.plane if route is not None else None) == plane


# --- who asks ---


@pytest.mark.parametrize(("method", "path"), OPERATORS)
async def test_api_needs_a_credential(store: Store, method: str, path: str) -> None:
    """A stranger at the API gets a 401 problem that says what is needed."""
    response = await ask(make_app(store), method, path)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert json.loads(await response.get_data())["status"] == 401


@pytest.mark.parametrize("path", PAGES)
async def test_pages_lead_to_the_sign_in_page(store: Store, path: str) -> None:
    """A stranger at a page is shown where to sign in."""
    response = await ask(make_app(store), "GET", path)
    assert (response.status_code, response.headers["Location"]) == (302, "/sign-in")


@pytest.mark.parametrize("bad", [{"Authorization": "Bearer provd_x"}, {"Cookie": "provd_session=x"}])
async def test_bad_credentials_are_told_nothing_and_not_at_once(store: Store, bad: dict[str, str]) -> None:
    """A failed attempt gets the same 401 as none at all, later."""
    app = make_app(store)
    stranger = await (await ask(app, "GET", "/api/hosts")).get_data()
    began = trio.current_time()
    response = await ask(app, "GET", "/api/hosts", headers=bad)
    assert trio.current_time() - began >= problems.Hesitation.SECONDS[0]
    assert (response.status_code, await response.get_data()) == (401, stranger)


async def test_actor_is_named(store: Store) -> None:
    """Handlers learn who acts, and whether anybody could."""
    app = make_app(store)
    for headers, actor in (
        (await bearer_of(store), "token laptop"),
        (await cookie_of(store), "browser session"),
    ):
        seen = await (await ask(app, "GET", "/api/hosts", headers=headers)).get_json()
        assert (seen["actor"], seen["auth_off"]) == (actor, False)
    seen = await (await ask(make_app(store, auth=False), "GET", "/api/hosts")).get_json()
    assert (seen["actor"], seen["auth_off"]) == ("nobody (auth off)", True)


@pytest.mark.parametrize(("method", "path"), MACHINES)
async def test_machines_need_neither_cookie_nor_origin(store: Store, method: str, path: str) -> None:
    """Machine endpoints are open to whoever calls us by our name, with any headers and media type."""
    more = {"data": b"x", "headers": {"Content-Type": "text/plain"}} if method == "POST" else {}
    assert (await ask(make_app(store), method, path, **more)).status_code == 200
    headers = {"Origin": "http://evil.example", "Authorization": "Bearer x", "Cookie": "provd_session=x"}
    assert (await ask(make_app(store), method, path, headers=headers)).status_code == 200


# --- does it come from our own page ---

OURS = {"Origin": f"http://{HERE}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        (OURS, 200),
        ({"Origin": "http://PROVD.lan:8080"}, 200),
        ({**OURS, "Sec-Fetch-Site": "same-origin"}, 200),
        ({**OURS, "Sec-Fetch-Site": "cross-site"}, 403),
        ({**OURS, "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://provd.lan"}, 403),
        ({"Origin": "http://provd.lan:3000"}, 403),
        ({"Origin": f"ftp://{HERE}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "\xff"}, 403),
    ],
)
async def test_cookie_needs_our_origin_to_change_anything(
    store: Store, headers: dict[str, str], status: int
) -> None:
    """With a session a change must come from our own page, and prove it."""
    cookie = await cookie_of(store)
    response = await ask(make_app(store), "POST", "/api/hosts/1/rebuild", headers={**cookie, **headers})
    assert response.status_code == status


async def test_origin_may_be_the_host_we_are_called_by(store: Store) -> None:
    """Through a tunnel, or a proxy that speaks https, our page has another origin, and it is still ours."""
    cookie = await cookie_of(store)
    for host, origin in (("localhost:9", "http://localhost:9"), (HERE, f"https://{HERE}")):
        headers = {**cookie, "Host": host, "Origin": origin}
        response = await ask(make_app(store), "POST", "/api/hosts/1/rebuild", headers=headers)
        assert response.status_code == 200


async def test_open_house_is_not_open_to_other_pages(store: Store) -> None:
    """With `auth: off` a program needs nothing, but no other site's page may press Rebuild."""
    app = make_app(store, auth=False)
    for headers, status in (({}, 200), (OURS, 200), ({"Origin": "http://evil.example"}, 403)):
        assert (await ask(app, "POST", "/api/hosts/1/rebuild", headers=headers)).status_code == status
    assert (await ask(app, "GET", "/events", headers={"Origin": "http://evil.example"})).status_code == 403


async def test_tokens_may_come_from_anywhere(store: Store) -> None:
    """No page can make a browser send a bearer token, so none is asked where it comes from."""
    headers = {**await bearer_of(store), "Origin": "http://evil.example"}
    assert (await ask(make_app(store), "POST", "/api/hosts/1/rebuild", headers=headers)).status_code == 200


async def test_other_pages_cannot_sign_anybody_in_or_out(store: Store) -> None:
    """The public forms are for our own page, too."""
    for path in ("/sign-in", "/sign-out"):
        response = await ask(make_app(store), "POST", path, headers={"Origin": "http://evil.example"})
        assert response.status_code == 403


# --- how large is it ---


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/api/hosts", 64),
        ("/api/boot/answer", 256),
        ("/api/hosts/1/installed", 1024),
        ("/api/hosts/1/phone-home", 16),
        ("/sign-in", 4),
    ],
)
async def test_bodies_have_the_limit_of_their_class(store: Store, path: str, limit: int) -> None:
    """A body of exactly the limit is let in, one more byte is 413."""
    app = make_app(store, auth=False)
    kind = "application/x-www-form-urlencoded" if path == "/sign-in" else "application/json"
    for size, refused in ((limit * 1024, False), (limit * 1024 + 1, True)):
        for announced in ({"Content-Length": str(size)}, {"Transfer-Encoding": "chunked"}):
            headers = {"Content-Type": kind, **announced}
            response = await ask(app, "POST", path, data=b"x" * size, headers=headers)
            assert (response.status_code == 413) is refused


@pytest.mark.parametrize("path", ["/api/hosts", "/events", "/", "/healthz", "/ipxe/52:54:00:00:00:01"])
async def test_what_is_only_read_takes_little_or_no_body(store: Store, path: str) -> None:
    """A GET with a large body is refused everywhere."""
    app = make_app(store, auth=False)
    headers = {"Content-Type": "application/json", "Content-Length": "70000"}
    assert (await ask(app, "GET", path, data=b"x" * 70_000, headers=headers)).status_code == 413


async def test_api_speaks_json_only(store: Store) -> None:
    """Another media type is 415; no body needs no type; a charset does no harm."""
    app = make_app(store, auth=False)
    for headers, data, status in (
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"{}", 415),
        ({}, b"{}", 415),
        ({"Content-Type": "application/json; charset=utf-8"}, b"{}", 200),
        ({}, b"", 200),
    ):
        response = await ask(app, "POST", "/api/hosts", data=data, headers=headers)
        assert response.status_code == status


async def test_dripping_body_has_a_deadline(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come to an end in time is 408, whatever handler waits behind it."""
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.1)
    app = make_app(store)
    async with app.test_client().request(
        "/api/boot/answer", method="POST", headers={"Host": HERE, "Content-Length": "9"}
    ) as connection:
        await connection.send(b"x")
        await trio.sleep(0.2)
        await connection.send_complete()
    assert (await connection.as_response()).status_code == 408


# --- what goes out ---


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 302), ("/api/hosts", 401), ("/sign-in", 200), ("/nope", 404), ("/healthz", 200)],
)
async def test_every_answer_has_the_headers(store: Store, path: str, status: int) -> None:
    """Pages, problems and refusals: all go out under the same policy."""
    response = await ask(make_app(store), "GET", path)
    assert response.status_code == status
    for name, value in gate.HEADERS.items():
        assert response.headers[name] == value
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert not any(name.lower().startswith("access-control") for name in response.headers.keys())  # noqa: SIM118  # pairs


async def test_nothing_but_assets_may_be_kept(store: Store) -> None:
    """No cache keeps an answer, except what everybody may see anyway."""
    app = make_app(store, auth=False)
    for path in ("/", "/api/hosts", "/ipxe/52:54:00:00:00:01", "/nowhere"):
        assert (await ask(app, "GET", path)).headers["Cache-Control"] == "no-store"
    assert "Cache-Control" not in (await ask(app, "GET", "/static/base.css")).headers
