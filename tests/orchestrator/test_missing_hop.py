"""The table of what must follow: complete, short enough to be read, and true to the host's own settings."""

import pytest

from provd.domain.contacts import Hop
from provd.domain.documents import one_line
from provd.domain.hosts import Discovery
from provd.orchestrator.fleet import MESSAGE_LIMIT
from provd.orchestrator.missing_hop import Setting, expected_after

ORDER = list(Hop)
SETTING = Setting(
    public_url="http://provisioning.example.org:8080",
    installer_url="http://provisioning.example.org:8081/images/pve-9.2-1",
    memory_mib=6144,
)


@pytest.mark.parametrize("hop", ORDER[: ORDER.index(Hop.ANSWER)])
@pytest.mark.parametrize("own_images", [True, False])
@pytest.mark.parametrize("discovery", Discovery)
def test_what_comes_before_the_answer_is_watched(hop: Hop, own_images: bool, discovery: Discovery) -> None:
    """Something later is expected, in seconds, and the sentence reaches the activity uncut, on one line."""
    setting = Setting(
        public_url=SETTING.public_url,
        installer_url=SETTING.installer_url,
        own_images=own_images,
        discovery=discovery,
        memory_mib=131_072,
    )
    expectation = expected_after(hop, setting)
    assert expectation is not None
    assert all(ORDER.index(later) > ORDER.index(hop) for later in expectation.next)
    assert 20 <= expectation.seconds <= 600
    assert one_line(expectation.sentence, MESSAGE_LIMIT) == expectation.sentence


@pytest.mark.parametrize("hop", ORDER[ORDER.index(Hop.ANSWER) :])
def test_from_the_answer_on_the_states_have_their_own_deadlines(hop: Hop) -> None:
    """Nothing is watched here, so that nothing is said twice."""
    assert expected_after(hop, SETTING) is None


def test_all_of_it_ends_before_the_rebuild_gives_up() -> None:
    """The first cause is told within a minute, the last before `pxe_booted` ends after 15 minutes."""
    first = expected_after(Hop.DISCOVER, SETTING)
    booted = [expected_after(hop, SETTING) for hop in (Hop.SCRIPT, Hop.KERNEL, Hop.INITRD)]
    assert first is not None
    assert first.seconds <= 60
    assert sum(one.seconds for one in booted if one is not None) < 15 * 60


@pytest.mark.parametrize(
    ("hop", "setting", "advice"),
    [
        (Hop.DISCOVER, {"discovery": Discovery.OFFER}, "discovery: boot-server"),
        (Hop.DISCOVER, {"discovery": Discovery.BOOT_SERVER}, "discovery: offer"),
        (Hop.LOADER, {}, "loader: ipxe.efi"),
        (Hop.LOADER, {"loader": "snponly.efi"}, "loader: ipxe.efi"),
        (Hop.LOADER, {"loader": "ipxe.efi"}, "loader: snponly.efi"),
        (Hop.IPXE, {}, SETTING.public_url),
        (Hop.SCRIPT, {}, SETTING.installer_url),
        (Hop.INITRD, {"memory_mib": 6144}, "6144 MiB"),
    ],
)
def test_the_advice_is_what_has_not_been_tried(hop: Hop, setting: dict[str, object], advice: str) -> None:
    """A host that has the one form or build already is told the other; addresses are the real ones."""
    wanted = {"public_url": SETTING.public_url, "installer_url": SETTING.installer_url} | setting
    expectation = expected_after(hop, Setting(**wanted))  # type: ignore[arg-type]
    assert expectation is not None
    assert advice in expectation.sentence


def test_foreign_images_are_not_missed() -> None:
    """Where another web server has them nothing is heard between the script and the answer."""
    foreign = Setting(public_url=SETTING.public_url, installer_url="http://nas/pve", own_images=False)
    expectation = expected_after(Hop.SCRIPT, foreign)
    assert expectation is not None
    assert expectation.next == (Hop.ANSWER,)
    own = expected_after(Hop.SCRIPT, SETTING)
    assert own is not None
    assert own.next == (Hop.KERNEL,)
