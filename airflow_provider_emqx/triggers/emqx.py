"""Triggers: wait for a condition, or watch for events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.triggers import BaseEventTrigger
from airflow.triggers.base import TriggerEvent

from airflow_provider_emqx import exceptions
from airflow_provider_emqx.arguments import choice, number
from airflow_provider_emqx.conditions.base import Condition, Outcome, outlives
from airflow_provider_emqx.conditions.clients import ClientsCondition
from airflow_provider_emqx.conditions.ids import finish
from airflow_provider_emqx.conditions.kinds import load
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.patterns import like
from airflow_provider_emqx.triggers import events, polls
from airflow_provider_emqx.triggers.base import BaseEmqxTrigger
from airflow_provider_emqx.triggers.presence import Bell, Interest
from airflow_provider_emqx.triggers.sessions import connected
from airflow_provider_emqx.triggers.watches import SHORTEST_INTERVAL, Watch

if TYPE_CHECKING:
    from airflow_provider_emqx.choices import ConditionKind, Event
    from airflow_provider_emqx.transport.aio import AsyncClient

#: events to watch for, and their arguments
_EVENTS: dict[Event, tuple[str, ...]] = {
    "client_online": ("clientid_pattern", "username_pattern"),
    "client_offline": ("clientid_pattern", "username_pattern"),
    "alarm_activated": ("alarms",),
    "condition_met": ("kind", "parameters"),
}
#: longest pause of a watcher after failures, in seconds
_LONGEST_PAUSE = 600.0
#: most that a watcher keeps across restarts, in bytes of JSON: Airflow's own limit is 65,535
_LONGEST_MEMORY = 60_000
#: seconds after which Airflow has stored an event that was sent: the triggerer hands them over once a second
HANDED_OVER = 5.0
#: seconds before a trigger reads its file of ids
_BEFORE_READING = 5.0
#: seconds before the event of a deferred task: one that is sent at once can overtake the task's own deferral in Airflow
SOONEST = 2.0


class EmqxConditionTrigger(BaseEmqxTrigger):
    """
    Wait until a condition is met, then send one event and end.

    It only reads. All waits of one triggerer on one connection share their requests. The first check is not before half
    the poll interval or two seconds have passed, because an event sent at once could overtake the task's own deferral
    in Airflow.

    If the connection has an MQTT address and the account may subscribe to ``$SYS/brokers/+/clients/+/connected`` and
    ``…/disconnected``, waits for clients are checked when the broker announces these, and otherwise every ten intervals
    (but at least every 15 minutes or every interval).

    The event is ``{"status": "met", "text", "details"}``, ``{"status": "timeout", "text", "details"}`` or
    ``{"status": "error", "error", "args", "text"}``.

    :param kind: kind of the condition, a name of :data:`airflow_provider_emqx.conditions.kinds.KINDS`.
    :param parameters: arguments of that kind, plain JSON.
    :param poll_interval: seconds between two checks, at least 0.1.
    :param backoff: whether the interval doubles from check to check.
    :param max_interval: longest interval in seconds. Default: no limit.
    :param max_failures: consecutive failed checks to tolerate while the broker is down, slow or busy; ``None``: any
        number.
    :param deadline: seconds since 1970 at which the wait times out. As a point in time it holds across restarts of
        the triggerer. Default: never.
    :param missing_path: file for the missing ids if there are more than 1,000.
    """

    def __init__(
        self,
        *,
        kind: str,
        parameters: Mapping[str, Any],
        emqx_conn_id: str = EmqxHook.default_conn_name,
        poll_interval: float = 60.0,
        backoff: bool = False,
        max_interval: float | None = None,
        max_failures: int | None = 20,
        deadline: float | None = None,
        missing_path: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kind = kind
        self.parameters = dict(parameters)
        self.emqx_conn_id = emqx_conn_id
        self.poll_interval = poll_interval
        self.backoff = backoff
        self.max_interval = max_interval
        self.max_failures = max_failures
        self.deadline = deadline
        self.missing_path = missing_path

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and send one event."""
        try:
            event = await self._wait()
        except EmqxError as error:
            event = error_event(error)
        yield TriggerEvent(event)

    async def _wait(self) -> dict[str, Any]:
        condition = load(self.kind, self.parameters)
        if isinstance(condition, ClientsCondition) and condition.path:
            read = await self._read(condition)
            if isinstance(read, str):
                return {"status": "timeout", "text": read}
            condition = read
        async with polls.shared(self.emqx_conn_id) as poll:
            watch = Watch(
                condition,
                self.poll_interval,
                backoff=self.backoff,
                max_interval=self.max_interval,
                max_failures=self.max_failures,
            )
            found = await poll.wait(watch, self.deadline)
        if isinstance(found, EmqxError):
            return error_event(found)
        if isinstance(found, Exception):
            raise found
        if found is None:
            last = finish(watch.outcome, None) if watch.outcome else {}
            return {"status": "timeout", "text": watch.text, "details": last}
        return {"status": "met", "text": found.text, "details": await finished(found, self.missing_path)}

    async def _read(self, condition: Condition) -> Condition | str:
        """
        Read the file of ids in a thread; retry if the storage fails, as for a failing broker.

        :param condition: that names a file.
        :return: the condition with its ids; or, past the deadline, the result of the last attempt.
        """
        failures, text = 0, ""
        pause = min(max(self.poll_interval, SHORTEST_INTERVAL), _BEFORE_READING)
        while self.deadline is None or time.time() < self.deadline:
            await asyncio.sleep(
                pause if self.deadline is None else min(pause, max(0.0, self.deadline - time.time()))
            )
            try:
                return await asyncio.to_thread(condition.loaded)
            except EmqxError as error:
                failures += 1
                if not outlives(error, failures, self.max_failures):
                    raise
                text = f"Check failed, {failures} in a row. {error}"
                self.log.warning("%s", text)
                pause = min(2 * pause, 60.0)
        return text


class EmqxEventTrigger(BaseEventTrigger):
    """
    Watch a broker for an ``AssetWatcher``, and send an asset event for each change.

    It checks forever at a fixed interval; after errors less often, down to every ten minutes. Where the broker
    announces clients (see :class:`EmqxConditionTrigger`), it checks half a second after an announcement, though not
    within one interval of the last event, and otherwise every ten intervals. The changes found in one check come
    together, up to 1,000 in one event. The very first check only records the current state.

    On Airflow 3.3 and newer, with one asset per trigger, the state is kept in the asset's state store: after a
    restart of the triggerer the next check reports the changes in the meantime, as far as the broker still shows them,
    and events sent just before the restart may be sent again. Elsewhere a restart starts over. A client that connects
    and disconnects between two checks is not seen.

    Payloads of the events: ``{"event": "client_online", "count", "clientids"}``, the same with ``"client_offline"``,
    ``{"event": "alarm_activated", "count", "alarms"}``, ``{"event": "condition_met", "kind", "text", "details"}``.

    :param event: ``"client_online"``: a client has connected or reconnected since the last check;
        ``"client_offline"``: a client that was online is offline; ``"alarm_activated"``; ``"condition_met"``: a
        condition that was not met in the last check is met now.
    :param poll_interval: seconds between two checks, at least 0.1.
    :param clientid_pattern: for clients: a pattern of their client ids, in which ``*`` stands for any text.
    :param username_pattern: for clients: a pattern of their usernames. Default: any.
    :param alarms: for alarms: their names. Default: any.
    :param kind: for conditions: a name of :data:`airflow_provider_emqx.conditions.kinds.KINDS`.
    :param parameters: for conditions: arguments of that kind, plain JSON.
    :raises EmqxConfigError: for invalid arguments, when the DAG is parsed.
    """

    def __init__(
        self,
        *,
        event: Event,
        emqx_conn_id: str = EmqxHook.default_conn_name,
        poll_interval: float = 60.0,
        clientid_pattern: str = "*",
        username_pattern: str | None = None,
        alarms: Sequence[str] | None = None,
        kind: ConditionKind | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.event = event
        self.emqx_conn_id = emqx_conn_id
        self.poll_interval = number("poll_interval", poll_interval)
        self.clientid_pattern = clientid_pattern
        self.username_pattern = username_pattern
        self.alarms = [alarms] if isinstance(alarms, str) else None if alarms is None else list(alarms)
        self.kind = kind
        self.parameters = None if parameters is None else dict(parameters)
        self._check()

    def _check(self) -> None:
        choice("event", self.event, _EVENTS)
        for name, default in (
            ("clientid_pattern", "*"),
            ("username_pattern", None),
            ("alarms", None),
            ("kind", None),
            ("parameters", None),
        ):
            if name not in _EVENTS[self.event] and getattr(self, name) != default:
                raise EmqxConfigError(f"{name} does not belong to the event {self.event}")
        if self.event == "condition_met":
            condition = load(self.kind or "", self.parameters or {})
            self.parameters = condition.for_trigger()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the trigger is made of again: plain JSON, no credential."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "event": self.event,
            "emqx_conn_id": self.emqx_conn_id,
            "poll_interval": self.poll_interval,
            **{name: getattr(self, name) for name in _EVENTS[self.event]},
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Check forever, and send the changes."""
        memory: events.Memory | None = None
        recalled, failures = False, 0
        interval = max(self.poll_interval, SHORTEST_INTERVAL)
        # None: the bell decides
        pause: float | None = min(interval, 1.0)
        async with AsyncExitStack() as session, self._bell(interval) as bell:
            client: AsyncClient | None = None
            while True:
                await (bell.rest() if pause is None else asyncio.sleep(pause))
                bell.begin()
                try:
                    if not recalled:
                        memory, recalled = await self._recall(), True
                    # made anew, because a file of ids may have changed
                    look = await self._look()
                    if client is None:
                        client = await session.enter_async_context(connected(self.emqx_conn_id))
                    compare = await client.run(look(client.api, memory, time.time()))
                    found = await asyncio.to_thread(compare)
                except Exception as error:
                    # whatever it is: a watcher that ends is started again every two seconds, without an end
                    failures += 1
                    pause = pause_after(failures, interval)
                    self._tell(error, failures, pause)
                    await session.aclose()
                    client = None
                    continue
                failures, pause = 0, None
                bell.end(bool(found.events))
                for payload in found.events:
                    yield TriggerEvent({**payload, "emqx_conn_id": self.emqx_conn_id})
                if found.memory != memory and self._store is not None:
                    if found.events:
                        # remember only what was sent for certain: sent twice is better than never
                        await asyncio.sleep(HANDED_OVER)
                    await self._remember(found.memory)
                memory = found.memory

    @asynccontextmanager
    async def _bell(self, interval: float) -> AsyncIterator[Bell]:
        """Return a bell, which announcements ring if the watcher is for clients."""
        bell = Bell(interval)
        if "clientid_pattern" not in _EVENTS[self.event]:
            yield bell
            return

        expected = like(self.clientid_pattern)

        def announced(clientid: str) -> None:
            if expected.fullmatch(clientid):
                bell.announced()

        # a pattern without wildcards is a client id
        clientids = None if "*" in self.clientid_pattern else [self.clientid_pattern]
        interest = Interest(self.event.removeprefix("client_"), clientids, announced, bell.listening)
        async with polls.shared(self.emqx_conn_id) as poll:
            with poll.presence.listening(interest):
                yield bell

    async def _look(self) -> events.Look:
        if self.event == "condition_met":
            condition = load(self.kind or "", self.parameters or {})
            return events.met(await asyncio.to_thread(condition.loaded))
        if self.event == "alarm_activated":
            return events.alarm(self.alarms)
        clients = {"clientid_pattern": self.clientid_pattern, "username_pattern": self.username_pattern}
        return events.online(clients) if self.event == "client_online" else events.offline(clients)

    def _tell(self, error: Exception, failures: int, pause: float) -> None:
        known = isinstance(error, EmqxError)
        self.log.warning(
            "Watching for %s on connection %s: check failed, %d in a row, next in %.0f s. %s",
            self.event,
            self.emqx_conn_id,
            failures,
            pause,
            error if known else type(error).__name__,
            exc_info=not known,
        )

    # ------------------------------------------------------------------ memory across restarts

    @property
    def _key(self) -> str:
        """Return the key in the asset's store, which several watchers may share."""
        what = {name: value for name, value in self.serialize()[1].items() if name != "poll_interval"}
        return "airflow-provider-emqx-" + sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _store(self) -> Any:
        # Airflow before 3.3 has none
        return getattr(self, "asset_state_store", None)

    async def _recall(self) -> events.Memory | None:
        if self._store is None:
            return None
        try:
            memory = await self._store.aget(self._key)
        except ValueError:
            self.log.info("Several assets share this watcher: what it has seen is not kept across restarts")
            self.asset_state_store = None
            return None
        return memory if isinstance(memory, dict) else None

    async def _remember(self, memory: events.Memory) -> None:
        if len(json.dumps(memory)) > _LONGEST_MEMORY:
            # of connections the newest is enough to go on from; of a set a part would be wrong
            memory = {**memory, "seen": {}} if "seen" in memory else {}
        try:
            if memory:
                await self._store.aset(self._key, memory)
            else:
                await self._store.adelete(self._key)
        except Exception as error:
            self.log.warning("What was seen could not be kept for after a restart: %s", type(error).__name__)


def pause_after(failures: int, interval: float) -> float:
    """
    Return the seconds until a watcher's next check: increasing, up to ten minutes.

    :param failures: consecutive failed checks.
    :param interval: seconds between successful checks.
    """
    # no more than ten times twice as long: a float has no room for a week of failures
    return min(max(interval, 1.0) * 2.0 ** min(failures, 10), max(interval, _LONGEST_PAUSE))


async def finished(outcome: Outcome, missing_path: str | None) -> dict[str, Any]:
    """
    Return the task's result without blocking the event loop while a file is written.

    :param outcome: that was waited for.
    :param missing_path: file for the missing ids if there are more than 1,000.
    """
    if missing_path is None:
        return finish(outcome, None)
    return await asyncio.to_thread(finish, outcome, missing_path)


def error_event(error: EmqxError) -> dict[str, Any]:
    """
    Return the event for an error.

    :param error: of this provider.
    """
    return {"status": "error", "error": type(error).__name__, "args": list(error.args), "text": str(error)}


def error_of(event: Mapping[str, Any]) -> EmqxError:
    """
    Return the error of an event.

    :param event: as made by :func:`error_event`.
    """
    kind = getattr(exceptions, str(event.get("error")), None)
    if isinstance(kind, type) and issubclass(kind, EmqxError):
        return kind(*event.get("args", ()))
    return EmqxError(str(event.get("text", "the wait failed in the triggerer")))
