"""Commands to devices, over MQTT, with replies."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack

from airflow.providers.common.compat.sdk import TaskDeferred, conf

from airflow_provider_emqx.arguments import boolean, mapping, optional, seconds, span, texts
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.hidden import HiddenField, is_literal, plain
from airflow_provider_emqx.operators.base import BaseEmqxOperator
from airflow_provider_emqx.outcomes import REPLIED, UNADDRESSABLE
from airflow_provider_emqx.results import keep_result
from airflow_provider_emqx.run_log import guard, tell

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

    from airflow_provider_emqx.commands.order import Order
    from airflow_provider_emqx.commands.record import Record
    from airflow_provider_emqx.keywords import EmqxOperatorKeywords
    from airflow_provider_emqx.results import CommandResult, Guard


class EmqxCommandOperator(BaseEmqxOperator):
    """
    Send a command to devices over MQTT, and wait for their replies.

    It needs the extra ``mqtt`` of this package, and the connection's MQTT address. It subscribes before it publishes,
    with QoS 1. A device with MQTT 5 replies to the response topic with the correlation data of the command; with
    ``reply_field`` it replies to ``reply_topic`` with a JSON object that repeats a field of the command.

    Every device ends in one outcome: ``replied``, ``failed`` (its reply is not as ``success`` asks, or the broker
    refused the command), ``no_reply``, ``not_delivered`` (it has not subscribed), ``unknown`` (whether it got the
    command, or replied, was lost), or ``unaddressable`` (its id cannot be part of a topic).

    A command is never sent twice unasked. The report is the memory of the task: a retry, or a triggerer that takes
    over, continues from it. Without a report a retry of the task is refused, because it is not known what was sent.

    :param clientids: one client id, or several. An ``ObjectStoragePath`` is taken as ``clientids_path``.
    :param clientids_path: in place of ``clientids``, a file with one id per line.
    :param payload: text, bytes, or anything that can be written as JSON. Airflow neither stores nor shows
        it.
    :param topic: of the command; ``{clientid}`` stands for the client id, and is a level of its own.
    :param reply_topic: of the reply, the same way.
    :param reply_field: for devices without MQTT 5, the field of the JSON payload that the reply repeats.
    :param success: fields that the JSON object of a reply must have, with these values. Default: every
        reply is a success.
    :param quorum: how many devices of a wave must reply: ``"all"``, ``"any"``, a count, or a share such as
        ``"95%"``. The wait for a wave ends when they have.
    :param timeout: seconds (or a ``timedelta``) for which replies to a wave are awaited.
    :param wave_size: devices in a wave, a count or a share such as ``"10%"``. Default: all in one wave.
    :param pause: seconds (or a ``timedelta``) between two waves.
    :param max_failed: how many of the devices that got the command may have another outcome than ``replied``, a count
        or a share such as ``"5%"``. With more, no further wave begins and the task fails. Default: it does
        so when a wave misses its quorum.
    :param keep_replies: keep the first 1,000 characters of each reply in report and result.
    :param report_path: path or URL of a JSON Lines file with a line for each device, written as it happens. With
        ``deferrable`` the triggerer must reach it as well.
    :param resend: when the task is tried again, send the command again to the devices with these outcomes, such as
        ``["no_reply"]``; ``"all"``: to all. Default: only to those that it was never sent to.
    :param deferrable: wait in the triggerer, without a worker slot; needs ``report_path``. Default: ``[operators]
        default_deferrable``, where there is a report.
    :return: a list of at most 1,000 client ids per outcome, ``counts``, ``selected``, ``left`` (devices that nothing
        was sent to), ``left_count``, ``waves``, ``reasons``, ``guards``, ``replies`` if they are kept, and
        ``report_path``.
    :raises EmqxConfigError: for invalid arguments; nothing is sent.
    :raises EmqxError: if too few devices have replied; a retry goes on with those that nothing was sent to.
    """

    template_fields: Sequence[str] = (
        "clientids",
        "clientids_path",
        "payload",
        "topic",
        "reply_topic",
        "reply_field",
        "success",
        "quorum",
        "timeout",
        "wave_size",
        "pause",
        "max_failed",
        "keep_replies",
        "report_path",
        "resend",
        "emqx_conn_id",
    )
    template_fields_renderers = {"success": "json"}  # noqa: RUF012  Airflow declares it so

    payload = HiddenField()

    def __init__(
        self,
        *,
        payload: Any,
        clientids: str | Sequence[str] | ObjectStoragePath | XComArg | None = None,
        clientids_path: str | XComArg | None = None,
        topic: str | XComArg = "devices/{clientid}/command",
        reply_topic: str | XComArg = "devices/{clientid}/reply",
        reply_field: str | XComArg | None = None,
        success: Mapping[str, Any] | str | XComArg | None = None,
        quorum: str | int | XComArg = "all",
        timeout: float | str | timedelta | XComArg = 300.0,
        wave_size: int | str | XComArg | None = None,
        pause: float | str | timedelta | XComArg | None = None,
        max_failed: float | str | XComArg | None = None,
        keep_replies: bool | str | XComArg = False,
        report_path: str | os.PathLike[str] | XComArg | None = None,
        resend: str | Sequence[str] | XComArg | None = None,
        deferrable: bool | None = None,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.payload = payload
        self.clientids: Any = clientids
        self.clientids_path: Any = clientids_path
        self.topic: Any = topic
        self.reply_topic: Any = reply_topic
        self.reply_field: Any = reply_field
        self.success = success
        self.quorum: Any = quorum
        self.timeout = timeout
        self.wave_size = wave_size
        self.pause = pause
        self.max_failed: Any = max_failed
        self.keep_replies = keep_replies
        self.report_path: Any = report_path
        self.resend: Any = resend
        if deferrable is None:
            deferrable = bool(report_path) and conf.getboolean(
                "operators", "default_deferrable", fallback=False
            )
        self.deferrable = deferrable
        if all(is_literal(getattr(self, name)) for name in self.template_fields):
            self.check()

    def check(self) -> None:
        """Refuse invalid arguments."""
        from airflow_provider_emqx.commands.record import OUTCOMES
        from airflow_provider_emqx.conditions.clients import read_quorum
        from airflow_provider_emqx.conditions.ids import given

        given(self.clientids, self.clientids_path, in_paths=False)
        order = self._order("")
        order.check()
        order.payload(plain(self.payload), "x")
        read_quorum(self.quorum)
        span("timeout", self.timeout)
        seconds("pause", self.pause)
        self._share("wave_size", self.wave_size, 1)
        self._share("max_failed", self.max_failed, 1)
        boolean("keep_replies", self.keep_replies)
        resend = optional(texts, "resend", self.resend) or []
        if unknown := [one for one in resend if one not in (*OUTCOMES, "all")]:
            raise EmqxConfigError(
                f"resend: unknown outcome {unknown[0]!r}; expected some of {', '.join(OUTCOMES)}, or 'all'"
            )
        if self.deferrable and not self.report_path:
            raise EmqxConfigError(
                "deferrable needs report_path: the triggerer reads from the report whom to wait for, and writes the "
                "replies into it"
            )

    def execute(self, context: Context) -> CommandResult:
        """Send, wait, wave after wave."""
        from airflow_provider_emqx.commands.record import LEFT, Record, Row

        self.check()
        ti = context.get("ti")
        resend = optional(texts, "resend", self.resend) or []
        attempt = getattr(ti, "try_number", 1) or 1
        if attempt > 1 and not self.report_path and "all" not in resend:
            raise EmqxConfigError(
                f"this is attempt {attempt} of the task, and it is not known what the earlier one has sent; nothing "
                "was sent. Set report_path, from which a retry continues, or resend='all' if devices may receive the "
                "command again"
            )
        record = Record(self._command(ti), self.report_path)
        again = [row for row in record.rows.values() if row.outcome in resend or "all" in resend]
        record.tell([Row(row.clientid, LEFT, row.wave, row.at) for row in again])
        return self._go_on(context, record)

    def execute_complete(self, context: Context, event: Any = None) -> CommandResult:
        """
        Resume after the deferral.

        :param event: what :class:`~airflow_provider_emqx.triggers.commands.EmqxCommandTrigger` has sent.
        """
        from airflow_provider_emqx.commands.record import Record

        status = event.get("status") if isinstance(event, dict) else None
        if status == "error":
            from airflow_provider_emqx.triggers.emqx import error_of

            raise error_of(event)
        if status != "done":
            raise EmqxError(f"the triggerer sent an unknown event: {status!r}")
        return self._go_on(context, Record(self._command(context.get("ti")), self.report_path))

    def _go_on(self, context: Context, record: Record) -> CommandResult:
        from airflow_provider_emqx.commands.order import addressable
        from airflow_provider_emqx.commands.record import Row

        devices = self._devices()
        left = [clientid for clientid in devices if clientid not in record.rows]
        before = record.judged
        try:
            while left or record.open() or record.wave > record.judged:
                if record.open():
                    self._wait(record)
                if record.wave > record.judged:
                    self._judge(record, left)
                    if left and (pause := seconds("pause", self.pause)):
                        self._rest(record, pause)
                if left:
                    size = self._share("wave_size", self.wave_size, len(devices))
                    # a share of a few devices is one at least
                    size = len(left) if size is None else max(1, size)
                    wave, left = left[:size], left[size:]
                    number = record.wave + 1
                    why, now = "the client id is empty or contains + or #, which a topic cannot", time.time()
                    record.tell(Row(c, UNADDRESSABLE, number, now, why) for c in wave if not addressable(c))
                    self._send(record, list(filter(addressable, wave)), number)
            if record.judged == before:
                # a retry that had nothing to do does not make a success of it
                self._judge(record, left)
        except TaskDeferred:
            raise
        except BaseException as error:
            left = [clientid for clientid in devices if clientid not in record.rows]
            if record.rows:
                guards = self._guards(record)
                tell(
                    self.log,
                    logging.ERROR,
                    record.lines(f"Ended early: {len(devices):,} devices", left, guards),
                )
                keep_result(context, record.result(left, guards))
                if isinstance(error, Exception):
                    with suppress(EmqxError):
                        record.settle()
            raise
        record.settle()
        guards = self._guards(record)
        tell(self.log, logging.INFO, record.lines(f"{len(devices):,} devices", left, guards))
        return record.result(left, guards)

    # ------------------------------------------------------------------ the steps

    def _send(self, record: Record, clientids: Sequence[str], wave: int) -> None:
        from airflow_provider_emqx.commands.exchange import Exchange
        from airflow_provider_emqx.transport.work import Work

        if not clientids:
            return
        order, payload = self._order(record.command), plain(self.payload)
        with self.hook() as hook:
            exchange = Exchange(hook, order, record, boolean("keep_replies", self.keep_replies))
            _ = hook.settings  # looked up here: Airflow answers the task's own thread only
            sending = exchange.send(
                clientids,
                wave,
                lambda clientid: order.payload(payload, clientid),
                span("timeout", self.timeout),
            )
            Work(sending).result()
        self.log.info("So far: %s", record.words())

    def _wait(self, record: Record) -> None:
        """Wait until a wave is over: here, or in the triggerer."""
        from airflow_provider_emqx.commands.exchange import Exchange
        from airflow_provider_emqx.transport.work import Work

        keep_replies = boolean("keep_replies", self.keep_replies)
        rows = [row for row in record.rows.values() if row.is_open]
        deadline = max(row.at for row in rows) + span("timeout", self.timeout)
        if self.deferrable:
            self._defer(record, enough=self._enough(record), deadline=deadline)
        with self.hook() as hook:
            _ = hook.settings
            exchange = Exchange(hook, self._order(record.command), record, keep_replies)
            Work(exchange.wait(self._enough(record), deadline)).result()

    def _rest(self, record: Record, pause: float) -> None:
        until = max(row.at for row in record.rows.values()) + pause
        if until > time.time():
            self.log.info("Pausing for %.0f s before the next wave", until - time.time())
            if self.deferrable:
                self._defer(record, not_before=until)
            time.sleep(max(0.0, until - time.time()))

    def _defer(self, record: Record, **how: Any) -> None:
        from airflow_provider_emqx.triggers.commands import EmqxCommandTrigger

        self.defer(
            trigger=EmqxCommandTrigger(
                order=self._order(record.command).to_json(),
                report_path=str(self.report_path),
                emqx_conn_id=self.emqx_conn_id,
                keep_replies=boolean("keep_replies", self.keep_replies),
                **how,
            ),
            method_name="execute_complete",
        )

    def _judge(self, record: Record, left: Sequence[str]) -> None:
        """Decide once for each wave whether another one may follow."""
        rows = record.of_wave(record.wave)
        replied = sum(row.outcome == REPLIED for row in rows)
        self.log.info("Wave %d: %d of %d devices have replied", record.wave, replied, len(rows))
        record.judge()
        why = ""
        if guards := self._guards(record):
            (held,) = guards
            if held["exceeded"]:
                why = (
                    f"{held['count']:,} of {held['of']:,} devices have not replied as asked, more than "
                    f"max_failed={self.max_failed!r} allows"
                )
        elif replied < self._enough(record):
            why = (
                f"{replied:,} of the {len(rows):,} devices of wave {record.wave} have replied, fewer than "
                f"quorum={self.quorum!r}"
            )
        if why:
            names = ", ".join(map(repr, left[:5])) + (", …" if len(left) > 5 else "")
            rest = (
                f" Nothing was sent to {len(left):,} devices ({names}); a retry goes on with them"
                if left
                else ""
            )
            raise EmqxError(f"{why}. All in all: {record.words()}.{rest}")

    def _guards(self, record: Record) -> list[Guard]:
        """Return the limit of failures, and how near the command has come to it."""
        if self.max_failed is None:
            return []
        failed = sum(row.outcome != REPLIED for row in record.rows.values())
        allowed = self._share("max_failed", self.max_failed, len(record.rows)) or 0
        return [guard("max_failed", failed, allowed, len(record.rows))]

    # ------------------------------------------------------------------ the arguments

    def _order(self, command: str) -> Order:
        from airflow_provider_emqx.commands.order import Order

        success = None if self.success is None else mapping("success", self.success)
        return Order(command, self.topic, self.reply_topic, self.reply_field or None, success)

    def _devices(self) -> list[str]:
        from airflow_provider_emqx.conditions.ids import given, read_file

        ids, path = given(self.clientids, self.clientids_path, in_paths=False)
        return read_file(path, in_paths=False) if path else ids

    def _enough(self, record: Record) -> int:
        from airflow_provider_emqx.conditions.clients import needed, read_quorum

        among = len(record.of_wave(record.wave))
        return min(needed(read_quorum(self.quorum), among), among)

    def _command(self, ti: Any) -> str:
        """Return what this command is known by: the same in every attempt that can go on from a report."""
        names = [str(getattr(ti, name, "")) for name in ("dag_id", "run_id", "task_id", "map_index")]
        key = "\n".join(names) if self.report_path else os.urandom(16).hex()
        return hashlib.sha256(key.encode()).hexdigest()[:16]

    @staticmethod
    def _share(name: str, value: Any, of: int) -> int | None:
        from airflow_provider_emqx.arguments import limit

        return limit(value, of, name)
