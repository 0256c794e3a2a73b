"""Says a thing once a minute, however often it happens: strangers must not write the history."""

from collections.abc import Hashable

import trio

SECONDS = 60.0
KEPT = 1_024


class Quiet:
    def __init__(self) -> None:
        self._said: dict[Hashable, float] = {}

    def may_say(self, *what: Hashable) -> bool:
        """True when this has not been said within the last minute; then it counts as said."""
        now = trio.current_time()
        if now - self._said.get(what, -SECONDS) < SECONDS:
            return False
        self._said.pop(what, None)
        self._said[what] = now
        while len(self._said) > KEPT:
            del self._said[next(iter(self._said))]
        return True
