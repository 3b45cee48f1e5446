"""What every kind of condition shares: its form, its outcome, and which errors waiting may outlive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxConnectionError,
    EmqxRateLimitError,
    EmqxServerError,
)

#: as many ids are listed in a result or given in a trigger's arguments; more go to and come from a file
MAX_LISTED = 1_000
#: names that a line of the log or of an error has
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Condition:
    """
    Something to wait for, as data: plain JSON, so that a trigger can carry it.

    :param kind: a name of :data:`airflow_provider_emqx.conditions.KINDS`.
    :param parameters: checked arguments of that kind.
    """

    kind: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What one look at the broker found.

    :param met: whether the condition holds.
    :param details: small and JSON-able: the task's result once the condition is met. ``missing`` may be long.
    :param text: the same in one line, for the log and for the person who asks why the task still waits.
    """

    met: bool
    details: dict[str, Any] = field(default_factory=dict)
    text: str = ""


def is_transient(error: BaseException) -> bool:
    """Tell whether a wait may go on after this error: whether the next look may well succeed."""
    if isinstance(error, EmqxConnectionError):
        return error.transient
    return isinstance(error, (EmqxRateLimitError, EmqxServerError))


def outlives(error: BaseException, failures: int, most: int | None) -> bool:
    """
    Tell whether a wait goes on after a look that failed.

    :param error: of the look.
    :param failures: looks that have failed in a row, this one included.
    :param most: how many may; ``None`` with ``silent_fail``, which goes on after all that Airflow does not call final.
    """
    if most is None:
        return is_transient(error) or not isinstance(error, AirflowFailException)
    return is_transient(error) and failures <= most


def number(name: str, value: Any) -> float:
    """
    Read a number that may come from a template as text.

    :param name: of the argument, for the error.
    :param value: a number or its text.
    :raises EmqxConfigError: if it is neither.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise EmqxConfigError(f"{name} must be a number, not {value!r}")
    return int(found) if found.is_integer() else found


def whole(name: str, value: Any, at_least: int = 1) -> int:
    """
    Read a whole number that may come from a template as text.

    :param name: of the argument, for the error.
    :param value: a whole number or its text.
    :param at_least: smallest one allowed.
    :raises EmqxConfigError: if it is anything else.
    """
    found = number(name, value)
    if not isinstance(found, int) or found < at_least:
        raise EmqxConfigError(f"{name} must be a whole number of at least {at_least}, not {value!r}")
    return found


def text(name: str, value: Any) -> str:
    """
    Read a text that must not be empty.

    :param name: of the argument, for the error.
    :param value: the text.
    :raises EmqxConfigError: if it is empty or something else.
    """
    if not isinstance(value, str) or not value:
        raise EmqxConfigError(f"{name} must be a text that is not empty, not {value!r}")
    return value


def first_of(names: Sequence[str]) -> str:
    """
    Write names down for one line of a log, which may be written at every look.

    :param names: any number.
    """
    return ", ".join([*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])])
