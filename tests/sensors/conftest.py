from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport import exchange

#: how a sensor can wait
MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferred": {"deferrable": True},
}


def before_question(broker: FakeEmqx, number: int, action: Callable[[], Any]) -> None:
    """Change the world right before the broker is asked for a single client for so many times."""
    asked = 0

    def count(method: str, path: str) -> None:
        nonlocal asked
        if "/clients/" in path:
            asked += 1
            if asked == number:
                action()

    broker.before_each_request(count)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the attempts of one exchange nothing is learnt from waiting."""
    monkeypatch.setattr(exchange, "_FIRST_WAIT", 0.01)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    return MODES[request.param]


@pytest.fixture
def wait(run_dag: Callable[..., Any], request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run a DAG of one sensor, and give its state and its result."""

    def wait(sensor: type, **arguments: Any) -> tuple[str, Any]:
        with DAG("wait", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
            sensor(task_id="sensor", **{"poke_interval": 0.1, "timeout": 30, **arguments})
        task = run_dag(dag).get_task_instance("sensor")
        return task.state, task.xcom_pull(task_ids="sensor")

    return wait
