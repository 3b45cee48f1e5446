"""What the operators share: the connection, and arguments that templates render to text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import is_plainly_location
from airflow_provider_emqx.hidden import HiddenField, RendersHidden, is_literal, plain
from airflow_provider_emqx.links import EmqxDashboardLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_emqx.hooks.emqx import EmqxHook

#: seconds of a century: a longer span leads out of the calendar
_LONGEST = 100 * 365.25 * 86_400


class SourceField(HiddenField):
    """Attribute for a template field that holds rows, or the path or URL of a file of them: only those are shown."""

    def __set__(self, instance: Any, value: Any) -> None:
        # decided again after rendering: a template may turn into rows
        value = plain(value)
        if is_plainly_location(value):
            setattr(instance, self._name, value)
        else:
            super().__set__(instance, value)


class BaseEmqxOperator(RendersHidden, BaseOperator):
    """
    Base of the operators of this provider.

    :param emqx_conn_id: the Airflow connection (templated).
    :param rate_limit: requests per second at most, in place of the connection's (templated).
    """

    template_fields: Sequence[str] = ("emqx_conn_id", "rate_limit")
    operator_extra_links = (EmqxDashboardLink(),)
    ui_color = "#d5f0e3"

    def __init__(
        self, *, emqx_conn_id: str = "emqx_default", rate_limit: float | str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.emqx_conn_id = emqx_conn_id
        self.rate_limit = rate_limit
        if is_literal(rate_limit):
            number("rate_limit", rate_limit)
        self._hook: EmqxHook | None = None
        self._stopped = False

    def check(self) -> None:
        """
        Refuse arguments that cannot be right. Asks nobody, and reads nothing.

        :raises EmqxConfigError: naming the argument.
        """

    def check_literals(self) -> None:
        """Refuse them when the DAG is parsed, unless some are known only when the task runs."""
        if all(is_literal(getattr(self, name)) for name in self.template_fields):
            self.check()

    def hook(self, **options: Any) -> EmqxHook:
        """
        Give a hook; use it in a ``with`` statement.

        :param options: further arguments of the hook.
        """
        from airflow_provider_emqx.hooks.emqx import EmqxHook

        self._hook = EmqxHook(self.emqx_conn_id, rate_limit=number("rate_limit", self.rate_limit), **options)
        if self._stopped:
            self._hook.stop()
        return self._hook

    def on_kill(self) -> None:
        """Stop after the request under way; what was done is in log, report and result."""
        self._stopped = True
        self.log.warning("Stopped by Airflow: nothing is sent after the request under way")
        if self._hook is not None:
            self._hook.stop()


def keep_result(context: Context, result: Any) -> None:
    """
    Store the result of a task that fails all the same, for tasks that run all the same.

    :param context: of the task; one without a task instance, as of a test, stores nothing.
    :param result: as the task would have returned it.
    """
    ti = context.get("ti")
    if ti is not None:
        ti.xcom_push(key="return_value", value=result)


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


def texts(name: str, value: Any) -> list[str]:
    """
    Read one or several texts, also from a template: ``"a"``, ``["a", "b"]``, ``'["a", "b"]'``, or none.

    :param name: of the argument, for the error.
    :param value: what was given.
    """
    if value is None:
        return []
    if isinstance(value, str):
        value = _json_list(value)
    items = list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else [value]
    if not all(isinstance(item, str) for item in items):
        raise EmqxConfigError(f"{name} must be text or a list of texts")
    return items


def optional(name: str, value: object) -> bool | None:
    """
    Read true, false, or nothing, also from a template.

    :param name: of the argument, for the error.
    :param value: what was given; empty text and ``"None"`` are nothing.
    """
    nothing = value is None or (isinstance(value, str) and value in ("", "None"))
    return None if nothing else boolean(name, value)


def named(name: str, value: Any) -> list[str]:
    """
    Read one or several texts that say what is meant, as :func:`texts` does. An empty list, as from another task, means
    nothing.

    :param name: of the argument, for the error.
    :param value: what was given.
    :raises EmqxConfigError: also for empty text, a template without a value: the task would do nothing and end well.
    """
    if isinstance(value, str) and not value:
        raise EmqxConfigError(f"{name} has no value; if none is meant, give an empty list. Nothing was done")
    return texts(name, value)


def mapping(name: str, value: Any) -> dict[str, Any]:
    """
    Read names with values, also from a template: ``{"a": 1}``, ``'{"a": 1}'``, or ``None`` for none.

    :param name: of the argument, for the error.
    :param value: what was given.
    :raises EmqxConfigError: also for empty text, a template without a value.
    """
    if value is None:
        return {}
    found = _rendered(value, dict) if isinstance(value, str) else value
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise EmqxConfigError(f"{name} must be a dict of names and values, not {type(value).__name__}")
    return dict(found)


def _json_list(text: str) -> list[Any]:
    found: list[Any] | None = _rendered(text, list)
    if found is not None:
        return found
    return [text] if text else []


def _rendered(text: str, kind: type) -> Any:
    """Read what a template has rendered: JSON (``tojson``) or Python; any other text is ``None``."""
    import ast

    begin, end = "[]" if kind is list else "{}"
    if text.startswith(begin) and text.endswith(end):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
            except (ValueError, SyntaxError, RecursionError):
                continue
            if isinstance(found, kind):
                return found
    return None


def seconds(name: str, value: Any) -> float | None:
    """
    Read a span of time: seconds, also as text, or a ``timedelta``.

    :param name: of the argument, for the error.
    :param value: what was given, or ``None``.
    :raises EmqxConfigError: also for empty text: a template without a value would take a filter away.
    """
    if value is None:
        return None
    span = number(name, value.total_seconds() if isinstance(value, timedelta) else value)
    if span is None:
        raise EmqxConfigError(f"{name} has no value; give seconds, or leave it out")
    if span > _LONGEST:
        raise EmqxConfigError(f"{name} is longer than a century: {value}")
    return span


def excluded(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether a name is one of ``patterns``, in which ``*`` stands for any text."""
    return any(
        name == pattern or ("*" in pattern and _pattern(pattern).fullmatch(name) is not None)
        for pattern in patterns
    )


def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def boolean(name: str, value: object) -> bool:
    """
    Read a flag, which a template gives as text.

    :param name: of the argument, for the error.
    :param value: ``True``, ``False``, or text as ``"true"`` and ``"0"``.
    """
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off", "", "none"):
        return False
    raise EmqxConfigError(f"{name} must be true or false, not {value!r}")


def is_dry_run(value: object) -> bool:
    """
    Tell whether nothing is to be touched.

    :param value: the argument ``dry_run``.
    :raises EmqxConfigError: also if it is empty: a template without a value must not take this guard away.
    """
    if str(value).strip().lower() in ("", "none"):
        raise EmqxConfigError("dry_run has no value; give true or false. Nothing was done")
    return boolean("dry_run", value)


def number(name: str, value: object) -> float | None:
    """
    Read a number above 0, which a template gives as text; empty is ``None``.

    :param name: of the argument, for the error.
    :param value: the number.
    """
    if value is None or (isinstance(value, str) and value in ("", "None")):
        return None
    try:
        given = float(str(value))
    except ValueError:
        given = 0.0
    if not 0 < given < float("inf"):
        raise EmqxConfigError(f"{name} must be a number above 0, not {value!r}")
    return given


def whole(name: str, value: object) -> int | None:
    """
    Read a whole number above 0, as :func:`number` does.

    :param name: of the argument, for the error.
    :param value: the number.
    """
    given = number(name, value)
    if given is not None and given != int(given):
        raise EmqxConfigError(f"{name} must be a whole number, not {value!r}")
    return None if given is None else int(given)
