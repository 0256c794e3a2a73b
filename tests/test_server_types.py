"""server-types.yaml: what is taken, and how an edit while provd runs is noticed or survived."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from provd.domain.errors import ConfigError
from provd.domain.lifecycle import State
from provd.server_types import ServerType, ServerTypeBook, load_server_types

EXAMPLE = Path(__file__).parent.parent / "deploy" / "examples" / "server-types.yaml"


def types_file(*keys: str) -> str:
    one = "{{display_name: Type {0}, boot_disk: /dev/sda, hostname_prefix: {0}-}}"
    return "server_types:\n" + "".join(f"  {key}: {one.format(key)}\n" for key in keys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one type, `small`, in a folder of its own."""
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc" / "server-types.yaml"
    path.write_text(types_file("small"))
    return path


def problems(path: Path, content: str) -> list[str]:
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_server_types(path)
    return str(caught.value).replace(f"{path}", path.name).splitlines()


def test_the_example_is_loadable_and_shows_every_key() -> None:
    """The example file loads, and no key of a server type is missing in it."""
    types = load_server_types(EXAMPLE)
    assert list(types) == ["compute", "gpu"]
    assert types["compute"].management_nic == "enp1s0"
    gpu = types["gpu"]
    assert (gpu.key, gpu.gpu, gpu.disks) == ("gpu", True, ("/dev/sda", "/dev/sdb"))
    assert gpu.deadlines == {State.PXE_READY: 2700, State.INSTALLING: 5400}
    for key in attrs.fields(ServerType):
        assert key.name == "key" or f"\n    {key.name}:" in EXAMPLE.read_text()


def test_the_least_of_a_type(file: Path) -> None:
    """A type needs a name, a disk and a prefix; the rest is left to provisioning.yaml."""
    assert load_server_types(file)["small"] == ServerType(
        key="small", display_name="Type small", boot_disk="/dev/sda", hostname_prefix="small-"
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("boot_disk", "sda", "boot_disk: 'sda' is not a disk"),
        ("management_nic", "'e p'", "management_nic: 'e p' is not a NIC"),
        ("gpu", "1", "gpu: must be true or false"),
        ("hostname_prefix", "-x", "hostname_prefix: '-x' cannot begin a host name"),
        ("hostname_prefix", "''", "hostname_prefix: must be one line of printable text"),
        ("hostname_prefix", "'7'", "hostname_prefix: '7' cannot begin a host name"),
        ("key", "other", "key: is not a key that provd knows"),
        ("bootdisk", "/dev/sda", "bootdisk: is not a key that provd knows; did you mean boot_disk?"),
        ("disks", "[/dev/sdb, sdc]", "disks[1]: 'sdc' is not a disk"),
        ("disks", "[/dev/sdb]", "disks: must have the boot disk /dev/sda among them"),
        ("deadlines", "{ready: 1h}", "deadlines.ready: is not a state with a deadline"),
        ("deadlines", "{joining: soon}", "deadlines.joining: must be a duration"),
        ("keyboard", "no", "keyboard: is a YAML boolean where text is meant"),
    ],
)
def test_a_bad_value_is_named_with_its_line(file: Path, key: str, value: str, said: str) -> None:
    """A refusal names file, line, type, key and reason."""
    given = {"display_name": "A", "boot_disk": "/dev/sda", "hostname_prefix": "a", key: value}
    lines = ["server_types:", "  a:", *(f"    {name}: {value}" for name, value in given.items())]
    (problem,) = problems(file, "\n".join(lines))
    assert problem.startswith(
        f"server-types.yaml:{lines.index(f'    {key}: {value}') + 1}: server_types.a.{said}"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("types: {}\n", "server-types.yaml:1: server_types: must be a mapping"),
        ("\nserver_types: [a]\n", "server-types.yaml:2: server_types: must be a mapping"),
        ("server_types:\n  a:\n", "server-types.yaml:2: server_types.a: must be a mapping of keys"),
        (types_file("a") + types_file("b"), "server-types.yaml:3: server_types: is given twice"),
        (types_file("a", "a"), "server-types.yaml:3: server_types.a: is given twice (first on line 2)"),
        (types_file("a") + "more: 1\n", "server-types.yaml:3: more: is not a key that provd knows"),
        (
            types_file("a").replace("a:", "'a b':"),
            "server-types.yaml:2: server_types.a b.key: 'a b' is not a key",
        ),
    ],
)
def test_a_bad_shape_is_refused(file: Path, content: str, said: str) -> None:
    """What is not a mapping of types by their keys is refused with its line."""
    assert problems(file, content)[0].startswith(said)


def test_a_level_of_another_file_system_is_refused(file: Path) -> None:
    """A RAID level that the type's own file system does not have can never be right."""
    content = types_file("a").replace("}", ", filesystem: btrfs, raid: raidz-1}")
    assert problems(file, content) == [
        "server-types.yaml:2: server_types.a.raid: is not a RAID level of btrfs"
    ]


def test_a_bad_edit_keeps_the_old_types(file: Path) -> None:
    """`reload` says whether the file is good; if not, what was in force stays so."""
    book = ServerTypeBook(file)
    file.write_text("server_types: {small: {")
    assert book.reload() is False
    assert list(book.current) == ["small"]
    assert f"{file}:1:" in str(book.problem)
    file.unlink()
    assert book.reload() is False
    assert "cannot be read" in str(book.problem)
    file.write_text(types_file("big"))
    assert book.reload() is True
    assert (list(book.current), book.problem) == (["big"], None)


def test_there_must_be_good_types_at_the_start(file: Path) -> None:
    """There is nothing to fall back on yet."""
    file.write_text("")
    with pytest.raises(ConfigError):
        ServerTypeBook(file)


# --- the watch ---


class Watched:
    """A book that is watched, and a way to wait for what it says."""

    def __init__(self, path: Path) -> None:
        self.book = ServerTypeBook(path)
        self.told = trio.Event()

    async def on_change(self) -> None:
        self.told.set()
        self.told = trio.Event()

    async def until(self, fits: Callable[[ServerTypeBook], bool]) -> None:
        with trio.fail_after(10):
            while not fits(self.book):
                await self.told.wait()


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[Watched]:
    watched = Watched(path)
    async with trio.open_nursery() as nursery:
        await nursery.start(watched.book.watch, watched.on_change)
        yield watched
        nursery.cancel_scope.cancel()


def has(*keys: str) -> Callable[[ServerTypeBook], bool]:
    return lambda book: list(book.current) == list(keys) and book.problem is None


def replace(file: Path, content: str) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(content)
    os.replace(beside, file)


def write_in_place(file: Path, content: str) -> None:
    with file.open("w") as out:
        for line in content.splitlines(keepends=True):
            out.write(line)
            out.flush()


def remove(file: Path) -> None:
    file.unlink()


def delete_and_recreate(file: Path, content: str) -> None:
    file.unlink()
    file.write_text(content)


@pytest.mark.parametrize("edit", [replace, write_in_place, delete_and_recreate])
async def test_an_edit_is_noticed_however_it_is_made(file: Path, edit: Callable[[Path, str], None]) -> None:
    """Every way in which editors write a file leads to its new content, more than once."""
    async with watching(file) as watched:
        edit(file, types_file("small", "big"))
        await watched.until(has("small", "big"))
        edit(file, types_file("other"))
        await watched.until(has("other"))


async def test_a_bad_edit_is_told_and_survived(file: Path) -> None:
    """A bad file and a vanished one are told as problems; the types stay, and a good file ends it."""
    async with watching(file) as watched:
        replace(file, "server_types: 5\n")
        await watched.until(lambda book: "must be a mapping" in (book.problem or ""))
        assert list(watched.book.current) == ["small"]
        remove(file)
        await watched.until(lambda book: "No such file" in (book.problem or ""))
        assert list(watched.book.current) == ["small"]
        replace(file, types_file("small"))
        await watched.until(has("small"))


async def test_a_reload_by_hand_is_told_by_the_watch(file: Path) -> None:
    """Who reloads on a signal need not tell: the watch does."""
    async with watching(file) as watched:
        replace(file, types_file("big"))
        told = watched.told
        watched.book.reload()
        with trio.fail_after(10):
            await told.wait()
        assert has("big")(watched.book)


async def test_an_edit_before_the_watch_stands_is_caught_up_with(file: Path) -> None:
    """Between the first reading and the watch nothing is lost."""
    watched = Watched(file)
    replace(file, types_file("big"))
    async with trio.open_nursery() as nursery:
        await nursery.start(watched.book.watch, watched.on_change)
        await watched.until(has("big"))
        nursery.cancel_scope.cancel()


async def test_a_file_behind_a_link_is_watched(file: Path, tmp_path: Path) -> None:
    """Where the configuration is a link into another folder, an edit there counts."""
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    async with watching(link) as watched:
        for key in ("big", "bigger"):
            replace(file, types_file(key))
            await watched.until(has(key))


async def test_the_watch_ends_at_once(file: Path) -> None:
    """Cancelling does not wait for the watcher's thread to look up: that would take half a second."""
    async with watching(file) as watched:
        replace(file, types_file("big"))
        await watched.until(has("big"))
        before = trio.current_time()
    assert trio.current_time() - before < 0.4
