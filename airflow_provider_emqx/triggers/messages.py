"""Wait in the triggerer for a message over MQTT, or start DAGs by messages."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.triggers import BaseEventTrigger
from airflow.triggers.base import TriggerEvent

from airflow_provider_emqx.api.names import split_share, topic_filter
from airflow_provider_emqx.arguments import span, text, whole
from airflow_provider_emqx.conditions.base import outlives
from airflow_provider_emqx.conditions.messages import MessageArrived
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.messages.feed import Batch, Feed, each
from airflow_provider_emqx.messages.mailbox import Mailbox, pause
from airflow_provider_emqx.triggers.base import BaseEmqxTrigger
from airflow_provider_emqx.triggers.emqx import HANDED_OVER, SOONEST, error_event
from airflow_provider_emqx.triggers.sessions import looked_up

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

    from airflow_provider_emqx.choices import Comparison
else:
    try:
        from airflow.triggers.shared_stream import SharedStreamProducer
    except ImportError:  # Airflow before 3.3
        SharedStreamProducer = object


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


class EmqxMessageTrigger(BaseEventTrigger):
    """
    Listen to messages over MQTT for an ``AssetWatcher``, and send asset events for them.

    It needs the extra ``mqtt`` of this package, and the connection's MQTT address. The broker keeps messages of QoS 1
    and 2 in a session while no triggerer listens. Those that have come while Airflow stored an event make the next
    one together.

    On Airflow 3.3 and newer a message is acknowledged to the broker only after Airflow has stored its event: at least
    once. Before that it is acknowledged five seconds after the event was handed to Airflow.

    Payload of the events: ``{"event": "messages", "count", "messages", "passed_over"}``, where each message is
    ``{"topic", "qos", "retained", "size"}``, and with ``keep_payload`` also ``{"payload", "payload_encoding",
    "truncated"}``. ``passed_over`` counts messages that no event can hold, and those of QoS 0 that came too fast.

    :param topic: topic filter, with or without wildcards, or a shared subscription ``$share/group/filter``.
    :param emqx_conn_id: the Airflow connection.
    :param payload: only messages with exactly this payload.
    :param json_field: only messages with this field in a JSON payload, as ``"state.battery"``.
    :param json_value: value that this field must have.
    :param threshold: number that this field is compared with, or without ``json_field`` the whole payload.
    :param comparison: ``">="`` or ``"<="``.
    :param retained: whether messages count that were retained before.
    :param keep_payload: put up to 10,000 characters of each payload into the event. Airflow stores and logs it.
    :param batch_size: messages in one event at most.
    :param session_expiry: seconds (or a ``timedelta``) for which the broker keeps messages while no triggerer listens.
    :param clientid: client id of the session, which nobody else on the broker may have. Default: made from the
        arguments; two Airflows with the same watcher on one broker each need their own.
    :param payload_hash: in place of ``payload``, its digest, which Airflow stores.
    :param value_hash: in place of ``json_value``, its digest, which Airflow stores.
    :raises EmqxConfigError: for invalid arguments, when the DAG is parsed.
    """

    def __init__(
        self,
        *,
        topic: str,
        emqx_conn_id: str = EmqxHook.default_conn_name,
        payload: str | bytes | None = None,
        json_field: str | None = None,
        json_value: Any = None,
        threshold: float | None = None,
        comparison: Comparison = ">=",
        retained: bool = False,
        keep_payload: bool = False,
        batch_size: int = 100,
        session_expiry: float | timedelta = 3600.0,
        clientid: str | None = None,
        payload_hash: str | None = None,
        value_hash: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.topic = topic_filter(topic)
        group, plain = split_share(self.topic)
        self._condition = MessageArrived(
            plain,
            retained,
            keep_payload,
            payload=payload,
            json_field=json_field,
            json_value=json_value,
            threshold=threshold,
            comparison=comparison,
            payload_hash=payload_hash,
            value_hash=value_hash,
        )
        if group is not None and self._condition.retained:
            raise EmqxConfigError(
                "retained=True does nothing here: a shared subscription gets no retained messages"
            )
        self.emqx_conn_id = emqx_conn_id
        self.batch_size = whole("batch_size", batch_size, 1, 1_000)
        self.session_expiry = span("session_expiry", session_expiry)
        self.clientid = None if clientid is None else text("clientid", clientid)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments from which a restart recreates the trigger: plain JSON, no credential, no payload."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            **self._condition.parameters(),
            "topic": self.topic,
            "emqx_conn_id": self.emqx_conn_id,
            "batch_size": self.batch_size,
            "session_expiry": self.session_expiry,
            "clientid": self.clientid,
        }

    def feed(self) -> Feed:
        """Return the messages, which nobody has connected for yet."""
        clientid = self.clientid
        if clientid is None:
            clientid = f"airflow-{sha256(str(self.shared_stream_key()).encode()).hexdigest()[:16]}"
        return Feed(
            partial(looked_up, self.emqx_conn_id),
            clientid,
            self.topic,
            self._condition,
            batch_size=self.batch_size,
            session_expiry=math.ceil(self.session_expiry),
        )

    def event(self, batch: Batch) -> dict[str, Any]:
        """
        Return the payload of an event.

        :param batch: its messages.
        """
        return {
            "event": "messages",
            "count": len(batch.messages),
            "messages": batch.messages,
            "passed_over": batch.passed_over,
            "emqx_conn_id": self.emqx_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Listen for ever; Airflow before 3.3 does not say when it has stored an event."""
        async for batch in each(self.feed()):
            yield TriggerEvent(self.event(batch))
            await asyncio.sleep(HANDED_OVER)
            batch.acknowledge()

    # ------------------------------------------------------------------ Airflow 3.3 and newer

    def shared_stream_key(self) -> Hashable:
        """Return what only watchers with the same arguments share: Airflow confirms events of shared streams."""
        return json.dumps(self.serialize(), sort_keys=True)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """
        Return what reads messages, and acknowledges them once Airflow has stored their events.

        :param kwargs: arguments of the trigger.
        """
        return _Producer(cls(**kwargs))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """
        Make events of batches.

        :param shared_stream: batches of the producer.
        """
        async for payload in shared_stream:
            yield TriggerEvent(payload)


class _Producer(SharedStreamProducer):
    """
    The broker's side of a watcher.

    :param trigger: the watcher.
    """

    def __init__(self, trigger: EmqxMessageTrigger) -> None:
        self._trigger = trigger

    async def open_stream(self) -> AsyncIterator[tuple[Any, Any]]:
        async for batch in each(self._trigger.feed()):
            yield self._trigger.event(batch), batch

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        for item in batch:
            # what nobody has stored stays in the session, from which it comes again with the next connection
            if item.outcome.is_clean:
                item.broker_payload.acknowledge()
