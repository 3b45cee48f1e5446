"""Wait in the triggerer for what devices answer to a command."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_emqx.commands.exchange import Exchange
from airflow_provider_emqx.commands.order import Order
from airflow_provider_emqx.commands.record import Record
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.triggers.base import BaseEmqxTrigger
from airflow_provider_emqx.triggers.emqx import SOONEST, error_event
from airflow_provider_emqx.triggers.sessions import looked_up


class EmqxCommandTrigger(BaseEmqxTrigger):
    """
    Wait for the replies to a command that was sent, then send one event and end.

    What devices answer goes to the report, from which a triggerer that takes over goes on; neither the payload nor a
    reply is in the trigger or in its event. The event is ``{"status": "done"}``, or ``{"status": "error", "error",
    "args", "text"}``.

    :param order: how the command is answered, as :meth:`airflow_provider_emqx.commands.order.Order.to_json` tells it.
    :param report_path: path or URL of the report, with the devices that are awaited.
    :param enough: replies that end the wait; 0 where none is awaited, in a pause.
    :param deadline: seconds since 1970 at which the wait ends at the latest.
    :param keep_replies: whether the report keeps what devices answer.
    :param not_before: seconds since 1970 before which no event is sent.
    """

    def __init__(
        self,
        *,
        order: Mapping[str, Any],
        report_path: str,
        emqx_conn_id: str = EmqxHook.default_conn_name,
        enough: int = 0,
        deadline: float = 0.0,
        keep_replies: bool = False,
        not_before: float = 0.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.order = dict(order)
        self.report_path = report_path
        self.emqx_conn_id = emqx_conn_id
        self.enough = enough
        self.deadline = deadline
        self.keep_replies = keep_replies
        self.not_before = not_before

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and send one event."""
        soonest = max(self.not_before, time.time() + SOONEST)
        try:
            order = Order(**self.order)
            record = await asyncio.to_thread(Record, order.command, self.report_path)
            if self.enough and record.open():
                exchange = Exchange(await looked_up(self.emqx_conn_id), order, record, self.keep_replies)
                await exchange.wait(self.enough, self.deadline)
            event = {"status": "done"}
        except EmqxError as error:
            event = error_event(error)
        await asyncio.sleep(max(0.0, soonest - time.time()))
        yield TriggerEvent(event)
