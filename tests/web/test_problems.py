"""Errors as answers."""

import json
import logging

import pytest
import trio
from quart import abort
from quart_trio import QuartTrio

from provd.domain.errors import (
    BadDocument,
    ClusterFailed,
    Conflict,
    Invalid,
    NotFound,
    NotYourTurn,
    ProvdError,
    Refused,
    StoreError,
)
from provd.web import problems
from provd.web.problems import Hesitation, problem


def app_raising(error: BaseException) -> QuartTrio:
    app = QuartTrio("test")
    problems.install(app)

    @app.get("/api/it")
    @app.get("/page")
    @app.get("/events")
    async def it() -> str:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("there is no host 7"), 404),
        (Conflict("busy"), 409),
        (Refused("no"), 409),
        (Invalid("bad mac", "mac"), 422),
        (BadDocument("not JSON"), 400),
        (ClusterFailed("no quorum"), 502),
        (StoreError("locked"), 503),
        (ProvdError("something foreseen"), 500),
    ],
)
async def test_foreseen_errors_have_a_status_and_their_own_words(error: ProvdError, status: int) -> None:
    """Each class of `errors.py` is one status, and its message the detail of an RFC 9457 document."""
    response = await app_raising(error).test_client().get("/api/it")
    assert response.status_code == status
    assert response.mimetype == "application/problem+json"
    document = json.loads(await response.get_data())
    assert document["status"] == status
    assert document["detail"] == str(error)
    assert document.get("field") == getattr(error, "field", None)


async def test_group_with_one_foreseen_error_is_that_error() -> None:
    """What a nursery in a handler makes of an error does not hide it, however deep it is wrapped."""
    error = ExceptionGroup("outer", [ExceptionGroup("inner", [Conflict("busy")])])
    response = await app_raising(error).test_client().get("/api/it")
    assert response.status_code == 409


@pytest.mark.parametrize("error", [KeyError("hunter2"), ExceptionGroup("", [KeyError("hunter2")])])
@pytest.mark.parametrize("path", ["/api/it", "/page"])
async def test_bug_is_a_500_without_details(
    error: Exception, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of an unforeseen error goes out; its traceback is in the log."""
    response = await app_raising(error).test_client().get(path)
    assert response.status_code == 500
    body = await response.get_data()
    assert b"hunter2" not in body
    assert b"KeyError" not in body
    assert any(record.exc_info for record in caplog.records)
    assert "hunter2" in caplog.text


async def test_pages_get_plain_words() -> None:
    """A page's error is text and no markup, whatever its message quotes."""
    client = app_raising(NotFound("there is no <script>")).test_client()
    response = await client.get("/page")
    assert (response.status_code, response.mimetype) == (404, "text/plain")
    assert b"there is no <script>" in await response.get_data()
    assert (await client.get("/events")).mimetype == "application/problem+json"


async def test_routing_errors_are_problems_too() -> None:
    """Unknown paths and methods are told in the same form, with the methods that there are."""
    client = app_raising(NotFound("")).test_client()
    unknown = await client.get("/api/other")
    assert (unknown.status_code, unknown.mimetype) == (404, "application/problem+json")
    wrong = await client.post("/api/it")
    assert (wrong.status_code, wrong.mimetype) == (405, "application/problem+json")
    assert set(wrong.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert (await client.get("/other")).mimetype == "text/plain"


async def test_aborts_keep_their_status() -> None:
    """Werkzeug's HTTP errors keep their number."""
    app = QuartTrio("test")
    problems.install(app)

    @app.get("/api/<int:status>")
    async def it(status: int) -> str:
        abort(status)

    for status in (400, 408, 413, 415, 429, 503):
        response = await app.test_client().get(f"/api/{status}")
        assert json.loads(await response.get_data())["status"] == status


async def test_machines_get_one_answer_whatever_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    """Two reasons, one answer, byte for byte; the reason is in the log, and the answer not at once."""
    caplog.set_level(logging.INFO, "provd")
    answers = []
    for reason in ("unknown MAC", "wrong token"):
        began = trio.current_time()
        response = await app_raising(NotYourTurn(reason)).test_client().get("/api/it")
        assert trio.current_time() - began >= Hesitation.SECONDS[0]
        answers.append((response.status_code, dict(response.headers), await response.get_data()))
        assert f"got nothing: {reason}" in caplog.text
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert answers[0][1]["content-type"] == "text/plain; charset=utf-8"
    assert b"Nothing on its disks was touched" in answers[0][2]


async def test_only_so_many_hesitate_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    """A flood of guesses is answered at a bounded rate, and each in the end."""
    hesitate = Hesitation()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10 * Hesitation.AT_ONCE):
            nursery.start_soon(hesitate)
    assert trio.current_time() - began >= 10 * Hesitation.SECONDS[0]


async def test_problem_has_the_members_of_the_rfc() -> None:
    """Title, status, detail and our own members; without a title it is that of the status."""
    async with QuartTrio("test").app_context():
        response = problem(503, detail="too many", limit=3)
    assert json.loads(await response.get_data()) == {
        "title": "Service Unavailable",
        "status": 503,
        "detail": "too many",
        "limit": 3,
    }
