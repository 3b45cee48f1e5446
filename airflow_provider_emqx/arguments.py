"""Reads the arguments that a person or a template gives, with one wording of errors."""

from __future__ import annotations

import math
from typing import Any

from airflow_provider_emqx.exceptions import EmqxConfigError


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
