"""Says every few seconds that long work goes on."""

from __future__ import annotations

import time

#: seconds between two lines about progress
EVERY = 5.0


class Pulse:
    """The time since it began, and since something was said of it."""

    def __init__(self) -> None:
        self._start = self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return time.monotonic() - self._start

    def is_due(self) -> bool:
        """Return whether something is to be said now; then nothing is for the next few seconds."""
        now = time.monotonic()
        due = now - self._said >= EVERY
        if due:
            self._said = now
        return due

    def rate(self, count: int, what: str) -> str:
        """
        Describe the speed.

        :param count: what was done since it began.
        :param what: in the plural.
        """
        return f"{count / max(self.seconds, 0.001):,.0f} {what}/s"
