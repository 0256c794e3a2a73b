"""How a page is drawn: one template, strict and escaped, with what stands on all of them.

A page shows what the API would say (`views.py`) and changes nothing: every button goes through the
REST API. Whatever a machine or a stranger supplied is text here, escaped without exception. The
scripts in `static/` keep true what was drawn once.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache

from attrs import frozen
from jinja2 import Environment, PackageLoader, StrictUndefined
from quart import Response, g, request

from provd.domain.errors import NotFound
from provd.domain.lifecycle import ROAD, SETTLED, State
from provd.server_types import ServerTypeBook
from provd.store import activity
from provd.store.database import Store, now
from provd.web import assets
from provd.web.views import View, activity_view, rfc3339

RECENT = 50
"""Lines and operations in a list that is there for a glance."""

DRAWER_LINES = 100
"""In the activity drawer, when it is open."""

THEMES = ("light", "dark")
"""What a reader may choose over their system's."""

ROOMS = (("/", "Hosts"), ("/cluster", "Cluster"), ("/images", "Images"), ("/doctor", "Doctor"))
"""The pages that stand in the header of each."""


@frozen
class Pages:
    """What every page needs, whatever it is about."""

    book: ServerTypeBook
    store: Store

    def open(self, template: str) -> "Page":
        """Before anything is read: what happens meanwhile is told twice rather than not at all."""
        after, newest = self.store.read(lambda db: (activity.bounds(db)[1], activity.latest(db, 1)))
        return Page(self, template, after, activity_view(newest[0]) if newest else None)

    async def missing(self, error: NotFound) -> Response:
        """An error handler: a page that says what is not there."""
        reason = str(error)
        response = self.open("missing.html").draw(reason=reason[:1].upper() + reason[1:])
        response.status_code = 404
        return response


@frozen
class Page:
    pages: Pages
    template: str
    after: int
    """The newest line that it can have shown: its event stream goes on from there."""
    newest: View | None
    """That line, for the drawer; none where history is empty."""

    def draw(self, **context: object) -> Response:
        html = (
            environment()
            .get_template(self.template)
            .render(
                actor=g.actor,
                auth_off=g.auth_off,
                problem=self.pages.book.problem,
                now=rfc3339(now()),
                after=self.after,
                newest=self.newest,
                drawer_lines=DRAWER_LINES,
                assets=assets.version(),
                theme=chosen_theme(),
                rooms=ROOMS,
                here=request.path,
                room="/" if request.path.startswith(("/hosts/", "/ops/")) else "",
                **context,
            )
        )
        return Response(html, content_type="text/html; charset=utf-8")


def chosen_theme() -> str:
    """Of this request's reader; empty: as the system says. `static/theme.js` writes the cookie."""
    theme = request.cookies.get("theme", "")
    return theme if theme in THEMES else ""


@cache
def environment() -> Environment:
    """Strict: an unknown name is an error, and every value is escaped."""
    made = Environment(
        loader=PackageLoader("provd.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "moment": lambda at: f"{_parse(at):%Y-%m-%d %H:%M:%S} UTC" if at else "",
        "clock": lambda at: f"{_parse(at):%d %b %H:%M}" if at else "",
        "lasting": lambda since, until: duration(_seconds(since, until)) if since else "",
        "due": lambda by, at: due(_seconds(at, by)) if by else "",
        "roughly": roughly,
        "pace": lambda since, at, usual: pace(_seconds(since, at), usual),
        "group": group,
        "place": place,
        "step": lambda state, on: f"step {ROAD.index(state) + 1} of {len(ROAD)}" if on else "",
    }
    made.globals |= {"road": ROAD}
    return made


# --- words ----------------------------------------------------------------------------------------


def group(host: View) -> str:
    """What a host is to somebody who looks at all of them. `static/filter.js` says the same."""
    if host["attention"] in ("password", "late"):
        return "waiting"
    return str(host["state"]) if host["state"] in SETTLED else "working"


def place(step: State, state: State) -> str:
    """Where `step` lies as seen from a host in `state`."""
    if state not in ROAD or ROAD.index(step) > ROAD.index(state):
        return "ahead"
    return "here" if step == state else "done"


def duration(seconds: float) -> str:
    """The two largest units that say something. `static/durations.js` speaks the same way."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def roughly(seconds: float) -> str:
    """As people say what something usually takes. `static/durations.js` speaks the same way."""
    if seconds < 90:
        return f"{max(1, int(seconds + 0.5))} s"
    minutes = int(seconds / 60 + 0.5)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def pace(seconds: float, usual: Mapping[str, float]) -> float:
    """How much of the usual time of the whole way is over, after so many seconds in a state.

    What takes longer than it usually does waits at the end of its own part. As in `static/durations.js`.
    """
    return usual["before_seconds"] + max(0.0, min(seconds, usual["state_seconds"]))


def due(seconds: float) -> str:
    return f"{duration(seconds)} left" if seconds >= 0 else f"overdue for {duration(-seconds)}"


def _seconds(since: str, until: str) -> float:
    return (_parse(until) - _parse(since)).total_seconds()


def _parse(at: str) -> datetime:
    return datetime.fromisoformat(at)
