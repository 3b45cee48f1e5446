"""One wait, and the waits that one question is asked for."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from airflow_provider_emqx.conditions.base import Condition, Outcome, outlives
from airflow_provider_emqx.conditions.clients import ClientsCondition
from airflow_provider_emqx.exceptions import EmqxError

_T = TypeVar("_T")

log = logging.getLogger(__name__)

#: seconds between two rounds at least, whatever a sensor's poke interval says
SHORTEST_INTERVAL = 0.1
#: longest wait after failures, in seconds; a longer poll interval stays as it is
_LONGEST_BACKOFF = 60.0
#: waits that are worked on before other coroutines get a turn
_TURN = 100
#: while the broker announces changes, so many intervals pass between two checks, and so many seconds at most
_QUIET, _LONGEST_QUIET = 10, 900.0
#: seconds from an announcement to the check: clients that connect together are requested together
_GATHER = 0.05
#: seconds after an announcement for which checks are repeated, because the API may show the client later
ECHO = 3.0
#: seconds without an announcement after which the next one leads to a check at once again
CALM = 60.0


def quiet(interval: float) -> float:
    """
    Return the seconds between two checks while the broker announces changes; they find what an announcement missed.

    :param interval: seconds between two checks otherwise.
    """
    return max(interval, min(_QUIET * interval, _LONGEST_QUIET))


class News:
    """
    Announcements of the clients of one wait. They decide nothing but when to check.

    :param condition: of the wait.
    :param interval: seconds between two checks without announcements.
    """

    __slots__ = (
        "_announced",
        "_condition",
        "_hopes",
        "_interval",
        "_missing",
        "_names",
        "_of",
        "_ready",
        "_tries",
        "since",
    )

    def __init__(self, condition: ClientsCondition, interval: float) -> None:
        self._condition = condition
        self._interval = interval
        #: since when all changes are announced, by the event loop's clock; infinite: they are not
        self.since = math.inf
        #: clients that were announced, and that no check has seen since
        self._names: set[str] = set()
        self._announced = self._ready = -math.inf
        #: checks that did not confirm an announcement
        self._tries = 0
        self._of: Outcome | None = None
        self._missing: frozenset[str] = frozenset()
        #: how many of the missing clients were announced
        self._hopes = 0

    def covers(self, asked: float) -> bool:
        """
        Return whether the outcome of a check can change only by an announcement.

        :param asked: when it began.
        """
        return asked >= self.since and not self._condition.is_timed

    def announced(self, clientid: str, outcome: Outcome | None, now: float) -> float:
        """
        Note a client, and return when to check; infinite if those announced cannot be enough.

        :param clientid: the client.
        :param outcome: of the last check.
        :param now: seconds of the event loop's clock.
        """
        self._compare(outcome)
        if now - self._announced > CALM:
            self._tries = 0
        self._announced = now
        self._ready = now + (self._condition.stable_for or 0.0) + _GATHER
        if clientid not in self._names:
            self._names.add(clientid)
            self._hopes += clientid in self._missing
        return self._due(now)

    def after(self, outcome: Outcome, now: float) -> float:
        """
        Return when to check again after a check that was not met; infinite if no announcement is left to confirm.

        :param outcome: of the check.
        :param now: seconds of the event loop's clock.
        """
        if not self._names:
            return math.inf
        self._compare(outcome)
        self._tries += self._is_hopeful()
        self._names &= self._missing
        if now > self._ready + ECHO:
            # it has changed back since
            self._names.clear()
        self._hopes = len(self._names)
        return self._due(now)

    def _is_hopeful(self) -> bool:
        reached = len(self._condition.clientids) - len(self._missing)
        return self._of is None or (self._hopes > 0 and reached + self._hopes >= self._condition.goal)

    def _due(self, now: float) -> float:
        if not self._is_hopeful():
            return math.inf
        if not self._tries:
            return self._ready
        # no more than 20 times twice as long: a client that comes and goes is checked no more often than without it
        return max(self._ready, now + min(_GATHER * 2.0 ** min(self._tries, 20), self._interval))

    def _compare(self, outcome: Outcome | None) -> None:
        if outcome is not None and outcome is not self._of:
            self._of, self._missing = outcome, frozenset(outcome.details["missing"])
            self._hopes = len(self._names & self._missing)


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
        "news",
        "not_before",
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
        #: announcements of its clients, if it waits for clients
        self.news: News | None = None
        #: before that no announcement leads to a check
        self.not_before = 0.0
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
        elif self.news is not None and asked is not None and self.news.covers(asked):
            pause = quiet(pause)
        earliest = max(now, (now if asked is None else asked) + pause / 2)
        self.due = (math.ceil(earliest / pause - phase) + phase) * pause
        if self.news is not None and asked is not None and self.outcome is not None:
            self.due = min(self.due, max(self.not_before, self.news.after(self.outcome, now)))
            if asked < self.news.since < math.inf:
                # it may have missed a change from before the announcements
                self.due = max(now, self.not_before)
        if now < self.last < self.due:
            self.due = self.last

    def announced(self, clientid: str, now: float) -> None:
        """
        Note that a client has changed: the next check may be due at once.

        :param clientid: the client.
        :param now: seconds of the event loop's clock.
        """
        if self.news is not None:
            due = max(self.not_before, self.news.announced(clientid, self.outcome, now))
            # during a check, schedule() decides after it
            if not math.isinf(self.due):
                self.due = min(self.due, due)

    def listen(self, since: float, now: float) -> None:
        """
        Note that all changes of the clients are announced from now on, or no longer.

        :param since: since when; infinite: no longer.
        :param now: seconds of the event loop's clock.
        """
        if self.news is not None:
            self.news.since = since
            if not math.isinf(self.due):
                # what happened before that, or happens after the end, nobody announces
                soonest = self.not_before if math.isfinite(since) else now + self.interval / 2
                self.due = min(self.due, max(now, soonest))

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
