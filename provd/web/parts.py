"""What the web room is handed: every part of provd that a request may reach."""

from attrs import frozen

from provd.cluster_watch import ClusterWatch
from provd.config import Config
from provd.doctor.doctor import Doctor
from provd.network_boot import NetworkBoot
from provd.orchestrator.bell import Bell
from provd.orchestrator.boot import BootDesk
from provd.orchestrator.downloads import Downloads
from provd.orchestrator.enrolment import Enrolment
from provd.orchestrator.entering import Entering
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.front_desk import FrontDesk
from provd.orchestrator.image_jobs import ImageJobs
from provd.orchestrator.installers import Installers
from provd.orchestrator.membership.departing import Departing
from provd.orchestrator.membership.link import ClusterLink
from provd.orchestrator.membership.turns import Turns
from provd.orchestrator.operations import Operations
from provd.orchestrator.pace import Pace
from provd.orchestrator.passwords import ClusterPasswords
from provd.orchestrator.rehearsal.rehearsals import Rehearsals
from provd.orchestrator.trail import Trail
from provd.orchestrator.waits import Waits
from provd.orchestrator.waking import Waker
from provd.proxmox.api_token import ApiToken
from provd.remote.keys import KeyPair
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
    waits: Waits
    pace: Pace
    turns: Turns
    operations: Operations
    departing: Departing
    entering: Entering
    passwords: ClusterPasswords
    cluster_link: ClusterLink
    cluster_watch: ClusterWatch
    rehearsals: Rehearsals
    cluster_token: ApiToken | None
    cluster_key: KeyPair | None
    """For SSH to the cluster's members."""
    desk: BootDesk
    boot: NetworkBoot
    front_desk: FrontDesk
    trail: Trail
    waker: Waker
    installers: Installers
    downloads: Downloads
    image_jobs: ImageJobs
    doctor: Doctor
