"""The history of one operation as a file: text for people, NDJSON for programs.

It ends where the log ended when it was asked for. Rows are read a batch at a time, each batch by a query
of its own, so that neither memory nor a transaction grows with the log.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import trio
from quart import Response, request
from quart.wrappers.response import ResponseBody

from provd.domain.activity import Activity
from provd.domain.documents import one_line
from provd.domain.operations import Operation
from provd.orchestrator.fleet import MESSAGE_LIMIT
from provd.store import activity
from provd.store.database import Store
from provd.web.views import activity_view, rfc3339

BATCH = 500
"""Rows in one chunk: some tens of kilobytes, and a millisecond or two of the loop."""


def as_text(line: Activity) -> str:
    return f"{rfc3339(line.at)}  {line.level:<7}  {one_line(line.message, MESSAGE_LIMIT)}\n"


def as_json(line: Activity) -> str:
    # ASCII: no machine's text can break a line.
    return json.dumps(activity_view(line), separators=(",", ":")) + "\n"


FORMS: Mapping[str, tuple[str, Callable[[Activity], str]]] = {
    "txt": ("text/plain; charset=utf-8", as_text),
    "ndjson": ("application/x-ndjson", as_json),
}
"""Content type and line of each kind of file."""


class LogFile(ResponseBody):
    """The lines after `last`, rendered, a batch at each step. No generator, as in `stream.py`."""

    def __init__(
        self, rows_after: Callable[[int], Sequence[Activity]], render: Callable[[Activity], str]
    ) -> None:
        self._rows_after = rows_after
        self._render = render
        self._last = 0

    async def __aenter__(self) -> "LogFile":
        return self

    async def __aexit__(self, *_: object) -> None:
        """There is nothing to close."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        rows = self._rows_after(self._last)
        if not rows:
            raise StopAsyncIteration
        self._last = rows[-1].id
        return "".join(map(self._render, rows)).encode()


def download(store: Store, operation: Operation, form: str) -> Response:
    content_type, render = FORMS[form]
    _, newest = store.read(activity.bounds)

    def rows_after(last: int) -> Sequence[Activity]:
        return store.read(lambda db: activity.after(db, last, BATCH, operation_id=operation.id, until=newest))

    # Quart answers HEAD with the view for GET.
    body = LogFile(rows_after, render) if request.method == "GET" else b""
    response = Response(body, content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{file_name(operation, form)}"'
    return response


def file_name(operation: Operation, form: str) -> str:
    """Letters, digits, dots and hyphens, whatever the host was called."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", operation.hostname).strip(".-") or "host"
    return f"{plain}-{operation.kind}-{operation.id}.{form}"
