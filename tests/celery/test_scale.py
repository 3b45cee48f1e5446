"""A worker of several is killed with what it runs: the others do its work, and the sums are those of a single run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.testing import FakeEmqx
from tests.celery.conftest import GONE, REJECTED, REPEATED, ROWS, SCOPE, CeleryAirflow
from tests.standalone.running import until

pytestmark = [pytest.mark.celery, pytest.mark.timeout(1800)]

SHARDS = range(4)
COUNTS = ("read", "written", "skipped", "rejected")
WAITS = [(name, part) for name in ("default", "old") for part in SHARDS]


@pytest.fixture(scope="session")
def single(files: Path) -> Any:
    """The result of a single run over the same source."""
    with FakeEmqx("5.8.9", log_requests=False) as fake, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection()))
        operator = EmqxProvisionUsersOperator(task_id="write", source=str(files / "devices.csv"))
        return {**operator.execute({}), "users": set(fake.users)}


def test_a_killed_worker_changes_neither_the_sums_of_the_shards_nor_the_waits(
    airflow: CeleryAirflow, broker: FakeEmqx, old_broker: FakeEmqx, files: Path, single: dict[str, Any]
) -> None:
    assert (single["read"], single["rejected"]) == (ROWS, len(REJECTED) + len(REPEATED))
    for number in range(GONE):
        broker.add_user(f"{SCOPE}gone-{number}", "old")
    broker.add_user("other", "old")

    def instances(dag: str, run: str) -> dict[tuple[str, int], dict[str, Any]]:
        return {(one["task_id"], one["map_index"]): one for one in airflow.instances(dag, run)}

    def states(dag: str, run: str) -> Counter[str]:
        return Counter(one["state"] for one in instances(dag, run).values())

    def told() -> str:
        return f"{states('fleets', fleets)} {airflow.tell()}"

    fleets = airflow.trigger("fleets")
    until(lambda: states("fleets", fleets) == {"deferred": len(WAITS)}, 600, told)

    dag = "emqx_provision_in_shards"
    run = airflow.trigger(dag, source=str(files / "devices.csv"), scope=f"{SCOPE}*", dry_run=False)
    until(lambda: len(broker.users) > ROWS // 4, 600, lambda: f"{states(dag, run)} {airflow.tell()}")
    lost = airflow.parts_at("first", dag, run)
    assert lost
    assert airflow.parts_at("second", dag, run)
    assert len(broker.users) < len(single["users"])
    airflow.kill("first")
    # while nobody has noticed, the waits end
    for fake in (broker, old_broker):
        fake.connect_many(f"fleet-{part}-{number:04d}" for part in SHARDS for number in range(496))

    def end() -> str | None:
        state = airflow.get(f"dags/{dag}/dagRuns/{run}").get("state")
        return state if state in ("success", "failed") else None

    assert until(end, 1200, lambda: f"{states(dag, run)} {airflow.tell()}") == "success"
    shards = [instances(dag, run)["write", part] for part in SHARDS]
    assert {shard["map_index"] for shard in shards if shard["try_number"] > 1} == lost

    results = [airflow.result(dag, run, "write", part) for part in SHARDS]
    sums = {name: sum(result[name] for result in results) for name in COUNTS}
    assert sums == {name: single[name] for name in COUNTS}
    # what was sent and not confirmed is sent again, and unchanged
    assert sum(result["created"] + result["unchanged"] for result in results) == single["created"]
    rejected = [row for result in results for row in result["rejected_rows"]]
    assert sorted(rejected, key=lambda row: row["line"]) == single["rejected_rows"]
    assert set(broker.users) == single["users"] | {"other"}
    assert broker.verify(f"{SCOPE}{ROWS - 1:06d}", f"password-{ROWS - 1:06d}")
    assert airflow.result(dag, run, "prune")["pruned"] == GONE
    assert [result["limited_by"] for result in results] == ["broker"] * len(SHARDS)

    until(lambda: states("fleets", fleets) == {"success": len(WAITS)}, 600, told)
    for name, part in WAITS:
        result = airflow.result("fleets", fleets, name, part)
        assert result["missing"] == [f"fleet-{part}-{number:04d}" for number in range(496, 500)]
