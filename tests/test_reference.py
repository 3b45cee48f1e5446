"""What the reference says of parameters, which the docstrings say once."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.get_provider_info import get_provider_info
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator
from airflow_provider_emqx.operators.cluster import EmqxBackupOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.sensors.cluster import EmqxMetricSensor
from airflow_provider_emqx.transfers.sql_to_emqx import SqlToEmqxUsersOperator


@pytest.fixture(scope="module")
def complete() -> Any:
    path = Path(__file__).parent.parent / "docs" / "parameters.py"
    spec = importlib.util.spec_from_file_location("docs_parameters", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.complete_parameters


def page(complete: Any, cls: type) -> dict[str, str]:
    assert cls.__doc__
    lines = inspect.cleandoc(cls.__doc__).split("\n")
    complete(None, "class", cls.__name__, cls, None, lines)
    names = [found[1] for line in lines if (found := re.match(r":param (\w+):", line))]
    assert len(names) == len(set(names))
    ends = [n for n, line in enumerate(lines) if re.match(r":(return|raises)", line)]
    assert all(n < min(ends) for n, line in enumerate(lines) if ends and line.startswith(":param"))
    return {found[1]: line for line in lines if (found := re.match(r":param (\w+):", line))}


@pytest.mark.parametrize(
    "cls",
    [
        EmqxKickClientsOperator,
        EmqxBackupOperator,
        EmqxClientOnlineSensor,
        EmqxMetricSensor,
        SqlToEmqxUsersOperator,
    ],
)
def test_a_page_has_every_parameter_and_says_which_are_templated(complete: Any, cls: Any) -> None:
    described = page(complete, cls)
    own = [base for base in cls.__mro__ if base.__module__.startswith("airflow_provider_emqx.")]
    taken = {
        name
        for base in own
        if "__init__" in vars(base)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    hidden = {"source", "format"} if cls is SqlToEmqxUsersOperator else set()
    assert set(described) == taken - hidden
    fields = {"dry_run" if name == "plan_only" else name for name in cls.template_fields}
    assert {name for name, line in described.items() if "(templated)" in line} == fields & set(described)


def documented() -> Iterator[tuple[str, Any]]:
    """Yield what users call with arguments: classes other than operators, and methods."""
    info = get_provider_info()
    modules = [
        name for part in ("hooks", "triggers") for entry in info[part] for name in entry["python-modules"]
    ]
    modules += [f"airflow_provider_emqx.hooks.{area}" for area in ("clients", "topics", "auth", "cluster")]
    for module in ("airflow_provider_emqx.exceptions", *modules):
        for name, cls in inspect.getmembers(importlib.import_module(module), inspect.isclass):
            if cls.__module__ == module and not name.startswith("_"):
                yield f"{module}.{name}", cls
                for method, value in vars(cls).items():
                    if inspect.isfunction(value) and not method.startswith("_"):
                        yield f"{module}.{name}.{method}", value


@pytest.mark.parametrize(("name", "value"), list(documented()))
def test_what_is_said_once_is_on_every_page(complete: Any, name: str, value: Any) -> None:
    lines = inspect.cleandoc(value.__doc__ or "").split("\n")
    complete(None, "class" if inspect.isclass(value) else "method", name, value, None, lines)
    described = [found[1] for line in lines if (found := re.match(r":param (\w+):", line))]
    taken = inspect.signature(value).parameters
    named = {name for name, parameter in taken.items() if parameter.kind is not parameter.VAR_KEYWORD}
    assert len(described) == len(set(described))
    assert named - {"self"} <= set(described) <= taken.keys()
