"""Both generations have the same functions, with the same arguments, in the same four areas."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

from airflow_provider_emqx.api import v4, v5
from airflow_provider_emqx.hooks.emqx import EmqxHook

AREAS = ("clients", "topics", "auth", "cluster")


def operations(module: ModuleType) -> dict[str, inspect.Signature]:
    """Give the functions that take a broker first."""
    return {
        name: inspect.signature(value)
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and next(iter(inspect.signature(value).parameters), "") == "broker"
        and value.__module__.startswith(module.__name__.rpartition(".")[0])
    }


def shared(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "client_as_v5"}


@pytest.mark.parametrize("area", AREAS)
def test_both_generations_have_the_same_operations(area: str) -> None:
    assert shared(operations(getattr(v4, area))) == shared(operations(getattr(v5, area)))


@pytest.mark.parametrize("area", AREAS)
def test_every_method_of_the_hook_documents_its_parameters(area: str) -> None:
    methods = next(base for base in EmqxHook.__mro__ if base.__module__.endswith(f".hooks.{area}"))
    for name, method in vars(methods).items():
        if not inspect.isfunction(method) or name.startswith("_"):
            continue
        text = inspect.getdoc(method) or ""
        for parameter in list(inspect.signature(method).parameters)[1:]:
            assert f":param {parameter}:" in text, f"{name}: {parameter}"


@pytest.mark.parametrize("area", AREAS)
def test_nearly_every_operation_is_a_method_of_the_hook(area: str) -> None:
    inner = {
        # parts of others
        *("check_message", "publish_many", "retained_rate", "kick_client", "has_bulk_kick", "require_node"),
        *(
            "has_bulk_upsert",
            "upsert_user",
            "upsert_users",
            "create_users",
            "user_id_type",
            "get_authenticator",
        ),
    }
    missing = [name for name in shared(operations(getattr(v5, area))) if not hasattr(EmqxHook, name)]
    assert set(missing) <= inner
