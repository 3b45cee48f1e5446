"""Base classes of the sensors: waiting in poke mode, in reschedule mode or deferred."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_emqx.arguments import whole
from airflow_provider_emqx.conditions.base import Condition, Outcome, outlives
from airflow_provider_emqx.conditions.ids import finish
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.hidden import RendersHidden, is_literal
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.links import links
from airflow_provider_emqx.results import keep_result

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_emqx.choices import Comparison, Rendered
    from airflow_provider_emqx.keywords import EmqxSensorKeywords, SensorKeywords


class BaseWaitSensor(RendersHidden, BaseSensorOperator):
    """
    Base class of the sensors: wait for what a broker tells, and return its details.

    All modes end in the same way, with the same result, error or skip.

    :param emqx_conn_id: the Airflow connection.
    :param max_failures: consecutive failed checks to tolerate while the broker is down, slow or busy.
        In reschedule mode failures are not counted across checks: they count as "not met" until the timeout.
    :param deferrable: wait in the triggerer, without a worker slot. Default: ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("emqx_conn_id",)
    operator_extra_links = links()

    def __init__(
        self,
        *,
        emqx_conn_id: str | XComArg = EmqxHook.default_conn_name,
        max_failures: int = 20,
        deferrable: bool | None = None,
        **kwargs: Unpack[SensorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.emqx_conn_id: Any = emqx_conn_id
        self.max_failures = max_failures
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self.missing_path: Any = None
        self._failures = 0
        self._last = ""
        #: of the last check, for the result of a wait that ends too late
        self._details: dict[str, Any] = {}

    def check(self) -> None:
        """
        Refuse invalid arguments, once they are rendered.

        :raises EmqxConfigError: naming the argument.
        """
        raise NotImplementedError

    def check_literals(self) -> None:
        """Refuse invalid arguments when the DAG is parsed, unless some are known only at run time."""
        if all(is_literal(getattr(self, name)) for name in self.template_fields):
            self.check()

    def execute(self, context: Context) -> Any:
        """
        Wait.

        :param context: of the task.
        :return: the condition's details.
        """
        self._failures, self._last, self._details = 0, "", {}
        with self._one_ending(context), self._session(context):
            if self.deferrable:
                return self._look_or_defer(context)
            return self._wait_here(context)

    def _session(self, context: Context) -> AbstractContextManager[None]:
        """Open what the checks of this process share, and close it."""
        raise NotImplementedError

    def _wait_here(self, context: Context) -> Any:
        """Wait on the worker, in the mode poke or reschedule."""
        return super().execute(context)

    def _look_or_defer(self, context: Context) -> Any:  # noqa: RET503 defer() raises
        trigger = self._trigger(time.time() + self.timeout)
        found = self.poke(context)
        if found.is_done:
            return found.xcom_value
        # the triggerer may have no time for a check of its own
        self._keep(context)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def _keep(self, context: Context) -> None:
        """Store what the last check has found, for a wait that ends without a result of its own."""
        if self._details:
            keep_result(context, self._details)

    def _trigger(self, deadline: float) -> BaseTrigger:
        """Return the trigger that goes on with the wait; it sends one event, as :meth:`execute_complete` takes it."""
        raise NotImplementedError

    def _look(self) -> Outcome:
        """Check once."""
        raise NotImplementedError

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """
        Resume after the deferral.

        :param context: of the task.
        :param event: what the trigger has sent.
        :return: the condition's details.
        """
        with self._one_ending(context):
            status = event.get("status") if isinstance(event, dict) else None
            if status == "met":
                self.log.info("%s", event["text"])
                return event["details"]
            if status == "timeout":
                self._last, self._details = event["text"], event.get("details", {})
                raise AirflowSensorTimeout(f"Sensor has timed out after {self.timeout:g} s in the triggerer.")
            if status == "error":
                from airflow_provider_emqx.triggers.emqx import error_of

                raise error_of(event)
            raise EmqxError(
                f"the triggerer sent an unknown event: {status!r}; expected met, timeout or error"
            )

    def poke(self, context: Context) -> PokeReturnValue:
        """
        Check once.

        :param context: of the task.
        """
        try:
            outcome = self._look()
        except EmqxError as error:
            self._failed(error)
            return PokeReturnValue(is_done=False)
        self._failures, self._last, self._details = 0, outcome.text, finish(outcome, None)
        self.log.info("%s", outcome.text)
        details = finish(outcome, self.missing_path) if outcome.met else None
        return PokeReturnValue(is_done=outcome.met, xcom_value=details)

    def _failed(self, error: EmqxError) -> None:
        """Raise the error unless the wait continues."""
        self._failures += 1
        # elsewhere the next check is in another process, which starts counting from 0
        counted = not (self.deferrable or self.reschedule)
        if not outlives(error, self._failures if counted else 0, self._most_failures):
            raise error
        self._last = str(error)
        if counted and not self.silent_fail:
            self.log.warning(
                "Check failed, %d in a row; tolerating %s. %s", self._failures, self.max_failures, error
            )
        else:
            self.log.warning("Check failed, will retry. %s", error)

    @property
    def _most_failures(self) -> int | None:
        return None if self.silent_fail else whole("max_failures", self.max_failures, 0)

    @contextmanager
    def _one_ending(self, context: Context) -> Iterator[None]:
        """Keep the last check; apply soft_fail and never_fail to every error, which Airflow does only when resuming."""
        try:
            yield
        except (EmqxError, AirflowSensorTimeout, AirflowSkipException) as ending:
            error: BaseException = ending
            if isinstance(ending, AirflowSkipException) and ending.__cause__:
                # Airflow's own skip, which omits the text of the error
                error = ending.__cause__
            text = str(error)
            self._keep(context)
            if self._last and isinstance(error, (AirflowSensorTimeout, AirflowSkipException)):
                text += f" Last check: {self._last}"
            if self.soft_fail or self.never_fail:
                flag = "soft_fail" if self.soft_fail else "never_fail"
                raise AirflowSkipException(f"Skipped because of {flag}: {text}") from error
            if isinstance(error, AirflowSensorTimeout):
                raise AirflowSensorTimeout(text) from None
            raise


class BaseEmqxSensor(BaseWaitSensor):
    """Base class of the sensors that ask the management API: wait until a condition is met, and return its details."""

    _hook: EmqxHook | None = None
    _condition: Condition | None = None
    #: the same with what it has to read from files
    _loaded: Condition | None = None

    def condition(self) -> Condition:
        """
        Return the condition for the rendered arguments.

        :raises EmqxConfigError: for invalid arguments.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Refuse invalid arguments, once they are rendered."""
        self.condition()

    @contextmanager
    def _session(self, context: Context) -> Iterator[None]:
        self._condition = self._loaded = None
        try:
            yield
        finally:
            self._close()

    def _trigger(self, deadline: float) -> BaseTrigger:
        # where it is used: it is a third of what a DAG file would load with a sensor
        from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger

        condition = self._condition = self.condition()
        return EmqxConditionTrigger(
            kind=condition.kind,
            parameters=condition.for_trigger(),
            emqx_conn_id=self.emqx_conn_id,
            poll_interval=self.poke_interval,
            backoff=self.exponential_backoff,
            max_interval=self.max_wait.total_seconds() if self.max_wait else None,
            max_failures=self._most_failures,
            deadline=deadline,
            missing_path=self.missing_path,
        )

    def _look(self) -> Outcome:
        condition = self._loaded = self._loaded or (self._condition or self.condition()).loaded()
        hook = self._hook = self._hook or EmqxHook(self.emqx_conn_id)
        try:
            return _ask(condition, hook)
        except EmqxError:
            # during a long wait the broker may have moved or been upgraded, or its key been replaced
            self._close()
            anew = EmqxHook(self.emqx_conn_id)
            if not _has_changed(hook, anew):
                raise
            self._hook = anew
            return _ask(condition, anew)

    def _close(self) -> None:
        if self._hook is not None:
            self._hook.close()
            self._hook = None


def _ask(condition: Condition, hook: EmqxHook) -> Outcome:
    return hook.run(condition.ask(hook.api, time.time()))


def _has_changed(hook: EmqxHook, anew: EmqxHook) -> bool:
    try:
        return anew.settings != hook.settings
    except Exception:
        # the error of the check says more than the error of this lookup
        return False


class BaseThresholdSensor(BaseEmqxSensor):
    """
    Base class of the sensors that wait for a metric to pass a threshold.

    :param metric: name of the metric.
    :param threshold: number to compare with.
    :param comparison: ``">="`` or ``"<="``.
    :param baseline: an earlier value; the difference to it is compared instead of the value.
    """

    template_fields: Sequence[str] = (
        *BaseEmqxSensor.template_fields,
        "metric",
        "threshold",
        "comparison",
        "baseline",
    )

    def __init__(
        self,
        *,
        metric: str | XComArg,
        threshold: float | str | XComArg,
        comparison: Comparison | Rendered = ">=",
        baseline: float | str | XComArg | None = None,
        **kwargs: Unpack[EmqxSensorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.metric = metric
        self.threshold = threshold
        self.comparison = comparison
        self.baseline = baseline
