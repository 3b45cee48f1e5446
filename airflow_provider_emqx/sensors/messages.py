"""Wait for a message over MQTT."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Unpack

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, PokeReturnValue

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError, EmqxStoppedError
from airflow_provider_emqx.hidden import HiddenField, plain
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.sensors.base import BaseWaitSensor
from airflow_provider_emqx.transport.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_emqx.choices import Comparison, Rendered
    from airflow_provider_emqx.conditions.base import Outcome
    from airflow_provider_emqx.conditions.messages import MessageArrived
    from airflow_provider_emqx.keywords import EmqxSensorKeywords
    from airflow_provider_emqx.messages.mailbox import Mailbox
    from airflow_provider_emqx.transport.work import Work

#: Airflow's exceptions after which a wait goes on; the one of a reschedule is not among the names that compat has
_GOES_ON = ("TaskDeferred", "AirflowRescheduleException")


class EmqxMessageSensor(BaseWaitSensor):
    """
    Wait until a message arrives over MQTT, any one or one with a certain content.

    It needs the extra ``mqtt`` of this package, and the connection's MQTT address. The broker collects the messages in
    a session of the task instance from the task's start on, also between two checks, on the way from the worker to the
    triggerer, and while either is restarted. The session ends with the task. If a process is killed, the broker ends it
    when the timeout is over, and a retry before that goes on with it.

    In the modes poke and deferred it listens all the time, and ``poke_interval`` means nothing. In reschedule mode it
    reads every ``poke_interval`` what the broker has kept, by default 1,000 messages of QoS 1 and 2.

    The task's result: ``{"topic", "qos", "retained", "size"}`` of the message, and with ``keep_payload`` also
    ``{"payload", "payload_encoding", "truncated"}``: its first 10,000 characters (4,000 if most are not
    ASCII), as ``plain`` text or in ``base64``.

    What is expected is rendered, but shown neither among the rendered fields nor in the trigger's arguments, which hold
    a digest of it. Airflow stores and shows a threshold.

    :param topic: topic filter, with or without wildcards; not a shared subscription.
    :param payload: the whole payload, exactly. Default: any.
    :param json_field: a field of a JSON payload, as ``"state.battery"``, or ``"readings.0"`` in a list. Payloads above
        1 MB are not read.
    :param json_value: value that this field must have; numbers and booleans may be given as text.
    :param threshold: number that this field is compared with, or without ``json_field`` the whole payload.
    :param comparison: ``">="`` or ``"<="``.
    :param retained: whether a message counts that was retained before the wait.
    :param keep_payload: return the payload as well. Airflow stores it, and shows it in the UI.
    """

    template_fields: Sequence[str] = (
        *BaseWaitSensor.template_fields,
        "topic",
        "payload",
        "json_field",
        "json_value",
        "threshold",
        "comparison",
        "retained",
        "keep_payload",
    )

    payload = HiddenField()
    json_value = HiddenField()

    def __init__(
        self,
        *,
        topic: str | XComArg,
        payload: str | bytes | XComArg | None = None,
        json_field: str | XComArg | None = None,
        json_value: Any = None,
        threshold: float | str | XComArg | None = None,
        comparison: Comparison | Rendered = ">=",
        retained: bool | str | XComArg = False,
        keep_payload: bool | str | XComArg = False,
        **kwargs: Unpack[EmqxSensorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.topic: Any = topic
        self.payload = payload
        self.json_field = json_field
        self.json_value = json_value
        self.threshold = threshold
        self.comparison = comparison
        self.retained = retained
        self.keep_payload = keep_payload
        self._mailbox: Mailbox | None = None
        self._work: Work[Any] | None = None
        self._stop = Stop()
        self.check_literals()

    def condition(self) -> MessageArrived:
        """
        Return the condition for the rendered arguments.

        :raises EmqxConfigError: for invalid arguments.
        """
        from airflow_provider_emqx.conditions.messages import MessageArrived

        return MessageArrived(
            self.topic,
            self.retained,
            self.keep_payload,
            payload=plain(self.payload),
            json_field=self.json_field,
            json_value=plain(self.json_value),
            threshold=self.threshold,
            comparison=self.comparison,
        )

    def check(self) -> None:
        """Refuse invalid arguments, once they are rendered."""
        self.condition()

    def poke(self, context: Context) -> PokeReturnValue:
        """Check once."""
        self._mailbox = self._mailbox or self._open(context)
        return super().poke(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Resume after the deferral, also when the trigger has failed or Airflow has ended it.

        :param next_method: name of a method.
        :param next_kwargs: its arguments.
        """
        with self._session(context):
            return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """End the wait, and the session."""
        self._stop.asked = True
        if self._work is not None:
            self._work.cancel()

    # ------------------------------------------------------------------ the session

    def _open(self, context: Context) -> Mailbox:
        from airflow_provider_emqx.messages.mailbox import Mailbox

        ti = context.get("ti")
        since = None
        if self.reschedule:
            # Airflow 2 does not say it: there each check begins the timeout of the session anew
            ask = getattr(ti, "get_first_reschedule_date", None)
            since = ask(context) if ask is not None else None
        began = time.time() if since is None else since.timestamp()
        names = [str(getattr(ti, name, "")) for name in ("dag_id", "run_id", "task_id", "map_index")]
        # two Airflows on one broker may have runs of the same name, but did not start them at the same moment
        names.append(str(getattr(context.get("dag_run"), "start_date", "")))
        digest = sha256("\n".join(names).encode()).hexdigest()[:16]
        return Mailbox(
            f"airflow-{digest}", self.condition(), began + self.timeout, expected=since is not None
        )

    @contextmanager
    def _session(self, context: Context) -> Iterator[None]:
        """End the session with the task."""
        self._mailbox = self._open(context)
        try:
            yield
        except BaseException as error:
            if type(error).__name__ not in _GOES_ON:
                self._end(self._mailbox)
            raise
        self._end(self._mailbox)

    def _end(self, mailbox: Mailbox) -> None:
        try:
            self._run(mailbox.end(self._looked_up()))
        except EmqxConfigError:
            # it has ended the wait as well, before there was a session
            return
        except Exception as error:
            self.log.warning(
                "The session %s could not be ended; the broker ends it when the timeout is over. %s",
                mailbox.clientid,
                error if isinstance(error, EmqxError) else type(error).__name__,
            )

    # ------------------------------------------------------------------ waiting

    def _look(self) -> Outcome:
        self._stop.check()
        outcome: Outcome = self._run(self._opened.look(self._looked_up()))
        return outcome

    def _wait_here(self, context: Context) -> Any:
        if self.reschedule:
            return super()._wait_here(context)
        from airflow_provider_emqx.messages.mailbox import pause

        mailbox = self._opened
        while True:
            opened = mailbox.opened
            try:
                self._stop.check()
                outcome: Outcome = self._run(mailbox.listen(self._looked_up()))
            except EmqxStoppedError:
                raise
            except EmqxError as error:
                if mailbox.opened > opened:
                    self._failures = 0
                self._failed(error)
                self._stop.sleep(min(pause(self._failures), max(0.0, mailbox.deadline - time.time())))
                if time.time() < mailbox.deadline:
                    continue
            else:
                self._last = outcome.text
                if outcome.met:
                    self.log.info("%s", outcome.text)
                    return outcome.details
            raise AirflowSensorTimeout(f"Sensor has timed out after {self.timeout:g} s.")

    @property
    def _opened(self) -> Mailbox:
        if self._mailbox is None:
            raise EmqxError("the sensor has no session before execute()")
        return self._mailbox

    def _trigger(self, deadline: float) -> BaseTrigger:
        from airflow_provider_emqx.triggers.messages import EmqxMessageArrivedTrigger

        mailbox = self._opened
        return EmqxMessageArrivedTrigger(
            clientid=mailbox.clientid,
            parameters=mailbox.condition.parameters(),
            deadline=mailbox.deadline,
            emqx_conn_id=self.emqx_conn_id,
            max_failures=self._most_failures,
        )

    def _looked_up(self) -> EmqxHook:
        """Return a hook that has read the connection already, which Airflow permits in the task's own thread only."""
        hook = EmqxHook(self.emqx_conn_id)
        _ = hook.settings
        return hook

    def _run(self, coroutine: Any) -> Any:
        from asyncio import CancelledError

        from airflow_provider_emqx.transport.work import Work

        self._work = Work(coroutine)
        try:
            return self._work.result()
        except CancelledError:
            raise EmqxStoppedError("the task was stopped while it waited for a message") from None
        finally:
            self._work = None
