"""The command line of `pvecm`: what each sub-command takes, and the texts for what it does not take.

After PVE::CLIHandler, PVE::RESTHandler and PVE::JSONSchema of libpve-common-perl 9.x.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import NoReturn

from attrs import frozen

FINGERPRINT = re.compile(r"([A-Fa-f0-9]{2}:){31}[A-Fa-f0-9]{2}")
BOOLEANS = {
    "1": True,
    "on": True,
    "yes": True,
    "true": True,
    "0": False,
    "off": False,
    "no": False,
    "false": False,
}

Value = str | int | bool
Check = Callable[[str], Value]


class Usage(Exception):
    """The command line cannot be used; the text goes to stderr as it is."""


@frozen
class Command:
    name: str
    arguments: dict[str, Check]
    options: dict[str, Check]

    @property
    def synopsis(self) -> str:
        words = ["pvecm", self.name, *(f"<{name}>" for name in self.arguments)]
        return " ".join([*words, "[OPTIONS]"] if self.options else words)


@frozen
class Call:
    command: str
    arguments: tuple[str, ...]
    options: dict[str, Value]

    def text(self, name: str) -> str | None:
        value = self.options.get(name)
        return None if value is None else str(value)

    def number(self, name: str) -> int | None:
        value = self.options.get(name)
        return None if value is None else int(value)

    def flag(self, name: str) -> bool:
        return bool(self.options.get(name, False))

    @property
    def links(self) -> dict[str, str]:
        """Link number to address; a priority is ignored when a node is added."""
        return {
            name.removeprefix("link"): link_address(str(value))
            for name, value in self.options.items()
            if name.startswith("link")
        }


def text(value: str) -> Value:
    return value


def boolean(value: str) -> Value:
    if value.lower() not in BOOLEANS:
        raise ValueError(f"type check ('boolean') failed - got '{value}'")
    return BOOLEANS[value.lower()]


def at_least(minimum: int) -> Check:
    def check(value: str) -> Value:
        if re.fullmatch(r"[+-]?\d+", value, re.ASCII) is None:
            raise ValueError(f"type check ('integer') failed - got '{value}'")
        if int(value) < minimum:
            raise ValueError(f"value must have a minimum value of {minimum}")
        return int(value)

    return check


def integer(value: str) -> Value:
    return at_least(-(2**63))(value)


def fingerprint(value: str) -> Value:
    if FINGERPRINT.fullmatch(value) is None:
        raise ValueError("value does not match the regex pattern")
    return value


def ip(value: str) -> Value:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("invalid format - value does not look like a valid IP address") from None


def node_name(value: str) -> Value:
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?", value) is None:
        raise ValueError("invalid format - value does not look like a valid node name")
    return value


def link_address(value: str) -> str:
    """The address of `[address=]IP[,priority=N]`."""
    return value.partition(",")[0].removeprefix("address=")


def link(value: str) -> Value:
    if not re.fullmatch(r"(address=)?[^\s,=]+(,priority=\d+)?", value):
        raise ValueError("invalid format - format error")
    return value


LINKS: dict[str, Check] = {f"link{number}": link for number in range(8)}
SHARED: dict[str, Check] = {"force": boolean, "nodeid": at_least(1), "votes": at_least(0), **LINKS}

COMMANDS = {
    command.name: command
    for command in (
        Command("add", {"hostname": text}, {"fingerprint": fingerprint, "use_ssh": boolean, **SHARED}),
        Command("addnode", {"node": node_name}, {"apiversion": integer, "new_node_ip": ip, **SHARED}),
        Command("apiver", {}, {}),
        Command("delnode", {"node": text}, {}),
        Command("expected", {"expected": text}, {}),
        Command("nodes", {}, {}),
        Command("status", {}, {}),
        Command("updatecerts", {}, dict.fromkeys(("force", "silent", "unmerge-known-hosts"), boolean)),
    )
}
USAGE = "USAGE: pvecm <COMMAND> [ARGS] [OPTIONS]\n" + "".join(
    f"       {command.synopsis}\n" for command in COMMANDS.values()
)


def parse(words: list[str]) -> Call:
    """Raise `Usage` for anything that the original refuses before it does any work."""
    if not words:
        raise Usage(f"ERROR: no command specified\n{USAGE}")
    command = _find(words[0])
    positional: list[str] = []
    raw: dict[str, str] = {}
    unknown: list[str] = []
    rest = words[1:]
    while rest:
        word = rest.pop(0)
        option = re.fullmatch(r"--?([A-Za-z][\w-]*)(?:=(.*))?", word, re.DOTALL)
        if option is None:
            positional.append(word)
        elif (name := option[1]) not in command.options:
            unknown.append(f"Unknown option: {name}\n")
        elif option[2] is not None:
            raw[name] = option[2]
        elif command.options[name] is boolean:
            raw[name] = rest.pop(0) if rest and rest[0].lower() in BOOLEANS else "1"
        elif rest:
            raw[name] = rest.pop(0)
        else:
            unknown.append(f"Option {name} requires an argument\n")
    if unknown:
        raise Usage(f"{''.join(unknown)}400 unable to parse option\n{command.synopsis}\n")
    if len(positional) != len(command.arguments):
        amount = "not enough" if len(positional) < len(command.arguments) else "too many"
        raise Usage(f"400 {amount} arguments\n{command.synopsis}\n")
    values = _checked(command, {**raw, **dict(zip(command.arguments, positional, strict=True))})
    return Call(command.name, tuple(positional), {name: values[name] for name in raw})


def _find(word: str) -> Command:
    found = [COMMANDS[word]] if word in COMMANDS else [c for n, c in COMMANDS.items() if n.startswith(word)]
    if len(found) != 1:
        raise Usage(f"ERROR: unknown command 'pvecm {word}'\n{USAGE}")
    return found[0]


def _checked(command: Command, raw: dict[str, str]) -> dict[str, Value]:
    checks = {**command.arguments, **command.options}
    values: dict[str, Value] = {}
    wrong: dict[str, str] = {}
    for name, value in raw.items():
        try:
            values[name] = checks[name](value)
        except ValueError as problem:
            wrong[name] = str(problem)
    if wrong:
        fail_parameters(wrong, command.synopsis)
    return values


def fail_parameters(wrong: dict[str, str], synopsis: str) -> NoReturn:
    lines = "".join(f"{name}: {problem}\n" for name, problem in sorted(wrong.items()))
    raise Usage(f"400 Parameter verification failed.\n{lines}{synopsis}\n")
