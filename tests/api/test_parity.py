"""EMQX 4 has the operations of EMQX 5 and 6, and nearly every operation is a method of the hook."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from airflow_provider_emqx.api.area import Area
from airflow_provider_emqx.api.base import Broker
from airflow_provider_emqx.api.generations import api_of
from airflow_provider_emqx.hooks.emqx import EmqxHook

V4, V5 = api_of(Broker("v4")), api_of(Broker("v5"))
AREAS = sorted(name for name, value in vars(V5).items() if isinstance(value, Area))
#: parts of others, and what provisioning uses
INNER = {
    *("backups.bring", "backups.take"),
    *(
        "clients.kick",
        "clients.has_bulk_kick",
        "clients.kick_many",
        "messages.check",
        "messages.publish_many",
        "messages.retained_rate",
    ),
    *(
        "nodes.require",
        "nodes.list_running",
        "users.has_bulk_create",
        "users.has_bulk_upsert",
        "users.upsert",
        "users.upsert_many",
    ),
    *("rule_engine.outputs", "users.create_many", "users.no_superusers", "users.user_id_type"),
}


def operations(api: Any, area: str) -> dict[str, inspect.Signature]:
    return {
        f"{area}.{name}": inspect.signature(method)
        for name, method in inspect.getmembers(getattr(api, area), inspect.ismethod)
        if not name.startswith("_") and name != "query"
    }


@pytest.mark.parametrize("area", AREAS)
def test_both_generations_have_the_same_operations(area: str) -> None:
    assert operations(V4, area) == operations(V5, area)
    assert isinstance(getattr(V4, area), type(getattr(V5, area)))


def test_nearly_every_operation_is_a_method_of_the_hook() -> None:
    sources = [
        inspect.getsource(base)
        for base in EmqxHook.__mro__
        if base.__module__.startswith("airflow_provider_emqx")
    ]
    called = {".".join(found) for found in re.findall(r"self\.api\.(\w+)\.(\w+)", "".join(sources))}
    assert {name for area in AREAS for name in operations(V5, area)} - called <= INNER
