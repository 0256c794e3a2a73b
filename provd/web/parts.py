"""What the web room is handed: every part of provd that a request may reach."""

from attrs import frozen

from provd.config import Config
from provd.orchestrator.bell import Bell
from provd.orchestrator.boot import BootDesk
from provd.orchestrator.enrolment import Enrolment
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.operations import Operations
from provd.orchestrator.passwords import ClusterPasswords
from provd.orchestrator.rebuild import Rebuild
from provd.server_types import ServerTypeBook
from provd.store.database import Store


@frozen(kw_only=True)
class Parts:
    config: Config
    book: ServerTypeBook
    store: Store
    bell: Bell
    fleet: Fleet
    enrolment: Enrolment
    rebuild: Rebuild
    operations: Operations
    passwords: ClusterPasswords
    desk: BootDesk
