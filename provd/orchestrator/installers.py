"""Which machine may read which installer, and until when.

An installer's URL belongs to one operation and says nothing else. It is given out in the boot script
only, cannot be guessed, and is worth something while the operation's host is to be installed: from the
moment the answer is out there is nothing behind it any more. How bytes get onto the wire is not known
here.
"""

import hmac
from collections.abc import Callable, Mapping

from attrs import frozen
from nacl.encoding import RawEncoder
from nacl.hash import blake2b

from provd.config import Config
from provd.domain.errors import BadImage, Invalid, NotFound
from provd.domain.hosts import HostId, OperationId
from provd.domain.lifecycle import BOOTS, Boots
from provd.domain.operations import Operation
from provd.domain.secrets import Secret
from provd.domain.virtual_file import VirtualFile
from provd.orchestrator.fleet import Fleet
from provd.proxmox.installer_files import installer_files
from provd.proxmox.mode_file import TOKEN_SINCE, version_of
from provd.store import hosts, images, operations
from provd.store.database import Db
from provd.store.images import Image

TOKEN_KEY = b"provd-images"  # blake2b's "person": this key is for tokens of images and nothing else
TOKEN_BYTES = 16


@frozen(kw_only=True)
class Served:
    """A file, and on whose account it is read."""

    name: str
    file: VirtualFile
    host_id: HostId
    operation_id: OperationId


class Installers:
    """`mode_file` makes auto-installer-mode.toml for an image, with the token that its machine shows.

    The same every time: a machine reads the ISO in pieces.
    """

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        sealing_key: bytes,
        mode_file: Callable[[Image, Secret], bytes],
    ) -> None:
        self._url = config.server.image_url
        self._directory = config.paths.images_dir
        self._fleet = fleet
        self._mode_file = mode_file
        self._key = blake2b(b"", key=sealing_key, person=TOKEN_KEY, encoder=RawEncoder)

    def base_url(self, operation: Operation) -> str:
        """Where the operation's machine finds its installer: the same, however often it asks."""
        return f"{self._url}/{self._token(operation.id)}"

    def find(self, token: str, name: str) -> Served | None:
        """The file of that name behind the operation's URL; None for whoever has no right to it.

        Raises `BadImage` where somebody has, and the files on disk are not what they were.
        """
        operation_id = self._proven(token)
        if operation_id is None:
            return None
        offer = self._fleet.store.read(lambda db: _offer(db, operation_id))
        if offer is None:
            return None
        # Three looks at a directory, a tenth of a millisecond: less than a stale answer would cost.
        file = self._files(offer).get(name)
        if file is None:
            return None
        return Served(name=name, file=file, host_id=offer.host_id, operation_id=operation_id)

    def has_read(self, operation: Operation, authorization: str | None) -> bool:
        """Whether the sender of this header has read the operation's ISO. Before PVE 9.2 none can tell."""

        def find(db: Db) -> Image | None:
            image_id = operations.image_of(db, operation.id)
            return images.get(db, image_id) if image_id is not None else None

        image = self._fleet.store.read(find)
        if image is None or version_of(image.release) < TOKEN_SINCE:
            return True
        expected = f"Bearer {self._answer_token(operation.id).reveal()}"
        return hmac.compare_digest((authorization or "").encode(errors="replace"), expected.encode())

    def _answer_token(self, operation_id: OperationId) -> Secret:
        """What lies in the ISO, as NAME:SECRET. It is worth what the address of the ISO is worth."""
        return Secret(f"provd:{self._token(operation_id)}")

    def _files(self, offer: "_Offer") -> Mapping[str, VirtualFile]:
        image = offer.image
        try:
            mode_file = self._mode_file(image, self._answer_token(offer.operation_id))
        except Invalid as exc:
            raise BadImage(f"{image.name} cannot be told where to ask for its answer: {exc}") from exc
        return installer_files(self._directory / image.name, image.mode_offset, mode_file)

    def _token(self, operation_id: OperationId) -> str:
        """The operation's number and what only this daemon can say of it."""
        proof = blake2b(b"%d" % operation_id, TOKEN_BYTES, key=self._key, encoder=RawEncoder)
        return f"{operation_id}-{proof.hex()}"

    def _proven(self, token: str) -> OperationId | None:
        """The operation that the token was made for. A guess does not reach the database."""
        digits = token.partition("-")[0]
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
            return None
        operation_id = OperationId(int(digits))
        expected = self._token(operation_id).encode()
        return operation_id if hmac.compare_digest(token.encode(errors="replace"), expected) else None


@frozen
class _Offer:
    operation_id: OperationId
    host_id: HostId
    image: Image


def _offer(db: Db, operation_id: OperationId) -> _Offer | None:
    """What the operation installs, while it does: its host is in a state that boots the installer."""
    try:
        operation = operations.get(db, operation_id)
        image_id = operations.image_of(db, operation_id)
        if not operation.active or operation.host_id is None or image_id is None:
            return None
        if BOOTS[hosts.get(db, operation.host_id).state] is not Boots.INSTALLER:
            return None
        return _Offer(operation_id, operation.host_id, images.get(db, image_id))
    except NotFound:
        return None  # removed, each of them may be
