"""Tells the inventory, again and again until it listens. A join is never undone because it does not."""

from datetime import timedelta

import trio

from provd.config import InfrastructureSection
from provd.domain.activity import Level, News
from provd.domain.errors import InventoryFailed
from provd.domain.hosts import Host
from provd.domain.operations import Operation
from provd.domain.secrets import Secret
from provd.http_client import AsyncClient
from provd.orchestrator.fleet import Change, Fleet
from provd.remote.inventory import Registration, register, retry_delay
from provd.store import registrations
from provd.store.database import now
from provd.store.registrations import Pending

ATTEMPT_SECONDS = 60.0
"""For the whole of one request. An inventory that drips its answer must not keep others waiting."""


def put(change: Change, section: InfrastructureSection, host: Host, operation: Operation) -> None:
    """With the very transaction that makes a host ready, see to it that the inventory is told."""
    if not section.base_url:
        return
    type_id = section.server_type_map.get(host.server_type)
    if type_id is None:
        change.note(
            News(
                event="inventory.skipped",
                message=f"the inventory is not told: infrastructure.server_type_map has no entry "
                f"for {host.server_type!r}",
                level=Level.WARNING,
                host_id=host.id,
                operation_id=operation.id,
            )
        )
        return
    registrations.put(
        change.db,
        Pending(
            host_id=host.id,
            hardware_id=host.hardware_id or f"mac-{host.mac}",
            hostname=host.hostname,
            ip=str(host.ip),
            mac=str(host.mac),
            server_type_id=type_id,
            operation_id=operation.id,
            next_try_at=change.at,
        ),
    )


async def serve(
    fleet: Fleet, section: InfrastructureSection, token: Secret | None, client: AsyncClient
) -> None:
    """Deliver what is due, for ever. What is not delivered stays in the database.

    A start tries everything at once and begins with short delays again: whoever restarts provd has put
    something right, and after a power cut the inventory is hardly slower than provd.
    """
    await fleet.store.write(lambda db: registrations.try_anew(db, now()))
    while True:
        ring = fleet.bell.next()
        waiting = fleet.store.read(registrations.everything)
        due = [pending for pending in waiting if pending.next_try_at <= now()]
        if due:
            await _deliver(fleet, section, token, client, due[0])
            continue
        pause = max(0.0, (waiting[0].next_try_at - now()).total_seconds()) if waiting else float("inf")
        with trio.move_on_after(pause):
            await ring.wait()


async def _deliver(
    fleet: Fleet,
    section: InfrastructureSection,
    token: Secret | None,
    client: AsyncClient,
    pending: Pending,
) -> None:
    registration = Registration(
        hardware_id=pending.hardware_id,
        hostname=pending.hostname,
        ip=pending.ip,
        mac=pending.mac,
        server_type_id=pending.server_type_id,
    )
    error = f"the inventory at {section.base_url} took more than {round(ATTEMPT_SECONDS)} s to answer"
    with trio.move_on_after(ATTEMPT_SECONDS):
        try:
            await register(client, section.base_url, token, registration)
            error = ""
        except InventoryFailed as exc:
            error = str(exc)

    def write(change: Change) -> None:
        if registrations.of_host(change.db, pending.host_id) != pending:
            return  # the host was removed meanwhile, or is to be told of anew
        if not error:
            registrations.told(change.db, pending.host_id)
            message, event, level = f"{pending.hostname} is in the inventory", "inventory.told", Level.INFO
        else:
            delay = timedelta(seconds=retry_delay(pending.attempts + 1))
            registrations.failed(change.db, pending.host_id, error, change.at + delay)
            message = f"the inventory is not told yet, next try in {round(delay.total_seconds())} s: {error}"
            event, level = "inventory.pending", Level.WARNING
        # The same complaint once is enough; the outbox itself says how often it was tried.
        if error != pending.last_error or not error:
            change.note(
                News(
                    event=event,
                    message=message,
                    level=level,
                    host_id=pending.host_id,
                    operation_id=pending.operation_id,
                )
            )

    await fleet.change(write)
