"""
Listen to the broker's announcements of clients that connect and disconnect.

EMQX publishes them at ``$SYS/brokers/NODE/clients/ID/connected`` and ``…/disconnected``. An announcement only makes a
check due; the check asks the management API. Without MQTT, or without the right to subscribe, waits check at their
interval.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.exceptions import EmqxApiError, EmqxConfigError, EmqxError
from airflow_provider_emqx.transport.mqtt import pause
from airflow_provider_emqx.triggers.sessions import looked_up
from airflow_provider_emqx.triggers.watches import CALM, ECHO, clock, in_turns, quiet

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.transport.mqtt import MqttClient

log = logging.getLogger(__name__)

#: the state that clients are to have, and the announcement of it
_EVENTS = {"online": "connected", "offline": "disconnected"}
#: subscriptions to single clients; for more, all clients are subscribed to
MOST = 1_000
#: any client, in a topic filter
_ANY = "+"
#: subscriptions that are made at a time, and that nobody needs any more before they are ended
_PART = 100
#: seconds in which interests are collected before they are subscribed to
_COLLECT = 0.05
#: longest pause between two attempts to connect, and the pause if only a person can change something, in seconds
_LONGEST_PAUSE, _LATER = 60.0, 600.0
#: seconds from an announcement to the check of a watcher, and between two of its checks at least
_MOMENT, _BETWEEN = 0.5, 1.0
#: longest client id that is listened to, in bytes: a topic has 65,535
_LONGEST = 60_000


class Interest:
    """
    Clients of a wait or of a watcher.

    :param state: ``"online"`` or ``"offline"``: which changes matter.
    :param clientids: their ids; ``None`` for all clients.
    :param announced: called with the id of a client that has changed.
    :param listening: called with the time since when all changes are announced; infinite: no longer.
    """

    __slots__ = ("announced", "event", "is_whole", "listening", "names", "wanted")

    def __init__(
        self,
        state: str,
        clientids: Collection[str] | None,
        announced: Callable[[str], object],
        listening: Callable[[float], object],
    ) -> None:
        self.event = _EVENTS[state]
        self.announced = announced
        self.listening = listening
        #: ids that are subscribed to one by one; ``None``: all clients are
        self.names: frozenset[str] | None = None
        #: of all clients, the ids that matter; ``None``: all
        self.wanted: frozenset[str] | None = None
        #: whether a topic filter can name each of them
        self.is_whole = True
        if clientids is not None:
            names = frozenset(filter(_fits, clientids))
            self.is_whole = len(names) == len(frozenset(clientids))
            if len(names) > MOST:
                self.wanted = names
            else:
                self.names = names


class Presence:
    """
    The announcements of one Airflow connection in one event loop: one MQTT connection for all interests.

    :param hook: returns a hook whose connection has been looked up, at some time.
    """

    def __init__(self, emqx_conn_id: str, hook: Callable[[], Awaitable[EmqxHook]]) -> None:
        self._emqx_conn_id = emqx_conn_id
        self._hook = hook
        self._single: dict[str, dict[str, set[Interest]]] = {event: {} for event in _EVENTS.values()}
        self._all: dict[str, set[Interest]] = {event: set() for event in _EVENTS.values()}
        #: interests that can be subscribed to and are not yet, and those that are
        self._pending: set[Interest] = set()
        self._covered: set[Interest] = set()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        #: failures in a row, and the types of errors that were logged
        self._failures = 0
        self._said: set[str] = set()

    @contextmanager
    def listening(self, interest: Interest) -> Iterator[None]:
        """Listen for an interest."""
        if interest.names is None:
            self._all[interest.event].add(interest)
        else:
            for clientid in interest.names:
                self._single[interest.event].setdefault(clientid, set()).add(interest)
        if interest.is_whole:
            self._pending.add(interest)
        self._changed.set()
        if self._task is None:
            # without the context of the first wait, whose log the others' business is not
            self._task = asyncio.create_task(self._work(), context=contextvars.Context())
        try:
            yield
        finally:
            self._all[interest.event].discard(interest)
            for clientid in interest.names or ():
                interests = self._single[interest.event][clientid]
                interests.discard(interest)
                if not interests:
                    del self._single[interest.event][clientid]
            self._pending.discard(interest)
            self._covered.discard(interest)
            self._changed.set()

    def end(self) -> list[asyncio.Task[None]]:
        """End the connection, and return the task that is ending."""
        if self._task is None:
            return []
        if not self._ending:
            self._ending = True
            self._task.cancel()
        return [self._task]

    # ------------------------------------------------------------------ the connection

    async def _work(self) -> None:
        """Connect, and connect again with what the connection says by then."""
        look_up = self._hook
        while True:
            seconds, hook = _LATER, None
            try:
                hook = await look_up()
                if (await hook.async_settings()).mqtt is not None:
                    async with hook.mqtt() as client:
                        await self._listen(client)
            except EmqxError as error:
                if hook is not None:
                    self._say(error)
                if not isinstance(error, EmqxConfigError):
                    # after a subscription: EMQX can be set to disconnect who may not subscribe
                    self._failures += 1
                    seconds = pause(self._failures, _LONGEST_PAUSE)
            except Exception as error:
                log.error("Listening for clients on connection %s broke", self._emqx_conn_id, exc_info=error)
            await self._uncover()
            await asyncio.sleep(seconds)
            look_up = partial(looked_up, self._emqx_conn_id)

    def _say(self, error: EmqxError) -> None:
        """Log a warning, once for each type of error, however many waits there are."""
        if type(error).__name__ not in self._said:
            self._said.add(type(error).__name__)
            log.warning(
                "The broker of connection %s does not announce which clients connect and disconnect: waits for them "
                "check at their interval. %s",
                self._emqx_conn_id,
                error,
            )

    async def _listen(self, client: MqttClient) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(client))
                group.create_task(self._subscribe(client))
        except* EmqxError as failures:
            failure = failures.exceptions[0]
        raise failure

    async def _uncover(self) -> None:
        covered = list(self._covered)
        self._covered.clear()
        self._pending.update(covered)
        async for part in in_turns(covered):
            for interest in part:
                interest.listening(math.inf)

    # ------------------------------------------------------------------ announcements

    async def _hear(self, client: MqttClient) -> None:
        while True:
            message = await client.receive()
            for each in [message, *client.waiting(_PART - 1)]:
                self._announce(each.topic)
            # others get their turn, however many there are
            await asyncio.sleep(0)

    def _announce(self, topic: str) -> None:
        words = topic.split("/")
        if len(words) != 6 or words[5] not in self._single:
            return
        clientid, event = words[4], words[5]
        for interest in tuple(self._single[event].get(clientid, ())):
            interest.announced(clientid)
        for interest in tuple(self._all[event]):
            if interest.wanted is None or clientid in interest.wanted:
                interest.announced(clientid)

    # ------------------------------------------------------------------ subscriptions

    async def _subscribe(self, client: MqttClient) -> None:
        """Subscribe to the clients of all interests, and end subscriptions that are not needed any more."""
        subscriptions = {event: _Subscriptions(client, event, self._say) for event in _EVENTS.values()}
        again = clock() + _LATER
        while True:
            self._changed.clear()
            for event, subscribed in subscriptions.items():
                single = self._single[event]
                if self._all[event] or len(single) > MOST:
                    await subscribed.to_all()
                if len(single) <= MOST:
                    await subscribed.to(single)
            self._failures = 0
            if self._said and not any(each.refused for each in subscriptions.values()):
                self._said.clear()
                log.info("The broker of connection %s announces clients again", self._emqx_conn_id)
            await self._cover(subscriptions)
            try:
                async with asyncio.timeout_at(again):
                    await self._changed.wait()
            except TimeoutError:
                # the account may have been granted the right meanwhile
                again = clock() + _LATER
                for subscribed in subscriptions.values():
                    subscribed.refused.clear()
            await asyncio.sleep(_COLLECT)

    async def _cover(self, subscriptions: dict[str, _Subscriptions]) -> None:
        now = clock()
        async for part in in_turns(list(self._pending)):
            for interest in part:
                if interest in self._pending and subscriptions[interest.event].include(interest.names):
                    self._pending.discard(interest)
                    self._covered.add(interest)
                    interest.listening(now)


class Bell:
    """
    Decides when a watcher checks: at its interval, and soon after an announcement.

    :param interval: seconds between two checks without announcements.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._rung = asyncio.Event()
        #: since when all changes are announced
        self._since = math.inf
        #: the first announcement since the last check began, and the latest of all
        self._first, self._latest = math.inf, -math.inf
        #: begin and end of the last check, and begin of the last one that found a change
        self._begun = self._ended = self._found = -math.inf
        #: checks in a row that did not confirm an announcement
        self._tries = 0

    def listening(self, since: float) -> None:
        """
        Note that all changes are announced from now on, or no longer.

        :param since: since when; infinite: no longer.
        """
        self._since = since
        self._rung.set()

    def announced(self) -> None:
        """Note an announcement."""
        now = clock()
        if now - self._latest > CALM:
            self._tries = 0
        self._latest = now
        if math.isinf(self._first):
            self._first = now
            self._rung.set()

    def begin(self) -> None:
        """Note that a check begins."""
        self._begun, self._first = clock(), math.inf

    def end(self, found: bool) -> None:
        """
        Note that the check has ended.

        :param found: whether there was a change.
        """
        self._ended = clock()
        if found:
            self._found, self._tries = self._begun, 0
        elif self._begun < self._latest + ECHO:
            self._tries += 1

    async def rest(self) -> None:
        """Wait until the next check is due."""
        while (left := self._due() - clock()) > 0:
            self._rung.clear()
            try:
                async with asyncio.timeout(left):
                    await self._rung.wait()
            except TimeoutError:
                return

    def _due(self) -> float:
        # any number of clients may come and go that the watcher then does not report
        soonest = self._ended + min(_BETWEEN * 2.0 ** min(self._tries, 20), self._interval)
        missed = self._begun < self._since
        due = self._ended + (self._interval if missed else quiet(self._interval))
        if (missed and math.isfinite(self._since)) or (self._tries and self._begun < self._latest + ECHO):
            due = min(due, soonest)
        if math.isfinite(self._first):
            # no later than without announcements, and changes of one interval together as well
            moment = min(_MOMENT, self._interval)
            due = min(due, max(soonest, self._first + moment, self._found + self._interval))
        return due


class _Subscriptions:
    """
    Subscriptions of one MQTT connection, of one event.

    :param client: the connection.
    :param event: last word of the topics.
    :param say: called with the error if the broker refuses one.
    """

    def __init__(self, client: MqttClient, event: str, say: Callable[[EmqxError], object]) -> None:
        self._client = client
        self._event = event
        self._say = say
        self._names: set[str] = set()
        self._has_all = False
        #: ids that the broker has refused
        self.refused: set[str] = set()

    def include(self, names: frozenset[str] | None) -> bool:
        """Return whether these clients are subscribed to."""
        return self._has_all or (names is not None and names <= self._names)

    async def to_all(self) -> None:
        """Subscribe to all clients, until the connection ends."""
        if not self._has_all and await self._made([_ANY]):
            self._has_all = True
            await self._end(list(self._names))

    async def to(self, names: Collection[str]) -> None:
        """
        Subscribe to single clients, unless all are subscribed to.

        :param names: their ids.
        """
        if self._has_all:
            return
        wanted = set(names)
        self.refused &= {*wanted, _ANY}
        fresh = list(wanted - self._names - self.refused)
        for start in range(0, len(fresh), _PART):
            part = fresh[start : start + _PART]
            if await self._made(part):
                self._names.update(part)
        gone = list(self._names - wanted)
        if len(gone) >= _PART:
            await self._end(gone)

    async def _made(self, names: Collection[str]) -> bool:
        if self.refused.issuperset(names):
            return False
        try:
            # QoS 0: a burst does not have to fit into the broker's queue of what waits to be acknowledged
            await self._client.subscribe(self._topics(names), qos=0)
        except EmqxApiError as error:
            self._say(error)
            self.refused.update(names)
            return False
        return True

    async def _end(self, names: Collection[str]) -> None:
        self._names.difference_update(names)
        await self._client.unsubscribe(self._topics(names))

    def _topics(self, names: Iterable[str]) -> list[str]:
        return [f"$SYS/brokers/+/clients/{name}/{self._event}" for name in names]


def _fits(clientid: Any) -> bool:
    """Return whether a topic filter can name a client."""
    try:
        length = len(clientid.encode())
    except UnicodeEncodeError:
        return False
    return 0 < length < _LONGEST and not set(clientid) & {"/", "+", "#", "\0"}
