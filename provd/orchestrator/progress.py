"""How far something is that moves bytes, how fast, and how long it will take.

One thread writes, others read: each value is replaced as a whole.
"""

import time
from math import exp

from attrs import define

SAMPLE_SECONDS = 0.25
SMOOTHING_SECONDS = 3.0
"""A change of speed shows within a few seconds, and a hiccup does not."""


@define(eq=False)
class Progress:
    done: int = 0
    total: int = 0
    rate: float = 0.0
    """Bytes per second, smoothed; 0 until something moves."""
    _sampled: tuple[float, int] | None = None

    def at(self, done: int, total: int, seconds: float | None = None) -> None:
        """`done` of `total` bytes are there; `seconds` on a clock that never goes back."""
        now = time.monotonic() if seconds is None else seconds
        self.done, self.total = done, total
        if self._sampled is None or done < self._sampled[1]:
            self._sampled = (now, done)
            return
        since, before = self._sampled
        passed = now - since
        if passed < SAMPLE_SECONDS:
            return
        speed = (done - before) / passed
        weight = exp(-passed / SMOOTHING_SECONDS) if self.rate else 0.0
        self.rate = weight * self.rate + (1 - weight) * speed
        self._sampled = (now, done)

    @property
    def seconds_left(self) -> float | None:
        """None while nothing moves."""
        return (self.total - self.done) / self.rate if self.rate >= 1 else None
