"""Secrets are planted, real tasks work with them, well and badly, and all that Airflow wrote is searched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.secrets.planted import ALL, PASSWORD, PAYLOAD, shown
from tests.standalone.running import Airflow, until

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(900)]

#: how every secret begins, whatever becomes of its end
FORMS = {*ALL, "pl4nted"}
FAILING = {
    "bad_key",
    "bad_broker",
    "bad_query",
    "bad_template",
    "bad_braces",
    "bad_answer",
    "bad_request",
    "bad_wait",
}
DONE = ("success", "failed", "skipped", "upstream_failed")


def everything(airflow: Airflow) -> Iterator[tuple[str, str]]:
    """All that Airflow has written, and all that its API tells, by place."""
    for file in sorted(airflow.home.rglob("*")):
        if file.is_file():
            yield str(file), file.read_bytes().decode("utf-8", "replace")
    for dag in airflow.get("dags?limit=100")["dags"]:
        name = dag["dag_id"]
        yield f"dag {name}", json.dumps(airflow.get(f"dags/{name}/details"))
        for run in airflow.get(f"dags/{name}/dagRuns?limit=100")["dag_runs"]:
            at = f"dags/{name}/dagRuns/{run['dag_run_id']}/taskInstances"
            for task in airflow.get(f"{at}?limit=100")["task_instances"]:
                yield f"{at}/{task['task_id']}", json.dumps(task, ensure_ascii=False)
                for entry in airflow.get(f"{at}/{task['task_id']}/xcomEntries")["xcom_entries"]:
                    path = f"{at}/{task['task_id']}/xcomEntries/{entry['key']}"
                    yield path, json.dumps(airflow.get(path), ensure_ascii=False)
                for attempt in range(1, task["try_number"] + 1):
                    yield (
                        f"{at}/{task['task_id']}/logs/{attempt}",
                        airflow.log(name, run["dag_run_id"], task["task_id"], attempt),
                    )
    for path in (
        "eventLogs?limit=1000",
        "importErrors",
        "variables",
        "assets/events?limit=100",
        "jobs?limit=100",
    ):
        yield path, json.dumps(airflow.get(path), ensure_ascii=False)


def test_nothing_that_airflow_wrote_shows_a_secret(airflow: Airflow, broker: FakeEmqx, files: Path) -> None:
    run = airflow.trigger("traces")

    def states() -> dict[str, str]:
        return airflow.states("traces", run)

    def told() -> str:
        return f"{states()} {airflow.tell()}"

    until(lambda: states().get("device") == "deferred", 240, told)
    broker.connect("traced-1")
    broker.publish("state/1", PAYLOAD, retain=True)
    final = until(
        lambda: (now := states()) and all(state in DONE for state in now.values()) and now, 400, told
    )
    # it is no proof that nothing is shown where nothing was done
    assert {task for task, state in final.items() if state == "failed"} == FAILING, final
    assert {state for task, state in final.items() if task not in FAILING} == {"success"}, final
    assert all(broker.verify(name, PASSWORD) for name in ("file-1", "row-1", "query-1", "api-1"))
    logs = {task: airflow.log("traces", run, task, 1) for task in FAILING}
    assert "EmqxAuthError" in logs["bad_key"]
    assert "Attempt 1 of 2 failed" in logs["bad_broker"]
    assert "could not be rendered" in logs["bad_template"]
    assert all("are withheld" in logs[task] for task in ("bad_answer", "bad_request"))
    assert '"debug"' in logs["bad_broker"]

    found, named = {}, []
    for place, text in everything(airflow):
        found[place] = shown(text, FORMS)
        # what is no secret must be found, or this would find nothing
        if "traced-1" in text:
            named.append(place)
    assert {place: forms for place, forms in found.items() if forms} == {}
    for place in ("airflow.db", "standalone.log", "task_id=device/attempt=1.log"):
        assert any(place in one for one in named), (place, named)
    # Airflow sometimes begins an attempt more of a task that was deferred, and then shows no log of the first one
    for place in (
        "report.jsonl",
        "/state",
        "attempt=2.log",
        "/taskInstances/device/logs/",
        "xcomEntries/return_value",
    ):
        assert any(place in one for one in found), place
    for name in ("report.jsonl", "state"):
        assert (airflow.home / name).stat().st_mode & 0o077 == 0
