"""Completes what the reference says of parameters, which docstrings say once."""

from __future__ import annotations

import inspect
import re
from typing import Any

#: what parameters are that many classes and methods take under one name
SHARED = {
    "clientid": "the MQTT client id.",
    "context": "of the task.",
    "emqx_conn_id": "the Airflow connection.",
    "rule_id": "the rule's id.",
    "user_id": "username or client id, as the authenticator has it.",
}


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
    Add what base classes say of parameters, and what is said once for all, and mark templated ones.

    A parameter is described once, at the class that takes it.
    """
    if what not in ("class", "method", "exception"):
        return
    taken = inspect.signature(value).parameters
    templated = getattr(value, "template_fields", ())
    for base in getattr(value, "__mro__", ())[1:]:
        if base.__module__.startswith("airflow_provider_emqx.") and base.__doc__:
            hidden = set(getattr(base, "template_fields", ())) - set(templated)
            known = {*parameters_of(lines), *hidden}
            described = parameters_of(inspect.cleandoc(base.__doc__).split("\n"))
            # an operator hands on to its base class what it does not take itself
            wanted = [name for name in described if name not in known and (templated or name in taken)]
            _add(lines, [line for name in wanted for line in described[name]])
    shared = [name for name in SHARED if name in taken and name not in parameters_of(lines)]
    _add(lines, [f":param {name}: {SHARED[name]}" for name in shared])
    fields = {"dry_run" if name == "plan_only" else name for name in templated}
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
