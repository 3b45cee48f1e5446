"""One wait, and the waits that one question is asked for."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from airflow_provider_emqx.conditions.base import Condition, Outcome, outlives
from airflow_provider_emqx.exceptions import EmqxError

_T = TypeVar("_T")

log = logging.getLogger(__name__)

#: seconds between two rounds at least, whatever a sensor's poke interval says
SHORTEST_INTERVAL = 0.1
#: longest wait after failures, in seconds; a longer poll interval stays as it is
_LONGEST_BACKOFF = 60.0
#: waits that are worked on before other coroutines get a turn
_TURN = 100


class Watch:
    """
    One wait.

    :param condition: with its ids loaded.
    :param interval: seconds between two checks.
    :param backoff: whether the interval doubles from check to check.
    :param max_interval: longest interval that it grows to, in seconds.
    :param max_failures: consecutive failed checks to tolerate; ``None`` for any number.
    """

    __slots__ = (
        "_context",
        "_failures",
        "backoff",
        "condition",
        "due",
        "found",
        "glance",
        "interval",
        "last",
        "max_failures",
        "max_interval",
        "outcome",
        "question",
        "text",
    )

    def __init__(
        self,
        condition: Condition,
        interval: float,
        *,
        backoff: bool = False,
        max_interval: float | None = None,
        max_failures: int | None = 20,
    ) -> None:
        self.condition = condition
        #: what waits with the same one are asked for together by
        self.question = condition.question
        self.interval = max(interval, SHORTEST_INTERVAL)
        self.backoff = backoff
        self.max_interval = max_interval
        self.max_failures = max_failures
        #: the outcome of the last check, in one line
        self.text = ""
        #: what it checked and the result: as long as the input does not change, neither does the outcome
        self.glance: tuple[bool, ...] | None = None
        self.outcome: Outcome | None = None
        #: the outcome that was waited for, or the error that ended the wait; it is a result, because
        #: raising one object in thousands of coroutines would make its traceback thousands of frames long
        self.found: asyncio.Future[Outcome | Exception] = asyncio.get_running_loop().create_future()
        self.due = 0.0
        #: time of the last check, just before the wait is given up
        self.last = math.inf
        self._failures = 0
        # so that what is logged in the poll's task goes to this wait's log
        self._context = contextvars.copy_context()

    def schedule(self, now: float, phase: float = 0.0, asked: float | None = None) -> None:
        """
        Set the time of the next check, at least half an interval away, on a grid that equal intervals share.

        :param now: seconds of the event loop's clock.
        :param phase: where the grid lies, as a part of the interval.
        :param asked: time from which the half interval counts. However long responses take, waits that checked at
            one point of the grid check at the next one together.
        """
        pause = self.interval
        if self._failures:
            # no more than 10 times: a float has no room for a wait that fails for a day
            pause = max(pause, min(pause * 2.0 ** min(self._failures, 10), _LONGEST_BACKOFF))
        earliest = max(now, (now if asked is None else asked) + pause / 2)
        self.due = (math.ceil(earliest / pause - phase) + phase) * pause
        if now < self.last < self.due:
            self.due = self.last

    def seen(self, outcome: Outcome) -> None:
        """Process the outcome of a check."""
        self._failures = 0
        self.outcome = outcome
        if self.text and outcome.text != self.text:
            # the first check repeats what the worker's check has logged
            self._note(logging.INFO, outcome.text)
        self.text = outcome.text
        if outcome.met:
            self.end(outcome)
        elif self.backoff:
            self.interval = min(self.interval * 2, self.max_interval or math.inf)

    def failed(self, error: EmqxError) -> None:
        """Process a failed check: the wait continues unless the error is final or one too many."""
        self._failures += 1
        if outlives(error, self._failures, self.max_failures):
            self.text = f"Check failed, {self._failures} in a row. {error}"
            self._note(logging.WARNING, self.text)
        else:
            self.end(error)

    def end(self, found: Outcome | Exception) -> None:
        """End the wait."""
        if not self.found.done():
            self.found.set_result(found)

    def _note(self, level: int, text: str) -> None:
        self._context.run(log.log, level, "%s", text)


class Question:
    """
    A request, or a group of them, and the waits that need the response.

    :param watches: the waits.
    :param schedule: sets the time of a wait's next check.
    """

    def __init__(self, watches: Sequence[Watch], schedule: Callable[[Watch, float | None], None]) -> None:
        self.watches = watches
        self.asked = clock()
        self._open = set(watches)
        self._schedule = schedule

    def seen(self, watch: Watch, outcome: Outcome) -> None:
        """Pass a wait its outcome; it may be due again while others of the question are still open."""
        if self._take(watch):
            watch.seen(outcome)
            self._schedule(watch, self.asked)

    def failed(self, watch: Watch, error: EmqxError) -> None:
        """Pass a wait the error of its check."""
        if self._take(watch):
            watch.failed(error)
            self._schedule(watch, None)

    async def end(self, error: EmqxError) -> None:
        """Pass the error to all waits without an outcome so far."""
        async for part in in_turns(list(self._open)):
            for watch in part:
                self.failed(watch, error)

    def broke(self, error: Exception) -> None:
        """End all waits without an outcome so far, because of a bug of ours."""
        for watch in self._open:
            watch.end(error)

    def _take(self, watch: Watch) -> bool:
        # a wait may have been cancelled in the meantime
        taken = watch in self._open and not watch.found.done()
        self._open.discard(watch)
        return taken


def clock() -> float:
    """Return the seconds of the event loop's clock."""
    return asyncio.get_running_loop().time()


async def in_turns(things: Sequence[_T]) -> AsyncIterator[Sequence[_T]]:
    """Work on thousands of things in parts, between which other coroutines get their turn."""
    for start in range(0, len(things), _TURN):
        if start:
            await asyncio.sleep(0)
        yield things[start : start + _TURN]
