"""A bell that says "look again", never what there is to see.

Whoever waits takes the next ring *before* looking, and waits for it only when there was nothing:

    ring = bell.next()
    rows = look()
    if not rows:
        await ring.wait()

So nothing that is committed between the look and the wait is missed, a reader may be as slow as it
likes, and there is no queue to bound. What is rung about is in the database.
"""

import trio


class Bell:
    def __init__(self) -> None:
        self._ring = trio.Event()

    def next(self) -> trio.Event:
        return self._ring

    def ring(self) -> None:
        self._ring.set()
        self._ring = trio.Event()
