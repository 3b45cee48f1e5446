"""Waits in a real triggerer, which is killed meanwhile."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.secrets.planted import shown
from tests.standalone.running import Airflow, until

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(900)]


def test_a_device_that_comes_online_starts_a_dag(airflow: Airflow, broker: FakeEmqx) -> None:
    before = len(broker.requests)

    def runs() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = airflow.get("dags/on_online/dagRuns").get("dag_runs", [])
        return found

    until(lambda: airflow.get("dags/on_online").get("dag_id"), 300, airflow.tell)
    # the watcher has looked, and remembered who was there before it
    assert "watched-0" in broker.clients
    until(lambda: any("/clients?" in request.path for request in broker.requests[before:]), 120, airflow.tell)
    time.sleep(10)
    assert runs() == []
    broker.connect_many(["watched-1", "watched-2", "other-1"])
    run = until(lambda: [each for each in runs() if each["state"] == "success"], 180, airflow.tell)[0]
    assert airflow.result("on_online", run["dag_run_id"], "who") == ["watched-1", "watched-2"]
    time.sleep(10)
    assert len(runs()) == 1


def test_deferred_waits_go_on_whenever_the_triggerer_is_killed(airflow: Airflow, broker: FakeEmqx) -> None:
    before = len(broker.requests)
    run = airflow.trigger("waits")

    def told() -> str:
        return f"{airflow.states('waits', run)} {airflow.tell()}"

    waiting = {"device", "fleet", "figure"}
    until(lambda: all(airflow.states("waits", run).get(task) == "deferred" for task in waiting), 240, told)
    with sqlite3.connect(airflow.home / "airflow.db") as database:
        stored = database.execute("SELECT classpath, kwargs FROM trigger").fetchall()
    assert any("EmqxConditionTrigger" in path for path, _ in stored)
    assert shown(str(stored)) == []
    for _ in range(3):
        airflow.kill_triggerer()
        seen = len(broker.requests)
        # the next one has taken over: nobody else asks for figures
        until(lambda seen=seen: any("/stats" in each.path for each in broker.requests[seen:]), 180, told)
        assert all(airflow.states("waits", run)[task] == "deferred" for task in waiting)
    airflow.kill_triggerer()
    broker.connect("device-1")
    broker.connect_many(f"fleet-{number:04d}" for number in range(1_490))
    until(
        lambda: (
            (states := airflow.states("waits", run))
            and all(states[task] == "success" for task in waiting)
            and states["in_time"] == "skipped"
        ),
        300,
        told,
    )
    fleet = airflow.result("waits", run, "fleet")
    assert (fleet["awaited"], fleet["online"], fleet["missing_count"]) == (1_500, 1_490, 10)
    assert fleet["missing"] == [f"fleet-{number:04d}" for number in range(1_490, 1_500)]
    assert airflow.result("waits", run, "device")["online"] == 1
    assert airflow.result("waits", run, "figure")["value"] >= 1_000
    assert all(request.method == "GET" for request in broker.requests[before:])
