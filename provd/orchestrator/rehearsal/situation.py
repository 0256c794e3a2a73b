"""All that a rehearsal of a rebuild looks at, as one value. Whoever gathered it is not known here."""

from collections.abc import Collection
from datetime import datetime

from attrs import frozen

from provd.domain.cluster import Cluster, Node, Survey
from provd.domain.hardware import Hardware
from provd.domain.hosts import Host, IPAddress
from provd.domain.installation import InstallPlan
from provd.server_types import ServerType


@frozen(kw_only=True)
class Credentials:
    """Which keys to the cluster are at hand. What each opens is told in the check of that name."""

    password: bool
    """root's, from a file or typed just now."""
    token: bool
    ssh_key: bool


@frozen(kw_only=True)
class Other:
    """Another host of provd, and every address that is known or wanted for it."""

    hostname: str
    addresses: tuple[IPAddress, ...] = ()


@frozen
class Elsewhere:
    """Installers lie on another web server, of which provd knows the address only."""

    url: str


@frozen(kw_only=True)
class Situation:
    at: datetime
    host: Host
    busy: str | None = None
    """Who is working on the host, as a sentence without its full stop."""
    server_type: ServerType | None
    plan: InstallPlan | str
    """Or why there is none."""
    image: str | Elsewhere | None
    """The release that would be installed, e.g. `9.2-1`. None: there is nothing to install."""
    public_url: str
    """Where the answer tells the machine to report to."""
    hardware: Hardware | None
    others: tuple[Other, ...]
    survey: Survey | str | None
    """Or why there is none. None: there is no cluster for this host."""
    away: frozenset[str] = frozenset()
    """Members that other operations of provd have released: they may go away at any moment."""
    credentials: Credentials
    drain: bool
    keep_entry: bool = False
    """Not to be struck out: its vote is expected all the time."""

    # --- what several checks ask ---

    @property
    def name(self) -> str:
        return self.host.hostname

    @property
    def cluster(self) -> Cluster | None:
        """The one that the host shall be a member of, where it could be seen."""
        return self.survey.cluster if isinstance(self.survey, Survey) else None

    @property
    def member(self) -> Node | None:
        """The host as the cluster lists it."""
        return self.cluster.node(self.name) if self.cluster is not None else None

    @property
    def rest(self) -> Cluster | None:
        """The cluster as the host will join it: without it."""
        return self.cluster.struck(self.name) if self.cluster is not None else None

    @property
    def others_away(self) -> frozenset[str]:
        return frozenset(name for name in self.away if not self.is_me(name))

    @property
    def drains(self) -> bool:
        """Whether it goes into HA maintenance: asked for, a running member, and provd has the key to it."""
        member = self.member
        return self.drain and member is not None and member.online and self.credentials.ssh_key

    @property
    def wanted_addresses(self) -> tuple[IPAddress, ...]:
        """Those that the host's options give it for good."""
        options = self.host.options
        static = (options.address.cidr.ip,) if options.address is not None else ()
        return (*static, *(options.links or ()))

    def is_me(self, name: str) -> bool:
        return name.lower() == self.name.lower()

    def unseen(self, field: str) -> str:
        """Why a field of the survey is None."""
        assert isinstance(self.survey, Survey), "asked for by checks that have one"
        return self.survey.unseen.get(field, "the cluster did not say")


def listed(names: Collection[str], most: int = 6) -> str:
    """`a, b and 3 more`"""
    shown = list(names)[:most]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
