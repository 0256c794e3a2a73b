"""Pages and longer documents, smaller: gzip for whoever takes it. The files in `static/` have their own.

BREACH reads a secret off the lengths of compressed answers that carry both the secret and something
that the attacker chose. What is compressed here carries none: no page and no view shows a secret
(the tests look for it), there is no token in the forms, and a request that another site causes comes
without the cookie (SameSite=Strict). The one page that repeats a secret, the sign-in page with its
link's token, is for strangers, and theirs are left alone.
"""

import gzip

from quart import Quart, Response, g, request
from quart.wrappers.response import DataBody

from provd.web.gate import Plane, RouteClass

TYPES = frozenset({"text/html", "application/json"})
SMALLEST = 1024
"""Bytes. Below, it gains nothing that a packet would notice."""
LEVEL = 6
"""DHCP answers on the same loop: 200 kB, a page of 100 hosts, become 10 kB in 1 ms; drawing it takes 25."""


def install(app: Quart) -> None:
    """Compress what `app` answers to operators."""

    @app.after_request
    async def compress(response: Response) -> Response:
        route: RouteClass | None = g.get("route")
        if route is None or route.plane is not Plane.OPERATOR or response.mimetype not in TYPES:
            return response
        # Only what is there as a whole: streams and files go out as they are.
        if not isinstance(response.response, DataBody) or response.content_encoding:
            return response
        response.vary.add("Accept-Encoding")
        if response.status_code != 200 or request.accept_encodings.quality("gzip") <= 0:
            return response
        body = await response.get_data(as_text=False)
        if len(body) > SMALLEST:
            response.set_data(gzip.compress(body, LEVEL, mtime=0))
            response.content_encoding = "gzip"
        return response
