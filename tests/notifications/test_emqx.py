from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.notifications.emqx import EmqxPublishNotifier


@pytest.fixture
def dashboard(broker: Any) -> Any:
    broker.connect("dashboard")
    broker.subscribe("dashboard", "airflow/#")
    return broker


def heard(broker: Any) -> list[tuple[str, bytes]]:
    return [(message.topic, message.payload) for message in broker.received("dashboard")]


def test_a_task_s_failure_is_published(run_dag: Any, dashboard: Any) -> None:
    notifier = EmqxPublishNotifier(
        topic="airflow/{{ dag.dag_id }}", payload={"task": "{{ ti.task_id }}"}, qos=1
    )
    with DAG("notify", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task(on_failure_callback=notifier)
        def fail() -> None:
            raise ValueError("as expected")

        fail()
    assert run_dag(dag).state == "failed"
    assert heard(dashboard) == [("airflow/notify", b'{"task": "fail"}')]


def test_it_publishes_from_an_event_loop_too(dashboard: Any) -> None:
    notifier = EmqxPublishNotifier(topic="airflow/x", payload=b"\x00", properties={"content_type": "a"})
    asyncio.run(notifier.async_notify({}))
    notifier.notify({})
    assert heard(dashboard) == [("airflow/x", b"\x00")] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"topic": "a/#", "payload": "S3cret"},
        {"topic": "a", "payload": {1, 2}},
        {"topic": "a", "payload": "S3cret", "qos": 3},
        {"topic": "a", "payload": "S3cret", "emqx_conn_id": "missing"},
    ],
)
def test_its_own_errors_fail_nothing_and_tell_no_secret(
    dashboard: Any, caplog: pytest.LogCaptureFixture, capsys: Any, arguments: dict[str, Any]
) -> None:
    notifier = EmqxPublishNotifier(**arguments)
    notifier.notify({})
    asyncio.run(notifier.async_notify({}))
    said = caplog.text + capsys.readouterr().out
    assert "was not published" in said
    assert "S3cret" not in said


def test_a_broker_that_fails_fails_nothing(dashboard: Any) -> None:
    dashboard.order_fault("reset_after", match="POST", times=9)
    EmqxPublishNotifier(topic="airflow/x", payload="once").notify({})
    assert heard(dashboard) == [("airflow/x", b"once")]
