"""A figure passes a threshold, by itself or by its difference to a baseline."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from airflow_provider_emqx.conditions.base import Outcome, number
from airflow_provider_emqx.exceptions import EmqxConfigError


def threshold_of(threshold: Any, comparison: Any, baseline: Any) -> dict[str, Any]:
    """
    Check what a figure is to be compared with.

    :param threshold: a number or its text.
    :param comparison: ``">="`` or ``"<="``.
    :param baseline: a number or its text, or ``None``.
    :raises EmqxConfigError: for anything else.
    """
    if comparison not in (">=", "<="):
        raise EmqxConfigError(f'comparison must be ">=" or "<=", not {comparison!r}')
    parameters = {"threshold": number("threshold", threshold), "comparison": comparison}
    return parameters if baseline is None else {**parameters, "baseline": number("baseline", baseline)}


def named(name: str, figures: Mapping[str, Any], what: str) -> float:
    """
    Give a figure by its name.

    :param name: as the broker calls it.
    :param figures: what the broker told.
    :param what: the kind of figure, for the error.
    :raises EmqxConfigError: if there is none, with names that are like it.
    """
    value = figures.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    like = difflib.get_close_matches(name, figures, n=3) or sorted(figures)[:3]
    raise EmqxConfigError(f"there is no {what} {name!r}; there is {', '.join(like) or 'none at all'}, …")


def compare(name: str, value: float, parameters: Mapping[str, Any], *, counter: bool) -> Outcome:
    """
    Compare a figure.

    :param name: for the log.
    :param value: of the figure.
    :param parameters: made by :func:`threshold_of`.
    :param counter: whether it only goes up, and falls when a node restarts: then it began at 0 again.
    """
    threshold, comparison = parameters["threshold"], parameters["comparison"]
    details: dict[str, Any] = {"value": value, "threshold": threshold, "comparison": comparison}
    compared = value
    line = f"{name} is {value:,}"
    if "baseline" in parameters:
        baseline = parameters["baseline"]
        compared = value if counter and value < baseline else value - baseline
        details |= {"baseline": baseline, "change": compared}
        line += f", {compared:+,} since {baseline:,}"
    met = compared >= threshold if comparison == ">=" else compared <= threshold
    return Outcome(met, details, f"{line}; {comparison} {threshold:,} is waited for")
