"""Airflow shows a template field that holds JSON or SQL as such."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import pytest

from airflow_provider_emqx.get_provider_info import get_provider_info
from airflow_provider_emqx.hidden import HiddenField
from airflow_provider_emqx.operators.base import BaseEmqxOperator
from airflow_provider_emqx.transfers.sql_to_emqx import SqlToEmqxUsersOperator


def operators() -> Iterator[type[BaseEmqxOperator]]:
    for entry in get_provider_info()["operators"]:
        for module in map(importlib.import_module, entry["python-modules"]):
            for _, cls in inspect.getmembers(module, inspect.isclass):
                if issubclass(cls, BaseEmqxOperator) and cls.__name__.startswith("Emqx"):
                    yield cls
    yield SqlToEmqxUsersOperator


@pytest.mark.parametrize("cls", sorted(set(operators()), key=lambda cls: cls.__name__))
def test_structured_fields_have_a_renderer(cls: type[BaseEmqxOperator]) -> None:
    taken = {
        name: str(parameter.annotation)
        for base in reversed(cls.__mro__)
        if "__init__" in vars(base) and base.__module__.startswith("airflow_provider_emqx.")
        for name, parameter in inspect.signature(base.__init__).parameters.items()  # type: ignore[misc]
    }
    structured = {
        name
        for name in cls.template_fields
        if any(word in taken.get(name, "") for word in ("Mapping[", "dict[", "SourceOptions"))
        # Airflow stores and shows none of these
        and not isinstance(inspect.getattr_static(cls, name, None), HiddenField)
    }
    assert structured <= set(cls.template_fields_renderers)
    assert set(cls.template_fields_renderers) <= set(cls.template_fields)
    assert "sql" not in cls.template_fields or cls.template_fields_renderers["sql"] == "sql"
