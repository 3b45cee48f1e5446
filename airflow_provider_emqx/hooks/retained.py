"""Spaces retained messages, so that the broker stores all of them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

#: how many messages per second are retained by default
DEFAULT_RATE = 1_000.0
#: seconds that the broker's timer may be late
_LATE = 0.05


class RetainedPace:
    """
    Keep within the broker's limit of retained messages.

    The broker begins a new count once a second, when is not known. So in no time that may be one of its seconds more
    messages are on their way than it stores in one.

    :param read_rate: asks the broker for the limit, per second; ``None`` for no limit.
    :param clock: seconds that only go up.
    """

    def __init__(
        self, read_rate: Callable[[], float | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read_rate = read_rate
        self._clock = clock
        self._asked = False
        self._rate: float | None = None
        #: when a request was answered, and how many messages it had to retain
        self._sent: deque[tuple[float, int]] = deque()

    def most(self, count: int) -> int:
        """
        Return how many messages to retain one request may have.

        :param count: how many there are.
        """
        # a single message is within any limit
        if not self._asked and (count > 1 or (count and self._sent)):
            self._rate = self._read_rate()
            self._asked = True
        return max(count, 1) if self._rate is None else max(1, math.floor(self._rate))

    def wait(self, count: int) -> float:
        """
        Return the seconds to wait before the next request.

        :param count: how many messages it has to retain, :meth:`most` at most.
        """
        if not count or self._rate is None:
            return 0.0
        now, most = self._clock(), self.most(count)
        window = max(1.0, 1.0 / self._rate) + _LATE
        while self._sent and self._sent[0][0] + window <= now:
            self._sent.popleft()
        ready, under_way = now, sum(sent for _, sent in self._sent) + count
        for at, sent in self._sent:
            if under_way <= most:
                break
            ready, under_way = at + window, under_way - sent
        return ready - now

    def sent(self, count: int) -> None:
        """
        Record a request that was sent and answered.

        :param count: how many messages it had to retain.
        """
        if count and not (self._asked and self._rate is None):
            self._sent.append((self._clock(), count))
