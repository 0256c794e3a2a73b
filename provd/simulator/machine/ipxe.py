"""Runs an iPXE script the way iPXE does, for the commands that a boot server needs.

It knows nothing of machines: it is handed the settings and a way to fetch, and says how control left
the script. An unknown command or option fails, as it does in a build of iPXE that lacks it. Nobody sits
at the screen unless a choice is handed over. Semantics: Debian's iPXE of 2019, 2025 and 2026, which
`tests/netboot/test_scripts_real_ipxe.py` compares it with.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import quote, urljoin

from attrs import define, field, frozen

_SETTING = re.compile(r"\$\{([^${}]*)\}")
_FEW_COMMANDS = 10_000  # a script that does more is going in circles: this machine has no patience
_FEW_SCRIPTS = 40  # that chain to one another


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


@define
class _Exited(Exception):
    """`exit` ends one script. Whoever chained to it goes on, unless it was replaced."""

    status: int


class _MachineLeft(Exception):
    """iPXE gave the machine away, or will never do so: no script goes on."""


@define(eq=False)
class _Machine:
    fetch: Callable[[str], Awaitable[bytes]]
    settings: dict[str, str]
    picks: str | None
    base: str = ""
    """The URL of the script that runs."""
    labels: Mapping[str, int] = field(factory=dict)
    """Those of the script that runs, with their line numbers."""
    depth: int = 0
    jump: int | None = None
    numbers: set[str] = field(factory=set)  # the settings that were set as int32
    images: list[tuple[bool, Image]] = field(factory=list)  # (is the kernel, image)
    menu: list[str] | None = None  # the items that can be chosen
    echoed: list[str] = field(factory=list)
    slept: list[float] = field(factory=list)
    booted: Boots | None = None


@frozen(kw_only=True)
class Run:
    """How a script ended, what it printed, and the seconds it asked to sleep or waited for a choice."""

    outcome: Boots | BootsLocalDisk
    echoed: tuple[str, ...]
    slept: tuple[float, ...]


async def run_script(
    script: str,
    *,
    base: str,
    settings: Mapping[str, str],
    fetch: Callable[[str], Awaitable[bytes]],
    picks: str | None = None,
) -> Run:
    """Run `script`, which came from the URL `base`; `fetch` raises `FetchFailed`. Sleeps are only noted.

    `picks` is the item that somebody chooses in a menu; None: it is left to its timeout.
    """
    machine = _Machine(fetch, dict(settings), picks)
    try:
        reason = await _run_whole(script, base, machine)
    except _MachineLeft as left:
        reason = str(left)
    except _Exited as exited:
        reason = f"exit {exited.status}" if exited.status else "exit"
    except _CommandFailed as failed:
        reason = f"script failed: {failed}"
    return Run(
        outcome=machine.booted or BootsLocalDisk(reason),
        echoed=tuple(machine.echoed),
        slept=tuple(machine.slept),
    )


async def _run_whole(script: str, url: str, machine: _Machine) -> str:
    """Run one script to its end. Raises what ended it before."""
    lines = script.splitlines()
    if not lines or re.match(r"#!ipxe(\s|$)", lines[0]) is None:
        raise _MachineLeft("not an iPXE script")
    if machine.depth == _FEW_SCRIPTS:
        raise _MachineLeft("the scripts go in circles")
    before = machine.base, machine.labels
    machine.base, machine.labels = url, _find_labels(lines)
    machine.depth += 1
    try:
        return await _run_lines(lines, machine)
    finally:
        machine.base, machine.labels = before
        machine.depth -= 1


def _find_labels(lines: list[str]) -> Mapping[str, int]:
    """A label that is there twice is where it stands first."""
    numbered = [(line.split()[0][1:], number) for number, line in enumerate(lines) if line.startswith(":")]
    return dict(reversed(numbered))


async def _run_lines(lines: list[str], machine: _Machine) -> str:
    at = 0
    for _ in range(_FEW_COMMANDS):
        if at >= len(lines):
            return "the script ended"
        await _run_line(lines[at], machine)
        at += 1
        if machine.jump is not None:
            at, machine.jump = machine.jump, None
    raise _MachineLeft("the script goes in circles")


async def _run_line(line: str, machine: _Machine) -> None:
    """One line of commands with joints between them, which bind from left to right, as in a shell.

    So in `a || b && c`, an `a` that succeeds skips `b` and does `c`. Raises `_CommandFailed` for the
    last command that ran.
    """
    words: list[str] = []
    failure: _CommandFailed | None = None
    runs = True
    for token in [*line.split(), "#"]:
        is_end = token[0] == "#"  # or a comment
        if not is_end and token not in _JOINTS:
            words.append(token)
            continue
        if runs:
            failure = await _run_command([_expand(word, machine.settings) for word in words], machine)
        if is_end or machine.jump is not None:
            break
        words, runs = [], _JOINTS[token](failure)
    if failure is not None:
        raise failure


_JOINTS: Mapping[str, Callable[[_CommandFailed | None], bool]] = {
    "||": lambda failure: failure is not None,
    "&&": lambda failure: failure is None,
    ";": lambda failure: True,
}


async def _run_command(words: list[str], machine: _Machine) -> _CommandFailed | None:
    """The failure is a value here, because the joint behind it looks at it."""
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
    if len(words) != 1 or not words[0]:
        raise _CommandFailed("isset: not set")


def _iseq(words: list[str], machine: _Machine) -> None:
    if len(words) != 2 or words[0] != words[1]:
        raise _CommandFailed("iseq: not equal")


def _echo(words: list[str], machine: _Machine) -> None:
    machine.echoed.append(" ".join(words))


def _sleep(words: list[str], machine: _Machine) -> None:
    machine.slept.append(_number("".join(words)))


def _goto(words: list[str], machine: _Machine) -> None:
    label = " ".join(words)
    if label not in machine.labels:
        raise _CommandFailed(f"goto {label}: no such label")
    machine.jump = machine.labels[label]


def _exit(words: list[str], machine: _Machine) -> None:
    raise _Exited(_number("".join(words) or "0"))


def _sanboot(words: list[str], machine: _Machine) -> None:
    raise _MachineLeft(" ".join(["sanboot", *words]))


def _autoboot(words: list[str], machine: _Machine) -> None:
    """Would begin again with DHCP: whoever answers that knows what comes next, this file does not."""
    raise _MachineLeft(" ".join(["autoboot", *words]))


def _ifopen(words: list[str], machine: _Machine) -> None:
    for name in words or ["net0"]:
        if f"{name}/mac" not in machine.settings:
            raise _CommandFailed(f"{name}: no such network device")


def _menu(words: list[str], machine: _Machine) -> None:
    _options(words, flags=(), valued=())
    machine.menu = []


def _item(words: list[str], machine: _Machine) -> None:
    """`item --gap -- text` cannot be chosen, `item name text` can."""
    options, rest = _options(words, flags=("--gap",), valued=())
    if machine.menu is None:
        raise _CommandFailed("item: no such menu")
    if "--gap" not in options:
        machine.menu += rest[:1]


def _choose(words: list[str], machine: _Machine) -> None:
    options, rest = _options(words, flags=(), valued=("--timeout", "--default"))
    items, machine.menu = machine.menu, None
    if not items or len(rest) != 1:
        raise _CommandFailed("choose: no such menu")
    default = options.get("--default", items[0])
    if default not in items or (machine.picks is not None and machine.picks not in items):
        raise _CommandFailed("choose: no such item")
    if machine.picks is None:
        milliseconds = _number(options.get("--timeout", "0"))
        if milliseconds <= 0:
            raise _MachineLeft("choose: waits for ever")
        machine.slept.append(milliseconds / 1000)
    machine.numbers.discard(rest[0])
    machine.settings[rest[0]] = machine.picks or default


def _options(
    words: list[str], *, flags: Sequence[str], valued: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """What stands in front of the first plain word or `--`, and the rest."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("--"):
        name = rest.pop(0)
        if name == "--":
            break
        if name in flags:
            options[name] = ""
        elif name in valued and rest:
            options[name] = rest.pop(0)
        else:
            raise _CommandFailed(f"{name}: unrecognised option")
    return options, rest


async def _chain(words: list[str], machine: _Machine) -> None:
    """Run another script, and go on behind it; with --replace there is nothing to come back to."""
    options, rest = _options(words, flags=("--replace", "--autofree"), valued=())
    if len(rest) != 1:
        raise _CommandFailed("chain: usage")
    url = urljoin(machine.base, rest[0])
    try:
        script = (await machine.fetch(url)).decode("utf-8", "replace")
    except FetchFailed as error:
        raise _CommandFailed(f"{url}: {error}") from error
    if not script.startswith("#!ipxe"):
        raise _CommandFailed(f"{url}: exec format error")
    replaces = "--replace" in options
    try:
        ended = await _run_whole(script, url, machine)
    except _Exited as exited:
        if replaces:
            raise
        if exited.status:
            raise _CommandFailed(f"{url}: exit {exited.status}") from exited
        return
    except _CommandFailed as failed:
        if replaces:
            raise _MachineLeft(f"script failed: {failed}") from failed
        raise
    if replaces:
        raise _MachineLeft(ended)


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
    raise _MachineLeft("boot")


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
    "ifopen": _ifopen,
    "menu": _menu,
    "item": _item,
    "choose": _choose,
    "chain": _chain,
    "autoboot": _autoboot,
    "exit": _exit,
    "sanboot": _sanboot,
    "kernel": _kernel,
    "initrd": _initrd,
    "boot": _boot,
}
