"""Runs an iPXE script the way iPXE does, for the commands that a boot server needs.

It knows nothing of machines: it is handed the settings and a way to fetch, and says how control left
the script. An unknown command fails, as it does in a build of iPXE that lacks it. Semantics:
iPXE 1.21.1 and 2.0.0, `core/exec.c` and `image/script.c`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote, urljoin

from attrs import define, field, frozen

_SETTING = re.compile(r"\$\{([^${}]*)\}")
_FEW_COMMANDS = 10_000  # a script that does more is going in circles: this machine has no patience


class FetchFailed(Exception):
    """A URL could not be had; the text is iPXE's complaint."""


@frozen(kw_only=True)
class Image:
    """A download. `arguments` is the kernel's command line, or an initrd's name in the initramfs."""

    url: str
    arguments: str
    content: bytes


@frozen
class Boots:
    """`boot` was reached: a kernel and its initrds, in order."""

    kernel: Image
    initrds: tuple[Image, ...]


@frozen
class BootsLocalDisk:
    """The script handed over to the machine's own disk: `exit`, `sanboot`, its end, or an error."""

    reason: str


class _CommandFailed(Exception):
    pass


class _ScriptLeft(Exception):
    pass


@define(eq=False)
class _Machine:
    fetch: Callable[[str], Awaitable[bytes]]
    base: str
    settings: dict[str, str]
    numbers: set[str] = field(factory=set)  # the settings that were set as int32
    images: list[tuple[bool, Image]] = field(factory=list)  # (is the kernel, image)
    echoed: list[str] = field(factory=list)
    slept: list[float] = field(factory=list)
    jump: str | None = None
    booted: Boots | None = None


@frozen(kw_only=True)
class Run:
    """How a script ended, what it printed, and the seconds it asked to sleep."""

    outcome: Boots | BootsLocalDisk
    echoed: tuple[str, ...]
    slept: tuple[float, ...]


async def run_script(
    script: str, *, base: str, settings: Mapping[str, str], fetch: Callable[[str], Awaitable[bytes]]
) -> Run:
    """Run `script`, which came from the URL `base`; `fetch` raises `FetchFailed`. Sleeps are only noted."""
    machine = _Machine(fetch=fetch, base=base, settings=dict(settings))
    lines = script.splitlines()
    if not lines or re.match(r"#!ipxe(\s|$)", lines[0]) is None:
        reason = "not an iPXE script"
    else:
        try:
            reason = await _run_lines(lines, machine)
        except _ScriptLeft as left:
            reason = str(left)
        except _CommandFailed as failed:
            reason = f"script failed: {failed}"
    return Run(
        outcome=machine.booted or BootsLocalDisk(reason),
        echoed=tuple(machine.echoed),
        slept=tuple(machine.slept),
    )


async def _run_lines(lines: list[str], machine: _Machine) -> str:
    at = 0
    for _ in range(_FEW_COMMANDS):
        if at >= len(lines):
            return "the script ended"
        await _run_line(lines[at], machine)
        at += 1
        if machine.jump is not None:
            at, machine.jump = _find_label(lines, machine.jump), None
    return "the script goes in circles"


def _find_label(lines: list[str], label: str) -> int:
    for number, line in enumerate(lines):
        if line.startswith(":") and line.split()[0] == f":{label}":
            return number
    raise _CommandFailed(f"goto {label}: no such label")


async def _run_line(line: str, machine: _Machine) -> None:
    """One line of commands joined by `||` and `&&`: the first joint that does not want more ends the line.

    So in `a || b && c`, an `a` that succeeds leaves `c` undone. Raises `_CommandFailed` for the last
    command that ran.
    """
    words: list[str] = []
    for token in [*line.split(), "#"]:
        if token not in ("||", "&&") and token[0] != "#":
            words.append(token)
            continue
        failure = await _run_command([_expand(word, machine.settings) for word in words], machine)
        words = []
        is_comment = token[0] == "#"
        if is_comment or machine.jump is not None or (token == "||") != (failure is not None):
            break
    if failure is not None:
        raise failure


async def _run_command(words: list[str], machine: _Machine) -> _CommandFailed | None:
    """The failure is a value here, because `||` looks at it."""
    if not words or words[0].startswith(":"):
        return None
    command = COMMANDS.get(words[0])
    if command is None:
        return _CommandFailed(f"{words[0]}: command not found")
    try:
        if (download := command(words[1:], machine)) is not None:
            await download
    except _CommandFailed as failed:
        return failed
    return None


def _expand(word: str, settings: Mapping[str, str]) -> str:
    """`${name}` and `${name:type}`, innermost first; an unknown setting is empty."""
    for _ in range(100):
        word, found = _SETTING.subn(lambda match: _setting(match[1], settings), word, count=1)
        if not found:
            return word
    raise _CommandFailed("settings expand without end")


def _setting(reference: str, settings: Mapping[str, str]) -> str:
    name, _, kind = reference.partition(":")
    value = settings.get(name, "")
    match kind:
        case "hexhyp":
            return value.replace(":", "-")
        case "hexraw":
            return value.replace(":", "")
        case "uristring":
            return quote(value, safe="")
        case _:
            return value


def _imgfree(words: list[str], machine: _Machine) -> None:
    machine.images.clear()


def _set(words: list[str], machine: _Machine) -> None:
    """`set name[:type] value`; the one type that means something here is int32."""
    if not words:
        raise _CommandFailed("set: usage")
    name, _, kind = words[0].partition(":")
    value = " ".join(words[1:])
    machine.numbers.discard(name)
    if kind == "int32":
        value = str(_number(value))
        machine.numbers.add(name)
    machine.settings[name] = value


def _inc(words: list[str], machine: _Machine) -> None:
    """Adds to a number; one that is not there yet is 0. iPXE makes nonsense of a text, here it fails."""
    if len(words) not in (1, 2) or (words[0] in machine.settings and words[0] not in machine.numbers):
        raise _CommandFailed("inc: not a number")
    machine.settings[words[0]] = str(
        _number(machine.settings.get(words[0], "0")) + _number("".join(words[1:]) or "1")
    )
    machine.numbers.add(words[0])


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as error:
        raise _CommandFailed(f"{text!r}: invalid number") from error


def _clear(words: list[str], machine: _Machine) -> None:
    machine.settings.pop("".join(words[:1]), None)


def _isset(words: list[str], machine: _Machine) -> None:
    if not any(words):
        raise _CommandFailed("isset: not set")


def _iseq(words: list[str], machine: _Machine) -> None:
    if len(words) != 2 or words[0] != words[1]:
        raise _CommandFailed("iseq: not equal")


def _echo(words: list[str], machine: _Machine) -> None:
    machine.echoed.append(" ".join(words))


def _sleep(words: list[str], machine: _Machine) -> None:
    try:
        machine.slept.append(float("".join(words)))
    except ValueError as error:
        raise _CommandFailed("sleep: invalid number") from error


def _goto(words: list[str], machine: _Machine) -> None:
    if len(words) != 1:
        raise _CommandFailed("goto: usage")
    machine.jump = words[0]


def _exit(words: list[str], machine: _Machine) -> None:
    raise _ScriptLeft(" ".join(["exit", *words]))


def _sanboot(words: list[str], machine: _Machine) -> None:
    raise _ScriptLeft(" ".join(["sanboot", *words]))


async def _download(words: list[str], machine: _Machine, *, is_kernel: bool) -> None:
    if words[:1] == ["--name"]:
        words = words[2:]
    if not words:
        raise _CommandFailed("usage: a URL is missing")
    url = urljoin(machine.base, words[0])
    try:
        content = await machine.fetch(url)
    except FetchFailed as error:
        raise _CommandFailed(f"{url}: {error}") from error
    image = Image(url=url, arguments=" ".join(words[1:]), content=content)
    if is_kernel:  # selecting a kernel unselects the one before
        machine.images = [(False, other) for was, other in machine.images if not was]
    machine.images.append((is_kernel, image))


async def _kernel(words: list[str], machine: _Machine) -> None:
    await _download(words, machine, is_kernel=True)


async def _initrd(words: list[str], machine: _Machine) -> None:
    await _download(words, machine, is_kernel=False)


def _boot(words: list[str], machine: _Machine) -> None:
    if words:
        raise _CommandFailed("boot: this machine boots the selected image only")
    kernel = next((image for is_kernel, image in machine.images if is_kernel), None)
    if kernel is None:
        raise _CommandFailed("boot: no image selected")
    if not kernel.content:
        raise _CommandFailed("boot: exec format error")
    initrds = tuple(image for is_kernel, image in machine.images if not is_kernel)
    machine.booted = Boots(kernel, initrds)
    raise _ScriptLeft("boot")


COMMANDS: Mapping[str, Callable[[list[str], _Machine], Awaitable[None] | None]] = {
    "imgfree": _imgfree,
    "set": _set,
    "inc": _inc,
    "clear": _clear,
    "isset": _isset,
    "iseq": _iseq,
    "echo": _echo,
    "sleep": _sleep,
    "goto": _goto,
    "exit": _exit,
    "sanboot": _sanboot,
    "kernel": _kernel,
    "initrd": _initrd,
    "boot": _boot,
}
