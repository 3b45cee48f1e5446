"""How long a real broker would have taken: one server that works through its requests one after another.

The figures are measured ones of EMQX 5.8.9 and 4.4.19 on two cores, scaled to the pace that was asked for.
"""

from __future__ import annotations

from airflow_provider_emqx.testing.http import Answer

#: Rows per second of a bulk write, and calls per second.
PACE_V5 = (40_000.0, 7_000.0)
PACE_V4 = (16_000.0, 700.0)


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
        took = answer.cost / self.calls + answer.written / self.rows + answer.read
        self.busy_until = max(now, self.busy_until) + took
        return self.busy_until - now
