"""Whoever reads a task's log sees what the task has done."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from airflow_provider_emqx.operators.auth import EmqxBanOperator
from airflow_provider_emqx.operators.base import BaseEmqxOperator
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator, EmqxSubscribeOperator
from airflow_provider_emqx.operators.cluster import (
    EmqxApiOperator,
    EmqxClearAlarmsOperator,
    EmqxMetricsSnapshotOperator,
    EmqxSetRuleStateOperator,
)
from airflow_provider_emqx.operators.topics import EmqxListSubscriptionsOperator, EmqxTopicMetricsOperator
from tests.operators.run import execute


@pytest.fixture
def told(mocker: MockerFixture, caplog: pytest.LogCaptureFixture) -> Any:
    """Return a function that gives the lines of the log; Airflow's own logger reaches no handler of a test."""
    mocker.patch.object(BaseEmqxOperator, "log", new=logging.getLogger("a-task"))
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def test_what_was_read(broker: Any, told: Any, tmp_path: Path) -> None:
    path = tmp_path / "figures.csv"
    names = ["stats.live_connections.count", "stats.no_such_thing"]
    execute(EmqxMetricsSnapshotOperator, metrics=names, output_path=path)
    execute(EmqxListSubscriptionsOperator)
    execute(EmqxApiOperator, path="/stats")
    for line in (
        "Metrics unknown to the broker: stats.no_such_thing",
        f"2 figures appended to {path}",
        "0 rows",
        "GET /stats: done",
    ):
        assert line in told()


def test_what_was_done(broker: Any, told: Any) -> None:
    broker.raise_alarm("high_cpu_usage")
    broker.add_rule("r1", 'SELECT * FROM "t/#"')
    broker.connect("dev-1", reconnects=True)
    execute(EmqxClearAlarmsOperator)
    execute(EmqxTopicMetricsOperator, action="register", topics=["a", "b"])
    execute(EmqxSetRuleStateOperator, names="r1", state="disabled")
    execute(EmqxSubscribeOperator, clientids="dev-1", topics="a")
    execute(EmqxKickClientsOperator, clientids=["dev-1", "dev-2"])
    broker.connect("dev-3")
    execute(EmqxBanOperator, kind="clientid", who=["dev-3", "dev-4"], duration=60, kick=True)
    for line in (
        "Alarms ended: none; history deleted; active now: high_cpu_usage",
        "Topic metrics: register, 2 topics",
        "1 clients selected",
        "        1  subscribed",
        "2 clients selected",
        "        1  absent",
        "        1  still connected",
        "2 bans selected",
        "        2  banned",
        "        1  kicked",
    ):
        assert line in told()
    assert any(line.startswith("rule 'r1': disabled") for line in told())
