"""Workers are killed and brokers go away while real tasks run: what the documentation promises is what happens."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.secrets.planted import SHORT
from tests.standalone.conftest import NODES, REJECTED, ROWS
from tests.standalone.running import Airflow, until

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(900)]

#: for how long the broker is away
AWAY = 60


def ends_as_if_nothing_had_happened(
    airflow: Airflow, slow: FakeEmqx, files: Path, dag: str, run: str
) -> dict[str, Any]:
    """Wait for the end; the users, the rejected rows and the sums must be those of a run that nobody disturbed."""
    final = until(
        lambda: (task := airflow.tasks(dag, run)["provision"])["state"] in ("success", "failed") and task,
        400,
        airflow.tell,
    )
    assert final["state"] == "success", airflow.log(dag, run, "provision", final["try_number"])[-5_000:]
    assert len(slow.users) == ROWS - len(REJECTED)
    assert all(slow.verify(f"user-{number:05d}", SHORT) for number in range(1, ROWS, 999))
    report = [json.loads(line) for line in (files / f"{dag}.jsonl").read_text().splitlines()]
    assert [row["id"] for row in report] == [f"user-{number:05d}" for number in REJECTED]
    assert {row["outcome"] for row in report} == {"rejected"}
    result = airflow.result(dag, run, "provision")
    assert (result["read"], result["written"], result["rejected"]) == (
        ROWS,
        ROWS - len(REJECTED),
        len(REJECTED),
    )
    return final


def written(airflow: Airflow, slow: FakeEmqx, count: int, dag: str, run: str) -> None:
    """Wait until the broker has so many users, in the middle of the work."""
    until(lambda: len(slow.users) >= count, 240, lambda: f"{airflow.tasks(dag, run)} {airflow.tell()}")
    assert len(slow.users) < ROWS - len(REJECTED)


@pytest.mark.parametrize("worker", [False, True], ids=["task", "worker"])
def test_a_provisioning_task_that_is_killed_ends_as_if_nothing_had_happened(
    airflow: Airflow, slow: FakeEmqx, files: Path, worker: bool
) -> None:
    slow.users.clear()
    run = airflow.trigger("killed_once")
    written(airflow, slow, ROWS // 2, "killed_once", run)
    airflow.kill_task("killed_once", run, "provision", worker)
    final = ends_as_if_nothing_had_happened(airflow, slow, files, "killed_once", run)
    assert final["try_number"] == 2
    assert "An earlier attempt of this task has done" in airflow.log("killed_once", run, "provision", 2)


def test_a_provisioning_task_may_be_killed_several_times(
    airflow: Airflow, slow: FakeEmqx, files: Path
) -> None:
    slow.users.clear()
    run = airflow.trigger("killed_often")
    for part in (1, 2, 3):
        written(airflow, slow, part * ROWS // 4, "killed_often", run)
        until(lambda: airflow.states("killed_often", run)["provision"] == "running", 60, airflow.tell)
        airflow.kill_task("killed_often", run, "provision")
        until(lambda: airflow.states("killed_often", run)["provision"] != "running", 60, airflow.tell)
    final = ends_as_if_nothing_had_happened(airflow, slow, files, "killed_often", run)
    assert final["try_number"] == 4


def test_a_broker_that_is_away_for_a_minute_ends_no_wait_and_loses_no_row(
    airflow: Airflow, slow: FakeEmqx, files: Path
) -> None:
    slow.users.clear()
    run = airflow.trigger("waits_for_broker")
    waits = ("poke", "reschedule", "deferred")

    def states() -> dict[str, str]:
        return airflow.states("waits_for_broker", run)

    def told() -> str:
        return f"{states()} {airflow.tell()}"

    until(
        lambda: (
            (now := states())
            and (now["poke"], now["deferred"], now["impatient"]) == ("running", *["deferred"] * 2)
        ),
        240,
        told,
    )
    work = airflow.trigger("broker_away")
    written(airflow, slow, ROWS // 4, "broker_away", work)
    slow.stop()
    time.sleep(AWAY)
    during = states()
    slow.start()
    assert during["poke"] == "running"
    assert during["deferred"] == "deferred"
    assert during["reschedule"] in ("running", "up_for_reschedule", "up_for_retry", "scheduled", "queued")
    # it was allowed to miss two looks
    until(lambda: states()["impatient"] == "failed", 120, told)
    slow.connect("late-1")
    until(lambda: all(states()[wait] == "success" for wait in waits), 240, told)
    results = [airflow.result("waits_for_broker", run, wait) for wait in waits]
    assert results == [{"awaited": 1, "needed": 1, "online": 1, "missing_count": 0, "missing": []}] * len(
        waits
    )
    final = ends_as_if_nothing_had_happened(airflow, slow, files, "broker_away", work)
    assert final["try_number"] > 1
    first = airflow.log("broker_away", work, "provision", 1)
    assert "EmqxConnectionError" in first
    assert "Ended early" in first
    slow.disconnect("late-1")


def test_an_evacuation_goes_on_when_its_task_is_killed(airflow: Airflow, slow: FakeEmqx) -> None:
    slow.connect_many([f"moved-{number}" for number in range(1_000)])
    run = airflow.trigger("evacuation")

    def looks(attempt: int) -> bool:
        return " sessions are left" in airflow.log("evacuation", run, "evacuate", attempt)

    for attempt in (1, 2):
        until(lambda attempt=attempt: looks(attempt), 240, airflow.tell)
        airflow.kill_task("evacuation", run, "evacuate")
    until(lambda: looks(3), 240, airflow.tell)
    assert "is being evacuated already" in airflow.log("evacuation", run, "evacuate", 3)
    slow.finish_evacuation(NODES[1])
    until(lambda: airflow.states("evacuation", run)["evacuate"] == "success", 120, airflow.tell)
    assert not any(client.node == NODES[1] for client in slow.clients.values())
