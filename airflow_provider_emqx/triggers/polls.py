"""
Let waits on one broker share their requests.

In a triggerer process thousands of waits may go on at once. All that use one Airflow connection share one check-up of
it, one session, and one request per client and round.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, cast
from zlib import crc32

from airflow_provider_emqx.api.rows import ClientRow
from airflow_provider_emqx.conditions.base import SHORT_ROWS, Condition, Outcome, is_transient
from airflow_provider_emqx.conditions.clients import Census, ClientsCondition, States
from airflow_provider_emqx.exceptions import (
    EmqxAuthError,
    EmqxError,
    EmqxForbiddenError,
)
from airflow_provider_emqx.triggers.presence import Interest, Presence
from airflow_provider_emqx.triggers.sessions import IN_FLIGHT, OTHERS_IN_FLIGHT, Session
from airflow_provider_emqx.triggers.watches import News, Question, Watch, clock, in_turns

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.aio import AsyncClient

log = logging.getLogger(__name__)

#: seconds that a wait is drawn forward at most, to be asked for together with others
_MOMENT = 0.5
#: seconds before the deadline of the last check of a wait
_LAST_LOOK = 2.0
#: seconds after its begin in which announcements do not end a wait: an event that is sent at once can overtake
#: the task's own deferral in Airflow
_SOONEST = 2.0
#: seconds that a round waits at most for its first answer before it asks the rest: a wrong key is tried once
_HEAD_START = 1.0
#: clients for whom the broker may fail in a round before the rest of it is given up
_MOST_ERRORS = 8


class Poll:
    """All waits of one event loop on one connection."""

    def __init__(self, emqx_conn_id: str) -> None:
        self.users = 0
        self._session = Session(emqx_conn_id)
        #: announcements of clients, which watchers use as well
        self.presence = Presence(emqx_conn_id, self._session.hook)
        # so that the polls of many connections do not all come at once
        self._phase = crc32(emqx_conn_id.encode()) / 2**32
        self._watches: set[Watch] = set()
        self._task: asyncio.Task[None] | None = None
        #: whether the task has been ended and closes what it opened, which a second cancellation would cut short
        self._ending = False
        self._asking: set[asyncio.Task[EmqxError | None]] = set()
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(OTHERS_IN_FLIGHT)
        )
        self._in_flight = 0
        self._answered = asyncio.Condition()
        self._sooner = asyncio.Event()
        self._next = math.inf
        self._census = Census()

    async def wait(self, watch: Watch, deadline: float | None = None) -> Outcome | Exception | None:
        """
        Wait until a condition is met.

        :param watch: the wait.
        :param deadline: seconds since 1970 at which the wait is given up.
        :return: the outcome; or the error that ended the wait; or ``None`` at the deadline.
        """
        if deadline is not None:
            watch.last = clock() + deadline - time.time() - min(_LAST_LOOK, watch.interval / 2)
        self._watches.add(watch)
        self._schedule(watch, None)
        if self._task is None or self._task.done():
            # without the context of the first wait, whose log the others' business is not
            self._ending = False
            self._task = asyncio.create_task(self._work(), context=contextvars.Context())
            self._task.add_done_callback(self._ended)
        try:
            with await self._announcements(watch):
                async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.time())):
                    return await watch.found
        except TimeoutError:
            # found at the very moment
            return watch.found.result() if watch.found.done() and not watch.found.cancelled() else None
        finally:
            self._watches.discard(watch)

    async def close(self) -> None:
        """End the rounds, the session and the MQTT connection."""
        ending = self.presence.end()
        if self._task is not None:
            # `cancelling()` would not do: a timeout that expires cancels its own task too, and takes that back
            if not self._ending:
                self._task.cancel()
            ending.append(self._task)
        if ending:
            # not gather(), which would hand on a cancellation of our own and cut the ending short
            await asyncio.wait(ending)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """End the remaining waits with an error, because the rounds have ended; this should never happen."""
        error = None if task.cancelled() else task.exception()
        for watch in self._watches:
            watch.end(RuntimeError(f"the rounds of waits ended: {error!r}"))

    # ------------------------------------------------------------------ announcements

    async def _announcements(self, watch: Watch) -> AbstractContextManager[None]:
        """Listen to announcements of the clients that a wait is for, if it is for clients."""
        condition = watch.condition
        if not isinstance(condition, ClientsCondition):
            return nullcontext()
        watch.news = News(condition, watch.interval)
        watch.not_before = clock() + min(_SOONEST, watch.interval / 2)

        def announced(clientid: str) -> None:
            watch.announced(clientid, clock())
            self._hurry(watch)

        def listening(since: float) -> None:
            watch.listen(since, clock())
            self._hurry(watch)

        make = partial(Interest, condition.state, condition.clientids, announced, listening)
        many = len(condition.clientids) > SHORT_ROWS
        return self.presence.listening(await asyncio.to_thread(make) if many else make())

    def _hurry(self, watch: Watch) -> None:
        if watch.due < self._next:
            self._next = watch.due
            self._sooner.set()

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
                    client = await self._session.client()
                except EmqxError as error:
                    await Question(self._take_due(), self._schedule).end(error)
                except Exception as error:
                    self._broke(Question(self._take_due(), self._schedule), error)
                else:
                    await self._round(client, self._take_due())
                if not self._asking:
                    await self._session.close_retired()
        finally:
            self._ending = True
            for task in self._asking:
                task.cancel()
            await asyncio.gather(*self._asking, return_exceptions=True)
            await self._session.close()

    async def _until_due(self) -> None:
        while True:
            self._next = min((watch.due for watch in self._watches), default=math.inf)
            self._sooner.clear()
            pause = self._next - clock()
            if pause <= 0:
                return
            try:
                async with asyncio.timeout(None if math.isinf(pause) else pause):
                    await self._sooner.wait()
            except TimeoutError:
                return

    def _take_due(self) -> list[Watch]:
        now = clock()
        due = [w for w in self._watches if w.due <= now + min(_MOMENT, w.interval / 10)]
        for watch in due:
            # not again before it has a result
            watch.due = math.inf
        return due

    def _schedule(self, watch: Watch, asked: float | None) -> None:
        if watch.found.done():
            self._watches.discard(watch)
            return
        watch.schedule(clock(), self._phase, asked)
        self._hurry(watch)

    async def _round(self, client: AsyncClient, due: Sequence[Watch]) -> None:
        same: defaultdict[str, list[Watch]] = defaultdict(list)
        for watch in due:
            same[watch.question].append(watch)
        questions = [Question(watches, self._schedule) for watches in same.values()]
        failure: EmqxError | None = None
        async for part in in_turns(questions):
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
                    failure = (
                        told if isinstance(told, EmqxAuthError) or not self._session.is_on(client) else None
                    )

    async def _ask(self, client: AsyncClient, question: Question) -> EmqxError | None:
        """Ask, tell the waits, and give the error that ended it."""
        try:
            condition = question.watches[0].condition
            if isinstance(condition, ClientsCondition):
                await self._ask_for_clients(client, question)
            else:
                await self._ask_other(client, question, condition)
        except EmqxError as error:
            failure = await self._session.reconsider(client, question.asked, error)
            await question.end(failure)
            return failure
        except Exception as error:
            self._broke(question, error)
        return None

    def _broke(self, question: Question, error: Exception) -> None:
        # a bug of ours: fail the waits instead of leaving them waiting forever
        log.error("The round of waits on connection %s broke", self._session.emqx_conn_id, exc_info=error)
        question.broke(error)

    async def _ask_other(self, client: AsyncClient, question: Question, condition: Condition) -> None:
        async with self._slots[condition.kind]:
            outcome = await client.run(condition.ask(client.api, time.time()))
        async for part in in_turns(question.watches):
            for watch in part:
                question.seen(watch, outcome)

    async def _ask_for_clients(self, client: AsyncClient, question: Question) -> None:
        awaited: set[str] = set()
        timed = False
        async for part in in_turns(question.watches):
            for watch in part:
                condition = _on_clients(watch)
                awaited.update(condition.clientids)
                timed = timed or condition.is_timed
        states = await client.run(self._census.take(client.api, list(awaited), timed, clock()))
        now = time.time()
        asking: defaultdict[str, list[Watch]] = defaultdict(list)
        left: dict[Watch, int] = {}
        async for part in in_turns(question.watches):
            for watch in part:
                condition = _on_clients(watch)
                ids = condition.clientids
                if states is not None:
                    outcome = await _outcome(watch, states, now)
                    ids = condition.in_doubt(outcome, states)
                    if not ids:
                        question.seen(watch, outcome)
                        continue
                    watch.glance = None
                left[watch] = len(ids)
                for clientid in ids:
                    asking[clientid].append(watch)
        await self._ask_each(client, question, asking, left, {} if states is None else states)

    async def _ask_each(
        self,
        client: AsyncClient,
        question: Question,
        asking: Mapping[str, Sequence[Watch]],
        left: dict[Watch, int],
        states: States,
    ) -> None:
        """
        Read clients one by one, several at a time; a wait gets its result as soon as all its clients are known.

        :param asking: the waits that need each client.
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
                for _ in range(min(len(asking), IN_FLIGHT) - 1):
                    group.create_task(work())
        except* EmqxError as failures:
            failure = failures.exceptions[0]
        else:
            return
        raise failure

    async def _get(self, client: AsyncClient, clientid: str) -> ClientRow | None:
        """Ask for one client as soon as few enough are asked for; a slow broker still answers earlier rounds."""
        async with self._answered:
            await self._answered.wait_for(lambda: self._in_flight < _most_in_flight())
            self._in_flight += 1
        try:
            return await client.run(client.api.clients.get(clientid))
        finally:
            async with self._answered:
                self._in_flight -= 1
                self._answered.notify()

    async def _failed(
        self, client: AsyncClient, question: Question, watches: Sequence[Watch], error: EmqxError
    ) -> None:
        failure = await self._session.reconsider(client, question.asked, error)
        for watch in watches:
            question.failed(watch, failure)


_polls: dict[tuple[asyncio.AbstractEventLoop, str], Poll] = {}


@asynccontextmanager
async def shared(emqx_conn_id: str) -> AsyncIterator[Poll]:
    """Return the poll of a connection in this event loop; it ends when nobody uses it any more."""
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


def _most_in_flight() -> int:
    # however many connections are waited on, the event loop is one
    loop = asyncio.get_running_loop()
    return max(4, IN_FLIGHT // max(1, sum(each is loop for each, _ in _polls)))


async def _outcome(watch: Watch, states: States, now: float) -> Outcome:
    """Judge, unless this check sees the same as the last one, as nearly all do."""
    condition = _on_clients(watch)
    glance = condition.glance(states)
    if glance is not None and glance == watch.glance and watch.outcome is not None:
        return watch.outcome
    watch.glance = glance
    if len(condition.clientids) > SHORT_ROWS:
        return await asyncio.to_thread(condition.judge, states, now)
    return condition.judge(states, now)


def _on_clients(watch: Watch) -> ClientsCondition:
    # the question that these waits share is asked by no other kind
    return cast("ClientsCondition", watch.condition)
