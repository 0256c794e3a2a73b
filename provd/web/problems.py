"""Errors as answers: a problem document (RFC 9457) for programs, a few plain words for people.

What an error means is its class (`provd/domain/errors.py`); this file only knows the number HTTP
has for it. Whatever was not foreseen is a bug: it is logged with its traceback and answered without
a detail, and the next request is served as if nothing had been.
"""

import logging
import random
from collections.abc import Mapping
from http import HTTPStatus

import trio
from quart import Quart, Response, request
from quart.json import dumps
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed

from provd.domain.errors import (
    BadPeer,
    Conflict,
    Invalid,
    NotFound,
    NotYourTurn,
    OutsideFailed,
    ProvdError,
    Refused,
    StoreError,
)

log = logging.getLogger(__name__)

STATUS: Mapping[type[ProvdError], int] = {
    NotFound: 404,
    Conflict: 409,
    Invalid: 422,
    Refused: 409,
    BadPeer: 400,
    OutsideFailed: 502,
    StoreError: 503,
    ProvdError: 500,
}
"""The nearest ancestor of an error's class decides."""

FOR_PROGRAMS = ("/api/", "/events", "/healthz")

NOTHING_HERE = """\
provd has nothing for this machine at the moment.

Nothing on its disks was touched. If it should be installed: is it registered in provd with this
network card's MAC address, was "Rebuild" pressed, and not too long ago? provd's log and the page of
the host say what was wrong with this request.
"""
"""The one answer to a machine that gets nothing, whatever the reason: unknown, wrong token, too late.
Proxmox's installer prints it on the console of the machine."""


class Hesitation:
    """A short, random wait before a "no": guessing gets slow, and timing tells nothing.

    Only so many wait at a time and the rest queue up behind them, so that all the guessers together
    get about a hundred answers a second. Their number is bounded by the server's connections.
    """

    SECONDS = (0.15, 0.4)
    AT_ONCE = 32

    def __init__(self) -> None:
        self._places = trio.CapacityLimiter(self.AT_ONCE)

    async def __call__(self) -> None:
        async with self._places:
            await trio.sleep(random.uniform(*self.SECONDS))  # noqa: S311  # no secret, only jitter


def problem(status: int, title: str | None = None, detail: str = "", **members: object) -> Response:
    """A problem document. Without a title its type is "about:blank": the status says it all (§4.2.1)."""
    document: dict[str, object] = {"title": title or HTTPStatus(status).phrase, "status": status}
    if detail:
        document["detail"] = detail
    return Response(dumps(document | members) + "\n", status=status, content_type="application/problem+json")


def plain(status: int, detail: str) -> Response:
    """The same for a page: text, so that nothing a stranger put into a URL is ever markup."""
    text = f"{status} {HTTPStatus(status).phrase}\n\n{detail}\n"
    return Response(text, status=status, content_type="text/plain; charset=utf-8")


def refusal(status: int, detail: str, **members: object) -> Response:
    """A problem document or plain words, whichever the path of this request is for."""
    if request.path.startswith(FOR_PROGRAMS):
        return problem(status, None, detail, **members)
    return plain(status, detail)


def status_of(error: ProvdError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def install(app: Quart) -> None:
    """Register the handlers. quart-trio looks into exception groups for the first error with a handler."""
    # Under test, too, a bug is a 500.
    app.config["PROPAGATE_EXCEPTIONS"] = False
    hesitate = Hesitation()

    @app.errorhandler(ProvdError)
    async def foreseen(error: ProvdError) -> Response:
        status = status_of(error)
        if status >= 500:
            log.warning("%s %s failed: %s", request.method, request.path, error)
        members = {"field": error.field} if isinstance(error, Invalid) and error.field else {}
        return refusal(status, str(error), **members)

    @app.errorhandler(NotYourTurn)
    async def not_your_turn(error: NotYourTurn) -> Response:
        log.info("%s %s from %s got nothing: %s", request.method, request.path, request.remote_addr, error)
        await hesitate()
        return Response(NOTHING_HERE, status=404, content_type="text/plain; charset=utf-8")

    @app.errorhandler(HTTPException)
    async def http(error: HTTPException) -> Response:
        response = refusal(error.code or 500, error.description or "")
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response

    @app.errorhandler(InternalServerError)
    async def unforeseen(error: InternalServerError) -> Response:
        # Quart has logged the traceback. Nothing of the error itself goes out: it may quote anything.
        return refusal(500, "provd met an error of its own; its log has the details")
