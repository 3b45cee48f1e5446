from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.provisioning import progress
from tests.needs import needs


class Store(dict[str, Any]):
    """Takes the place of Airflow's task state store; values go through JSON as there."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    lines = [f"d{i},p{i},{'true' if i % 100 == 7 else ''}" for i in range(4_000)]
    for at in range(0, 4_000, 400):
        lines.insert(at, f"d{at},")
    path = tmp_path / "devices.csv"
    path.write_text("\n".join(["user_id,password,is_superuser", *lines]))
    return path


def execute(store: Store | None, **arguments: Any) -> dict[str, Any]:
    context: Any = {} if store is None else {"task_state_store": store}
    return EmqxProvisionUsersOperator(task_id="x", **arguments).execute(context)  # type: ignore[no-any-return]


def sent(broker: Any) -> int:
    return sum(request.body.count(b'"password"') for request in broker.requests if request.method == "POST")


def test_a_repeated_task_goes_on_where_it_was(broker: Any, source: Path, tmp_path: Path) -> None:
    report, store = tmp_path / "r.jsonl", Store()
    broker.order_fault("status", status=401, match="POST ", after=2, times=9)
    with pytest.raises(EmqxAuthError):
        execute(store, source=source, report_path=report)
    first = sent(broker)
    done = store[progress.KEY]["users"]
    assert 0 < done < first < 4_000
    assert "p1" not in json.dumps(store)
    broker.clear_faults()
    broker.requests.clear()
    summary = execute(store, source=source, report_path=report)
    assert sent(broker) <= 4_000 - done
    assert not store
    resumed = sorted(report.read_text().splitlines())
    with type(broker)(broker.version) as fresh, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fresh.connection()))
        single = execute(None, source=source, report_path=report)
        assert set(fresh.users) == set(broker.users)
    assert resumed == sorted(report.read_text().splitlines())
    for name in ("read", "written", "skipped", "rejected", "created", "updated"):
        assert summary[name] == single[name], name


@pytest.mark.parametrize("version", ["5.8.9"])
def test_what_belongs_to_another_source_or_plan_is_not_used(broker: Any, source: Path) -> None:
    store = Store()
    broker.order_fault("status", status=401, match="POST ", after=2, times=9)
    with pytest.raises(EmqxAuthError):
        execute(store, source=source)
    broker.clear_faults()
    kept = dict(store)
    os.utime(source, (1, 1))
    assert execute(store, source=source)["created"] is not None
    assert sent(broker) >= 4_000
    store.update(kept)
    broker.requests.clear()
    execute(store, source=source, mode="create")
    assert not store


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_finished_task_begins_anew_when_it_is_cleared(broker: Any, source: Path) -> None:
    store = Store()
    for _ in range(2):
        broker.requests.clear()
        execute(store, source=source)
        assert sent(broker) == 4_000


@pytest.mark.parametrize("version", ["5.8.9"])
def test_the_guard_of_a_synchronisation_counts_the_users_before_the_first_attempt(
    broker: Any, tmp_path: Path
) -> None:
    for number in range(10):
        broker.add_user(f"d-old-{number}", "p")
    source = tmp_path / "x.csv"
    source.write_text("user_id,password\n" + "".join(f"d{i},p\n" for i in range(3_000)))
    arguments = {"source": source, "mode": "sync", "scope": "d*", "max_deletes": "50%"}
    store = Store()
    broker.order_fault("status", status=401, match="POST ", after=2, times=9)
    with pytest.raises(EmqxAuthError):
        execute(store, **arguments)
    broker.clear_faults()
    with pytest.raises(EmqxConfigError, match="10 of 10 users in scope"):
        execute(store, **arguments)


@pytest.mark.parametrize("version", ["5.8.9"])
def test_lists_and_dry_runs_keep_nothing(broker: Any, source: Path) -> None:
    store = Store()
    execute(store, source=[{"user_id": "a", "password": "p"}])
    execute(store, source=source, dry_run=True)
    assert not store


@pytest.mark.parametrize("version", ["5.8.9"])
def test_too_many_refused_rows_are_not_kept(
    broker: Any, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "OTHERS", 100)
    for number in range(2_000):
        broker.add_user(f"d{number}", "p")
    store = Store()
    broker.order_fault("status", status=401, match="import_users", after=1, times=9)
    with pytest.raises(EmqxAuthError):
        execute(store, source=source, mode="create")
    assert not store


@needs("apache-airflow", "3.3", "has a task state store")
@pytest.mark.parametrize("version", ["5.8.9"])
def test_airflow_keeps_it_between_the_tries_of_a_task(broker: Any, run_dag: Any, source: Path) -> None:
    from datetime import timedelta

    with DAG("resumes") as dag:
        EmqxProvisionUsersOperator(
            task_id="x", source=str(source), retries=1, retry_delay=timedelta(seconds=0.1)
        )
    broker.order_fault("status", status=500, match="import_users", after=2, times=2)
    run = run_dag(dag)
    assert run.state == "success"
    assert run.get_task_instance("x").try_number == 2
    summary = run.get_task_instance("x").xcom_pull(task_ids="x")
    assert (summary["read"], summary["written"], summary["rejected"]) == (4_010, 4_000, 10)
    sizes = [request.body.count(b'"password"') for request in broker.requests if b"user_id" in request.body]
    # two chunks, some attempts at the third, and then what was left: nothing was sent anew
    assert sum(sizes[:2]) + sizes[2] <= 4_000
    assert len(broker.users) == 4_000
