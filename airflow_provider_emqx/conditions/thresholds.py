"""A figure passes a threshold, by itself or by its difference to a baseline."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from airflow_provider_emqx.arguments import choice, number
from airflow_provider_emqx.choices import Comparison
from airflow_provider_emqx.conditions.base import Outcome
from airflow_provider_emqx.exceptions import EmqxConfigError


class Threshold:
    """
    A threshold for a metric.

    :param threshold: a number or its text.
    :param comparison: ``">="`` or ``"<="``.
    :param baseline: a number or its text, to compare the difference to; ``None`` to compare the value itself.
    :raises EmqxConfigError: for anything else.
    """

    def __init__(self, threshold: Any, comparison: Any = ">=", baseline: Any = None) -> None:
        choice("comparison", comparison, get_args(Comparison))
        self.threshold = number("threshold", threshold)
        self.comparison = comparison
        self.baseline = None if baseline is None else number("baseline", baseline)

    def parameters(self) -> dict[str, Any]:
        """Return the checked arguments as plain JSON."""
        parameters = {"threshold": self.threshold, "comparison": self.comparison}
        return parameters if self.baseline is None else {**parameters, "baseline": self.baseline}

    def is_passed(self, value: float) -> bool:
        """Return whether a value, or a difference, is on the awaited side."""
        return value >= self.threshold if self.comparison == ">=" else value <= self.threshold

    def compare(self, name: str, value: float, *, counter: bool) -> Outcome:
        """
        Compare a figure.

        :param name: for the log.
        :param value: of the figure.
        :param counter: whether it only goes up, and falls when a node restarts: then it began at 0 again.
        """
        details: dict[str, Any] = {"value": value, **self.parameters()}
        compared = value
        line = f"{name} is {value:,}"
        if self.baseline is not None:
            compared = value if counter and value < self.baseline else value - self.baseline
            details["change"] = compared
            line += f", {compared:+,} since {self.baseline:,}"
        return Outcome(
            self.is_passed(compared), details, f"{line}; waiting for {self.comparison} {self.threshold:,}"
        )


def figure_named(name: str, figures: Mapping[str, Any], what: str) -> float:
    """
    Return a figure by its name.

    :param name: as the broker calls it.
    :param figures: what the broker reported.
    :param what: the kind of figure, for the error.
    :raises EmqxConfigError: if the metric is unknown, with similar names.
    """
    value = figures.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    like = difflib.get_close_matches(name, figures, n=3) or sorted(figures)[:3]
    raise EmqxConfigError(
        f"unknown {what} {name!r}; expected one like {', '.join(like) or '(the broker has none)'}, …"
    )
