"""`provd cluster …`: how the cluster stands and what a rebuild would lack, beside a daemon or without one."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import trio

from provd.cluster_watch import ClusterWatch, Look, look_view
from provd.config import Config
from provd.credentials import credentials_dir, read_cluster_credentials
from provd.doctor.findings import healthy
from provd.doctor_cli import EXIT_PROBLEM, WIDEST, Command, Commands, lines
from provd.domain.errors import NotFound
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.membership.link import ClusterLink, is_configured
from provd.orchestrator.membership.member_keys import MemberKeys
from provd.store import members
from provd.store.database import Db, Store
from provd.store.members import RememberedMember

OpenState = Callable[[Config], AbstractContextManager[Store]]

COLUMNS = ("member", "address", "votes", "state", "release", "certificate until")


def add_commands(commands: Commands, add: Callable[..., None], open_state: OpenState) -> None:
    """`add` gives a command the arguments that all of them have; `open_state` opens the database."""
    cluster = commands.add_parser("cluster", help="the Proxmox VE cluster that hosts join")
    actions = cluster.add_subparsers(required=True, metavar="ACTION")

    def with_state(action: Callable[[Config, Store, argparse.Namespace], None]) -> Command:
        def run(config: Config, options: argparse.Namespace) -> None:
            with open_state(config) as store:
                action(config, store, options)

        return run

    one = actions.add_parser("check", help="ask it how it stands, and what is missing to rebuild safely")
    one.add_argument("--json", action="store_true", help="print everything as JSON")
    add(one, with_state(check))
    one = actions.add_parser("forget", help="unpin a member's SSH host key, and do not ask it any more")
    add(one, with_state(forget), "name")


def check(config: Config, store: Store, options: argparse.Namespace) -> None:
    """Exits with `EXIT_PROBLEM` where a problem was found."""
    look, remembered = trio.run(looked_at, config, store)
    if options.json:
        print(json.dumps(look_view(look, remembered), indent=2))
    else:
        width = min(shutil.get_terminal_size().columns, WIDEST)
        print("\n".join(report(look, remembered, width, colour=sys.stdout.isatty())))
    if not healthy(look.findings):
        sys.exit(EXIT_PROBLEM)


async def looked_at(config: Config, store: Store) -> tuple[Look, Sequence[RememberedMember]]:
    credentials = read_cluster_credentials(config.credentials, credentials_dir(os.environ))
    fleet = Fleet(store, Bell())
    link = ClusterLink(config.proxmox, store, fleet, credentials.token, credentials.password)
    keys = MemberKeys(fleet, config.ssh.port)
    watch = ClusterWatch(config.proxmox, config.ssh, credentials, link, keys, fleet)
    return await watch.examine(knock=True), link.remembered()


def forget(config: Config, store: Store, options: argparse.Namespace) -> None:
    """The configured member loses its host key only: by its row the others are known to be of its cluster."""
    known = {one.name.lower(): one for one in store.read(members.everyone)}
    one = known.get(options.name.lower())
    if one is None:
        names = ", ".join(one.name for one in known.values()) or "none"
        raise NotFound(f"no member {options.name} is remembered; there are: {names}")

    def write(db: Db) -> None:
        if is_configured(config.proxmox, one):
            members.pin_host_keys(db, one.name, [])
        else:
            members.forget(db, [one.name])

    trio.run(store.write, write)
    print(f"{one.name} is forgotten; at the next contact its SSH host key is pinned anew")


def report(look: Look, remembered: Sequence[RememberedMember], width: int, *, colour: bool) -> Iterator[str]:
    """The members, how the votes stand, and the findings."""
    view = look_view(look, remembered)
    found = view["members"]
    assert isinstance(found, list)
    if found:
        yield f"{view['name']}, as {view['asked']} sees it"
        yield ""
        yield from table([COLUMNS, *(row(member) for member in found)])
        yield ""
        yield (
            f"{view['votes']} of {view['expected_votes']} votes are there, {view['quorum']} are needed, "
            f"{view['spare_votes']} to spare: {'quorate' if view['quorate'] else 'NO QUORUM'}"
        )
        services = view["ha_services"]
        yield f"HA services: {'unknown' if services is None else services}"
        yield ""
    elif remembered:
        yield "remembered: " + ", ".join(f"{one.name} ({one.address})" for one in remembered)
        yield ""
    yield from lines(look.findings, width, colour=colour)


def row(member: Mapping[str, object]) -> tuple[str, ...]:
    state = "online" if member["online"] else "OFFLINE"
    return (
        str(member["name"]),
        str(member["address"] or "?"),
        str(member["votes"]),
        f"{state}, maintenance" if member["maintenance"] else state,
        str(member["release"] or "?"),
        str(member["certificate_ends"] or "?")[:10],
    )


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for each in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)).rstrip()
