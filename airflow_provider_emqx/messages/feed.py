"""Messages of a subscription, in batches that are acknowledged as a whole."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.conditions.messages import MessageArrived, facts
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.messages.turns import Turns
from airflow_provider_emqx.transport.mqtt import pause

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.transport.mqtt import MqttClient, Received

log = logging.getLogger(__name__)

#: characters of JSON that the messages of one batch have at most: MySQL takes 64 KB
_MOST_JSON = 60_000
#: longest pause between two tries to connect, in seconds
_LONGEST_PAUSE = 600.0


class Batch:
    """
    Messages that make one event.

    :param client: the connection that they came over.
    """

    def __init__(self, client: MqttClient) -> None:
        self._client = client
        self._received: list[Received] = []
        self._size = 0
        #: facts about each message
        self.messages: list[dict[str, Any]] = []
        #: messages before them that no event can hold
        self.passed_over = 0
        #: set once it is acknowledged
        self.done = asyncio.Event()

    def add(self, message: Received, found: dict[str, Any]) -> bool:
        """
        Add a message if it fits in.

        :param message: as received.
        :param found: facts about it.
        """
        size = len(json.dumps(found)) + 2
        if self._size + size > _MOST_JSON:
            return False
        self._size += size
        self._received.append(message)
        self.messages.append(found)
        return True

    def acknowledge(self) -> None:
        """Acknowledge messages; after a lost connection the broker sends them again."""
        for message in self._received:
            self._client.acknowledge(message)
        self.done.set()


class Feed:
    """
    One subscription in a persistent session of the broker.

    A batch holds what has come while the one before was handed on: the broker holds back the rest, up to the length of
    its queue. Messages that are not as expected, and those that no event can hold, are passed over.

    :param look_up: returns a hook that knows the connection as it is now.
    :param clientid: client id of the session.
    :param subscription: topic filter, a shared one too.
    :param condition: of messages.
    :param batch_size: messages in one batch at most.
    :param session_expiry: seconds for which the broker keeps messages while nobody is connected.
    """

    def __init__(
        self,
        look_up: Callable[[], Awaitable[EmqxHook]],
        clientid: str,
        subscription: str,
        condition: MessageArrived,
        *,
        batch_size: int,
        session_expiry: int,
    ) -> None:
        self._look_up = look_up
        self._clientid = clientid
        self._subscription = subscription
        self._condition = condition
        self._batch_size = batch_size
        self._session_expiry = session_expiry
        #: a message that did not fit in the batch before
        self._left: Received | None = None
        self._dropped = 0
        self._passed_over = 0

    async def batches(self) -> AsyncIterator[Batch]:
        """
        Yield batches for ever; after errors it connects again, less and less often.

        A batch is to be acknowledged before the next one is asked for.
        """
        failures, expected = 0, False
        while True:
            try:
                hook = await self._look_up()
                async with hook.mqtt(
                    self._clientid,
                    clean_start=False,
                    session_expiry=self._session_expiry,
                    receive_maximum=self._batch_size,
                ) as client:
                    if expected and not client.resumed:
                        log.warning(
                            "The broker has lost the session %s: messages may have been missed",
                            self._clientid,
                        )
                    await client.subscribe([self._subscription], 1, 1 if self._condition.retained else 2)
                    failures, expected = 0, True
                    self._left, self._dropped = None, 0
                    while True:
                        yield await self._next(client)
            except Exception as error:
                # whatever it is: a watcher that ends is started again every two seconds, without an end
                failures += 1
                known = isinstance(error, EmqxError)
                seconds = pause(failures, _LONGEST_PAUSE)
                log.warning(
                    "Listening to %s: the connection failed, %d in a row, next in %.0f s. %s",
                    self._subscription,
                    failures,
                    seconds,
                    error if known else type(error).__name__,
                    exc_info=not known,
                )
            await asyncio.sleep(seconds)

    async def _next(self, client: MqttClient) -> Batch:
        batch, turns = Batch(client), Turns()
        while len(batch.messages) < self._batch_size:
            message = self._left or next(iter(client.waiting(1)), None)
            if message is None:
                if batch.messages:
                    break
                message = await client.receive()
            self._left = None
            if not self._take(client, batch, message):
                self._left = message
                break
            await turns.after(message)
        if client.dropped > self._dropped:
            self._pass_over(batch, client.dropped - self._dropped, "messages of QoS 0 came too fast")
            self._dropped = client.dropped
        return batch

    def _take(self, client: MqttClient, batch: Batch, message: Received) -> bool:
        """Add a message to a batch, or pass it over; return whether it is done with."""
        try:
            if not message.topic:
                raise ValueError("the topic is not UTF-8")
            if not self._condition.judge(message).met:
                client.acknowledge(message)
                return True
            if batch.add(message, facts(message, self._condition.keep_payload)):
                return True
            why = "its topic is too long for an event of Airflow"
        except Exception as error:
            # one that cannot be processed would come again and again, and hold up all others
            why = type(error).__name__
        if batch.messages:
            return False
        self._pass_over(batch, 1, f"one of {len(message.payload):,} bytes: {why}")
        client.acknowledge(message)
        return True

    def _pass_over(self, batch: Batch, count: int, why: str) -> None:
        batch.passed_over += count
        before, self._passed_over = self._passed_over, self._passed_over + count
        # at each power of two: there may be as many as messages
        if before.bit_length() < self._passed_over.bit_length():
            log.warning(
                "Passed over %s messages on %s so far; the last reason: %s",
                f"{self._passed_over:,}",
                self._subscription,
                why,
            )


async def each(feed: Feed) -> AsyncIterator[Batch]:
    """
    Yield batches, each once the one before is acknowledged, and close the connection at the end.

    :param feed: where they come from.
    """
    async with aclosing(feed.batches()) as batches:  # type: ignore[type-var]
        async for batch in batches:
            yield batch
            await batch.done.wait()
