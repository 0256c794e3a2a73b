"""An operation is a cancel scope.

One function, `_run`, holds an operation's whole life: the story is told inside the scope, the
outcome is judged by how control left, and it is written down under a short shielded deadline, in
the one transaction that also moves the host, frees the lock and wipes the key.

There are four ways out, and no flag decides between them:

- the story ends                          -> done
- the story raises                        -> failed, with the error's sentence
- the scope was cancelled, by `cancel`    -> cancelled
- the daemon stops, and the cancellation
  comes from outside the scope            -> nothing is written; the next start resumes

The last is why a stop needs no code here: a half-installed machine cannot be asked to wait, and a
graceful stop takes the same way back as kill -9.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from attrs import define, field

from provd.domain.activity import Level, News
from provd.domain.errors import Conflict, ProvdError, leaves_of
from provd.domain.hosts import Host, HostId, OperationId
from provd.domain.lifecycle import SETTLED, Fact, State
from provd.domain.operations import Kind, Operation, Outcome, Wish
from provd.journal import log_context
from provd.orchestrator.fleet import Change, Fleet
from provd.store import hosts, operations

log = logging.getLogger("provd.operations")

CLEAN_UP_SECONDS = 15.0
"""How long a cancelled operation may try to take its key off the host before it gives up."""

WRITE_DOWN_SECONDS = 20.0
"""Longer than the database may be busy. If even this fails, the daemon falls, and is seen to."""

_LEVELS: Mapping[Outcome, Level] = {
    Outcome.DONE: Level.INFO,
    Outcome.CANCELLED: Level.WARNING,
    Outcome.FAILED: Level.ERROR,
}


A_BUG = "a bug in provd"


class Story(Protocol):
    """What an operation does. `begin`, `conclude` and `break_off` run inside the operation's transactions."""

    def begin(self, change: Change, host: Host, operation: Operation, wish: Wish) -> None:
        """Raises `Refused` for what cannot be: then nothing has begun."""

    async def tell(self, operation: Operation) -> None:
        """Do it, from wherever the host stands: after a restart it is told again."""

    async def clean_up(self, operation: Operation, outcome: Outcome) -> None:
        """Take back what can be taken back from the host. The caller sets the deadline."""

    def conclude(self, change: Change, operation: Operation) -> None:
        """It is done."""

    def break_off(self, change: Change, operation: Operation, host: Host, outcome: Outcome) -> None:
        """It ended otherwise. The operation's secrets are there for the last time."""


@define
class _Live:
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    over: trio.Event = field(factory=trio.Event)
    verdict: tuple[Outcome, str] = (Outcome.CANCELLED, "cancelled")


class Operations:
    def __init__(self, fleet: Fleet, stories: Mapping[Kind, Story], nursery: trio.Nursery) -> None:
        self._fleet = fleet
        self._stories = stories
        self._nursery = nursery
        self._live: dict[OperationId, _Live] = {}

    async def start(
        self, host_id: HostId, kind: Kind, started_by: str, wish: Wish | None = None
    ) -> Operation:
        """Take the host and begin. Raises `Conflict` when it is taken, `NotFound` when there is none."""

        def begin(change: Change) -> Operation:
            host = hosts.get(change.db, host_id)
            operation = operations.open_(change.db, host, kind, started_by, change.at)
            self._stories[kind].begin(change, host, operation, wish or Wish())
            return operation

        operation = await self._fleet.change(begin)
        # No checkpoint since the commit: an operation in the database is an operation in the nursery.
        self._launch(operation)
        return operation

    def resume(self) -> None:
        """Take up every operation that was active when the daemon stopped or was stopped.

        Those in the middle of a join go first: they may hold the cluster already.
        """
        for operation in sorted(self._fleet.store.read(operations.active), key=self._is_waiting_to_join):
            self._launch(operation)

    async def cancel(self, operation_id: OperationId, by: str) -> Operation:
        """Cancel, and return when it is really over: host failed, lock free, key gone."""
        await self._end(operation_id, Outcome.CANCELLED, f"cancelled by {by}")
        return self._fleet.store.read(lambda db: operations.get(db, operation_id))

    async def fail(self, operation_id: OperationId, error: ProvdError) -> None:
        """End it because of something that its own task cannot see; return when it is over.

        Nothing happens to one that is over already: then something else was seen first.
        """
        if operation_id in self._live:
            await self._end(operation_id, Outcome.FAILED, str(error))

    async def _end(self, operation_id: OperationId, outcome: Outcome, detail: str) -> None:
        live = self._live.get(operation_id)
        if live is None:
            over = self._fleet.store.read(lambda db: operations.get(db, operation_id))
            raise Conflict(f"operation {operation_id} is over already: {over.outcome}")
        live.verdict = (outcome, detail)
        live.scope.cancel(reason=detail)
        await live.over.wait()

    def _launch(self, operation: Operation) -> None:
        live = self._live[operation.id] = _Live()
        self._nursery.start_soon(
            self._run, operation, live, name=f"{operation.kind} {operation.id} of {operation.hostname}"
        )

    async def _run(self, operation: Operation, live: _Live) -> None:
        with log_context(host=operation.hostname, operation=operation.id):
            try:
                outcome, detail = Outcome.DONE, ""
                try:
                    with live.scope:
                        await self._stories[operation.kind].tell(operation)
                    if live.scope.cancelled_caught:
                        outcome, detail = live.verdict
                except Exception as exc:  # outside the scope: inside, a mixed group would slip by
                    # A stop tears connections down, and what breaks by that is not a failure.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    outcome, detail = Outcome.FAILED, describe(exc)
                await self._close(operation, outcome, detail)
            finally:
                del self._live[operation.id]
                live.over.set()

    async def _close(self, operation: Operation, outcome: Outcome, detail: str) -> None:
        story = self._stories[operation.kind]
        if outcome is not Outcome.DONE:
            with trio.move_on_after(CLEAN_UP_SECONDS, shield=True):
                await story.clean_up(operation, outcome)

        def close(change: Change) -> None:
            host_id = operations.get(change.db, operation.id).host_id
            if outcome is Outcome.DONE:
                story.conclude(change, operation)
            elif host_id is not None:
                host = hosts.get(change.db, host_id)
                story.break_off(change, operation, host, outcome)
                if host.state not in SETTLED:
                    change.fact(host_id, Fact.BROKEN_OFF, "given up: it boots its own disk from here on")
            operations.close(change.db, operation.id, outcome, detail, change.at)
            change.note(
                News(
                    event=f"operation.{outcome}",
                    message=f"{operation.kind} of {operation.hostname} {outcome}"
                    + (f": {detail}" if detail else ""),
                    level=_LEVELS[outcome],
                    host_id=host_id,
                    operation_id=operation.id,
                )
            )

        with trio.fail_after(WRITE_DOWN_SECONDS, shield=True):
            await self._fleet.change(close)
            await self._fleet.store.fold_log()

    def _is_waiting_to_join(self, operation: Operation) -> bool:
        return self._fleet.host(operation.host_id).state is not State.JOINING


@asynccontextmanager
async def open_operations(fleet: Fleet, stories: Mapping[Kind, Story]) -> AsyncIterator[Operations]:
    """The nursery in which all operations live. Leaving it stops them without ending them."""
    async with trio.open_nursery() as nursery:
        yield Operations(fleet, stories, nursery)
        nursery.cancel_scope.cancel(reason="provd stops")


def describe(exc: Exception) -> str:
    """One sentence for the operator: a foreseen error's own, or that this is a bug."""
    if isinstance(exc, ProvdError):
        return str(exc)
    if isinstance(exc, ExceptionGroup):
        foreseen, unforeseen = exc.split(ProvdError)
        if foreseen is not None and unforeseen is None:
            return "; ".join(str(leaf) for leaf in leaves_of(foreseen))
    log.error("an operation met a bug", exc_info=exc)
    return f"{A_BUG} ({type(exc).__name__}); the journal has the traceback"
