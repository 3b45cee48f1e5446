"""Ends the work of a client between two requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_emqx.exceptions import EmqxStoppedError

#: seconds after which a pause looks whether it is to end
_LOOK = 0.1


class Stop:
    """
    Whether a client is to send nothing more. It is set from a signal handler, so it takes no lock.

    :ivar asked: set it to end the work.
    """

    def __init__(self) -> None:
        self.asked = False
        self._held = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Complete several requests that belong together before a stop, so that what was done is known."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def check(self) -> None:
        """
        Return if work may go on.

        :raises EmqxStoppedError: if it may not.
        """
        if self.asked and not self._held:
            raise EmqxStoppedError("the task was stopped; nothing was sent after the request under way")

    def sleep(self, seconds: float) -> None:
        """
        Pause, and end the pause when the work is to end.

        :param seconds: how long.
        :raises EmqxStoppedError: if the work is to end.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _LOOK))
        self.check()

    async def asleep(self, seconds: float) -> None:
        """Pause as :meth:`sleep` does, without holding the event loop."""
        import asyncio

        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            await asyncio.sleep(min(left, _LOOK))
        self.check()
