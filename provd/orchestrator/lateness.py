"""Whether a host is late where it stands, and the two most likely reasons, by what was seen and what was not.

A deadline ends an operation; long before it a human wants to know whether to wait or to walk to the rack.
Decided from values alone: the clock, the trail and the cluster are handed in.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice

from attrs import frozen

from provd.domain.contacts import Hop
from provd.domain.lifecycle import State
from provd.orchestrator.pace import Usual
from provd.orchestrator.trail import BEGINNINGS, Heard, PresentBoot
from provd.orchestrator.waits import WAITS
from provd.store.departures import Turn

MANY_TIMES_USUAL = 2.0
SHORTEST = 60.0
"""Seconds. What takes less than this is not worth a walk."""
MOST_REASONS = 2


@frozen(kw_only=True)
class Evidence:
    """All that is known of a host that an operation leads."""

    state: State
    since: datetime
    now: datetime
    usual: Usual | None
    allowed: float
    """Seconds that it may stay in this state."""
    boot: PresentBoot | None
    last: Heard | None
    downloading: bool
    hears_dhcp: bool
    """Whether provd answers DHCP: else it knows of a machine only what asks its web server."""
    own_images: bool
    """Whether provd serves kernel, initrd and ISO itself."""
    left_alone: bool
    """By the host's own option: its DHCP is not answered."""
    public_url: str
    other_turn: Turn | None
    """Another operation changes the cluster's members at this time."""
    cluster_trouble: str
    """What is wrong with the cluster by the last look, in one sentence; empty: nothing is known to be."""

    @property
    def heard_since(self) -> Heard | None:
        """The machine's last contact, where it came after the host had entered its state."""
        return self.last if self.last is not None and self.last.at > self.since else None


@frozen
class Reason:
    sentence: str
    at: datetime | None = None
    """When what it speaks of was seen, or since when it is not."""


@frozen(kw_only=True)
class Lateness:
    late: bool
    reasons: tuple[Reason, ...] = ()
    """The most likely first; none where it is not late."""


IN_TIME = Lateness(late=False)


def judge(evidence: Evidence) -> Lateness:
    if not _is_late(evidence):
        return IN_TIME
    reasons = islice(_reasons(evidence), MOST_REASONS)
    return Lateness(late=True, reasons=tuple(reasons))


def _is_late(evidence: Evidence) -> bool:
    # What moves is not late, however slowly.
    if evidence.state not in WAITS or evidence.downloading:
        return False
    if evidence.boot is not None and evidence.boot.missing is not None:
        return evidence.boot.missing.at > evidence.since
    patience = MANY_TIMES_USUAL * evidence.usual.state_seconds if evidence.usual else evidence.allowed / 2
    return evidence.now - evidence.since > timedelta(seconds=max(SHORTEST, patience))


def _reasons(evidence: Evidence) -> Iterator[Reason]:
    if evidence.boot is not None and evidence.boot.missing is not None:
        missing = evidence.boot.missing
        yield Reason(f"it {missing.sentence}", evidence.boot.stations[missing.after].last)
    yield from SEEN[evidence.state](evidence)
    yield Reason(WAITS[evidence.state].look_at)


def _not_booted(evidence: Evidence) -> Iterator[Reason]:
    heard, last = evidence.heard_since, evidence.last
    if heard is not None:
        yield Reason(f"heard last: it {heard.contact.message}; its script was never fetched", heard.at)
        return
    if evidence.hears_dhcp and evidence.left_alone:
        yield Reason("the host has the option discovery: off, by which provd leaves its network boot alone")
    if evidence.hears_dhcp:
        yield Reason(
            "no DHCP packet came from this MAC: it is switched off, on another network, or its firmware does "
            "not boot from the network first",
            evidence.since,
        )
    else:
        yield Reason(
            "it has not asked for its boot script; pxe.enabled is false, so that another DHCP server has to "
            "send it here",
            evidence.since,
        )
    if last is not None:
        yield Reason(
            "heard last before it was to be installed: it still runs what it booted then, and has to be "
            "restarted into its network boot",
            last.at,
        )
    elif evidence.hears_dhcp:
        yield Reason(
            "it may boot from another network card: see whether an unknown machine was heard instead, and "
            "register the host with that MAC"
        )


def _no_installer(evidence: Evidence) -> Iterator[Reason]:
    passed = evidence.boot.stations if evidence.boot is not None else {}
    if Hop.INITRD in passed:
        yield Reason(
            "kernel, initrd and ISO were served, and the installer has not asked for its answer: too little "
            "memory, or no network inside the installer",
            passed[Hop.INITRD].last,
        )
    elif Hop.KERNEL in passed:
        yield Reason("the kernel was served, and its initrd never to the end", passed[Hop.KERNEL].last)
    elif evidence.own_images:
        yield Reason("its script was fetched, and no kernel after it", evidence.since)
    else:
        yield Reason(
            "its script was fetched, and the installer has not asked for its answer; what it loads comes "
            "from another web server, which provd does not hear",
            evidence.since,
        )


def _not_installed(evidence: Evidence) -> Iterator[Reason]:
    heard = evidence.heard_since
    if heard is not None and heard.contact.hop in BEGINNINGS:
        yield Reason(
            "it booted from the network again before it had reported: the installer gave up, or it was reset "
            "and sent to its own disk, which may be half written",
            heard.at,
        )
    elif heard is not None and heard.contact.hop is Hop.FIRST_BOOT_SCRIPT:
        yield Reason(
            "it fetched its first-boot script, and was not heard since: its disk is written in silence, and "
            "long where that is slow or failing; or it stopped with an error on its screen",
            heard.at,
        )
    elif evidence.last is None:
        yield Reason("nothing was heard of it since provd was started: it may be writing its disk")
    else:
        yield Reason(
            "it has its answer and did not fetch the first-boot script, which the installer does before it "
            "touches a disk: look at its screen",
            evidence.since,
        )
    yield Reason(f"its report may not get through: can the new system reach {evidence.public_url}?")


def _not_come_up(evidence: Evidence) -> Iterator[Reason]:
    heard = evidence.heard_since
    if heard is not None and heard.contact.hop in BEGINNINGS:
        yield Reason(
            "it booted from the network and was sent to its own disk, which does not start: is that disk in "
            "its firmware's boot order? For UEFI that stops there is the host's option local_boot: sanboot",
            heard.at,
        )
    else:
        yield Reason(
            "nothing was heard since it reported: it has not restarted, or its own disk does not start",
            evidence.since,
        )
    yield Reason(f"the new system may not reach {evidence.public_url}: another network, VLAN or firewall")


def _not_joining(evidence: Evidence) -> Iterator[Reason]:
    if (turn := evidence.other_turn) is not None:
        yield Reason(
            f"operation {turn.operation_id} for {turn.hostname} changes the cluster's members, and this one "
            "waits for its turn",
            turn.since,
        )
    yield from _cluster(evidence)


def _cluster(evidence: Evidence) -> Iterator[Reason]:
    if evidence.cluster_trouble:
        yield Reason(f"the cluster: {evidence.cluster_trouble}")


SEEN: Mapping[State, Callable[[Evidence], Iterator[Reason]]] = {
    State.PXE_READY: _not_booted,
    State.PXE_BOOTED: _no_installer,
    State.INSTALLING: _not_installed,
    State.INSTALLED: _not_come_up,
    State.FIRST_BOOT: _not_joining,
    State.JOINING: _cluster,
}
"""What the evidence says in each state, the most telling first. After it comes what is usual there."""
