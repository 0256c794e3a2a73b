"""The one door through which a host's state changes.

A change is one transaction: the new state, what belongs to it, and the activity rows that tell it.
When it is on disk, and not before, each row goes to the journal and the bell rings once. Nobody is
told what happened; everybody is told to look again.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from attrs import Factory, define

from provd.domain.activity import Activity, Level, News
from provd.domain.documents import one_line
from provd.domain.errors import NotFound
from provd.domain.hosts import Host, HostId, Mac
from provd.domain.lifecycle import Fact, State, advance, has_reached
from provd.journal import log_context
from provd.orchestrator.bell import Bell
from provd.store import activity, hosts, operations
from provd.store.database import Db, Store, now

T = TypeVar("T")

log = logging.getLogger("provd.fleet")

_LOG_LEVELS = {Level.INFO: logging.INFO, Level.WARNING: logging.WARNING, Level.ERROR: logging.ERROR}

MESSAGE_LIMIT = 1200
"""Characters. Longer than any sentence of ours; a machine's own words are cut here."""


@define
class Change:
    """The pen, valid within one transaction."""

    db: Db
    at: datetime
    written: list[Activity] = Factory(list)

    def fact(self, host_id: HostId, fact: Fact, message: str, *, level: Level = Level.INFO) -> Host:
        """Write `fact` down and return the host as it is then.

        Compare its state with the one before to learn whether anything changed: a late or repeated
        fact is recorded and has no effect.
        """
        before = hosts.get(self.db, host_id).state
        after = advance(before, fact)
        if after is not before:
            hosts.set_state(self.db, host_id, after, self.at)
        self.note(
            News(
                event=f"host.{fact}",
                message=message if after is not before else f"{message} (nothing changes: {before})",
                level=level,
                host_id=host_id,
                before=before,
                after=after,
            )
        )
        return hosts.get(self.db, host_id)

    def note(self, news: News) -> None:
        """Write one line of history; a host's line belongs to the operation that has the host."""
        if news.operation_id is None and news.host_id is not None:
            holder = operations.active_on(self.db, news.host_id)
            operation_id = holder.id if holder is not None else None
        else:
            operation_id = news.operation_id
        line = News(
            event=news.event,
            message=one_line(news.message, MESSAGE_LIMIT),
            level=news.level,
            host_id=news.host_id,
            operation_id=operation_id,
            before=news.before,
            after=news.after,
        )
        self.written.append(activity.append(self.db, line, self.at))


class Fleet:
    def __init__(self, store: Store, bell: Bell) -> None:
        self.store = store
        self.bell = bell

    async def change(self, work: Callable[[Change], T]) -> T:
        """Run `work` in one transaction; tell what it wrote down when that is certain.

        An exception from `work` undoes all of it. A cancellation cannot come between the commit and
        the telling.
        """

        def transaction(db: Db) -> tuple[T, list[Activity]]:
            change = Change(db, now())
            return work(change), change.written

        result, written = await self.store.write(transaction)
        for line in written:
            with log_context(host=line.hostname or None, operation=line.operation_id):
                log.log(_LOG_LEVELS[line.level], line.message, extra={"event": line.event})
        self.bell.ring()
        return result

    async def note(self, news: News) -> None:
        await self.change(lambda change: change.note(news))

    async def sighted(self, mac: Mac, address: str, via: str, firmware: str = "") -> None:
        """An unregistered machine made itself heard: remembered always, told the first time."""

        def write(change: Change) -> None:
            if hosts.note_sighting(change.db, mac, address, via, change.at, firmware):
                change.note(
                    News(event="machine.sighted", message=f"unknown machine {mac} at {address}: {via}")
                )

        await self.change(write)

    async def reached(self, host_id: HostId, goal: State) -> Host:
        """Wait until the host stands at `goal` or beyond on the road of a rebuild."""
        while True:
            ring = self.bell.next()
            host = self.host(host_id)
            if has_reached(host.state, goal):
                return host
            await ring.wait()

    def host(self, host_id: HostId | None) -> Host:
        if host_id is None:
            raise NotFound("the host of this operation was removed")
        return self.store.read(lambda db: hosts.get(db, host_id))
