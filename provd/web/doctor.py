"""The doctor's page and its place in the API. What is looked at, and how often, is decided elsewhere."""

import attrs
from quart import Blueprint, Response, jsonify

from provd.doctor.doctor import Doctor, Report, TooSoon
from provd.doctor.findings import Result, healthy
from provd.web.page import Pages
from provd.web.problems import problem
from provd.web.views import rfc3339

ORDER = (Result.PROBLEM, Result.WARNING, Result.SKIPPED, Result.OK)
"""What somebody has to do something about comes first."""


def blueprint(doctor: Doctor, pages: Pages) -> Blueprint:
    rooms = Blueprint("doctor", __name__)

    @rooms.get("/api/doctor")
    async def show() -> Response:
        return jsonify(report_view(doctor.last) | {"busy": doctor.busy})

    @rooms.post("/api/doctor")
    async def examine() -> Response:
        try:
            report = await doctor.examine()
        except TooSoon as exc:
            response = problem(429, detail=str(exc))
            response.headers["Retry-After"] = str(exc.seconds)
            return response
        return jsonify(report_view(report) | {"busy": doctor.busy})

    @rooms.get("/api/doctor/routers")
    async def list_routers() -> Response:
        return jsonify({"routers": [attrs.asdict(snippet) for snippet in await doctor.snippets()]})

    @rooms.get("/doctor")
    async def show_page() -> Response:
        page = pages.open("doctor.html")
        return page.draw(report=report_view(doctor.last), busy=doctor.busy, routers=await doctor.snippets())

    return rooms


def report_view(report: Report | None) -> dict[str, object]:
    if report is None:
        return {"at": None, "healthy": None, "findings": []}
    findings = sorted(report.findings, key=lambda finding: ORDER.index(finding.result))
    return {
        "at": rfc3339(report.at),
        "healthy": healthy(findings),
        "findings": [attrs.asdict(finding) for finding in findings],
    }
