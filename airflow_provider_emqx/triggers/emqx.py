"""Wait in the triggerer: for a condition to be met, or for ever for events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_emqx import conditions, exceptions
from airflow_provider_emqx.conditions.base import Condition, Outcome, is_transient
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.triggers import polls

#: seconds before a trigger that has to read a file of ids does so
_BEFORE_READING = 5.0


class EmqxConditionTrigger(BaseTrigger):
    """
    Wait until a condition is met, then send one event and end.

    It only reads. All waits of one triggerer on one connection share their requests. Nothing is asked before half the
    poll interval has passed: an event that is sent at once can overtake the task's own deferral in Airflow.

    The event is ``{"status": "met", "text", "details"}``, ``{"status": "timeout", "text", "details"}`` or
    ``{"status": "error", "error", "args", "text"}``.

    :param kind: kind of the condition, a name of :data:`airflow_provider_emqx.conditions.KINDS`.
    :param parameters: arguments of that kind, plain JSON.
    :param emqx_conn_id: the Airflow connection.
    :param poll_interval: seconds between two looks; 0.1 at least.
    :param backoff: whether the interval doubles from look to look.
    :param max_interval: longest interval that it grows to, in seconds. Default: no limit.
    :param max_failures: looks that may fail in a row because the broker is down, slow or busy; ``None``: any number.
    :param deadline: seconds since 1970 at which the wait is given up. As a point in time it holds across restarts of
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

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give what the trigger is made of again after a restart: plain JSON, no credential."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "kind": self.kind,
            "parameters": self.parameters,
            "emqx_conn_id": self.emqx_conn_id,
            "poll_interval": self.poll_interval,
            "backoff": self.backoff,
            "max_interval": self.max_interval,
            "max_failures": self.max_failures,
            "deadline": self.deadline,
            "missing_path": self.missing_path,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and send the one event."""
        try:
            event = await self._wait()
        except EmqxError as error:
            event = error_event(error)
        yield TriggerEvent(event)

    async def _wait(self) -> dict[str, Any]:
        condition = conditions.load(self.kind, self.parameters)
        if "path" in condition.parameters:
            condition = await self._read(condition)
        async with polls.shared(self.emqx_conn_id) as poll:
            watch = polls.Watch(
                condition,
                self.poll_interval,
                backoff=self.backoff,
                max_interval=self.max_interval,
                max_failures=self.max_failures,
            )
            found = await poll.wait(watch, self.deadline)
        if isinstance(found, Exception):
            raise found
        if found is None:
            return {"status": "timeout", "text": watch.text}
        return {"status": "met", "text": found.text, "details": await finished(found, self.missing_path)}

    async def _read(self, condition: Condition) -> Condition:
        """Read the file of ids in a thread; a storage that fails is tried again like a broker that fails."""
        failures = 0
        pause = min(max(self.poll_interval, polls.SHORTEST_INTERVAL), _BEFORE_READING)
        while True:
            await asyncio.sleep(pause)
            try:
                return await asyncio.to_thread(conditions.loaded, condition)
            except EmqxError as error:
                failures += 1
                out_of_time = self.deadline is not None and time.time() >= self.deadline
                spent = self.max_failures is not None and failures > self.max_failures
                if not is_transient(error) or spent or out_of_time:
                    raise
                self.log.warning("Look failed, %d in a row. %s", failures, error)
                pause = min(2 * pause, 60.0)


async def finished(outcome: Outcome, missing_path: str | None) -> dict[str, Any]:
    """
    Make the task's result without holding the event loop while a file is written.

    :param outcome: that was waited for.
    :param missing_path: file for the missing ids if there are more than 1,000.
    """
    if missing_path is None:
        return conditions.finish(outcome, None)
    return await asyncio.to_thread(conditions.finish, outcome, missing_path)


def error_event(error: EmqxError) -> dict[str, Any]:
    """
    Make the event that tells of an error.

    :param error: of this provider.
    """
    return {"status": "error", "error": type(error).__name__, "args": list(error.args), "text": str(error)}


def error_of(event: Mapping[str, Any]) -> EmqxError:
    """
    Make the error again that an event tells of.

    :param event: as made by :func:`error_event`.
    """
    kind = getattr(exceptions, str(event.get("error")), None)
    if isinstance(kind, type) and issubclass(kind, EmqxError):
        return kind(*event.get("args", ()))
    return EmqxError(str(event.get("text", "the wait failed in the triggerer")))
