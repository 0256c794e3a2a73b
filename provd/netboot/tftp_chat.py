"""Log lines that strangers cause: a bounded number of them, and then how many were left out."""

import logging

import trio

LINES, LINES_PERIOD = 200, 10.0
"""How many lines within how many seconds."""


class Chat:
    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._until = 0.0
        self._said = 0

    def say(self, level: int, message: str, *args: object) -> None:
        if not self._log.isEnabledFor(level):
            return
        now = trio.current_time()
        if now >= self._until:
            if self._said > LINES:
                self._log.info("%d lines about TFTP were left out", self._said - LINES)
            self._until, self._said = now + LINES_PERIOD, 0
        self._said += 1
        if self._said <= LINES:
            self._log.log(level, message, *args)
