"""The web application: which room answers which path. Nothing is decided here."""

from quart import Response, g, jsonify, request
from quart_trio import QuartTrio
from werkzeug.routing import IntegerConverter, Map

from provd.network_boot import url_at
from provd.store import activity
from provd.web import (
    answer,
    api,
    assets,
    boot,
    boot_files,
    cluster,
    compression,
    doctor,
    gate,
    grid,
    host,
    images,
    operation,
    problems,
    readiness,
    stream,
    trail,
)
from provd.web.page import Pages
from provd.web.parts import Parts
from provd.web.views import activity_view

ROWS_AT_ONCE = 200


class IdConverter(IntegerConverter):
    """A row's number: what SQLite can hold, in ASCII digits."""

    regex = "[0-9]+"

    def __init__(self, map: Map) -> None:
        super().__init__(map, min=1, max=2**53)


def create_app(parts: Parts) -> QuartTrio:
    app = QuartTrio("provd", static_folder=None, template_folder=None)
    app.url_map.converters["id"] = IdConverter
    problems.install(app)
    server, boot_address = parts.config.server, parts.boot.address
    gate.install(
        app,
        gate.GateConfig(
            public_url=server.public_url,
            # Firmware calls by address: it may have no name server.
            allowed_hosts=[*server.host_headers, *([str(boot_address.ip)] if boot_address else [])],
            auth=server.auth,
        ),
        parts.store,
    )
    compression.install(app)
    app.register_blueprint(boot.blueprint(parts.desk))
    app.register_blueprint(
        boot_files.blueprint(
            parts.boot.files,
            parts.desk,
            base_url=url_at(server, boot_address.ip) if boot_address else server.public_url,
            mac_of=parts.boot.neighbours.mac_of,
            heard=parts.front_desk.heard,
        )
    )
    app.register_blueprint(api.blueprint(parts))
    app.register_blueprint(
        trail.blueprint(fleet=parts.fleet, trail=parts.trail, recorder=parts.boot.recorder, waker=parts.waker)
    )
    app.register_blueprint(host.programs(parts))
    pages = Pages(parts.book, parts.store)
    app.register_blueprint(images.blueprint(parts.image_jobs, pages))
    app.register_blueprint(doctor.blueprint(parts.doctor, pages))
    app.register_blueprint(cluster.blueprint(parts, pages))
    for room in (answer, readiness):
        app.register_blueprint(room.blueprint(parts))
    for room in (grid, host, operation):
        app.register_blueprint(room.blueprint(parts, pages))
    app.register_blueprint(assets.blueprint())

    downloads = stream.Downloads(
        current=lambda: [trail.progress_view(one) for one in parts.downloads.current()],
        bell=parts.downloads.bell,
    )

    @app.get("/events")
    async def events() -> Response:
        return stream.event_response(
            rows_after=lambda last: parts.store.read(lambda db: activity.after(db, last, ROWS_AT_ONCE)),
            bounds=lambda: parts.store.read(activity.bounds),
            bell=parts.bell,
            last_id=stream.last_event_id(request),
            render=activity_view,
            welcome=g.still_welcome,
            downloads=downloads,
        )

    @app.get("/healthz")
    async def health() -> Response:
        return jsonify({"status": "ok"})

    return app
