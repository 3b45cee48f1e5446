"""
Waits on one broker share their questions.

In a triggerer process thousands of waits may go on at once. All that use one Airflow connection share one look-up of
it, one session, and one question per client and round, whoever waits for that client.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_emqx import conditions
from airflow_provider_emqx.api.base import Row
from airflow_provider_emqx.conditions import clients
from airflow_provider_emqx.conditions.base import Condition, Outcome, is_transient, outlives
from airflow_provider_emqx.exceptions import (
    EmqxAuthError,
    EmqxConfigError,
    EmqxConnectionError,
    EmqxError,
    EmqxForbiddenError,
)
from airflow_provider_emqx.hooks.emqx import EmqxHook, operations

if TYPE_CHECKING:
    from airflow_provider_emqx.client.aio import AsyncClient

_T = TypeVar("_T")

log = logging.getLogger(__name__)

#: seconds between two rounds at least, whatever a sensor's poke interval says
SHORTEST_INTERVAL = 0.1
#: seconds that a wait is drawn forward at most, to be asked for together with others
_MOMENT = 0.5
#: seconds before the deadline at which a wait looks once more
_LAST_LOOK = 2.0
#: longest wait after failures, in seconds; a longer poll interval stays as it is
_LONGEST_BACKOFF = 60.0
#: seconds for which the number of connected clients is taken as known
_SIZE_LASTS = 60.0
#: requests for clients in flight, and for each other kind of condition
_IN_FLIGHT, _OTHERS_IN_FLIGHT = 32, 8
#: seconds that a round waits at most for its first answer before it asks the rest: a wrong key is tried once
_HEAD_START = 1.0
#: clients for whom the broker may fail in a round before the rest of it is given up
_MOST_ERRORS = 8
#: waits that are worked on before other coroutines get a turn, and ids of one wait from which on a thread does it
_TURN, _LONG = 100, 5_000


class Watch:
    """
    One wait.

    :param condition: with its ids loaded.
    :param interval: seconds between two looks.
    :param backoff: whether the interval doubles from look to look.
    :param max_interval: longest interval that it grows to, in seconds.
    :param max_failures: looks that may fail in a row, ``None`` for any number.
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
        self.question = _question_of(condition)
        self.interval = max(interval, SHORTEST_INTERVAL)
        self.backoff = backoff
        self.max_interval = max_interval
        self.max_failures = max_failures
        #: what the last look found, in one line
        self.text = ""
        #: what it looked at and what that came to: as long as nothing has changed, neither has the outcome
        self.glance: tuple[bool, ...] | None = None
        self.outcome: Outcome | None = None
        #: the outcome that was waited for, or the error that ended the wait; an error is no exception here, because
        #: raising one object in thousands of coroutines would make its traceback thousands of frames long
        self.found: asyncio.Future[Outcome | Exception] = asyncio.get_running_loop().create_future()
        self.due = 0.0
        #: time of the last look, just before the wait is given up
        self.last = math.inf
        self._failures = 0
        # so that what is logged in the poll's task goes to this wait's log
        self._context = contextvars.copy_context()

    def schedule(self, now: float, phase: float = 0.0, asked: float | None = None) -> None:
        """
        Set the time of the next look, at least half an interval away, on a grid that equal intervals share.

        :param now: seconds of the event loop's clock.
        :param phase: where the grid lies, as a part of the interval.
        :param asked: time from which the half interval counts. However long answers take, waits that have looked at
            one beat look at the next one together.
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
        """Take what a look has found."""
        self._failures = 0
        self.outcome = outcome
        if self.text and outcome.text != self.text:
            # the first look repeats what the worker's first look has logged
            self._note(logging.INFO, outcome.text)
        self.text = outcome.text
        if outcome.met:
            self.end(outcome)
        elif self.backoff:
            self.interval = min(self.interval * 2, self.max_interval or math.inf)

    def failed(self, error: EmqxError) -> None:
        """Take that a look has failed: the wait goes on unless the error is final or one too many."""
        self._failures += 1
        if outlives(error, self._failures, self.max_failures):
            self.text = f"Look failed, {self._failures} in a row. {error}"
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
    What is asked in one go, for all waits that the answer is for.

    :param watches: the waits.
    :param schedule: sets the time of a wait's next look.
    """

    def __init__(self, watches: Sequence[Watch], schedule: Callable[[Watch, float | None], None]) -> None:
        self.watches = watches
        self.asked = _now()
        self._open = set(watches)
        self._schedule = schedule

    def seen(self, watch: Watch, outcome: Outcome) -> None:
        """Tell a wait what was found; it may be asked for again while others of the question are still open."""
        if self._take(watch):
            watch.seen(outcome)
            self._schedule(watch, self.asked)

    def failed(self, watch: Watch, error: EmqxError) -> None:
        """Tell a wait that nothing could be found."""
        if self._take(watch):
            watch.failed(error)
            self._schedule(watch, None)

    async def end(self, error: EmqxError) -> None:
        """Tell all waits that were told nothing so far."""
        async for part in _in_turns(list(self._open)):
            for watch in part:
                self.failed(watch, error)

    def broke(self, error: Exception) -> None:
        """End all waits that were told nothing so far: a fault of ours."""
        for watch in self._open:
            watch.end(error)

    def _take(self, watch: Watch) -> bool:
        # a wait may have been cancelled meanwhile
        taken = watch in self._open and not watch.found.done()
        self._open.discard(watch)
        return taken


class Poll:
    """
    All waits of one event loop on one connection.

    :param emqx_conn_id: the Airflow connection.
    """

    def __init__(self, emqx_conn_id: str) -> None:
        self.emqx_conn_id = emqx_conn_id
        self.users = 0
        # so that the polls of many connections do not all come at once
        self._phase = crc32(emqx_conn_id.encode()) / 2**32
        self._watches: set[Watch] = set()
        self._task: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[EmqxError | None]] = set()
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_OTHERS_IN_FLIGHT)
        )
        self._in_flight = 0
        self._answered = asyncio.Condition()
        self._sooner = asyncio.Event()
        self._next = math.inf
        self._client: AsyncClient | None = None
        self._session = AsyncExitStack()
        self._retired: list[AsyncExitStack] = []
        self._reconsidering = asyncio.Lock()
        self._reconsidered = -math.inf
        self._size: int | None = None
        self._size_known = -math.inf

    async def wait(self, watch: Watch, deadline: float | None = None) -> Outcome | Exception | None:
        """
        Wait until a condition is met.

        :param watch: the wait.
        :param deadline: seconds since 1970 at which the wait is given up.
        :return: the outcome; or the error that ended the wait; or ``None`` at the deadline.
        """
        if deadline is not None:
            watch.last = _now() + deadline - time.time() - min(_LAST_LOOK, watch.interval / 2)
        self._watches.add(watch)
        self._schedule(watch, None)
        if self._task is None or self._task.done():
            # without the context of the first wait, whose log the others' business is not
            self._task = asyncio.create_task(self._work(), context=contextvars.Context())
            self._task.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.time())):
                return await watch.found
        except TimeoutError:
            # found at the very moment
            return watch.found.result() if watch.found.done() and not watch.found.cancelled() else None
        finally:
            self._watches.discard(watch)

    async def close(self) -> None:
        """End the rounds and the session."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Tell whoever still waits that nobody looks any more; it should never come to this."""
        error = None if task.cancelled() else task.exception()
        for watch in self._watches:
            watch.end(RuntimeError(f"the rounds of waits ended: {error!r}"))

    # ------------------------------------------------------------------ rounds

    async def _work(self) -> None:
        """
        Start a round whenever waits are due.

        Nobody waits for the end of a round: a question whose answer is late holds up those only who wait for it.
        """
        try:
            while True:
                await self._until_due()
                try:
                    client = await self._connect()
                except EmqxError as error:
                    await Question(self._take_due(), self._schedule).end(error)
                except Exception as error:
                    self._broke(Question(self._take_due(), self._schedule), error)
                else:
                    await self._round(client, self._take_due())
                if not self._asking:
                    await self._close_retired()
        finally:
            for task in self._asking:
                task.cancel()
            await asyncio.gather(*self._asking, return_exceptions=True)
            self._retire()
            await self._close_retired()

    async def _until_due(self) -> None:
        while True:
            self._next = min((watch.due for watch in self._watches), default=math.inf)
            self._sooner.clear()
            pause = self._next - _now()
            if pause <= 0:
                return
            try:
                async with asyncio.timeout(None if math.isinf(pause) else pause):
                    await self._sooner.wait()
            except TimeoutError:
                return

    def _take_due(self) -> list[Watch]:
        now = _now()
        due = [w for w in self._watches if w.due <= now + min(_MOMENT, w.interval / 10)]
        for watch in due:
            # not again before it was told something
            watch.due = math.inf
        return due

    def _schedule(self, watch: Watch, asked: float | None) -> None:
        if watch.found.done():
            self._watches.discard(watch)
            return
        watch.schedule(_now(), self._phase, asked)
        if watch.due < self._next:
            self._next = watch.due
            self._sooner.set()

    async def _round(self, client: AsyncClient, due: Sequence[Watch]) -> None:
        same: defaultdict[str, list[Watch]] = defaultdict(list)
        for watch in due:
            same[watch.question].append(watch)
        questions = [Question(watches, self._schedule) for watches in same.values()]
        failure: EmqxError | None = None
        async for part in _in_turns(questions):
            for question in part:
                if failure is not None:
                    await question.end(failure)
                    continue
                task = asyncio.create_task(self._ask(client, question))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                if question is questions[0] and len(questions) > 1:
                    await asyncio.wait({task}, timeout=_HEAD_START)
                    told = task.result() if task.done() else None
                    # these meet every other question as well
                    failure = told if isinstance(told, EmqxAuthError) or self._client is not client else None

    async def _ask(self, client: AsyncClient, question: Question) -> EmqxError | None:
        """Ask, tell the waits, and give the error that ended it."""
        on_clients = question.watches[0].question == _CLIENTS
        try:
            await (self._ask_for_clients if on_clients else self._ask_other)(client, question)
        except EmqxError as error:
            failure = await self._reconsider(client, question, error)
            await question.end(failure)
            return failure
        except Exception as error:
            self._broke(question, error)
        return None

    def _broke(self, question: Question, error: Exception) -> None:
        # a fault of ours: whoever waits is told, rather than left waiting for ever
        log.error("The round of waits on connection %s broke", self.emqx_conn_id, exc_info=error)
        question.broke(error)

    async def _ask_other(self, client: AsyncClient, question: Question) -> None:
        condition = question.watches[0].condition
        async with self._slots[condition.kind]:
            outcome = await client.run(conditions.ask(condition, client.broker, time.time()))
        async for part in _in_turns(question.watches):
            for watch in part:
                question.seen(watch, outcome)

    async def _ask_for_clients(self, client: AsyncClient, question: Question) -> None:
        awaited: dict[str, None] = {}
        timed = False
        async for part in _in_turns(question.watches):
            for watch in part:
                awaited.update(dict.fromkeys(watch.condition.parameters["clientids"]))
                timed = timed or clients.is_timed(watch.condition)
        states = await self._swept(client, list(awaited), clients.fields(timed))
        now = time.time()
        asking: defaultdict[str, list[Watch]] = defaultdict(list)
        left: dict[Watch, int] = {}
        async for part in _in_turns(question.watches):
            for watch in part:
                ids = watch.condition.parameters["clientids"]
                if states is not None:
                    outcome = await _outcome(watch, states, now)
                    ids = clients.in_doubt(watch.condition, outcome, states)
                    if not ids:
                        question.seen(watch, outcome)
                        continue
                    watch.glance = None
                left[watch] = len(ids)
                for clientid in ids:
                    asking[clientid].append(watch)
        await self._ask_each(client, question, asking, left, {} if states is None else states)

    async def _swept(
        self, client: AsyncClient, ids: Sequence[str], names: tuple[str, ...]
    ) -> clients.States | None:
        """List all clients, unless asking for each awaited one costs the broker less."""
        broker, now = client.broker, _now()
        if clients.worth_counting(len(ids)) and now - self._size_known > _SIZE_LASTS:
            self._size, self._size_known = await client.run(clients.count_clients(broker)), now
        if not clients.sweep_is_cheaper(broker, len(ids), self._size):
            return None
        states, self._size = await client.run(clients.sweep(broker, ids, names))
        self._size_known = now
        return states

    async def _ask_each(
        self,
        client: AsyncClient,
        question: Question,
        asking: Mapping[str, Sequence[Watch]],
        left: dict[Watch, int],
        states: clients.States,
    ) -> None:
        """
        Ask for clients one by one, several at a time; a wait is told as soon as all its clients are known.

        :param asking: which waits are to know of which client.
        :param left: of how many each wait does not know yet.
        :param states: what is known, and what comes to be known.
        :raises EmqxError: if the key is refused, or the broker fails for too many of them.
        """
        ids = iter(asking)
        errors = 0

        async def work() -> None:
            nonlocal errors
            for clientid in ids:
                try:
                    states[clientid] = await self._get(client, clientid)
                except (EmqxAuthError, EmqxForbiddenError):
                    raise
                except EmqxError as error:
                    errors += is_transient(error)
                    if errors > _MOST_ERRORS:
                        raise
                    await self._failed(client, question, asking[clientid], error)
                    continue
                for watch in asking[clientid]:
                    left[watch] -= 1
                    if not left[watch]:
                        question.seen(watch, await _outcome(watch, states, time.time()))

        try:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(work())
                await asyncio.wait({first}, timeout=_HEAD_START)
                for _ in range(min(len(asking), _IN_FLIGHT) - 1):
                    group.create_task(work())
        except* EmqxError as failures:
            failure = failures.exceptions[0]
        else:
            return
        raise failure

    async def _get(self, client: AsyncClient, clientid: str) -> Row | None:
        """Ask for one client as soon as few enough are asked for; a slow broker still answers earlier rounds."""
        async with self._answered:
            await self._answered.wait_for(lambda: self._in_flight < _most_in_flight())
            self._in_flight += 1
        try:
            return await client.run(operations(client.broker).clients.get_client(client.broker, clientid))
        finally:
            async with self._answered:
                self._in_flight -= 1
                self._answered.notify()

    async def _failed(
        self, client: AsyncClient, question: Question, watches: Sequence[Watch], error: EmqxError
    ) -> None:
        failure = await self._reconsider(client, question, error)
        for watch in watches:
            question.failed(watch, failure)

    # ------------------------------------------------------------------ connection

    async def _connect(self) -> AsyncClient:
        if self._client is None:
            self._client = await self._session.enter_async_context(connected(self.emqx_conn_id))
        return self._client

    def _retire(self) -> None:
        """Ask no more over this session; questions that are under way may still end on it."""
        self._client = None
        self._retired.append(self._session)
        self._session = AsyncExitStack()

    async def _close_retired(self) -> None:
        while self._retired:
            await self._retired.pop().aclose()

    async def _reconsider(self, client: AsyncClient, question: Question, error: EmqxError) -> EmqxError:
        """After a failure look whether the connection was changed meanwhile: then no error is final yet."""
        async with self._reconsidering:
            # once, however many questions fail together
            if self._client is client and self._reconsidered < question.asked:
                try:
                    changed = await EmqxHook(self.emqx_conn_id).async_settings() != client.settings
                except Exception:
                    changed = False
                self._reconsidered = _now()
                if changed and self._client is client:
                    self._retire()
        if self._client is client:
            return error
        return EmqxConnectionError(f"the connection has changed, trying again with it: {error}")


@asynccontextmanager
async def connected(emqx_conn_id: str) -> AsyncIterator[AsyncClient]:
    """
    Open a client without holding the event loop.

    :param emqx_conn_id: the Airflow connection.
    :raises EmqxConfigError: if there is no such connection, or it cannot be right.
    :raises EmqxConnectionError: if it could not be looked up at the moment.
    """
    await asyncio.to_thread(_import_libraries)
    hook = EmqxHook(emqx_conn_id)
    try:
        await hook.async_settings()
    except EmqxError:
        raise
    except AirflowNotFoundException as error:
        raise EmqxConfigError(str(error)) from None
    except Exception as error:
        raise EmqxConnectionError(
            f"the connection {emqx_conn_id!r} could not be looked up: {type(error).__name__}: {error}"
        ) from error
    # room for every kind at once: one that gets no answers does not keep the others from asking
    async with hook.async_client(_IN_FLIGHT + 8 * _OTHERS_IN_FLIGHT) as client:
        yield client


_polls: dict[tuple[asyncio.AbstractEventLoop, str], Poll] = {}


@asynccontextmanager
async def shared(emqx_conn_id: str) -> AsyncIterator[Poll]:
    """
    Give the poll of a connection in this event loop; it ends when nobody uses it any more.

    :param emqx_conn_id: the Airflow connection.
    """
    key = (asyncio.get_running_loop(), emqx_conn_id)
    poll = _polls.get(key)
    if poll is None:
        poll = _polls[key] = Poll(emqx_conn_id)
    poll.users += 1
    try:
        yield poll
    finally:
        poll.users -= 1
        if not poll.users:
            # before anything is awaited: who comes now starts a poll of its own
            del _polls[key]
            await poll.close()


#: the question of all waits on clients
_CLIENTS = "clients"


def _question_of(condition: Condition) -> str:
    if condition.kind in (clients.ONLINE, clients.OFFLINE):
        return _CLIENTS
    return json.dumps([condition.kind, condition.parameters], sort_keys=True)


def _most_in_flight() -> int:
    # however many connections are waited on, the event loop is one
    loop = asyncio.get_running_loop()
    return max(4, _IN_FLIGHT // max(1, sum(each is loop for each, _ in _polls)))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _import_libraries() -> None:
    """Import in a thread what would be imported on first use, and hold the event loop for a tenth of a second."""
    for name in (
        "aiohttp",
        "tenacity",
        "airflow.providers.common.compat.connection",
        "airflow_provider_emqx.client.aio",
        "airflow_provider_emqx.hooks.connection",
    ):
        import_module(name)


async def _in_turns(things: Sequence[_T]) -> AsyncIterator[Sequence[_T]]:
    """Work on thousands of things in parts, between which other coroutines get their turn."""
    for start in range(0, len(things), _TURN):
        if start:
            await asyncio.sleep(0)
        yield things[start : start + _TURN]


async def _outcome(watch: Watch, states: clients.States, now: float) -> Outcome:
    condition = watch.condition
    if len(condition.parameters["clientids"]) > _LONG:
        return await asyncio.to_thread(clients.judge, condition, states, now)
    glance = clients.glance(condition, states)
    if watch.outcome is None or glance is None or glance != watch.glance:
        watch.glance = glance
        return clients.judge(condition, states, now)
    return watch.outcome
