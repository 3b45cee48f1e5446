"""Base class of the operators: the connection, and the result of a failed task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_emqx.arguments import optional, positive
from airflow_provider_emqx.files import is_plainly_location
from airflow_provider_emqx.hidden import HiddenField, RendersHidden, is_literal, plain
from airflow_provider_emqx.links import links
from airflow_provider_emqx.results import keep_result

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.keywords import OperatorKeywords


class SourceField(HiddenField):
    """Attribute for a template field with rows, or with the path or URL of a file: only the latter is shown."""

    def __set__(self, instance: Any, value: Any) -> None:
        # decided again after rendering: a template may turn into rows
        value = plain(value)
        if is_plainly_location(value):
            setattr(instance, self._name, value)
        else:
            super().__set__(instance, value)


class BaseEmqxOperator(RendersHidden, BaseOperator):
    """
    Base class of the operators.

    :param emqx_conn_id: the Airflow connection.
    :param rate_limit: maximum requests per second, instead of the connection's.
    """

    template_fields: Sequence[str] = ("emqx_conn_id", "rate_limit")
    operator_extra_links = links()
    ui_color = "#d5f0e3"

    def __init__(
        self,
        *,
        emqx_conn_id: str | XComArg = "emqx_default",
        rate_limit: float | str | XComArg | None = None,
        **kwargs: Unpack[OperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.emqx_conn_id: Any = emqx_conn_id
        self.rate_limit = rate_limit
        if is_literal(rate_limit):
            optional(positive, "rate_limit", rate_limit)
        self._hook: EmqxHook | None = None
        self._stopped = False

    def dashboard_page(self) -> str:
        """Return the page of EMQX's dashboard that shows what the task is about; empty for the front page."""
        return ""

    def check(self) -> None:
        """
        Refuse invalid arguments. Asks nobody, and reads nothing.

        :raises EmqxConfigError: naming the argument.
        """

    def check_literals(self) -> None:
        """Refuse them when the DAG is parsed, unless some are known only when the task runs."""
        if all(is_literal(getattr(self, name)) for name in self.template_fields):
            self.check()

    def hook(self, **options: Any) -> EmqxHook:
        """
        Return a hook; use it in a ``with`` statement.

        :param options: further arguments of the hook.
        """
        from airflow_provider_emqx.hooks.emqx import EmqxHook

        self._hook = EmqxHook(
            self.emqx_conn_id, rate_limit=optional(positive, "rate_limit", self.rate_limit), **options
        )
        if self._stopped:
            self._hook.stop()
        return self._hook

    def on_kill(self) -> None:
        """Stop after the request in progress; log, report and result say what was done."""
        self._stopped = True
        self.log.warning("Stopped by Airflow: nothing is sent after the request under way")
        if self._hook is not None:
            self._hook.stop()


@contextmanager
def told_on_failure(context: Context, result: Callable[[], Any]) -> Iterator[None]:
    """
    Store what was done so far as the result of a task that fails in the ``with`` statement.

    :param context: of the task.
    :param result: returns it; nothing is stored where it is empty.
    """
    try:
        yield
    except BaseException:
        if found := result():
            keep_result(context, found)
        raise
