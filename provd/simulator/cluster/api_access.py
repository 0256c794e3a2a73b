"""/access: logging in, and what a caller may do."""

import hmac
from typing import Any

from provd.simulator.cluster.options import text
from provd.simulator.cluster.request import Request
from provd.simulator.cluster.tickets import EVERYTHING, ROOT, ApiError

FAILED = "authentication failure"


def domains(request: Request) -> Any:
    return [
        {"realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication"},
        {"realm": "pve", "type": "pve", "comment": "Proxmox VE authentication server"},
    ]


def no_ticket(request: Request) -> None:
    return None


def create_ticket(request: Request) -> Any:
    """Only root@pam has a password here, and every node its own."""
    optional = dict.fromkeys(("realm", "otp", "tfa-challenge", "path", "privs", "new-format"), text)
    values = request.checked({"username": text, "password": text}, optional)
    user, password = str(values["username"]), str(values["password"])
    if "@" not in user:
        user = f"{user}@{values.get('realm', 'pam')}"
    if user != ROOT:
        raise ApiError(401, FAILED)
    if "tfa-challenge" in values:
        return _second_factor(request, str(values["tfa-challenge"]), password)
    node = request.state.nodes[request.view.node]
    if not node.root_password or not hmac.compare_digest(password.encode(), node.root_password.encode()):
        raise ApiError(401, FAILED)
    if request.state.tfa is None:
        return _session(request)
    ticket = request.view.authority.tfa_challenge(request.state.tfa)
    return {**_base(request, ticket), "NeedTFA": 1}


def _second_factor(request: Request, challenge: str, answer: str) -> Any:
    genuine = (request.view.authority.user_of(challenge) or "").startswith("!tfa!")
    if not genuine or request.state.tfa != "totp" or answer != f"totp:{request.state.totp_code}":
        raise ApiError(401, FAILED)
    return _session(request)


def _session(request: Request) -> dict[str, Any]:
    groups = {"nodes": "Sys.", "vms": "VM.", "access": "Permissions.", "storage": "Datastore.", "dc": "Sys."}
    cap = {
        group: {name: 1 for name in EVERYTHING if name.startswith(prefix)} for group, prefix in groups.items()
    }
    return {**_base(request, request.view.authority.ticket(ROOT)), "cap": cap}


def _base(request: Request, ticket: str) -> dict[str, Any]:
    name = {"clustername": request.state.name} if request.state.name else {}
    token = request.view.authority.csrf_token(ROOT)
    return {"username": ROOT, "ticket": ticket, "CSRFPreventionToken": token, **name}


def permissions(request: Request) -> Any:
    return {path: dict.fromkeys(names, 1) for path, names in request.caller.privs.items()}
