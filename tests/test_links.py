from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_emqx.links import EmqxDashboardLink, has_pages
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator, EmqxUnbanOperator
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator
from airflow_provider_emqx.operators.cluster import EmqxSetRuleStateOperator
from airflow_provider_emqx.operators.topics import EmqxPublishOperator


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("https://broker.example.com:18084/api/v5", "https://broker.example.com:18084/"),
        ("https://example.com/emqx/api/v5", "https://example.com/emqx/"),
        ("localhost:18083", "http://localhost:18083/"),
        ("http://127.0.0.1:8081/api/v4", "http://127.0.0.1:18083/"),
        ("https://x123.ala.eu-central-1.emqxsl.com:8443/api/v5", ""),
        ("https://x123.eu-west-1.emqx.cloud:8443/api", ""),
        ("this is no address", ""),
    ],
)
def test_the_link_leads_to_the_dashboard_of_a_self_hosted_broker(
    monkeypatch: pytest.MonkeyPatch, host: str, expected: str
) -> None:
    connection = {"conn_type": "emqx", "host": host, "login": "k", "password": "s"}
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))
    operator = EmqxPublishOperator(task_id="publish", topic="a", payload="b")
    assert EmqxDashboardLink().get_link(operator, ti_key=None) == expected


SELF_HOSTED = "http://127.0.0.1:18083/api/v5"


@pytest.mark.parametrize(
    ("host", "operator", "arguments", "page"),
    [
        (
            SELF_HOSTED,
            EmqxProvisionUsersOperator,
            {"source": "a.csv"},
            "#/authentication/detail/password_based%3Abuilt_in_database?tab=users",
        ),
        (SELF_HOSTED, EmqxKickClientsOperator, {"clientids": ["a/b", "c"]}, "#/clients?clientid=a%2Fb%2Cc"),
        (SELF_HOSTED, EmqxKickClientsOperator, {"clientids": ["a,b"]}, "#/clients"),
        (
            SELF_HOSTED,
            EmqxKickClientsOperator,
            {"filters": {"username": "u{}"}},
            "#/clients?username=u%7B%7D",
        ),
        (SELF_HOSTED, EmqxSetRuleStateOperator, {"names": "my_rule"}, "#/rule/rules?like_id=my_rule"),
        (SELF_HOSTED, EmqxUnbanOperator, {"kind": "clientid"}, "#/banned-clients"),
        (SELF_HOSTED, EmqxPublishOperator, {"topic": "a", "payload": "b"}, ""),
        ("http://127.0.0.1:18083/api/v4", EmqxUnbanOperator, {"kind": "clientid"}, ""),
    ],
)
def test_the_link_leads_to_what_a_task_is_about(
    monkeypatch: pytest.MonkeyPatch, host: str, operator: Any, arguments: Any, page: str
) -> None:
    connection = {"conn_type": "emqx", "host": host, "login": "k", "password": "s"}
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))
    task = operator(task_id="task", **arguments)
    assert EmqxDashboardLink().get_link(task, ti_key=None) == f"http://127.0.0.1:18083/{page}"


def test_there_is_no_link_and_no_error_without_a_connection() -> None:
    operator: Any = EmqxPublishOperator(task_id="publish", topic="a", payload="b", emqx_conn_id="missing")
    assert EmqxDashboardLink().get_link(operator, ti_key=None) == ""


def test_every_operator_and_sensor_has_the_link() -> None:
    from airflow_provider_emqx.operators.base import BaseEmqxOperator
    from airflow_provider_emqx.sensors.base import BaseEmqxSensor

    for cls in (BaseEmqxOperator, EmqxProvisionUsersOperator, BaseEmqxSensor):
        names = [link.name for link in cls.operator_extra_links]
        assert names == (["Result", "EMQX dashboard"] if has_pages() else ["EMQX dashboard"])


def test_airflow_stores_the_link_of_a_task(run_dag: Any, broker: Any) -> None:
    from datetime import UTC, datetime

    from airflow.providers.common.compat.sdk import DAG

    with DAG("linked", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        EmqxPublishOperator(task_id="publish", topic="a", payload="b")
    run = run_dag(dag)
    assert run.state == "success"
    link = run.get_task_instance("publish").xcom_pull(task_ids="publish", key="_link_EmqxDashboardLink")
    # only Airflow 3 stores it; Airflow 2 asks when the page is shown
    assert link in (None, f"{broker.url}/")
