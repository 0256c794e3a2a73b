"""The dashboard's CSS, JavaScript and icon: read once at the start, served from memory.

A request only ever names a key of a dictionary; no path is built from what it says, and no file is
opened for it.
"""

import gzip
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from pathlib import Path

from attrs import frozen
from quart import Blueprint, Response, abort, request

import provd
from provd.domain.errors import ConfigError

CONTENT_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
"""What is served at all. Other files in the folder are not the browser's business."""

TEXT = frozenset({".css", ".js", ".svg"})


@frozen(kw_only=True)
class Asset:
    body: bytes
    content_type: str
    etag: str
    gzipped: bytes | None
    """None where compressing gains nothing."""


def static_folder() -> Path:
    """Inside the package in a wheel, beside it in a checkout. Raises `ConfigError`."""
    package = Path(provd.__file__).parent
    # In this order: beside an installed package, `static` would be a stranger's.
    for folder in (package / "static", package.parent / "static"):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the dashboard's files are missing: {package / 'static'}; install provd again")


def read_assets(folder: Path) -> Mapping[str, Asset]:
    return {
        file.name: _asset(file.read_bytes(), file.suffix)
        for file in sorted(folder.iterdir())
        if file.suffix in CONTENT_TYPES and file.is_file()
    }


@cache
def ours() -> Mapping[str, Asset]:
    """The dashboard's, as they were when this process asked first."""
    return read_assets(static_folder())


@cache
def version() -> str:
    """Another one when any of them is another: pages of two versions have no worker in common."""
    digest = blake2b(digest_size=8)
    for name, asset in ours().items():
        digest.update(f"{name} {asset.etag}\n".encode())
    return digest.hexdigest()


def blueprint(folder: Path | None = None) -> Blueprint:
    assets = Blueprint("assets", __name__)
    known = read_assets(folder) if folder else ours()

    @assets.get("/static/<name>")
    async def show(name: str) -> Response:
        asset = known.get(name)
        if asset is None:
            abort(404)
        packed = asset.gzipped is not None and request.accept_encodings.quality("gzip") > 0
        # Two representations, two strong validators (RFC 9110 §8.8.1).
        etag = f"{asset.etag}-gzip" if packed else asset.etag
        if etag in request.if_none_match:
            # An explicit body, even here: without one Quart would look for asyncio's loop.
            response = Response(b"", status=304)
        else:
            response = Response(asset.gzipped if packed else asset.body, content_type=asset.content_type)
            if packed:
                response.content_encoding = "gzip"
        response.set_etag(etag)
        response.vary.add("Accept-Encoding")
        # Asked about at each load, so that a new version is never mixed with modules of the old one.
        response.cache_control.no_cache = True
        return response

    @assets.get("/favicon.ico")
    async def icon() -> Response:
        """Asked for by browsers on pages that name no icon."""
        return await show("icon.svg")

    return assets


def _asset(body: bytes, suffix: str) -> Asset:
    # No time in the header: the same file gives the same bytes after every restart.
    gzipped = gzip.compress(body, mtime=0) if suffix in TEXT else None
    return Asset(
        body=body,
        content_type=CONTENT_TYPES[suffix],
        etag=blake2b(body, digest_size=12).hexdigest(),
        gzipped=gzipped if gzipped is not None and len(gzipped) < len(body) else None,
    )
