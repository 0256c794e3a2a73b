"""What can go wrong with a machine: switches that a test turns between boots."""

from attrs import define


@define(kw_only=True)
class Faults:
    """Every switch is read at the moment it matters, so that it may change while the machine is off."""

    never_powers_on: bool = False
    answer_response_lost: bool = False
    """The first answer is sent but never arrives; somebody at the console then asks a second time."""
    other_macs: tuple[str, ...] = ()
    """If set, these MACs ask for an answer first, in a request of their own."""
    dies_in_installer: bool = False
    """The power goes after the disk was wiped: nothing is left to boot."""
    webhook_lost: bool = False
    duplicate_webhook: bool = False
    wrong_host_keys_in_webhook: bool = False
    first_boot_script_fails_once: bool = False
    """The first run ends with 1 before the script did anything. Clears itself."""
    duplicate_phone_home: bool = False
    """The first-boot script runs twice."""
    hostile_strings: bool = False
