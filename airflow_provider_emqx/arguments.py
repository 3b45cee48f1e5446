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


def limit(given: float | str | None, of: int, name: str) -> int | None:
    """
    Read a limit that is a count or a share.

    :param given: a count as ``5`` or ``"5"``, a share as ``0.05`` or ``"5%"``, or ``None`` for no limit.
    :param of: what a share is taken of.
    :param name: of the argument, for the error.
    :return: the count, rounded down.
    :raises EmqxConfigError: also for empty text: a template without a value would take the limit away.
    """
    if given is None:
        return None
    if isinstance(given, str) and not given:
        raise EmqxConfigError(f"{name} has no value; give a count or a share, or leave it out")
    # True and False are numbers to float()
    text = "" if isinstance(given, bool) else str(given).strip()
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
        elif text.isdecimal():
            return int(text)
        else:
            share = float(text)
        if not 0 <= share <= 1:
            raise ValueError
    except ValueError:
        raise EmqxConfigError(
            f"{name} must be a count, as 5, or a share, as 0.05 or '5%', not {given!r}"
        ) from None
    # 5% of 100 is 5, although 0.05 * 100 is a little more than 5
    return math.floor(round(share * of, 6))
