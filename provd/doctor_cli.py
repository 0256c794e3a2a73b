"""`provd doctor`: what is wrong with the network-boot set-up, on a terminal or as JSON."""

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import attrs
import trio

from provd.config import Config
from provd.doctor.doctor import router_snippets
from provd.doctor.examination import LISTENING, examine
from provd.doctor.findings import Finding, Result, healthy
from provd.domain.errors import NotFound

SYMBOLS: Mapping[Result, str] = {
    Result.OK: "✓",
    Result.WARNING: "!",
    Result.PROBLEM: "✗",
    Result.SKIPPED: "-",
}
COLOURS: Mapping[Result, str] = {
    Result.OK: "32",
    Result.WARNING: "33",
    Result.PROBLEM: "31",
    Result.SKIPPED: "2",
}
EXIT_PROBLEM = 1
WIDEST = 110

Command = Callable[[Config, argparse.Namespace], None]


class Commands(Protocol):
    """What `ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...


def add_commands(commands: Commands, add: Callable[[argparse.ArgumentParser, Command], None]) -> None:
    """`add` is what gives a command the arguments that all of them have."""
    one = commands.add_parser("doctor", help="say what is wrong with the network boot, and how to mend it")
    one.add_argument("--json", action="store_true", help="print the findings as JSON")
    one.add_argument("--no-probe", action="store_true", help="send no packets")
    one.add_argument(
        "--listen",
        type=float,
        default=LISTENING,
        metavar="SECONDS",
        help=f"how long to wait for answers (default: {LISTENING})",
    )
    one.add_argument(
        "--router", metavar="NAME", help="print what to set in a router instead: dnsmasq, kea, …"
    )
    add(one, doctor)


def doctor(config: Config, options: argparse.Namespace) -> None:
    """Exits with `EXIT_PROBLEM` where a problem was found."""
    if options.router is not None:
        print(router(config, options.router))
        return
    findings = trio.run(looked_at, config, None if options.no_probe else options.listen)
    if options.json:
        print(
            json.dumps(
                {"healthy": healthy(findings), "findings": list(map(attrs.asdict, findings))}, indent=2
            )
        )
    else:
        width = min(shutil.get_terminal_size().columns, WIDEST)
        print("\n".join(lines(findings, width, colour=sys.stdout.isatty())))
    if not healthy(findings):
        sys.exit(EXIT_PROBLEM)


async def looked_at(config: Config, listening: float | None) -> list[Finding]:
    return await examine(config, os.environ, listening=listening)


def lines(findings: Iterable[Finding], width: int, *, colour: bool) -> Iterator[str]:
    """One finding after the other, and how many of each kind at the end."""
    known = list(findings)
    name = max((len(finding.check) for finding in known), default=0)
    indent = " " * (name + 4)
    for finding in known:
        symbol = SYMBOLS[finding.result]
        shown = f"\x1b[{COLOURS[finding.result]}m{symbol}\x1b[0m" if colour else symbol
        text = folded(finding.what, width - len(indent), indent)
        yield f"{shown} {finding.check:{name}}  {text}"
        if finding.mend:
            yield f"{indent}→ {folded(finding.mend, width - len(indent) - 2, indent + '  ')}"
    counts = {result: sum(finding.result is result for finding in known) for result in Result}
    yield ""
    yield ", ".join(f"{count} {result}" for result, count in counts.items() if count)


def folded(text: str, width: int, indent: str) -> str:
    return f"\n{indent}".join(
        textwrap.wrap(text, max(width, 30), break_long_words=False, break_on_hyphens=False)
    )


def router(config: Config, name: str) -> str:
    known = {snippet.key: snippet for snippet in router_snippets(config)}
    if name not in known:
        names = ", ".join(known) or "none, for provd's address on the LAN is not known (pxe.interface)"
        raise NotFound(f"there are settings for these routers: {names}")
    return f"{known[name].router}: {known[name].where}\n\n{known[name].text}"
