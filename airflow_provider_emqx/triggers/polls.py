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
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_emqx import conditions
from airflow_provider_emqx.conditions import clients
from airflow_provider_emqx.conditions.base import Condition, Outcome, is_transient
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxConnectionError, EmqxError
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
#: requests in flight
_IN_FLIGHT = 32
#: waits that are worked on before other coroutines get a turn, and ids of one wait from which on a thread does it
_TURN, _LONG = 500, 5_000


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

    def schedule(self, now: float, phase: float = 0.0) -> None:
        """
        Set the time of the next look, at least half an interval away, on a grid that equal intervals share.

        :param now: seconds of the event loop's clock.
        :param phase: where the grid lies, as a part of the interval.
        """
        pause = self.interval
        if self._failures:
            pause = max(pause, min(pause * 2.0**self._failures, _LONGEST_BACKOFF))
        self.due = (math.ceil((now + pause / 2) / pause - phase) + phase) * pause
        if now < self.last < self.due:
            self.due = self.last

    def seen(self, outcome: Outcome) -> None:
        """Take what a look has found."""
        self._failures = 0
        self.outcome = outcome
        self._note(outcome.text)
        if outcome.met:
            self.end(outcome)
        elif self.backoff:
            self.interval = min(self.interval * 2, self.max_interval or math.inf)

    def failed(self, error: EmqxError) -> None:
        """Take that a look has failed: the wait goes on unless the error is final or one too many."""
        self._failures += 1
        if not is_transient(error) or (self.max_failures is not None and self._failures > self.max_failures):
            self.end(error)
        else:
            self._note(f"Look failed, {self._failures} in a row. {error}")

    def end(self, found: Outcome | Exception) -> None:
        """End the wait."""
        if not self.found.done():
            self.found.set_result(found)

    def _note(self, text: str) -> None:
        # the first look repeats what the worker's first look has logged
        if self.text and text != self.text:
            self._context.run(log.info, "%s", text)
        self.text = text


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
        self._sooner = asyncio.Event()
        self._next = math.inf
        self._client: AsyncClient | None = None
        self._session = AsyncExitStack()
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
        watch.schedule(_now(), self._phase)
        self._watches.add(watch)
        if watch.due < self._next:
            self._next = watch.due
            self._sooner.set()
        if self._task is None:
            # without the context of the first wait, whose log the others' business is not
            self._task = asyncio.create_task(self._work(), context=contextvars.Context())
            self._task.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.time())):
                return await watch.found
        except TimeoutError:
            return None
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
        try:
            while True:
                await self._until_due()
                now = _now()
                due = [w for w in self._watches if w.due <= now + min(_MOMENT, w.interval / 10)]
                try:
                    await self._round(due)
                except Exception as error:
                    # a fault of ours: whoever waits is told, rather than left waiting for ever
                    log.exception("The round of waits on connection %s broke", self.emqx_conn_id)
                    for watch in due:
                        watch.end(error)
                now = _now()
                async for part in _in_turns(due):
                    for watch in part:
                        watch.schedule(now, self._phase)
                    self._watches.difference_update([watch for watch in part if watch.found.done()])
        finally:
            await self._disconnect()

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

    async def _round(self, due: Sequence[Watch]) -> None:
        on_clients: list[Watch] = []
        others: list[Watch] = []
        for watch in due:
            is_on_clients = watch.condition.kind in (clients.ONLINE, clients.OFFLINE)
            (on_clients if is_on_clients else others).append(watch)
        for watches, look in ((on_clients, self._look_at_clients), (others, self._look_at_others)):
            if not watches:
                continue
            try:
                await look(await self._connect(), watches)
            except EmqxError as error:
                failure = await self._reconsider(error)
                async for part in _in_turns(watches):
                    for watch in part:
                        watch.failed(failure)

    async def _look_at_clients(self, client: AsyncClient, watches: Sequence[Watch]) -> None:
        awaited: dict[str, None] = {}
        timed = False
        async for part in _in_turns(watches):
            for watch in part:
                awaited.update(dict.fromkeys(watch.condition.parameters["clientids"]))
                timed = timed or clients.is_timed(watch.condition)
        states = await self._states(client, awaited, clients.fields(timed))
        now = time.time()
        met: list[Watch] = []
        doubtful: dict[str, None] = {}
        async for part in _in_turns(watches):
            for watch in part:
                outcome = await _outcome(watch, states, now)
                if outcome.met and (ids := clients.in_doubt(watch.condition, outcome, states)):
                    watch.glance = None
                    met.append(watch)
                    doubtful.update(dict.fromkeys(ids))
                else:
                    watch.seen(outcome)
        if doubtful:
            await _ask_each(client, doubtful, states)
            async for part in _in_turns(met):
                for watch in part:
                    watch.seen(await _outcome(watch, states, now))

    async def _states(
        self, client: AsyncClient, awaited: Iterable[str], names: tuple[str, ...]
    ) -> clients.States:
        """Ask for each client once, in the way that costs the broker less."""
        ids = list(awaited)
        broker, now = client.broker, _now()
        if clients.worth_counting(len(ids)) and now - self._size_known > _SIZE_LASTS:
            self._size, self._size_known = await client.run(clients.count_clients(broker)), now
        if clients.sweep_is_cheaper(broker, len(ids), self._size):
            states, self._size = await client.run(clients.sweep(broker, ids, names))
            self._size_known = now
            return states
        states = {}
        await _ask_each(client, ids, states)
        return states

    async def _look_at_others(self, client: AsyncClient, watches: Sequence[Watch]) -> None:
        same: dict[str, list[Watch]] = {}
        for watch in watches:
            condition = watch.condition
            same.setdefault(json.dumps([condition.kind, condition.parameters], sort_keys=True), []).append(
                watch
            )
        now = time.time()
        asked = [conditions.ask(equal[0].condition, client.broker, now) for equal in same.values()]
        for equal, found in zip(same.values(), await client.run_many(asked), strict=True):
            failure = await self._reconsider(found) if isinstance(found, EmqxError) else None
            for watch in equal:
                if isinstance(found, Outcome):
                    watch.seen(found)
                elif failure is not None:
                    watch.failed(failure)

    # ------------------------------------------------------------------ connection

    async def _connect(self) -> AsyncClient:
        if self._client is None:
            self._client = await self._session.enter_async_context(connected(self.emqx_conn_id))
        return self._client

    async def _disconnect(self) -> None:
        self._client = None
        await self._session.aclose()

    async def _reconsider(self, error: EmqxError) -> EmqxError:
        """After a failure look whether the connection was changed meanwhile: then no error is final yet."""
        if self._client is None:
            return error
        hook = EmqxHook(self.emqx_conn_id)
        try:
            changed = await hook.async_settings() != self._client.settings
        except Exception:
            return error
        if not changed:
            return error
        await self._disconnect()
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
    async with hook.async_client(_IN_FLIGHT) as client:
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


async def _ask_each(client: AsyncClient, clientids: Iterable[str], states: clients.States) -> None:
    """Ask for clients one by one, several at a time; the first error ends it, so that a wrong key does not hammer."""
    ids = iter(list(clientids))
    get_client = operations(client.broker).clients.get_client
    # however many connections are waited on, the event loop is one
    loop = asyncio.get_running_loop()
    in_flight = max(4, _IN_FLIGHT // sum(each is loop for each, _ in _polls))

    async def work() -> None:
        for clientid in ids:
            states[clientid] = await client.run(get_client(client.broker, clientid))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())
    except* EmqxError as errors:
        error = errors.exceptions[0]
    else:
        return
    raise error
