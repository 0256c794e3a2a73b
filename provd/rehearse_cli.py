"""`provd rehearse HOST`: what a rebuild would do, looked at beside a daemon or without one."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import trio

from provd.config import Config
from provd.credentials import credentials_dir, read_cluster_credentials
from provd.doctor_cli import WIDEST, Commands, folded
from provd.domain.rehearsal import Rehearsal, Result, Verdict
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.membership.link import ClusterLink
from provd.orchestrator.rehearsal.rehearsals import Rehearsals, standing_credentials
from provd.orchestrator.rehearsal.rehearse import rehearse
from provd.orchestrator.rehearsal.situation import Situation
from provd.orchestrator.rehearsal.view import rehearsal_view, sentence
from provd.server_types import ServerTypeBook
from provd.store import hosts
from provd.store.database import Store

SYMBOLS: Mapping[Result, str] = {Result.FINE: "✓", Result.BUT: "!", Result.UNKNOWN: "?", Result.NO: "✗"}
COLOURS: Mapping[Result, str] = {Result.FINE: "32", Result.BUT: "33", Result.UNKNOWN: "33", Result.NO: "31"}
EXIT_NO = 1
SECONDS = 20.0

OpenState = Callable[[Config], AbstractContextManager[Store]]


def add_commands(commands: Commands, add: Callable[..., None], open_state: OpenState) -> None:
    """`add` gives a command the arguments that all of them have; `open_state` opens the database."""

    def run(config: Config, options: argparse.Namespace) -> None:
        with open_state(config) as store:
            rehearse_host(config, store, options)

    one = commands.add_parser("rehearse", help="say what a rebuild of a host would do, and start nothing")
    one.add_argument("--drain", action="store_true", default=None, help="as if it were drained first")
    one.add_argument("--json", action="store_true", help="print everything as JSON")
    add(one, run, "hostname")


def rehearse_host(config: Config, store: Store, options: argparse.Namespace) -> None:
    """Exits with `EXIT_NO` where the answer is no."""
    situation = trio.run(looked_at, config, store, options.hostname, options.drain)
    rehearsal = rehearse(situation)
    if options.json:
        print(json.dumps(rehearsal_view(rehearsal, situation), indent=2))
    else:
        width = min(shutil.get_terminal_size().columns, WIDEST)
        print("\n".join(lines(rehearsal, width, colour=sys.stdout.isatty())))
    if rehearsal.verdict is Verdict.NO:
        sys.exit(EXIT_NO)


async def looked_at(config: Config, store: Store, hostname: str, drain: bool | None) -> Situation:
    host = store.read(lambda db: hosts.named(db, hostname))
    with trio.fail_after(SECONDS):
        return await open_rehearsals(config, store).look(host.id, drain=drain)


def open_rehearsals(config: Config, store: Store) -> Rehearsals:
    """With the configured credentials only: there is nobody to type a password."""
    has = read_cluster_credentials(config.credentials, credentials_dir(os.environ))
    link = ClusterLink(config.proxmox, store, Fleet(store, Bell()), has.token, has.password)
    book = ServerTypeBook(config.paths.server_types)
    return Rehearsals(config, store, book, link.survey, standing_credentials(has))


def lines(rehearsal: Rehearsal, width: int, *, colour: bool) -> Iterator[str]:
    """One check after the other, and the verdict at the end, where it is seen."""
    name = max((len(check.name) for check in rehearsal.checks), default=0)
    indent = " " * (name + 4)
    for check in rehearsal.checks:
        symbol = SYMBOLS[check.result]
        shown = f"\x1b[{COLOURS[check.result]}m{symbol}\x1b[0m" if colour else symbol
        yield f"{shown} {check.name:{name}}  {folded(check.what, width - len(indent), indent)}"
        if check.evidence:
            yield f"{indent}{folded(f'({check.evidence})', width - len(indent), indent)}"
        if check.mend:
            yield f"{indent}→ {folded(check.mend, width - len(indent) - 2, indent + '  ')}"
    yield ""
    yield folded(sentence(rehearsal), width, "")
