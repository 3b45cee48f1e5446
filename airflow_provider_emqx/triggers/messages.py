"""Wait in the triggerer for messages over MQTT."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_emqx.conditions.base import outlives
from airflow_provider_emqx.conditions.messages import MessageArrived
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.messages.mailbox import Mailbox, pause
from airflow_provider_emqx.triggers.base import BaseEmqxTrigger
from airflow_provider_emqx.triggers.emqx import SOONEST, error_event
from airflow_provider_emqx.triggers.sessions import looked_up


class EmqxMessageArrivedTrigger(BaseEmqxTrigger):
    """
    Wait for a message over MQTT, then send one event and end; goes on with the session that the task has begun.

    The message stays in the session, so that a triggerer that takes over finds it again; the task ends the session when
    it has resumed. If somebody clears the task or sets its state meanwhile, the session ends at once on Airflow 3.3 and
    newer, on others when the deadline is over.

    The event is ``{"status": "met", "text", "details"}``, ``{"status": "timeout", "text"}`` or
    ``{"status": "error", "error", "args", "text"}``.

    :param clientid: client id of the session.
    :param parameters: arguments of the condition, plain JSON, with digests of what is awaited.
    :param deadline: seconds since 1970 at which the wait times out.
    :param max_failures: consecutive failed connections to tolerate while the broker is down, slow or busy; ``None``:
        any number.
    """

    def __init__(
        self,
        *,
        clientid: str,
        parameters: Mapping[str, Any],
        deadline: float,
        emqx_conn_id: str = EmqxHook.default_conn_name,
        max_failures: int | None = 20,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.clientid = clientid
        self.parameters = dict(parameters)
        self.deadline = deadline
        self.emqx_conn_id = emqx_conn_id
        self.max_failures = max_failures

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and send one event."""
        soonest = time.time() + SOONEST
        try:
            event = await self._wait(self._mailbox())
        except EmqxError as error:
            event = error_event(error)
        await asyncio.sleep(max(0.0, soonest - time.time()))
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """End the session when somebody clears the task or sets its state; called by Airflow 3.3 and newer."""
        await self._mailbox().end(await looked_up(self.emqx_conn_id))

    def _mailbox(self) -> Mailbox:
        return Mailbox(self.clientid, MessageArrived(**self.parameters), self.deadline, expected=True)

    async def _wait(self, mailbox: Mailbox) -> dict[str, Any]:
        failures, text = 0, ""
        while True:
            opened = mailbox.opened
            try:
                outcome = await mailbox.listen(await looked_up(self.emqx_conn_id))
            except EmqxError as error:
                failures = 1 if mailbox.opened > opened else failures + 1
                if not outlives(error, failures, self.max_failures):
                    raise
                text = f"Connection failed, {failures} in a row. {error}"
                self.log.warning("%s", text)
                await asyncio.sleep(min(pause(failures), max(0.0, self.deadline - time.time())))
                if time.time() >= self.deadline:
                    return {"status": "timeout", "text": text}
                continue
            if outcome.met:
                return {"status": "met", "text": outcome.text, "details": outcome.details}
            return {"status": "timeout", "text": outcome.text}
