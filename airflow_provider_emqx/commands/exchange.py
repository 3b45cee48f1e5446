"""A command goes out to devices, and their replies come back."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_emqx.commands.order import Order
from airflow_provider_emqx.commands.record import (
    LEFT,
    SENDING,
    SENT,
    Record,
    Row,
    kept,
)
from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxConnectionError,
    EmqxError,
    EmqxOutcomeUnknownError,
    EmqxServerError,
)
from airflow_provider_emqx.outcomes import FAILED, NO_REPLY, NOT_DELIVERED, REPLIED, UNKNOWN
from airflow_provider_emqx.transport.mqtt import Outgoing, pause

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.transport.mqtt import MqttClient, Received

log = logging.getLogger(__name__)

#: commands that are noted as being sent at a time: of so many a killed task does not know whether they are
_CHUNK = 100
#: shortest time without a message after which nothing more is taken to be on its way, in seconds
_QUIET = 0.01
#: messages that are looked at in one go, before other work of the event loop has its turn
_BATCH = 200
#: seconds for which the broker keeps the session beyond the wait, so that a task that is killed leaves nothing behind
_GRACE = 60.0
_DEAF = "the broker could not be reached when the wait ended"
#: shortest wait, in seconds
_AT_LEAST = 1.0
# reasons
_ENOUGH = "enough devices had replied before it did"
_INTERRUPTED = "the task ended before the broker had acknowledged the command"
_LOST = "the broker lost the session, and perhaps the reply"
#: longest pause between two tries to connect, in seconds
_LONGEST_PAUSE = 30.0


class Exchange:
    """
    Sends a command and waits for its replies.

    The record is written before a message is acknowledged to the broker. A connection that
    breaks is replaced, and nothing is sent twice.

    :param order: the command.
    :param record: the states of the devices.
    :param keep_replies: whether to keep replies in the record.
    """

    def __init__(self, hook: EmqxHook, order: Order, record: Record, keep_replies: bool = False) -> None:
        self._hook = hook
        self._order = order
        self._record = record
        self._keep_replies = keep_replies
        self._noting = asyncio.Lock()
        #: messages that have come, and when the latest one did, by the event loop's clock
        self._heard = 0
        self._heard_at = 0.0

    # ------------------------------------------------------------------ sending

    async def send(
        self, clientids: Sequence[str], wave: int, payload: Callable[[str], bytes], seconds: float
    ) -> None:
        """
        Send a wave; replies that come meanwhile are noted.

        :param clientids: devices, none of which is in the record.
        :param wave: its number.
        :param payload: makes the payload for a device.
        :param seconds: for which replies are awaited afterwards: the broker keeps them for so long.
        :raises EmqxError: if not all of it could be sent; those that were are in the record.
        """
        attempts = (await self._hook.async_settings()).attempts
        todo, failures, fresh = list(clientids), 0, True
        while todo:
            try:
                async with self._session(seconds, fresh) as client:
                    await self._greet(client, clientids, fresh)
                    if fresh:
                        log.info("Wave %d: sending the command, devices: %d", wave, len(clientids))
                    fresh = False
                    collecting = asyncio.create_task(self._collect(client))
                    try:
                        left = await self._send_some(client, todo, wave, payload)
                    finally:
                        # not while a reply is being noted: it would be in memory and not in the report
                        async with self._noting:
                            collecting.cancel()
                        with suppress(asyncio.CancelledError, EmqxError):
                            await collecting
                    if len(left) == len(todo):
                        raise EmqxConnectionError("the connection broke before anything was sent")
                    todo, failures = left, 0
                    if not self._record.open():
                        client.end_session()
            except (EmqxConnectionError, EmqxServerError) as error:
                failures += 1
                if failures >= attempts:
                    raise
                await _pause(error, failures)

    async def _send_some(
        self, client: MqttClient, todo: Sequence[str], wave: int, payload: Callable[[str], bytes]
    ) -> list[str]:
        """Send as long as the connection stands; return those that nothing was sent to."""
        clock = asyncio.get_running_loop().time
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            messages = [self._message(clientid, payload(clientid)) for clientid in chunk]
            heard, begun, now = self._heard, clock(), time.time()
            await self._tell([Row(clientid, SENDING, wave, now) for clientid in chunk])
            told = await client.publish_all(messages)
            rows = [self._sent(*one, wave) for one in zip(chunk, told, strict=True)]
            # a device may have replied before the broker acknowledged the command
            await self._tell(
                [
                    replace(row, reason=row.reason or self._record.rows[row.clientid].reason)
                    for row in rows
                    if self._is_open(row.clientid)
                ]
            )
            for one in told:
                if isinstance(one, EmqxConfigError):
                    raise one
            left = [row.clientid for row in rows if row.outcome == LEFT]
            if left:
                return [*left, *todo[start + _CHUNK :]]
            await self._keep_pace(heard + len(chunk), 2 * (clock() - begun))
        return []

    async def _keep_pace(self, enough: int, quiet: float) -> None:
        """
        Wait until as many messages have come as commands were sent, or none comes for a while. Replies that come faster
        than they are taken fill the broker's queue for this client, and EMQX drops what is beyond 1,000.

        :param enough: messages.
        :param quiet: seconds in which a message would have come that is on its way.
        """
        quiet = max(_QUIET, quiet)
        clock = asyncio.get_running_loop().time
        begun = clock()
        while self._heard < enough:
            left = max(begun, self._heard_at) + quiet - clock()
            if left <= 0:
                break
            await asyncio.sleep(left)

    def _message(self, clientid: str, payload: bytes) -> Outgoing:
        order = self._order
        return Outgoing(
            order.command_topic(clientid),
            payload,
            response_topic=order.answer_topic(clientid),
            correlation_data=order.mark(clientid).encode(),
        )

    @staticmethod
    def _sent(clientid: str, told: bool | EmqxError, wave: int) -> Row:
        """Return what is known of a device after the command was sent, or was not."""
        outcome, reason = SENT, ""
        if isinstance(told, EmqxOutcomeUnknownError):
            outcome, reason = SENDING, "the connection broke before the broker had acknowledged the command"
        elif isinstance(told, EmqxConnectionError | EmqxConfigError):
            outcome = LEFT
        elif isinstance(told, EmqxError):
            outcome, reason = FAILED, str(told)
        elif not told:
            outcome, reason = NOT_DELIVERED, "nobody has subscribed to the topic of the command"
        return Row(clientid, outcome, wave, time.time(), reason)

    # ------------------------------------------------------------------ waiting

    async def wait(self, enough: int, deadline: float) -> None:
        """
        Wait for replies of all devices that have not answered yet; afterwards each has an outcome.

        :param enough: devices of the latest wave whose replies end the wait.
        :param deadline: seconds since 1970 at which it ends at the latest.
        :raises EmqxError: if the broker refuses the connection or the subscription for good.
        """
        failures, heard = 0, False
        # a wait is not over before the broker had a moment to hand over what it has kept
        while self._is_on(enough) and not (heard and time.time() >= deadline):
            try:
                async with self._session(deadline - time.time()) as client:
                    await self._greet(client, self._record.open(), False)
                    failures, heard = 0, True
                    await self._collect(client, enough, max(_AT_LEAST, deadline - time.time()))
                    client.end_session()
            except (EmqxConnectionError, EmqxServerError) as error:
                failures, heard = failures + 1, False
                if time.time() >= deadline:
                    await self._doubt(_DEAF)
                    break
                await _pause(error, failures, deadline)
        await self._close(self._replied() >= enough)

    def _is_on(self, enough: int) -> bool:
        return bool(self._record.open()) and self._replied() < enough

    def _replied(self) -> int:
        return sum(row.outcome == REPLIED for row in self._record.of_wave(self._record.wave))

    async def _collect(
        self, client: MqttClient, enough: int | None = None, seconds: float | None = None
    ) -> None:
        """Note replies until all devices have an outcome, enough have replied or the time is over; or for ever."""
        awaited = set(self._record.open())
        replied = self._replied()
        until = None if seconds is None else asyncio.get_running_loop().time() + seconds
        over = False
        while not over and (enough is None or (awaited and replied < enough)):
            messages: list[Received] = []
            try:
                async with asyncio.timeout_at(until):
                    messages.append(await client.receive())
            except TimeoutError:
                # what came in the last moment counts
                over = True
            async with self._noting:
                messages += client.waiting(_BATCH - len(messages))
                self._heard += len(messages)
                self._heard_at = asyncio.get_running_loop().time()
                rows = list(self._rows(messages).values())
                await self._tell(rows)
                for message in messages:
                    client.acknowledge(message)
            awaited.difference_update(row.clientid for row in rows if not row.is_open)
            replied += sum(row.outcome == REPLIED for row in rows)

    def _rows(self, messages: Sequence[Received]) -> dict[str, Row]:
        """Find the replies among messages; the first one of a device counts."""
        found: dict[str, Row] = {}
        for message in messages:
            clientid = self._order.sender(message)
            row = None if clientid is None else found.get(clientid, self._record.rows.get(clientid))
            if row is None or not row.is_open:
                continue
            if self._order.is_reply(message, row.clientid):
                outcome, reason = self._order.judge(message)
                reply = kept(message.payload) if self._keep_replies else None
                found[row.clientid] = Row(row.clientid, outcome, row.wave, time.time(), reason, reply)
            elif not message.retain and not row.reason:
                found[row.clientid] = replace(row, reason=self._order.misfit(message))
        return found

    def _is_open(self, clientid: str) -> bool:
        row = self._record.rows.get(clientid)
        return row is not None and row.is_open

    async def _close(self, enough: bool) -> None:
        """Note what became of the devices that have not replied."""
        now = time.time()
        await self._tell(self._closed(self._record.rows[one], enough, now) for one in self._record.open())

    @staticmethod
    def _closed(row: Row, enough: bool, now: float) -> Row:
        outcome, reason = NO_REPLY, row.reason
        if row.outcome == SENDING:
            outcome, reason = UNKNOWN, reason or _INTERRUPTED
        elif reason in (_LOST, _DEAF):
            outcome = UNKNOWN
        elif enough:
            reason = reason or _ENOUGH
        return Row(row.clientid, outcome, row.wave, now, reason)

    # ------------------------------------------------------------------ both

    async def _tell(self, rows: Iterable[Row]) -> None:
        told: list[Row] = []
        for row in rows:
            self._record.take([row])
            told.append(row)
            if len(told) % _BATCH == 0:
                await asyncio.sleep(0)
        if told:
            await asyncio.to_thread(self._record.write, told)

    async def _greet(self, client: MqttClient, clientids: Sequence[str], fresh: bool) -> None:
        """Subscribe; note whose replies may be lost where the broker had no session any more."""
        if not fresh and not client.resumed:
            log.warning("The broker has lost the session: replies may have been missed")
            await self._doubt(_LOST)
        await client.subscribe(self._order.filters(clientids))

    async def _doubt(self, why: str) -> None:
        """Note that replies of those who have not answered may have been missed."""
        missed = [self._record.rows[clientid] for clientid in self._record.open()]
        await self._tell(replace(row, reason=why) for row in missed if row.outcome == SENT)

    def _session(self, seconds: float, fresh: bool = False) -> AbstractAsyncContextManager[MqttClient]:
        return self._hook.mqtt(
            f"airflow-{self._order.command}",
            clean_start=fresh,
            session_expiry=int(max(0.0, seconds) + _GRACE),
        )


async def _pause(error: EmqxError, failures: int, deadline: float = math.inf) -> None:
    """Wait before the next try to connect; an error that trying again cannot mend is raised."""
    if isinstance(error, EmqxConnectionError) and not error.transient:
        raise error
    seconds = min(pause(failures, _LONGEST_PAUSE), max(0.0, deadline - time.time()))
    log.warning("No MQTT connection, trying again in %.0f s: %s", seconds, error)
    await asyncio.sleep(seconds)
