"""Where machines knock: iPXE, the installer and the first-boot script. No browser belongs here.

Nothing is decided here. Whatever does not fit is `NotYourTurn`, which the error handlers turn into
one and the same 404.
"""

from ipaddress import ip_address

from quart import Blueprint, Response, request

from provd.domain.hosts import HostId
from provd.domain.secrets import Secret
from provd.orchestrator.boot import BootDesk
from provd.web.bodies import received


def blueprint(desk: BootDesk) -> Blueprint:
    machines = Blueprint("machines", __name__)

    @machines.get("/ipxe/<mac>")
    async def script(mac: str) -> Response:
        agent = request.headers.get("User-Agent")
        return _text(await desk.script(mac.removesuffix(".ipxe"), _address(), agent), "text/plain")

    @machines.post("/api/boot/answer")
    async def answer() -> Response:
        answer = await desk.answer(await received(), _address(), request.headers.get("Authorization"))
        return Response(answer, content_type="application/toml")

    @machines.get("/api/hosts/<id:host_id>/first-boot-script")
    async def first_boot_script(host_id: int) -> Response:
        return _text(desk.first_boot_script(HostId(host_id), _token(), _address()), "text/x-shellscript")

    @machines.post("/api/hosts/<id:host_id>/installed")
    async def installed(host_id: int) -> Response:
        await desk.installed(HostId(host_id), _token(), await received())
        # Installers since PVE 9.2 take 200 and 201 for success and nothing else.
        return _text("noted\n", "text/plain")

    @machines.post("/api/hosts/<id:host_id>/phone-home")
    async def phone_home(host_id: int) -> Response:
        await desk.phoned_home(HostId(host_id), _token(), await received())
        return _text("welcome\n", "text/plain")

    return machines


def _token() -> Secret:
    """From the header where the caller is our own script, else from the URL that the answer gave."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return Secret(token.strip() if scheme.lower() == "bearer" else request.args.get("token", ""))


def _address() -> str:
    try:
        return str(ip_address(request.remote_addr or ""))
    except ValueError:
        return "an unknown address"


def _text(body: str | bytes, content_type: str) -> Response:
    return Response(body, content_type=f"{content_type}; charset=utf-8")
