"""Imports and checks that run in the background, how far they are, and what became of them.

Jobs live in memory. A stop of the daemon breaks an import off; an upload that was complete is imported
at the next start, and an import from a path goes on where it was when it is asked for again.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from itertools import count
from pathlib import Path

import trio
from attrs import define, field

from provd.config import Config
from provd.domain.activity import Level, News
from provd.domain.errors import BadImage, Conflict, Invalid, NotFound, ProvdError
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.image_files import parse_name, parse_sha256
from provd.orchestrator.images import ImageLibrary
from provd.orchestrator.progress import Progress
from provd.orchestrator.uploads import Upload, Uploads
from provd.store.database import now
from provd.store.images import Image

log = logging.getLogger("provd.images")

KEPT = 20
"""Jobs that are over and still told of."""
MOST = 16
CLEAN_UP_SECONDS = 24 * 3600.0
WRITE_DOWN_SECONDS = 20.0


Afterwards = Callable[[ProvdError | None], Awaitable[None]]
"""Told what the work failed by, if it did."""


class JobKind(StrEnum):
    IMPORT = "import"
    VERIFY = "verify"


class JobState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@define(eq=False, kw_only=True)
class Job:
    id: int
    kind: JobKind
    subject: str
    """The file's or the image's name."""
    started_by: str
    started_at: datetime
    state: JobState = JobState.RUNNING
    detail: str = ""
    """Why it failed, or who cancelled it."""
    image: str | None = None
    """The image that came of it."""
    finished_at: datetime | None = None
    progress: Progress = field(factory=Progress)
    scope: trio.CancelScope = field(factory=trio.CancelScope, repr=False)
    over: trio.Event = field(factory=trio.Event, repr=False)
    cancelled_by: str = ""


class ImageJobs:
    """What the web asks for: the library, the uploads, and what is going on with them."""

    def __init__(self, library: ImageLibrary, uploads: Uploads, nursery: trio.Nursery) -> None:
        self.library = library
        self.uploads = uploads
        self._nursery = nursery
        self._jobs: dict[int, Job] = {}
        self._ids = count(1)

    def everything(self) -> Sequence[Job]:
        """Newest first."""
        return tuple(self._jobs.values())[::-1]

    def get(self, job_id: int) -> Job:
        if job_id not in self._jobs:
            raise NotFound(f"there is no job {job_id}; those of before the last start are forgotten")
        return self._jobs[job_id]

    def start_import(self, path: Path, *, by: str, sha256: str | None = None, name: str | None = None) -> Job:
        """Import a file that lies on this machine. Raises `Invalid` for what cannot be meant."""
        if not path.is_absolute():
            raise Invalid("the path is not absolute", "path")
        if sha256:
            sha256 = parse_sha256(sha256)
        if name:
            name = parse_name(name)

        async def work(progress: Progress) -> Image:
            return await self.library.import_iso(path, by=by, sha256=sha256, name=name, progress=progress)

        return self._start(JobKind.IMPORT, path.name, by, work, nothing)

    def start_verify(self, name: str, by: str) -> Job:
        """Raises `NotFound`."""
        self.library.named(name)

        async def work(progress: Progress) -> Image:
            return await self.library.verify(name, by, progress)

        return self._start(JobKind.VERIFY, name, by, work, nothing)

    async def append(self, upload: Upload, offset: int, data: bytes) -> Upload:
        """As `Uploads.append`; the last chunk starts the import."""
        await self.uploads.append(upload, offset, data)
        if upload.complete and upload.job_id is None:
            self._start_upload(upload)
        return upload

    def import_upload(self, upload: Upload, name: str | None) -> Job:
        """Try again what failed, by another name when one is given. Raises `Conflict`."""
        job = self._jobs.get(upload.job_id or 0)
        if not upload.complete or (job is not None and job.state is JobState.RUNNING):
            raise Conflict(f"{upload.file_name} is still on its way")
        if name:
            upload.image_name = parse_name(name)
        return self._start_upload(upload)

    async def cancel_upload(self, upload: Upload, by: str) -> None:
        """Forget an upload, and end the import that came of it."""
        job = self._jobs.get(upload.job_id or 0)
        if job is not None and job.state is JobState.RUNNING:
            await self.cancel(job, by)
        await self.uploads.discard(upload)

    async def cancel(self, job: Job, by: str) -> None:
        """End it; return when it has ended. Raises `Conflict` when it was over already."""
        if job.state is not JobState.RUNNING:
            raise Conflict(f"job {job.id} is over already: {job.state}")
        job.cancelled_by = by
        job.scope.cancel(reason=f"cancelled by {by}")
        await job.over.wait()

    def resume(self) -> None:
        for upload in self.uploads.everything():
            if upload.complete:
                self._start_upload(upload)

    # --- inside ---

    def _start_upload(self, upload: Upload) -> Job:
        async def work(progress: Progress) -> Image:
            return await self.library.import_iso(
                self.uploads.file(upload),
                by=upload.by,
                sha256=upload.sha256,
                name=upload.image_name,
                move=True,
                progress=progress,
            )

        async def afterwards(error: ProvdError | None) -> None:
            # A name that is taken or a full disk can be put right; the bytes need not be sent again.
            if error is None or isinstance(error, BadImage | NotFound):
                await self.uploads.discard(upload)

        job = self._start(JobKind.IMPORT, upload.file_name, upload.by, work, afterwards)
        upload.job_id = job.id
        return job

    def _start(
        self,
        kind: JobKind,
        subject: str,
        by: str,
        work: Callable[[Progress], Awaitable[Image]],
        afterwards: Afterwards,
    ) -> Job:
        running = [job for job in self._jobs.values() if job.state is JobState.RUNNING]
        if len(running) >= MOST:
            raise Conflict(f"{MOST} imports and checks are under way already; wait for one to end")
        over = [job for job in self._jobs.values() if job.state is not JobState.RUNNING]
        for old in over[: max(0, len(over) - KEPT)]:
            del self._jobs[old.id]
        job = Job(id=next(self._ids), kind=kind, subject=subject, started_by=by, started_at=now())
        self._jobs[job.id] = job
        self._nursery.start_soon(self._run, job, work, afterwards, name=f"{kind} {subject}")
        return job

    async def _run(
        self,
        job: Job,
        work: Callable[[Progress], Awaitable[Image]],
        afterwards: Afterwards,
    ) -> None:
        state, detail, error = JobState.CANCELLED, "provd was stopped", None
        try:
            try:
                with job.scope:
                    job.image = (await work(job.progress)).name
                    state, detail = JobState.DONE, ""
                if job.scope.cancelled_caught:
                    detail = f"cancelled by {job.cancelled_by}"
            except ProvdError as exc:
                state, detail, error = JobState.FAILED, str(exc), exc
            with trio.fail_after(WRITE_DOWN_SECONDS, shield=True):
                await afterwards(error)
                await self._tell(job, state, detail)
        finally:
            job.state, job.detail, job.finished_at = state, detail, now()
            job.over.set()

    async def _tell(self, job: Job, state: JobState, detail: str) -> None:
        """What went well was told by the library already."""
        if state is JobState.DONE:
            return
        await self.library.fleet.note(
            News(
                event=f"image.{job.kind}_{state}",
                message=f"{job.kind} of {job.subject} {state}: {detail}",
                level=Level.WARNING if state is JobState.CANCELLED else Level.ERROR,
            )
        )


async def nothing(_: ProvdError | None) -> None:
    pass


@asynccontextmanager
async def open_image_jobs(config: Config, fleet: Fleet) -> AsyncIterator[ImageJobs]:
    """The library and the nursery of its jobs. Leaving it breaks them off."""
    library = ImageLibrary(config, fleet)
    uploads = Uploads(library.directory)
    await library.clean_up()
    await uploads.load()
    for problem in library.problems():
        log.warning("%s", problem)
    async with trio.open_nursery() as nursery:
        jobs = ImageJobs(library, uploads, nursery)
        jobs.resume()
        nursery.start_soon(_clean_up, library)
        yield jobs
        nursery.cancel_scope.cancel(reason="provd stops")


async def _clean_up(library: ImageLibrary) -> None:
    while True:
        await trio.sleep(CLEAN_UP_SECONDS)
        await library.clean_up()
