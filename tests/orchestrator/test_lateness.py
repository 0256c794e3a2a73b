"""When a host counts as late, and what is said then: by evidence, the most telling first."""

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from provd.domain.contacts import Contact, Hop
from provd.domain.hosts import Mac, OperationId
from provd.domain.lifecycle import SETTLED, State
from provd.orchestrator.lateness import Evidence, judge
from provd.orchestrator.pace import Usual
from provd.orchestrator.trail import Heard, Missing, PresentBoot, Station
from provd.orchestrator.waits import WAITS
from provd.store.departures import Turn

START = datetime(2026, 3, 1, 14, 2, tzinfo=UTC)
MAC = Mac.parse("52:54:00:12:34:56")
USUAL = Usual(samples=3, state_seconds=100, before_seconds=0, total_seconds=900)

IN_STATE = Evidence(
    state=State.PXE_READY,
    since=START,
    now=START,
    usual=USUAL,
    allowed=1800,
    boot=None,
    last=None,
    downloading=False,
    hears_dhcp=True,
    own_images=True,
    left_alone=False,
    public_url="http://192.0.2.5:8080",
    other_turn=None,
    cluster_trouble="",
)


def after(seconds: float, **more: object) -> Evidence:
    return evolve(IN_STATE, now=START + timedelta(seconds=seconds), **more)


def heard(hop: Hop, seconds: float, message: str = "x") -> Heard:
    return Heard(contact=Contact(mac=MAC, hop=hop, message=message), at=START + timedelta(seconds=seconds))


def boot(*passed: Hop, missing: str = "", at: float = 30) -> PresentBoot:
    """A boot that passed these a second after the host had entered its state."""
    first = START + timedelta(seconds=1)
    return PresentBoot(
        stations={hop: Station(message=f"passed {hop}", first=first, last=first) for hop in passed},
        latest=passed[-1],
        watch=None,
        missing=Missing(after=passed[-1], next=(), sentence=missing, at=START + timedelta(seconds=at))
        if missing
        else None,
    )


@pytest.mark.parametrize(
    ("evidence", "late"),
    [
        (after(200), False),
        (after(201), True),
        (after(900, usual=None), False),
        (after(901, usual=None), True),
        # What usually takes two seconds is not late after five.
        (after(60, usual=evolve(USUAL, state_seconds=2)), False),
        (after(61, usual=evolve(USUAL, state_seconds=2)), True),
        (after(9999, downloading=True), False),
        # A station that did not come is known to be missing long before the state is.
        (after(40, boot=boot(Hop.DISCOVER, missing="was not")), True),
        # That of an earlier state says nothing of this one.
        (after(40, boot=boot(Hop.DISCOVER, missing="was not", at=-30)), False),
    ],
)
def test_when_it_is_late(evidence: Evidence, late: bool) -> None:
    """Twice its usual time, else half its deadline; not while a file moves; at once when a hop is missing."""
    found = judge(evidence)
    assert found.late is late
    assert bool(found.reasons) is late


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_who_has_arrived_is_not_late(state: State) -> None:
    """A host that nobody waits for stays as long as it likes."""
    assert not judge(after(10**6, state=state)).late


@pytest.mark.parametrize("state", WAITS)
def test_something_can_be_said_in_every_state(state: State) -> None:
    """One or two reasons, without evidence too; the usual advice is never far."""
    reasons = judge(after(10**4, state=state)).reasons
    assert 1 <= len(reasons) <= 2
    assert all(reason.sentence for reason in reasons)


@pytest.mark.parametrize(
    ("evidence", "words", "seen_at"),
    [
        (after(999), ["no DHCP packet came from this MAC", "another network card"], 0),
        (after(999, hears_dhcp=False), ["pxe.enabled is false", "is it powered on"], 0),
        (
            after(999, last=heard(Hop.LOADER, 5, "read snponly.efi")),
            ["it read snponly.efi; its script was never fetched", "is it powered on"],
            5,
        ),
        (after(999, last=heard(Hop.LOADER, -5)), ["no DHCP packet came", "still runs what it booted"], 0),
        (after(999, left_alone=True), ["discovery: off", "no DHCP packet came"], None),
        (
            after(99, boot=boot(Hop.LOADER, missing="was served iPXE, which was not heard")),
            ["it was served iPXE, which was not heard", "no DHCP packet came"],
            1,
        ),
        (
            after(999, state=State.PXE_BOOTED, boot=boot(Hop.SCRIPT, Hop.KERNEL, Hop.INITRD)),
            ["has not asked for its answer", "look at its screen"],
            1,
        ),
        (
            after(999, state=State.PXE_BOOTED, boot=boot(Hop.SCRIPT)),
            ["its script was fetched, and no kernel", "look at its screen"],
            0,
        ),
        (
            after(999, state=State.INSTALLING, last=heard(Hop.DISCOVER, 700)),
            ["booted from the network again", "can the new system reach http://192.0.2.5:8080"],
            700,
        ),
        (
            after(999, state=State.INSTALLING, last=heard(Hop.ANSWER, 0)),
            ["did not fetch the first-boot script", "report may not"],
            0,
        ),
        (
            after(999, state=State.INSTALLING, last=heard(Hop.FIRST_BOOT_SCRIPT, 20)),
            ["fetched its first-boot script", "report may not"],
            20,
        ),
        (after(999, state=State.INSTALLING), ["since provd was started", "report may not"], None),
        (
            after(999, state=State.PXE_BOOTED, own_images=False),
            ["comes from another web server", "look at its screen"],
            0,
        ),
        (
            after(999, state=State.INSTALLED, last=heard(Hop.SCRIPT, 60)),
            ["its own disk, which does not start", "may not reach"],
            60,
        ),
        (after(999, state=State.INSTALLED), ["has not restarted", "may not reach"], 0),
        (
            after(
                999,
                state=State.FIRST_BOOT,
                other_turn=Turn(operation_id=OperationId(7), hostname="pve2", since=START),
            ),
            ["operation 7 for pve2", "SSH port"],
            0,
        ),
        (
            after(999, state=State.JOINING, cluster_trouble="it has no quorum"),
            ["the cluster: it has no quorum", "pvecm status"],
            None,
        ),
    ],
)
def test_what_is_said(evidence: Evidence, words: list[str], seen_at: float | None) -> None:
    """The two most likely reasons, in their order, the first with the time of what it speaks of."""
    reasons = judge(evidence).reasons
    assert len(reasons) == len(words)
    for reason, part in zip(reasons, words, strict=True):
        assert part in reason.sentence
    assert reasons[0].at == (None if seen_at is None else START + timedelta(seconds=seen_at))
