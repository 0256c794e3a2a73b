"""Where the packets of a boot go, for a human to look at when a machine does not boot."""

from typing import Protocol

from provd.domain.hosts import Mac


class Recorder(Protocol):
    """It neither waits nor raises: a boot does not hang on its record."""

    def record(self, mac: Mac, *, source: tuple[str, int], target: tuple[str, int], payload: bytes) -> None:
        """Keep one UDP datagram that `mac` sent or was sent."""
