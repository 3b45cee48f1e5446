"""Completes what the reference says of parameters, which docstrings say once."""

from __future__ import annotations

import inspect
import re
from typing import Any


def parameters_of(lines: list[str]) -> dict[str, list[str]]:
    """Return the lines that describe each parameter in a docstring."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        if match := re.match(r":param (\w+):", line):
            current = found[match[1]] = [line]
        elif current is not None and line.startswith("    "):
            current.append(line)
        else:
            current = None
    return found


def complete_parameters(
    _app: Any, what: str, _name: str, value: Any, _options: Any, lines: list[str]
) -> None:
    """
    Add what base classes say of parameters to the page of an operator or a sensor, and mark templated ones.

    A parameter is described once, at the class that takes it.
    """
    if what != "class" or not hasattr(value, "template_fields"):
        return
    for base in value.__mro__[1:]:
        if base.__module__.startswith("airflow_provider_emqx.") and base.__doc__:
            hidden = set(getattr(base, "template_fields", ())) - set(value.template_fields)
            known = {*parameters_of(lines), *hidden}
            described = parameters_of(inspect.cleandoc(base.__doc__).split("\n"))
            _add(lines, [line for name, text in described.items() if name not in known for line in text])
    fields = {"dry_run" if name == "plan_only" else name for name in value.template_fields}
    for number, line in enumerate(lines):
        match = re.match(r":param (\w+):", line)
        if match and match[1] in fields:
            lines[number] = f"{match[0]} (templated){line[match.end() :]}"


def _add(lines: list[str], added: list[str]) -> None:
    if not added:
        return
    while lines and not lines[-1]:
        lines.pop()
    end = next((n for n, line in enumerate(lines) if re.match(r":(return|raises)", line)), len(lines))
    # a list of fields begins after an empty line
    begins = end == len(lines) and not parameters_of(lines)
    lines[end:end] = ["", *added] if begins else added
    lines.append("")
