"""The wiring: configuration -> parts -> one nursery. It reads like a list, and is meant to.

What must outlive others is opened outside them. The database is outermost, because the last word of
an operation is written there; the listeners are innermost, and stop first.
"""

import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import trio

from provd import network_boot, systemd
from provd.cluster_watch import ClusterWatch
from provd.config import Config, read_credential
from provd.credentials import credentials_dir, read_cluster_credentials
from provd.doctor.doctor import Doctor
from provd.doctor.storage import KnownImage
from provd.domain.activity import Level, News
from provd.domain.errors import ConfigError
from provd.domain.hosts import Host
from provd.domain.operations import Kind
from provd.domain.secrets import Secret
from provd.http_client import open_client
from provd.orchestrator import outbox
from provd.orchestrator.bell import Bell
from provd.orchestrator.boot import BootDesk
from provd.orchestrator.decommission import Decommission
from provd.orchestrator.downloads import Downloads
from provd.orchestrator.enrolment import Enrolment
from provd.orchestrator.entering import Entering
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.front_desk import FrontDesk
from provd.orchestrator.image_jobs import open_image_jobs
from provd.orchestrator.images import ImageLibrary
from provd.orchestrator.installers import Installers
from provd.orchestrator.membership.admin import ClusterAdmin
from provd.orchestrator.membership.departing import Departing
from provd.orchestrator.membership.leaving import Leaving
from provd.orchestrator.membership.link import ClusterLink
from provd.orchestrator.membership.member_keys import MemberKeys
from provd.orchestrator.membership.turns import Turns
from provd.orchestrator.operations import Story, open_operations
from provd.orchestrator.pace import Pace
from provd.orchestrator.passwords import ClusterPasswords
from provd.orchestrator.rebuild import Rebuild
from provd.orchestrator.rehearsal.rehearsals import Rehearsals, standing_credentials
from provd.orchestrator.rejoin import Rejoin
from provd.orchestrator.trail import Trail
from provd.orchestrator.waits import Waits
from provd.orchestrator.waking import Waker
from provd.proxmox.installer_files import INITRD, ISO, KERNEL
from provd.proxmox.mode_file import build_mode_file
from provd.remote.inventory import unregister
from provd.remote.keys import Seal, load_master_key
from provd.server_types import ServerTypeBook
from provd.store import activity, retries
from provd.store.database import Db, now, open_store
from provd.store.images import Image
from provd.web import access, image_server, server
from provd.web.app import create_app
from provd.web.parts import Parts

log = logging.getLogger("provd")

API_TOKEN_VARIABLE = "PROVD_API_TOKEN"  # noqa: S105  # its name, not its value
"""A token to accept from the start, for scripts that start provd themselves."""

FIRST_LINK_LIVES = timedelta(days=1)


async def run(config: Config, environ: Mapping[str, str] = os.environ) -> None:
    """Serve until SIGTERM or SIGINT. Raises `ProvdError` for what keeps it from starting."""
    first_start = not database_path(config).exists()
    with (
        sole_daemon(config.paths.state_dir),
        closing(server.listen(config.server.listen)) as socket,
        closing(server.listen(config.server.image_listen)) as image_socket,
    ):
        async with open_parts(config, environ) as parts, trio.open_nursery() as services:
            await services.start(stop_on_signal, services.cancel_scope, parts)
            await services.start(parts.book.watch, lambda: tell_of_types(parts))
            await let_in(parts, environ, first_start)

            services.start_soon(parts.trail.serve)
            await services.start(image_server.serve, parts.installers, parts.downloads, [image_socket])
            if config.pxe.enabled:
                await services.start(network_boot.serve, config, parts.boot, parts.front_desk)
            parts.operations.resume()
            services.start_soon(deliver_to_inventory, parts, environ)
            services.start_soon(parts.cluster_watch.serve)
            await services.start(server.serve, create_app(parts), [socket])
            log.info("listening on %s; open %s", config.server.listen, config.server.public_url)

            services.start_soon(systemd.feed_watchdog, systemd.watchdog_interval(environ))
            services.start_soon(forget_what_is_over, parts)
            systemd.notify("READY=1")
    log.info("stopped; what was going on will be taken up at the next start")


@contextmanager
def sole_daemon(state_dir: Path) -> Iterator[None]:
    """Two daemons on one database would each take up the same operations. Raises `ConfigError`.

    The kernel gives the lock back however the process ends.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state_dir / "provd.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigError(f"another provd is running on {state_dir}") from exc
        yield


@asynccontextmanager
async def open_parts(config: Config, environ: Mapping[str, str]) -> AsyncIterator[Parts]:
    credentials = credentials_dir(environ)
    book = ServerTypeBook(config.paths.server_types)
    boot = network_boot.open_network_boot(config)
    cluster = read_cluster_credentials(config.credentials, credentials)
    with open_store(database_path(config)) as store:
        key = load_master_key(config.paths.state_dir, credentials)
        seal = Seal(key)
        bell = Bell()
        fleet = Fleet(store, bell)
        passwords = ClusterPasswords(cluster.password, bell)
        link = ClusterLink(config.proxmox, store, fleet, cluster.token, cluster.password)
        waker = Waker(fleet, boot.lan)
        waits, turns = Waits(config, book, fleet), Turns(fleet)
        member_keys = MemberKeys(fleet, config.ssh.port)
        admin = ClusterAdmin(link, member_keys, config.ssh, cluster.key)
        leaving = Leaving(fleet, turns, admin)
        entering = Entering(config, fleet, seal, passwords, turns, admin, leaving, waits)
        unlist = partial(take_out_of_inventory, config, environ)
        stories: dict[Kind, Story] = {
            Kind.REBUILD: Rebuild(config, fleet, seal, waker, waits, leaving, entering),
            Kind.REJOIN: Rejoin(fleet, entering, waits),
            Kind.DECOMMISSION: Decommission(fleet, leaving, entering, unlist),
        }
        installers = Installers(config, fleet, key, partial(mode_file_of, config))
        trail = Trail(
            fleet,
            public_url=config.server.public_url,
            installer_url=config.proxmox.installer_url or config.server.image_url,
            own_images=not config.proxmox.installer_url,
            pxe=config.pxe.enabled,
            downloading=lambda host_id: any(one.host_id == host_id for one in downloads.current()),
        )
        downloads = Downloads(partial(network_boot.tell_download, fleet, trail.heard))
        async with (
            open_image_jobs(config, fleet) as image_jobs,
            open_operations(fleet, stories) as operations,
        ):
            yield Parts(
                config=config,
                book=book,
                store=store,
                bell=bell,
                fleet=fleet,
                enrolment=Enrolment(config, book, fleet),
                waits=waits,
                pace=Pace(store),
                turns=turns,
                operations=operations,
                departing=Departing(fleet, link, passwords, operations, drain=config.proxmox.drain),
                entering=entering,
                passwords=passwords,
                cluster_link=link,
                cluster_watch=ClusterWatch(config.proxmox, config.ssh, cluster, link, member_keys, fleet),
                rehearsals=Rehearsals(config, store, book, link.survey, standing_credentials(cluster)),
                cluster_token=cluster.token,
                cluster_key=cluster.key,
                desk=BootDesk(config, book, fleet, operations, seal, installers, trail.heard),
                boot=boot,
                front_desk=FrontDesk(store, config.pxe.unknown, trail.heard),
                trail=trail,
                waker=waker,
                installers=installers,
                downloads=downloads,
                image_jobs=image_jobs,
                doctor=Doctor(
                    config,
                    environ,
                    images=partial(known_images, image_jobs.library),
                    loaders=boot.loaders if boot.address else None,
                    loader_url=f"{network_boot.url_at(config.server, boot.address.ip)}/boot"
                    if boot.address
                    else "",
                ),
            )


def known_images(library: ImageLibrary) -> list[KnownImage]:
    """What the doctor looks for on the disk."""
    return [
        KnownImage(
            name=image.name,
            default=image.is_default,
            files={library.files.of(image.name) / file: None for file in (KERNEL, INITRD, ISO)},
        )
        for image in library.everything()
    ]


def mode_file_of(config: Config, image: Image, token: Secret) -> bytes:
    """What tells an installer where its answer is, and lets it show that it was sent there."""
    return build_mode_file(image.release, f"{config.server.public_url}/api/boot/answer", token=token)


async def let_in(parts: Parts, environ: Mapping[str, str], first_start: bool) -> None:
    """Accept the token that was given; at the first start, say how a human comes in."""
    server_section = parts.config.server
    if (token := environ.get(API_TOKEN_VARIABLE)) is not None:
        await access.accept_token(parts.store, "environment", Secret(token))
    if not server_section.auth:
        log.warning("server.auth is off: whoever reaches this port may wipe every host")
    elif first_start:
        link = await access.create_sign_in_link(parts.store, server_section.public_url, FIRST_LINK_LIVES)
        # The one secret that is printed: it works once, for a day, and somebody has to get in.
        log.info("first start: sign in, once, at %s (later: provd sign-in)", link.reveal())


async def tell_of_types(parts: Parts) -> None:
    """server-types.yaml changed. A bad edit leaves the old types in force and is said aloud."""
    if parts.book.problem is None:
        news = News(event="server_types.reloaded", message="server-types.yaml was read anew")
    else:
        news = News(
            event="server_types.refused",
            message=f"server-types.yaml cannot be used, the old one stays in force: {parts.book.problem}",
            level=Level.ERROR,
        )
    await parts.fleet.note(news)


async def take_out_of_inventory(config: Config, environ: Mapping[str, str], host: Host) -> str:
    section = config.infrastructure
    if not section.base_url:
        return "there is no inventory to take it out of"
    token = read_credential(
        config.credentials.infrastructure_token_file, "infrastructure-token", credentials_dir(environ)
    )
    async with open_client() as client:
        await unregister(client, section.base_url, token, host.hardware_id or f"mac-{host.mac}")
    return f"{host.hostname} is not in the inventory any more"


async def deliver_to_inventory(parts: Parts, environ: Mapping[str, str]) -> None:
    section = parts.config.infrastructure
    if not section.base_url:
        return
    token = read_credential(
        parts.config.credentials.infrastructure_token_file,
        "infrastructure-token",
        credentials_dir(environ),
    )
    async with open_client() as client:
        await outbox.serve(parts.fleet, section, token, client)


async def forget_what_is_over(parts: Parts) -> None:
    """Old history, and keys of failed joins that their hosts do not honour any more."""

    def forget(db: Db) -> None:
        activity.prune(db, now())
        retries.forget_expired(db, now())

    while True:
        await parts.store.write(forget)
        await trio.sleep(3600)


async def stop_on_signal(
    everything: trio.CancelScope,
    parts: Parts,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """SIGTERM and SIGINT stop the daemon, SIGHUP reads server-types.yaml anew."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                parts.book.reload()
                await tell_of_types(parts)
                continue
            name = signal.Signals(number).name
            log.info("%s: stopping", name)
            systemd.notify("STOPPING=1")
            everything.cancel(reason=name)


def database_path(config: Config) -> Path:
    return config.paths.state_dir / "provd.db"
