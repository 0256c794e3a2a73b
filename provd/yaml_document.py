"""A YAML file as plain values with the line of every key, and those values as frozen sections.

Every bad byte of the file ends in one `ConfigError` that names file, line, key and reason, all of its
problems at once. This file knows neither what the keys mean nor what they are for.
"""

import difflib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs
import yaml
from attrs import frozen
from cattrs.errors import AttributeValidationNote, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from provd.domain.documents import one_line
from provd.domain.errors import ConfigError, Invalid

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

LARGEST_FILE = 256 * 1024
DEEPEST_NESTING = 8
"""Levels. The deepest key of ours is at the fourth."""


@frozen
class Problem:
    """What is wrong with one key, and where in the file it stands."""

    line: int
    path: KeyPath
    reason: str

    def show(self, source: Path) -> str:
        names = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        key = f"{clip(names.removeprefix('.'))}: " if self.path else ""
        return f"{source}:{self.line}: {key}{self.reason}"


class Misfits(Exception):
    """What a reader of a whole mapping or list found wrong inside it: relative paths and reasons."""

    def __init__(self, *found: tuple[KeyPath, str]) -> None:
        super().__init__(*found)
        self.found = found


class Document:
    """The top-level mapping of a YAML file. Every bad byte of it is a `ConfigError`."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.lines: dict[KeyPath, int] = {(): 1}
        self.values: dict[str, object] = {}
        node = self.compose(self.read())
        if not isinstance(node, yaml.MappingNode):
            raise self.broken(1, "must hold a mapping of keys at its top level")
        self.values = self.mapping(node, ())

    def broken(self, line: int, reason: str) -> ConfigError:
        """The error for a file that cannot be looked into any further."""
        return ConfigError(Problem(line, (), reason).show(self.source))

    def read(self) -> str:
        try:
            data = read_file(self.source, LARGEST_FILE)
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{self.source}: cannot be read: {why(exc)}") from exc
        try:
            return data.decode()
        except UnicodeDecodeError as exc:
            raise self.broken(1 + data.count(b"\n", 0, exc.start), "is not UTF-8 text") from exc

    def compose(self, text: str) -> yaml.Node | None:
        try:
            return yaml.compose(text, Loader=PlainLoader)
        except NotPlain as exc:
            raise self.broken(exc.line, exc.reason) from exc
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            # Not str(exc): that quotes the line, which may hold a hash.
            reason = exc.problem or "is not YAML"
            if "tag handle" in reason:  # quotes the word
                reason = "text that begins with ! must stand in quotes"
            raise self.broken(mark.line + 1 if mark else 1, reason) from exc
        except yaml.reader.ReaderError as exc:
            line = 1 + text.count("\n", 0, exc.position)
            raise self.broken(line, "holds a character that YAML does not allow") from exc
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as exc:
            # PyYAML lets these out of escapes and directives with absurd numbers.
            raise self.broken(1, "is not YAML") from exc

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(line, path, "has a key that is not plain text"))
                continue
            key = key_node.value
            here = (*path, key)
            if key in values:
                first = f"is given twice (first on line {self.lines[here]})"
                self.problems.append(Problem(line, here, first))
                continue
            self.lines[here] = line
            values[key] = self.value(value_node, here)
        return values

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = list(enumerate(node.value))
            self.lines.update({(*path, number): item.start_mark.line + 1 for number, item in items})
            return [self.value(item, (*path, number)) for number, item in items]
        return scalar(node)

    def line(self, path: KeyPath) -> int:
        """Of the key, or of the nearest one around it that stands in the file."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def structure(self, cls: type[T]) -> T:
        """Raise one `ConfigError` with a line for every problem."""
        try:
            result = CONVERTER.structure(self.values, cls)
        except (cattrs.BaseValidationError, Invalid, Misfits) as exc:
            found = [Problem(self.line(path), path, reason) for path, reason in misfits(exc, ())]
            raise self.refused(found) from exc
        if self.problems:
            raise self.refused([])
        return result

    def refuse(self, path: KeyPath, reason: str) -> None:
        """Note a problem that `structure` shall raise with the others."""
        self.problems.append(Problem(self.line(path), path, reason))

    def refused(self, found: Iterable[Problem]) -> ConfigError:
        problems = sorted({*self.problems, *found}, key=lambda problem: (problem.line, str(problem.path)))
        return ConfigError("\n".join(problem.show(self.source) for problem in problems))


class PlainLoader(yaml.SafeLoader):
    """YAML without its dangerous and surprising half: no aliases, anchors or tags, and not too deep.

    libyaml's loader recurses in C and can be crashed by nesting; this one stops where we say.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor is not None:  # an alias has one too
            raise NotPlain(event, "YAML anchors and aliases are not used here")
        if getattr(event, "tag", None) is not None:
            raise NotPlain(event, "YAML tags are not used here")
        if self.depth > DEEPEST_NESTING:
            raise NotPlain(event, "is nested too deep")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class NotPlain(yaml.YAMLError):
    """YAML that could be read and is not wanted."""

    def __init__(self, event: yaml.Event, reason: str) -> None:
        super().__init__(reason)
        self.line = event.start_mark.line + 1 if event.start_mark else 1
        self.reason = reason


def scalar(node: yaml.Node) -> object:
    """Plain decimal numbers, booleans and null; all else that YAML 1.1 sees in a word stays text.

    So `12:30` is no sexagesimal number here, `0755` no octal one and `2026-01-01` no date.
    """
    text = str(node.value)
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "null":
            return None
        case "bool":
            return text.lower() in ("yes", "true", "on")
        case "int" if re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,17})", text):
            return int(text)
        case "float" if re.fullmatch(r"[-+]?[0-9]{1,17}\.[0-9]{1,17}", text):
            return float(text)
    return text


def read_file(path: Path, limit: int, *, private: bool = False) -> bytes:
    """At most `limit` bytes of a regular file; `OSError` or `ValueError` says why not.

    `private` refuses a file that others than its owner may read.
    """
    # O_NONBLOCK: opening a FIFO must not wait for its other end.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if private and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError("others than its owner may use it; run chmod 600 on it")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    return data


def why(exc: OSError | ValueError) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)


def clip(text: str) -> str:
    """A piece of the file, fit for a message."""
    return one_line(text, 80)


# --- plain values as frozen sections --------------------------------------------------------------


def read_by(parse: Callable[[object], object]) -> dict[str, object]:
    """Metadata of a field: `parse` makes its value from the file's, or raises `Invalid` or `Misfits`."""
    return {"parse": parse}


NOT_A_KEY = {"not_a_key": True}
"""Metadata of a field that the program fills in, not the file."""

CONVERTER = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)


@CONVERTER.register_structure_hook_factory(attrs.has)
def section_hook(cls: type[Any], converter: cattrs.Converter) -> Callable[[object, object], Any]:
    """A section refuses unknown keys, takes an empty value for "not given", and may check itself.

    A class says what is wrong between its fields in `misfits()`, as relative paths and reasons.
    """
    fields = attrs.fields_dict(cls)
    structure = make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=True,
        **{name: override_for(attribute) for name, attribute in fields.items()},
    )

    def hook(value: object, _: object) -> Any:
        if not isinstance(value, dict):
            raise Invalid("must be a mapping of keys")
        result = structure({k: v for k, v in value.items() if v is not None or k not in fields}, cls)
        if found := tuple(result.misfits()) if hasattr(cls, "misfits") else ():
            raise Misfits(*found)
        return result

    return hook


def override_for(attribute: "attrs.Attribute[Any]") -> Any:
    if "not_a_key" in attribute.metadata:
        return override(omit=True)
    parse = attribute.metadata.get("parse")
    return override(struct_hook=(lambda value, _: parse(value)) if parse else None)


def misfits(exc: Exception, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """The leaves of a cattrs error as key paths and reasons; anything unforeseen is a bug and is raised."""
    match exc:
        case cattrs.BaseValidationError():
            for inner in exc.exceptions:
                yield from misfits(inner, (*path, *noted(inner)))
        case cattrs.ForbiddenExtraKeysError():
            known = [a.name for a in attrs.fields(exc.cl) if "not_a_key" not in a.metadata]
            for key in exc.extra_fields:
                close = difflib.get_close_matches(key[:64], known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
                yield (*path, key), f"is not a key that provd knows; {hint}"
        case KeyError():
            yield path, "is missing"
        case Misfits():
            yield from (((*path, *inner), reason) for inner, reason in exc.found)
        case Invalid():
            yield path, str(exc)
        case _:
            raise exc


def noted(exc: Exception) -> KeyPath:
    """The key that cattrs noted on an error."""
    for note in getattr(exc, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (note.name,)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()
