"""A session of the broker in which messages wait for a task."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from airflow_provider_emqx.conditions.base import Outcome
from airflow_provider_emqx.conditions.messages import MessageArrived
from airflow_provider_emqx.messages.turns import Turns
from airflow_provider_emqx.transport import mqtt

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.transport.mqtt import MqttClient

log = logging.getLogger(__name__)

#: messages that EMQX keeps for a client that is away, by default: of more it drops the oldest
_QUEUE = 1_000
#: shortest and longest time without a message after which nothing more is taken to be waiting, in seconds
_QUIET, _MOST_QUIET = 0.2, 2.0
#: longest pause between two tries to connect, in seconds
_LONGEST_PAUSE = 60.0


class Mailbox:
    """
    A persistent session with one subscription, over which a task waits for a message.

    Whoever connects to it with the same client id goes on where the last one has stopped. A message that is not as
    expected is acknowledged; the one that is expected stays in the session until :meth:`end`, so that whoever takes
    over from a killed process finds it again.

    :param clientid: client id of the session.
    :param condition: of the awaited message.
    :param deadline: seconds since 1970 at which the wait ends; the broker keeps the session for no longer.
    :param expected: whether the session has been opened before.
    """

    def __init__(
        self, clientid: str, condition: MessageArrived, deadline: float, *, expected: bool = False
    ) -> None:
        self.clientid = clientid
        self.condition = condition
        self.deadline = deadline
        #: messages that have come
        self.seen = 0
        #: how often the session was opened
        self.opened = 0
        #: whether the session was not there any more when it was opened again
        self.lost = False
        self._expected = expected

    async def look(self, hook: EmqxHook) -> Outcome:
        """
        Decide about the messages that wait in the session.

        :param hook: of the broker; its settings have been looked up.
        :raises EmqxError: if the broker refuses connection or subscription, or cannot be reached.
        """
        begun = time.monotonic()
        async with self._open(hook) as client:
            quiet = min(max(_QUIET, 4 * (time.monotonic() - begun)), _MOST_QUIET)
            seen = self.seen
            outcome = await self._decide(client, math.inf, quiet)
            if self.seen - seen >= _QUEUE:
                log.warning(
                    "%s messages were waiting. EMQX keeps %s for a client that is away and drops older ones: wait in "
                    "the modes poke or deferred, which listen all the time, or use a narrower topic filter",
                    f"{self.seen - seen:,}",
                    f"{_QUEUE:,}",
                )
            return outcome

    async def listen(self, hook: EmqxHook) -> Outcome:
        """
        Wait until the message arrives, or the deadline.

        :param hook: of the broker; its settings have been looked up.
        :raises EmqxError: if the broker refuses connection or subscription, or the connection broke.
        """
        async with self._open(hook) as client:
            # a wait is not over before the broker had a moment to hand over what it has kept
            left = max(_QUIET, self.deadline - time.time())
            return await self._decide(client, asyncio.get_running_loop().time() + left, math.inf)

    async def end(self, hook: EmqxHook) -> None:
        """
        End the session on the broker.

        :param hook: of the broker; its settings have been looked up.
        :raises EmqxError: if the broker refuses the connection, or cannot be reached.
        """
        async with hook.mqtt(self.clientid, clean_start=True):
            pass

    @property
    def text(self) -> str:
        """A line that says how many messages have come so far."""
        line = f"{self.seen:,} messages on {self.condition.topic}, none as expected"
        return f"{line}; the broker lost the session, and perhaps messages with it" if self.lost else line

    @asynccontextmanager
    async def _open(self, hook: EmqxHook) -> AsyncIterator[MqttClient]:
        async with hook.mqtt(self.clientid, clean_start=False, session_expiry=self._left()) as client:
            if self._expected and not client.resumed:
                self.lost = True
                log.warning("The broker has lost the session: messages may have been missed")
            self._expected = True
            # a session that goes on has had the retained messages
            await client.subscribe([self.condition.topic], 1, 1 if self.condition.retained else 2)
            self.opened += 1
            try:
                yield client
            finally:
                client.leave_session(self._left())

    def _left(self) -> int:
        return max(1, math.ceil(self.deadline - time.time()))

    async def _decide(self, client: MqttClient, until: float, quiet: float) -> Outcome:
        """Decide about messages until one is as expected, the time is over, or none comes for a while."""
        clock = asyncio.get_running_loop().time
        turns = Turns()
        while True:
            try:
                async with asyncio.timeout_at(min(until, clock() + quiet)):
                    message = await client.receive()
            except TimeoutError:
                return Outcome(False, {}, self.text)
            self.seen += 1
            outcome = self.condition.judge(message)
            if outcome.met:
                return outcome
            client.acknowledge(message)
            await turns.after(message)


def pause(failures: int) -> float:
    """
    Return the seconds before the next attempt of a wait to connect.

    :param failures: consecutive ones.
    """
    return mqtt.pause(failures, _LONGEST_PAUSE)
