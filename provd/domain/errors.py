"""Every error that provd raises on purpose, sorted by who can act on it.

A message is one sentence for a human: what is wrong and, where there is one, the way out. It never
holds a secret, because it ends in the log, in the activity and on a page. Whatever is not a
`ProvdError` is a bug and travels up.
"""


class ProvdError(Exception):
    """Never raised itself; catch it to mean "an error that was foreseen"."""


class ConfigError(ProvdError):
    """The operator's files cannot be used: exit code 2, before any socket is open."""


class StoreError(ProvdError):
    """The database cannot be used: newer than the program, locked, not a database."""


# --- you, the operator, asked for what cannot be -------------------------------------------------


class Refused(ProvdError):
    """A command that does not fit. Nothing has changed."""


class NotFound(Refused):
    """No host, operation or token of that name."""


class Conflict(Refused):
    """It exists already, or something else is going on there."""


class Invalid(Refused):
    """The words of the request are wrong. `field` names the culprit where one can be named."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BadImage(Refused):
    """The file is not an ISO that provd can install from, or not the one that was expected."""


# --- they, out on the network, sent nonsense -----------------------------------------------------


class BadPeer(ProvdError):
    """A machine sent what it should not have. Nothing has changed, and it is told as little as possible."""


class BadDocument(BadPeer):
    """A body that is not the document it should be: malformed, too deep, wrong types."""


class BadPacket(BadPeer):
    """A datagram that does not speak the language of the port it came to. It is dropped in silence."""


class NotYourTurn(BadPeer):
    """A machine asked for what it is not given: unknown, wrong token, wrong state. All look alike to it."""


# --- somebody we depend on failed: the operation fails with this sentence ------------------------


class OutsideFailed(ProvdError):
    """The world outside did not do its part."""


class DeadlinePassed(OutsideFailed):
    """The next expected contact did not come in time."""


class CannotInstall(OutsideFailed):
    """This machine cannot be installed as it is configured."""


class SshFailed(OutsideFailed):
    """A host could not be reached over SSH, or a command there failed."""


class HostKeyMismatch(SshFailed):
    """The machine that answered is not the one that was installed."""


class ClusterFailed(OutsideFailed):
    """A cluster member refused, or could not be reached or believed."""


class JoinFailed(ClusterFailed):
    """`pvecm add` did not end in membership."""


class InventoryFailed(OutsideFailed):
    """The inventory service could not be told. Never the end of an operation: it is tried again."""


def leaves_of(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    """The errors inside a group of groups, as a nursery hands them out."""
    found: list[Exception] = []
    for inner in group.exceptions:
        found += leaves_of(inner) if isinstance(inner, BaseExceptionGroup) else [inner]
    return found
