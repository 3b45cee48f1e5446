"""Rules of the rule engine, and what they are connected to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.exceptions import EmqxBadRequestError, EmqxNotFoundError, EmqxUnsupportedError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.cluster import EmqxSetRuleStateOperator
from airflow_provider_emqx.sensors.cluster import EmqxRuleHealthSensor

pytestmark = pytest.mark.live

STATES = {"connected", "connecting", "disconnected", "inconsistent"}


def test_a_rule_is_found_disabled_and_enabled(hook: EmqxHook, rule: str, run_dag: Callable[..., Any]) -> None:
    assert rule in {row["id"] for row in hook.list_rules()}
    found = hook.get_rule(rule)
    assert found is not None
    assert (found["id"], found["enable"], found["from"]) == (rule, True, [f"{rule}/#"])
    with DAG("live_rules") as dag:
        off = EmqxSetRuleStateOperator(task_id="off", names=rule, state="disabled")
        on = EmqxSetRuleStateOperator(task_id="on", names=rule, state="enabled")
        off >> on >> EmqxRuleHealthSensor(task_id="healthy", rule_id=rule, poke_interval=1, timeout=30)
    run = run_dag(dag)
    assert run.state == "success"
    told = [run.get_task_instance(task).xcom_pull(task_ids=task)[rule]["enable"] for task in ("off", "on")]
    assert told == [False, True]
    assert hook.set_rule_enabled(rule, False)["enable"] is False
    changed = hook.get_rule(rule)
    assert changed is not None
    kept = ("id", "sql", "actions", "description")
    assert [changed[field] for field in kept] == [found[field] for field in kept]
    assert changed["enable"] is False


def test_the_counters_of_a_rule_begin_at_0_again(hook: EmqxHook, rule: str) -> None:
    hook.publish({"topic": f"{rule}/x", "payload": "x"})
    hook.reset_rule_metrics(rule)
    metrics = hook.get_rule_metrics(rule)
    assert (metrics["matched"], metrics["passed"], metrics["failed"]) == (0, 0, 0)


def test_a_rule_that_is_not_there_is_told(hook: EmqxHook, rules: None, name: Callable[..., str]) -> None:
    absent = name()
    assert hook.get_rule(absent) is None
    for change in (
        lambda: hook.set_rule_enabled(absent, True),
        lambda: hook.get_rule_metrics(absent),
        lambda: hook.reset_rule_metrics(absent),
    ):
        with pytest.raises(EmqxNotFoundError):
            change()


def test_a_connector_is_found_with_its_state(
    hook: EmqxHook, connector: str, name: Callable[..., str]
) -> None:
    assert connector in {row["id"] for row in hook.list_connectors()}
    found = hook.get_integration("connector", connector)
    assert found is not None
    assert found["status"] in STATES
    absent = f"{connector}-absent"
    assert hook.get_integration("connector", absent) is None
    with pytest.raises(EmqxNotFoundError):
        hook.restart_integration("connector", absent)


def test_a_connector_is_enabled_connected_anew_and_disabled(
    hook: EmqxHook, connector: str, run_dag: Callable[..., Any]
) -> None:
    if hook.api_version == "v4":
        with pytest.raises(EmqxUnsupportedError):
            hook.set_integration_enabled("connector", connector, False)
        hook.restart_integration("connector", connector)
        return
    hook.set_integration_enabled("connector", connector, True)
    # nobody answers where it leads, which the broker may tell
    with suppress(EmqxBadRequestError):
        hook.restart_integration("connector", connector)
    found = hook.get_integration("connector", connector)
    assert found is not None
    assert found["enable"] is True
    with DAG("live_connectors") as dag:
        EmqxSetRuleStateOperator(task_id="off", names=connector, state="disabled", kind="connector")
    run = run_dag(dag)
    assert run.state == "success"
    assert run.get_task_instance("off").xcom_pull(task_ids="off")[connector]["enable"] is False


def test_an_action_is_found_enabled_and_disabled(hook: EmqxHook, action: str) -> None:
    assert action in {row["id"] for row in hook.list_actions()}
    for state in (True, False):
        hook.set_integration_enabled("action", action, state)
        found = hook.get_integration("action", action)
        assert found is not None
        assert (found["id"], found["enable"]) == (action, state)
        assert found["status"] in STATES
    assert hook.get_integration("action", f"{action}-absent") is None
    with pytest.raises(EmqxNotFoundError):
        hook.set_integration_enabled("action", f"{action}-absent", True)


def test_sources_are_listed(hook: EmqxHook, rules: None) -> None:
    try:
        rows = list(hook.list_sources())
    except EmqxUnsupportedError as error:
        pytest.skip(str(error))
    assert all(row["id"] == f"{row['type']}:{row['name']}" for row in rows)
