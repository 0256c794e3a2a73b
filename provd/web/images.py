"""Images over HTTP: the API to import, upload, check, choose and remove them, and the page for it.

An upload is resumable, in the manner of tus: chunks are sent with PATCH, each says at which offset it
begins, and whoever has lost count asks with GET. What takes longer than an answer may is a job.
"""

from pathlib import Path

from quart import Blueprint, Response, g, jsonify, request

from provd.domain.documents import as_object, parse_json
from provd.domain.errors import Invalid
from provd.orchestrator.image_files import parse_name, parse_sha256
from provd.orchestrator.image_jobs import ImageJobs, Job, JobState
from provd.orchestrator.uploads import LARGEST_CHUNK, Upload, WrongOffset
from provd.proxmox.memory import memory_needed
from provd.store.images import Image
from provd.web import bodies
from provd.web.page import Pages
from provd.web.problems import refusal
from provd.web.views import View, rfc3339

OFFSET = "Upload-Offset"


def blueprint(jobs: ImageJobs, pages: Pages) -> Blueprint:
    images = Blueprint("images", __name__)
    library, uploads = jobs.library, jobs.uploads

    # --- images ---

    @images.get("/api/images")
    async def list_images() -> Response:
        return jsonify({"images": all_images(jobs), "problems": list(library.problems())})

    @images.post("/api/images")
    async def import_image() -> Response:
        fields = bodies.Fields(parse_json(await bodies.received()))
        path = fields.required("path", str)
        sha256 = fields.optional("sha256", parse_sha256)
        name = fields.optional("name", parse_name)
        fields.end()
        return _started(jobs.start_import(Path(path), by=g.actor, sha256=sha256, name=name))

    @images.get("/api/images/<name>")
    async def show_image(name: str) -> Response:
        return jsonify(image_view(library.named(name)))

    @images.delete("/api/images/<name>")
    async def remove_image(name: str) -> Response:
        await library.remove(name, g.actor)
        return Response(b"", status=204)

    @images.post("/api/images/<name>/default")
    async def choose_image(name: str) -> Response:
        return jsonify(image_view(await library.set_default(name, g.actor)))

    @images.post("/api/images/<name>/verify")
    async def verify_image(name: str) -> Response:
        return _started(jobs.start_verify(name, g.actor))

    # --- jobs ---

    @images.get("/api/images/jobs")
    async def list_jobs() -> Response:
        return jsonify({"jobs": [job_view(job) for job in jobs.everything()]})

    @images.get("/api/images/jobs/<id:job_id>")
    async def show_job(job_id: int) -> Response:
        return jsonify(job_view(jobs.get(job_id)))

    @images.post("/api/images/jobs/<id:job_id>/cancel")
    async def cancel_job(job_id: int) -> Response:
        job = jobs.get(job_id)
        await jobs.cancel(job, g.actor)
        return jsonify(job_view(job))

    # --- uploads ---

    @images.get("/api/images/uploads")
    async def list_uploads() -> Response:
        return jsonify({"uploads": all_uploads(jobs)})

    @images.post("/api/images/uploads")
    async def begin_upload() -> Response:
        document = dict(as_object(parse_json(await bodies.received()), "the body"))
        size = document.pop("size", None)
        if not isinstance(size, int) or isinstance(size, bool):
            raise Invalid("size must be a whole number of bytes", "size")
        fields = bodies.Fields(document)
        file_name = fields.required("name", str)
        sha256 = fields.optional("sha256", parse_sha256)
        image_name = fields.optional("image_name", parse_name)
        fields.end()
        upload = await uploads.create(file_name, size, sha256=sha256, image_name=image_name, by=g.actor)
        response = _upload(upload)
        response.status_code = 201
        response.headers["Location"] = f"/api/images/uploads/{upload.id}"
        return response

    @images.get("/api/images/uploads/<upload_id>")
    async def show_upload(upload_id: str) -> Response:
        return _upload(uploads.get(upload_id))

    @images.patch("/api/images/uploads/<upload_id>")
    async def append_chunk(upload_id: str) -> Response:
        upload = uploads.get(upload_id)
        text = request.headers.get(OFFSET, "")
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise Invalid(f"the header {OFFSET} says at which byte the chunk begins")
        return _upload(await jobs.append(upload, int(text), await bodies.received()))

    @images.delete("/api/images/uploads/<upload_id>")
    async def cancel_upload(upload_id: str) -> Response:
        await jobs.cancel_upload(uploads.get(upload_id), g.actor)
        return Response(b"", status=204)

    @images.post("/api/images/uploads/<upload_id>/import")
    async def import_upload(upload_id: str) -> Response:
        """Once more, after an import that failed for a reason that was put right."""
        fields = bodies.Fields(parse_json(await bodies.received() or b"{}"))
        name = fields.optional("image_name", parse_name)
        fields.end()
        return _started(jobs.import_upload(uploads.get(upload_id), name))

    @images.errorhandler(WrongOffset)
    async def wrong_offset(error: WrongOffset) -> Response:
        response = refusal(409, str(error), offset=error.offset)
        response.headers[OFFSET] = str(error.offset)
        return response

    # --- the page ---

    @images.get("/images")
    async def show_page() -> Response:
        return pages.open("images.html").draw(
            images=all_images(jobs),
            problems=library.problems(),
            jobs=[job_view(job) for job in jobs.everything()],
            uploads=all_uploads(jobs),
            directory=library.directory,
            blank_image=BLANK_IMAGE,
            blank_job=BLANK_JOB,
            blank_upload=BLANK_UPLOAD,
        )

    return images


# --- views ------------------------------------------------------------------------------------------


def all_images(jobs: ImageJobs) -> list[View]:
    return [image_view(image) for image in jobs.library.everything()]


def all_uploads(jobs: ImageJobs) -> list[View]:
    return [upload_view(upload) for upload in jobs.uploads.everything()]


def image_view(image: Image) -> View:
    return {
        "id": image.id,
        "name": image.name,
        "product": image.product,
        "release": image.release,
        "sha256": image.sha256,
        "size": image.size,
        "imported_at": rfc3339(image.imported_at),
        "is_default": image.is_default,
        "memory_needed_mib": memory_needed(image.release),
    }


def job_view(job: Job) -> View:
    running = job.state is JobState.RUNNING
    left = job.progress.seconds_left
    return {
        "id": job.id,
        "kind": job.kind,
        "subject": job.subject,
        "started_by": job.started_by,
        "started_at": rfc3339(job.started_at),
        "state": job.state,
        "detail": job.detail,
        "image": job.image,
        "finished_at": rfc3339(job.finished_at) if job.finished_at else None,
        "done": job.progress.done,
        "total": job.progress.total,
        "rate": round(job.progress.rate) if running else 0,
        "seconds_left": round(left) if running and left is not None else None,
    }


def upload_view(upload: Upload) -> View:
    return {
        "id": upload.id,
        "name": upload.file_name,
        "size": upload.size,
        "offset": upload.offset,
        "sha256": upload.sha256,
        "image_name": upload.image_name,
        "started_by": upload.by,
        "complete": upload.complete,
        "job_id": upload.job_id,
        "largest_chunk": LARGEST_CHUNK,
    }


BLANK_IMAGE: View = {
    "name": "",
    "release": "",
    "sha256": "",
    "size": 0,
    "imported_at": "",
    "is_default": False,
    "memory_needed_mib": 0,
}
"""Shapes for the script to fill in."""
BLANK_JOB: View = {
    "id": "",
    "kind": "",
    "subject": "",
    "state": JobState.RUNNING,
    "detail": "",
    "done": 0,
    "total": 0,
    "rate": 0,
    "seconds_left": None,
}
BLANK_UPLOAD: View = {"id": "", "name": "", "size": 0, "offset": 0, "complete": False}


def _started(job: Job) -> Response:
    response = jsonify(job_view(job))
    response.status_code = 202
    response.headers["Location"] = f"/api/images/jobs/{job.id}"
    return response


def _upload(upload: Upload) -> Response:
    response = jsonify(upload_view(upload))
    response.headers[OFFSET] = str(upload.offset)
    return response
