"""
Reads the arguments that a person, a template or a row of a file gives, with one wording of errors.

Templates render to text, so every reader takes the text of a value besides the value. Empty text is a template without
a value: it is refused, unless :func:`optional` reads the argument.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from airflow_provider_emqx.exceptions import EmqxConfigError

T = TypeVar("T")

#: what is true and what is false, in every argument, extra, filter and column
TRUTH: Mapping[object, bool] = {
    **dict.fromkeys(("true", "1", "yes", "on", True), True),
    **dict.fromkeys(("false", "0", "no", "off", False), False),
}
#: seconds of a century: a longer span leads out of the calendar
_LONGEST = 100 * 365.25 * 86_400


def wrong(name: str, expected: str, value: object) -> EmqxConfigError:
    """
    Make the error of an argument that is not what it must be.

    :param name: of the argument.
    :param expected: what it must be.
    """
    if _is_nothing(value):
        return EmqxConfigError(f"{name} has no value; expected {expected}")
    if isinstance(value, (str, bool, int, float, timedelta)):
        written = repr(value)
        return EmqxConfigError(f"{name} must be {expected}, not {written[:80]}{'…' * (len(written) > 80)}")
    # not shown: it may be of rows with passwords
    return EmqxConfigError(f"{name} must be {expected}, not {type(value).__name__}")


def optional(read: Callable[[str, Any], T], name: str, value: Any) -> T | None:
    """
    Read an argument that may have no value: ``None``, empty text, or ``"None"``, as a template renders it.

    :param read: reads any other value.
    """
    return None if _is_nothing(value) else read(name, value)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in ("", "None"))


def truth(value: object) -> bool | None:
    """
    Return whether a value is true, ``None`` where it is neither true nor false.

    :param value: ``True``, ``False``, 1, 0, or text as ``"true"``, ``"no"`` and ``"0"``.
    """
    try:
        return TRUTH.get(value.strip().lower() if isinstance(value, str) else value)
    except TypeError:
        # cannot be hashed
        return None


def boolean(name: str, value: object) -> bool:
    """
    Read true or false: ``"false"`` is true to Python.

    :param value: as :func:`truth` takes it.
    :raises EmqxConfigError: for anything else.
    """
    found = truth(value)
    if found is None:
        raise wrong(name, "true or false", value)
    return found


def number(name: str, value: Any) -> float:
    """
    Read a number.

    :param value: a number or its text.
    :raises EmqxConfigError: for anything else.
    """
    found = _number(value)
    if found is None:
        raise wrong(name, "a number", value)
    return found


def positive(name: str, value: Any) -> float:
    """
    Read a number above 0.

    :param value: a number or its text.
    :raises EmqxConfigError: for anything else.
    """
    found = _number(value)
    if found is None or found <= 0:
        raise wrong(name, "a number above 0", value)
    return found


def whole(name: str, value: Any, at_least: int = 1, at_most: int | None = None) -> int:
    """
    Read a whole number.

    :param value: a whole number or its text.
    :param at_least: smallest one allowed.
    :param at_most: largest one allowed, ``None`` for any.
    :raises EmqxConfigError: for anything else.
    """
    found = _number(value)
    if not isinstance(found, int) or found < at_least or (at_most is not None and found > at_most):
        allowed = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most:,}"
        raise wrong(name, f"a whole number {allowed}", value)
    return found


def _number(value: Any) -> int | float | None:
    """Return a finite number, as ``int`` where it is whole, or ``None``."""
    if isinstance(value, bool):
        return None
    try:
        # also of a whole one, which may be too large to be compared with others
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(found):
        return None
    if not found.is_integer():
        return found
    try:
        # a float may not hold all digits
        return int(value)
    except ValueError:
        return int(found)


def span(name: str, value: Any) -> float:
    """
    Read a span of time.

    :param value: seconds above 0, also as text, or a ``timedelta``.
    :raises EmqxConfigError: for anything else.
    """
    found = _number(value.total_seconds() if isinstance(value, timedelta) else value)
    if found is None or not 0 < found <= _LONGEST:
        raise wrong(name, "seconds above 0 and of a century at most", value)
    return found


def seconds(name: str, value: Any) -> float | None:
    """
    Read a span of time that may be missing.

    :param value: as :func:`span` takes it, or ``None`` for no span.
    :raises EmqxConfigError: also for empty text: a template without a value would take a filter away.
    """
    return None if value is None else span(name, value)


def limit(given: float | str | None, of: int, name: str) -> int | None:
    """
    Read a limit that is a count or a share.

    :param given: a count as ``5`` or ``"5"``, a share as ``0.05`` or ``"5%"``, or ``None`` for no limit.
    :param of: what a share is taken of.
    :return: the count, rounded down.
    :raises EmqxConfigError: also for empty text: a template without a value would take the limit away.
    """
    if given is None:
        return None
    # True and False are numbers to float()
    written = "" if isinstance(given, bool) else str(given).strip()
    try:
        if written.endswith("%"):
            share = float(written[:-1]) / 100
        elif written.isdecimal():
            return int(written)
        else:
            share = float(written)
        if not 0 <= share <= 1:
            raise ValueError
    except ValueError:
        raise wrong(name, "a count, as 5, or a share, as 0.05 or '5%'", given) from None
    # 5% of 100 is 5, although 0.05 * 100 is a little more than 5
    return math.floor(round(share * of, 6))


def text(name: str, value: Any) -> str:
    """
    Read a text that must not be empty.

    :param value: the text.
    :raises EmqxConfigError: if it is empty or something else.
    """
    if not isinstance(value, str) or not value:
        raise wrong(name, "text", value)
    return value


def texts(name: str, value: Any) -> list[str]:
    """
    Read one or several texts: ``"a"``, ``["a", "b"]``, or ``'["a", "b"]'`` of a template; ``None`` for no text.

    :raises EmqxConfigError: also for empty text: a template without a value. An empty list is a list.
    """
    if value is None:
        return []
    expected = "text or a list of texts"
    if isinstance(value, str):
        if not value:
            raise wrong(name, f"{expected}; an empty list for no text", value)
        rendered: list[Any] | None = _rendered(value, list)
        value = [value] if rendered is None else rendered
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
        raise wrong(name, expected, value)
    items = list(value)
    for item in items:
        if not isinstance(item, str):
            raise EmqxConfigError(f"{name} must be {expected}, not a list with {type(item).__name__}")
    return items


def mapping(name: str, value: Any) -> dict[str, Any]:
    """
    Read names with values: ``{"a": 1}``, or ``'{"a": 1}'`` of a template; ``None`` for no names.

    :raises EmqxConfigError: also for empty text: a template without a value.
    """
    if value is None:
        return {}
    found = _rendered(value, dict) if isinstance(value, str) else value
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        expected = "a dict of names and values"
        if value == "":
            raise wrong(name, expected, value)
        # not shown: it may hold secrets
        raise EmqxConfigError(f"{name} must be {expected}, not {type(value).__name__}")
    return dict(found)


def choice(name: str, value: Any, known: Collection[str]) -> str:
    """
    Read one of several words.

    :param known: the words.
    :raises EmqxConfigError: for any other one.
    """
    if not isinstance(value, str) or value not in known:
        raise wrong(name, f"one of {', '.join(known)}", value)
    return value


def _rendered(written: str, kind: type) -> Any:
    """Read what a template has rendered: JSON (``tojson``) or Python; any other text is ``None``."""
    begin, end = "[]" if kind is list else "{}"
    if written.startswith(begin) and written.endswith(end):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(written)
            except (ValueError, SyntaxError, RecursionError):
                continue
            if isinstance(found, kind):
                return found
    return None
