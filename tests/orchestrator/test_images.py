"""The image library on a real disk: whole or not at all, resumed, checked, told of."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define

from iso_maker import INITRD, KERNEL, make_iso
from provd.config import Config, load_config
from provd.domain.errors import BadImage, Conflict, Invalid, NotFound, ProvdError, Refused
from provd.orchestrator.bell import Bell
from provd.orchestrator.disk import locked, need_room
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.image_files import KEPT_SECONDS
from provd.orchestrator.image_jobs import ImageJobs, Job, JobState, open_image_jobs
from provd.orchestrator.images import ImageLibrary
from provd.orchestrator.progress import Progress
from provd.orchestrator.uploads import LARGEST_CHUNK, SYNC_BYTES, WrongOffset
from provd.proxmox.iso import PLACEHOLDER, mode_file_offset
from provd.store import activity
from provd.store.database import now, open_store
from provd.store.images import NewImage, add

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
NAME = "proxmox-ve_9.2-1"


def config_in(folder: Path) -> Config:
    return load_config(EXAMPLES / "provisioning.yaml", {"STATE_DIRECTORY": str(folder / "state")})


@asynccontextmanager
async def open_jobs(folder: Path) -> AsyncIterator[ImageJobs]:
    config = config_in(folder)
    with open_store(config.paths.state_dir / "provd.db") as store:
        async with open_image_jobs(config, Fleet(store, Bell())) as jobs:
            yield jobs


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[ImageJobs]:
    async with open_jobs(tmp_path) as jobs:
        yield jobs


@pytest.fixture
def library(jobs: ImageJobs) -> ImageLibrary:
    return jobs.library


@pytest.fixture(scope="session")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some eight pieces long."""
    more = {"/pve-base.squashfs": bytes(range(256)) * 32_000}
    return make_iso(tmp_path_factory.mktemp("iso") / "proxmox-ve_9.2-1.iso", more=more)


def told(library: ImageLibrary) -> list[str]:
    return [line.event for line in library.fleet.store.read(lambda db: activity.latest(db, 100))][::-1]


def hidden(library: ImageLibrary) -> list[str]:
    return sorted(path.name for path in library.directory.glob(".*") if path.name != ".uploads")


def there(library: ImageLibrary, name: str = NAME) -> set[str]:
    return {path.name for path in (library.directory / name).iterdir()}


@define(eq=False)
class StopAt(Progress):
    """Does something when so many bytes are there."""

    bytes_: int = 0
    act: Callable[[], object] = lambda: None

    def at(self, done: int, total: int, seconds: float | None = None) -> None:
        super().at(done, total, seconds)
        if done >= self.bytes_:
            self.act()


async def over(job: Job) -> Job:
    with trio.fail_after(20):
        await job.over.wait()
    return job


# --- importing -----------------------------------------------------------------------------------


async def test_an_import_is_whole(library: ImageLibrary, iso: Path) -> None:
    """Three files, a row with the published SHA-256, one line of history, nothing left behind."""
    progress = Progress()
    digest = sha256(iso.read_bytes()).hexdigest()
    image = await library.import_iso(iso, by="anna", sha256=digest.upper(), progress=progress)
    assert (image.name, image.release, image.sha256, image.size) == (
        NAME,
        "9.2-1",
        digest,
        iso.stat().st_size,
    )
    assert image.is_default
    assert library.everything() == [image]
    assert there(library) == {"vmlinuz", "initrd.img", "proxmox.iso"}
    directory = library.directory / NAME
    assert (directory / "vmlinuz").read_bytes() == KERNEL
    assert (directory / "initrd.img").read_bytes() == INITRD
    content = (directory / "proxmox.iso").read_bytes()
    assert content[image.mode_offset : image.mode_offset + 2048] == PLACEHOLDER
    with (directory / "proxmox.iso").open("rb") as file:
        assert mode_file_offset(file) == image.mode_offset
    assert progress.done == progress.total == len(content)
    assert told(library) == ["image.imported"]
    assert hidden(library) == []
    assert library.problems() == []
    assert (await library.verify(NAME, "anna")) == image


async def test_the_wrong_sha256(library: ImageLibrary, iso: Path) -> None:
    """Both are named, and nothing stays."""
    with pytest.raises(BadImage, match=f"{'0' * 64} was expected"):
        await library.import_iso(iso, by="anna", sha256="0" * 64)
    assert library.everything() == []
    assert hidden(library) == []
    assert library.files.names() == set()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda tmp: tmp / "missing.iso", NotFound, "no file"),
        (lambda tmp: tmp, Refused, "not a regular file"),
        (lambda tmp: os.mkfifo(tmp / "pipe") or tmp / "pipe", Refused, "not a regular file"),
        (lambda tmp: Path("relative.iso"), Invalid, "not absolute"),
        (lambda tmp: (tmp / "t").write_text("text") and tmp / "t", BadImage, "not an ISO"),
        (lambda tmp: make_iso(tmp / "b.iso", product="pbs", release="3.4"), BadImage, "Backup Server"),
    ],
    ids=["missing", "directory", "pipe", "relative", "text", "other product"],
)
async def test_what_cannot_be_imported(
    library: ImageLibrary, tmp_path: Path, make: Callable[[Path], Path], error: type[ProvdError], words: str
) -> None:
    """A sentence that names it, at once, and no trace."""
    with pytest.raises(error, match=words):
        await library.import_iso(make(tmp_path), by="anna")
    assert hidden(library) == []


async def test_no_room(library: ImageLibrary, iso: Path, tmp_path: Path) -> None:
    """What cannot fit is refused before its first byte is copied."""
    disk = os.statvfs(tmp_path)
    with pytest.raises(Refused, match="not enough room"):
        need_room(tmp_path, disk.f_bavail * disk.f_frsize)
    need_room(tmp_path, 1)


async def test_a_name_is_taken_once(library: ImageLibrary, iso: Path) -> None:
    """The second is refused before it is copied; another name is fine."""
    await library.import_iso(iso, by="anna")
    copied = Progress()
    with pytest.raises(Conflict, match=r"image proxmox-ve_9\.2-1 already"):
        await library.import_iso(iso, by="anna", progress=copied)
    assert copied.total == 0
    other = await library.import_iso(iso, by="anna", name="second", make_default=True)
    assert other.is_default
    assert [image.name for image in library.everything() if image.is_default] == ["second"]


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "x" * 65, "jobs", "uploads", "ä"])
async def test_names_that_are_none(library: ImageLibrary, iso: Path, name: str) -> None:
    """Nothing that would be hidden, leave the directory, or be a word of the API."""
    if name:
        with pytest.raises(Invalid):
            await library.import_iso(iso, by="anna", name=name)
    with pytest.raises(Invalid):
        library.files.of(name)


# --- broken off ----------------------------------------------------------------------------------


async def test_a_cancelled_import_leaves_no_image_and_goes_on_later(library: ImageLibrary, iso: Path) -> None:
    """With the file that is there, and the result is the same as of one go."""
    with trio.CancelScope() as scope:
        stop = StopAt(bytes_=3 << 20, act=lambda: trio.from_thread.run_sync(scope.cancel))
        await library.import_iso(iso, by="anna", progress=stop)
    assert scope.cancelled_caught
    assert library.everything() == []
    partial = library.directory / f".import-{NAME}" / "proxmox.iso"
    assert 3 << 20 <= partial.stat().st_size < iso.stat().st_size
    assert "was broken off" in library.problems()[0]
    inode = partial.stat().st_ino
    image = await library.import_iso(iso, by="anna")
    assert (library.directory / NAME / "proxmox.iso").stat().st_ino == inode
    await library.verify(image.name, "anna")
    assert image.sha256 == sha256(iso.read_bytes()).hexdigest()
    assert library.problems() == []


async def test_junk_from_an_earlier_attempt_does_no_harm(library: ImageLibrary, iso: Path) -> None:
    """Longer, shorter or other bytes: each piece is compared."""
    partial = library.directory / f".import-{NAME}"
    for junk in (b"junk" * 1_000_000, b"", bytes(20 << 20)):
        partial.mkdir(parents=True)
        (partial / "proxmox.iso").write_bytes(junk)
        image = await library.import_iso(iso, by="anna")
        await library.verify(image.name, "anna")
        await library.remove(image.name, "anna")


KILLED = """
import os, signal, sys, trio
from pathlib import Path
from provd.config import load_config
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.images import ImageLibrary
from provd.orchestrator.progress import Progress
from provd.store.database import open_store

class Die(Progress):
    def at(self, done, total, seconds=None):
        if done > 4 << 20:
            os.kill(os.getpid(), signal.SIGKILL)

config = load_config(Path(sys.argv[1]), {"STATE_DIRECTORY": sys.argv[2]})
with open_store(config.paths.state_dir / "provd.db") as store:
    library = ImageLibrary(config, Fleet(store, Bell()))
    async def go():
        await library.import_iso(Path(sys.argv[3]), by="x", progress=Die())
    trio.run(go)
"""


async def test_kill_9_in_the_middle(tmp_path: Path, iso: Path) -> None:
    """No image is listed, its lock is free, and the next attempt makes it."""
    arguments = [EXAMPLES / "provisioning.yaml", tmp_path / "state", iso]
    ended = await trio.run_process(
        [sys.executable, "-c", KILLED, *map(str, arguments)], check=False, cwd=Path(__file__).parents[2]
    )
    assert ended.returncode == -signal.SIGKILL
    async with open_jobs(tmp_path) as jobs:
        assert jobs.library.everything() == []
        assert "was broken off with" in jobs.library.problems()[0]
        image = await jobs.library.import_iso(iso, by="anna")
        await jobs.library.verify(image.name, "anna")


async def test_a_directory_without_a_row_is_said_and_replaced(library: ImageLibrary, iso: Path) -> None:
    """It is what a power cut leaves between the two."""
    directory = library.directory / NAME
    directory.mkdir(parents=True)
    (directory / "proxmox.iso").write_bytes(b"half")
    assert library.problems() == [
        f"{directory} belongs to no image: import that one again, or delete the directory"
    ]
    await library.import_iso(iso, by="anna")
    assert there(library) == {"vmlinuz", "initrd.img", "proxmox.iso"}
    assert library.problems() == []


async def test_a_row_that_is_refused_takes_the_directory_back(library: ImageLibrary, iso: Path) -> None:
    """Somebody else entered the name while we copied: the image that is listed is theirs."""
    new = NewImage(
        name=NAME,
        product="pve",
        release="9.2-1",
        sha256="a" * 64,
        size=1,
        mode_offset=0,
        prepared_sha256="b" * 64,
    )
    entered: list[object] = []

    def enter() -> None:
        if not entered:
            entered.append(trio.from_thread.run(library.fleet.store.write, lambda db: add(db, new, now())))

    with pytest.raises(Conflict):
        await library.import_iso(iso, by="anna", progress=StopAt(bytes_=1, act=enter))
    assert library.files.names() == set()
    assert library.named(NAME).sha256 == "a" * 64


async def test_a_row_without_a_directory_is_said(library: ImageLibrary, iso: Path) -> None:
    """And such an image can be removed."""
    await library.import_iso(iso, by="anna")
    os.rename(library.directory / NAME, library.directory.parent / "gone")
    assert library.problems() == [f"{library.directory / NAME} is missing: remove the image {NAME}"]
    with pytest.raises(BadImage, match="not complete"):
        await library.verify(NAME, "anna")
    await library.remove(NAME, "anna")
    assert library.problems() == []


async def test_two_imports_of_one_name(library: ImageLibrary, iso: Path) -> None:
    """Another process that makes it has it alone, while it makes it and until its row is there."""
    partial = library.directory / f".import-{NAME}"
    partial.mkdir(parents=True)
    with locked(partial) as free:
        assert free
        with pytest.raises(Conflict, match="being imported already"):
            await library.import_iso(iso, by="anna")
        assert library.problems() == []
    final = library.directory / NAME
    final.mkdir()
    with locked(final), pytest.raises(Conflict, match="being imported already"):
        await library.import_iso(iso, by="anna")


async def test_what_nobody_comes_back_for_is_deleted(library: ImageLibrary) -> None:
    """Trash at once, imports after a day, and none that somebody is working on."""
    old, fresh, busy = (library.directory / f".import-{name}" for name in ("old", "fresh", "busy"))
    for path in (old, fresh, busy, library.directory / ".trash-1"):
        path.mkdir(parents=True)
        (path / "proxmox.iso").touch()
    long_ago = fresh.stat().st_mtime - KEPT_SECONDS - 60
    for path in (old, busy):
        os.utime(path / "proxmox.iso", (long_ago, long_ago))
        os.utime(path, (long_ago, long_ago))
    with locked(busy):
        await library.clean_up()
    assert hidden(library) == [".import-busy", ".import-fresh"]


# --- checking, choosing, removing -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["vmlinuz", "initrd.img", "proxmox.iso"])
@pytest.mark.parametrize("damage", ["a bit", "a byte more", "gone"])
async def test_verify_finds_any_difference(library: ImageLibrary, iso: Path, name: str, damage: str) -> None:
    """In each of the three files, and names it."""
    await library.import_iso(iso, by="anna")
    file = library.directory / NAME / name
    content = bytearray(file.read_bytes())
    if damage == "a bit":
        content[len(content) // 2] ^= 1
    if damage == "a byte more":
        content += b"\0"
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(BadImage, match=f"{name} is not what|not complete"):
        await library.verify(NAME, "anna")


async def test_choosing_and_removing(library: ImageLibrary, iso: Path) -> None:
    """Each is told once; files go with the row."""
    await library.import_iso(iso, by="anna")
    await library.import_iso(iso, by="anna", name="second")
    assert (await library.set_default("second", "bert")).is_default
    await library.set_default("second", "bert")
    await library.remove(NAME, "bert")
    assert not (library.directory / NAME).exists()
    assert hidden(library) == []
    assert told(library) == ["image.imported", "image.imported", "image.default", "image.removed"]
    default = library.default()
    assert default is not None
    assert default.name == "second"
    for missing in (library.remove, library.set_default, library.verify):
        with pytest.raises(NotFound):
            await missing(NAME, "bert")


# --- in the background ----------------------------------------------------------------------------


async def test_a_job_imports_and_another_checks(jobs: ImageJobs, iso: Path) -> None:
    """Each ends with its image and its progress."""
    job = await over(jobs.start_import(iso, by="anna"))
    assert (job.state, job.image, job.detail) == (JobState.DONE, NAME, "")
    assert job.progress.done == job.progress.total > 0
    job = await over(jobs.start_verify(NAME, "anna"))
    assert (job.state, job.image) == (JobState.DONE, NAME)
    assert [one.id for one in jobs.everything()] == [2, 1]


async def test_a_job_that_fails_says_why(jobs: ImageJobs, tmp_path: Path) -> None:
    """In the job and in the history."""
    job = await over(jobs.start_import(tmp_path / "nothing.iso", by="anna"))
    assert job.state is JobState.FAILED
    assert "there is no file" in job.detail
    assert told(jobs.library) == ["image.import_failed"]
    with pytest.raises(Conflict, match="over already: failed"):
        await jobs.cancel(job, "anna")


async def test_a_job_is_cancelled(jobs: ImageJobs, iso: Path) -> None:
    """When `cancel` returns it has ended, and no image is there."""
    job = jobs.start_import(iso, by="anna")
    await jobs.cancel(job, "bert")
    assert (job.state, job.detail) == (JobState.CANCELLED, "cancelled by bert")
    assert jobs.library.everything() == []
    assert told(jobs.library) == ["image.import_cancelled"]


async def test_a_stop_breaks_jobs_off(tmp_path: Path, iso: Path) -> None:
    """The daemon does not wait for two gigabytes, and tells of no failure."""
    with trio.fail_after(5):
        async with open_jobs(tmp_path) as jobs:
            job = jobs.start_import(iso, by="anna")
            await trio.testing.wait_all_tasks_blocked()
    assert job.over.is_set()
    async with open_jobs(tmp_path) as jobs:
        assert "image.import_failed" not in told(jobs.library)


# --- uploads ----------------------------------------------------------------------------------------


async def upload_all(jobs: ImageJobs, content: bytes, **more: str | None) -> Job:
    about: dict[str, str | None] = {"sha256": None, "image_name": None} | more
    upload = await jobs.uploads.create("a.iso", len(content), by="anna", **about)  # type: ignore[arg-type]
    for start in range(0, len(content), LARGEST_CHUNK):
        await jobs.append(upload, start, content[start : start + LARGEST_CHUNK])
    assert upload.job_id is not None
    return await over(jobs.get(upload.job_id))


async def test_an_upload_becomes_an_image(jobs: ImageJobs, iso: Path) -> None:
    """Without a second copy, and nothing of the upload stays."""
    content = iso.read_bytes()
    job = await upload_all(jobs, content, sha256=sha256(content).hexdigest())
    assert (job.state, job.image) == (JobState.DONE, NAME), job.detail
    await jobs.library.verify(NAME, "anna")
    assert jobs.library.named(NAME).sha256 == sha256(content).hexdigest()
    assert jobs.uploads.everything() == ()
    assert list((jobs.library.directory / ".uploads").iterdir()) == []
    assert hidden(jobs.library) == []


async def test_chunks_follow_each_other(jobs: ImageJobs, iso: Path) -> None:
    """Any other offset is refused, with the right one, and changes nothing."""
    content = iso.read_bytes()
    upload = await jobs.uploads.create("a.iso", len(content), sha256=None, image_name=None, by="anna")
    await jobs.append(upload, 0, content[:1000])
    for offset in (0, 999, 1001, len(content), 1 << 60):
        with pytest.raises(WrongOffset) as refused:
            await jobs.append(upload, offset, b"x")
        assert refused.value.offset == 1000
    with pytest.raises(Invalid, match="ends at byte"):
        await jobs.append(upload, 1000, content)
    assert upload.offset == 1000


async def test_something_else_is_refused_at_once(jobs: ImageJobs) -> None:
    """Whoever uploads a film learns it with the first megabyte."""
    upload = await jobs.uploads.create("film.mkv", 10 << 20, sha256=None, image_name=None, by="anna")
    with pytest.raises(BadImage, match=r"film\.mkv is not an ISO"):
        await jobs.append(upload, 0, bytes(LARGEST_CHUNK))
    assert upload.offset == 0


async def test_an_upload_outlives_the_daemon(tmp_path: Path, iso: Path) -> None:
    """It goes on where it is certain, and one that was complete is imported at the next start."""
    content = iso.read_bytes() + bytes(SYNC_BYTES)
    async with open_jobs(tmp_path) as jobs:
        upload = await jobs.uploads.create("a.iso", len(content), sha256=None, image_name=None, by="anna")
        sent = SYNC_BYTES + LARGEST_CHUNK
        for start in range(0, sent, LARGEST_CHUNK):
            await jobs.append(upload, start, content[start : start + LARGEST_CHUNK])
    async with open_jobs(tmp_path) as jobs:
        (again,) = jobs.uploads.everything()
        assert (again.id, again.offset, again.size) == (upload.id, SYNC_BYTES, len(content))
        for start in range(SYNC_BYTES, len(content), LARGEST_CHUNK):
            await jobs.uploads.append(again, start, content[start : start + LARGEST_CHUNK])
    async with open_jobs(tmp_path) as jobs:
        (job,) = jobs.everything()
        assert (await over(job)).state is JobState.DONE, job.detail
        assert jobs.library.named(NAME).sha256 == sha256(content).hexdigest()


async def test_a_refused_upload_can_be_put_right(jobs: ImageJobs, iso: Path) -> None:
    """A name that is taken costs no second upload; a file that is damaged is gone."""
    await jobs.library.import_iso(iso, by="anna")
    job = await upload_all(jobs, iso.read_bytes())
    assert (job.state, "already" in job.detail) == (JobState.FAILED, True)
    (upload,) = jobs.uploads.everything()
    job = await over(jobs.import_upload(upload, "second"))
    assert (job.state, job.image) == (JobState.DONE, "second"), job.detail
    job = await upload_all(jobs, iso.read_bytes(), image_name="third", sha256="0" * 64)
    assert job.state is JobState.FAILED
    assert jobs.uploads.everything() == ()
    assert hidden(jobs.library) == []


async def test_an_upload_is_cancelled(jobs: ImageJobs, iso: Path) -> None:
    """Nothing of it stays, and who still sends is told."""
    upload = await jobs.uploads.create("a.iso", 10_000, sha256=None, image_name=None, by="anna")
    await jobs.append(upload, 0, b"x" * 100)
    await jobs.cancel_upload(upload, "anna")
    assert list((jobs.library.directory / ".uploads").iterdir()) == []
    with pytest.raises(NotFound):
        await jobs.append(upload, 100, b"x")


async def test_uploads_have_bounds(jobs: ImageJobs) -> None:
    """In size and in number."""
    for size in (0, -1, 1 << 32):
        with pytest.raises(Invalid):
            await jobs.uploads.create("a.iso", size, sha256=None, image_name=None, by="anna")
    for _ in range(8):
        await jobs.uploads.create("a.iso", 1, sha256=None, image_name=None, by="anna")
    with pytest.raises(Conflict, match="8 uploads"):
        await jobs.uploads.create("a.iso", 1, sha256=None, image_name=None, by="anna")


# --- how far ----------------------------------------------------------------------------------------


def test_rate_and_time_left() -> None:
    """A steady rate is told exactly, a change within seconds, and nothing before anything moved."""
    progress = Progress()
    assert progress.seconds_left is None
    for second in range(11):
        progress.at(second * 100, 2000, float(second))
    assert progress.rate == pytest.approx(100)
    assert progress.seconds_left == pytest.approx(10)
    for second in range(11, 21):
        progress.at(1000 + (second - 10) * 10, 2000, float(second))
    assert progress.rate == pytest.approx(10, rel=0.4)
