"""Values that Airflow renders but must neither store nor show: payloads, bodies, rows with passwords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_emqx.exceptions import EmqxError


class Hidden:
    """
    A value for a template field that Airflow renders but does not show.

    Airflow stores every rendered template field in its database and shows it in its UI.

    :param value: the value, with its templates.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def serialize(self) -> str:
        """Return what Airflow may store and show."""
        return "(not shown)"

    def __repr__(self) -> str:
        return self.serialize()


class HiddenField:
    """Attribute of a class for a template field whose value is hidden from the moment it is given."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else getattr(instance, self._name)

    def __set__(self, instance: Any, value: Any) -> None:
        if _is_mixed(value):
            # hidden, the output of a task would no longer be seen by Airflow
            XComArg.apply_upstream_relationship(instance, value)
            value = Hidden(value)
        setattr(instance, self._name, hide(value))


class RendersHidden:
    """Mixin of what has template fields: renders hidden values, which stay hidden also when that fails."""

    def render_template(
        self, content: Any, context: Any, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """
        Render a value.

        :param content: the value.
        :param context: of the task.
        :param jinja_env: of the DAG.
        :param seen_oids: what Airflow has rendered already.
        :raises EmqxError: if a hidden value cannot be rendered.
        """
        render = super().render_template  # type: ignore[misc]
        if not isinstance(content, Hidden):
            return render(content, context, jinja_env, seen_oids)
        try:
            value = content.value
            if callable(value):
                env = jinja_env or self.get_template_env()  # type: ignore[attr-defined]
                return Hidden(value(context=context, jinja_env=env))
            return Hidden(render(value, context, jinja_env, seen_oids))
        except Exception as error:
            reason = _reason(error)
        # not while the other one is handled: Airflow logs both, and Jinja's repeats the line of the template
        raise EmqxError(f"a template in a field that is not shown could not be rendered: {reason}")


def is_literal(value: Any) -> bool:
    """
    Return whether an argument is what it says, when the DAG is parsed: no template, and no output of another task.

    :param value: of an operator or a sensor.
    """
    value = plain(value)
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, Mapping):
        return all(map(is_literal, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_literal, value))
    return not isinstance(value, XComArg) and not callable(value)


def hide(value: Any) -> Any:
    """
    Wrap a value for a template field; one that waits for another task stays visible to Airflow until it is there.

    :param value: the value.
    """
    if value is None or isinstance(value, Hidden) or any(XComArg.iter_xcom_references(value)):
        return value
    return Hidden(value)


def _is_mixed(value: Any) -> bool:
    """Return whether the output of a task stands among other values, which are to be hidden."""
    return not isinstance(value, XComArg | Hidden) and any(XComArg.iter_xcom_references(value))


def plain(value: Any) -> Any:
    """
    Return what is hidden.

    :param value: a field that may be hidden.
    """
    return value.value if isinstance(value, Hidden) else value


def _reason(error: Exception) -> str:
    """Return what went wrong as far as it is sure that it repeats only names, and no text of the template."""
    from jinja2 import TemplateSyntaxError, UndefinedError

    kind = type(error).__name__
    if isinstance(error, TemplateSyntaxError):
        escape = "put text with braces that is not a template between {% raw %} and {% endraw %}"
        return f"{kind} in line {error.lineno}; {escape}"
    # Airflow's own name what is missing, a variable or an XCom
    known = isinstance(error, (UndefinedError, KeyError)) or type(error).__module__.startswith("airflow.")
    return f"{kind}: {error}" if known else kind
