from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.testing import FakeEmqx
from tests.operators.run import execute
from tests.plans.made import changes
from tests.provisioning.kills import Killer, killer


@pytest.fixture(scope="module")
def process() -> Iterator[Killer]:
    with killer() as made:
        yield made


def job(broker: FakeEmqx, arguments: dict[str, Any]) -> dict[str, Any]:
    environment = {"AIRFLOW_CONN_EMQX_DEFAULT": json.dumps(broker.connection())}
    return {"environment": environment, "arguments": arguments, "store": "", "at": None}


def test_the_attempt_after_those_that_were_killed_goes_on_with_the_plan(
    process: Killer, broker: FakeEmqx, tmp_path: Path
) -> None:
    rows = [{"user_id": f"d{number}", "password": "new"} for number in range(700)]
    for name in ("d1", "d-gone", "d-lost"):
        broker.add_user(name, "old")
    plan = tmp_path / "plan.jsonl"
    sync: dict[str, Any] = {"source": rows, "mode": "sync", "scope": "d*", "plan_path": str(plan)}
    execute(EmqxProvisionUsersOperator, dry_run=True, **sync)
    assert len(changes(plan)) == 702
    for write in (1, 2, 3, 0):
        process.kill_at_write(broker, job(broker, sync), write)
    assert sorted(broker.users) == sorted(row["user_id"] for row in rows)
    assert execute(EmqxProvisionUsersOperator, **sync)["plan"]["not_done"] == {"before": 702}


def test_what_others_change_meanwhile_is_not_taken_for_the_work_of_a_killed_attempt(
    process: Killer, broker: FakeEmqx, tmp_path: Path
) -> None:
    rows = [{"user_id": f"d{number}", "password": "new"} for number in range(700)]
    arguments: dict[str, Any] = {"source": rows, "plan_path": str(tmp_path / "plan.jsonl")}
    execute(EmqxProvisionUsersOperator, dry_run=True, **arguments)
    process.kill_at_write(broker, job(broker, arguments), 1)
    broker.add_user("d699", "somebody's")
    with pytest.raises(EmqxConfigError, match=r"'d699' \(create, now write\)"):
        execute(EmqxProvisionUsersOperator, **arguments)
    assert broker.verify("d699", "somebody's")
