"""The time that a real broker would take: one server that processes its requests one after another.

The speeds were measured with EMQX 5.8.9 and 4.4.19 on two cores, and are scaled to the requested pace.
"""

from __future__ import annotations

import asyncio
from collections import deque

from airflow_provider_emqx.testing.http import Answer

#: Rows per second of a bulk write, and calls per second.
PACE_V5 = (40_000.0, 7_000.0)
PACE_V4 = (16_000.0, 700.0)
#: A record of an archive that is imported, and one that is deleted, as shares of a row: 57,000 and 135,000 in a second.
IMPORTED = PACE_V5[0] / 57_000
DELETED = PACE_V5[0] / 135_000
#: Half of the resolution of the event loop's clock, seconds. The loop wakes up on whole milliseconds; to aim half of
#: one early evens out on the whole, because how long the queue is does not depend on when answers really go.
HALF_A_TICK = 0.0005


class Pace:
    """The queue in front of the one server.

    :param rows: Rows per second of a bulk write.
    :param calls: Average calls per second.
    """

    __slots__ = ("busy_until", "calls", "rows")

    def __init__(self, rows: float, calls: float) -> None:
        if rows <= 0 or calls <= 0:
            raise ValueError("pace is (rows per second, calls per second), both above 0")
        self.rows = rows
        self.calls = calls
        self.busy_until = 0.0

    def wait(self, now: float, answer: Answer) -> float:
        """Queue one request.

        :param now: Monotonic time of its arrival.
        :param answer: What came of it.
        :return: Seconds until the broker would have answered.
        """
        rows = answer.written + answer.imported * IMPORTED + answer.deleted * DELETED
        took = answer.cost / self.calls + rows / self.rows + answer.read
        self.busy_until = max(now, self.busy_until) + took
        return self.busy_until - now


class Exit:
    """Lets answers go when they are due, in the order in which they came: one timer for all of them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    async def wait_until(self, due: float) -> None:
        """Wait.

        :param due: Time of the loop's clock, not before that of the last one that waits.
        """
        leave: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((due, leave))
        if len(self._waiting) == 1:
            self._loop.call_at(due - HALF_A_TICK, self._let_go)
        await leave

    def _let_go(self) -> None:
        now = self._loop.time() + HALF_A_TICK
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            leave = waiting.popleft()[1]
            if not leave.done():
                leave.set_result(None)
        if waiting:
            self._loop.call_at(waiting[0][0] - HALF_A_TICK, self._let_go)
