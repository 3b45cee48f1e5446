from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowSensorTimeout, ObjectStoragePath, TaskDeferred

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.sensors.clients import EmqxClientOfflineSensor, EmqxClientOnlineSensor
from airflow_provider_emqx.testing import FakeEmqx
from tests.sensors.conftest import before_question


def test_a_wait_goes_on_when_the_device_comes_online(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx
) -> None:
    before_question(broker, 3, lambda: broker.connect("dev/1 ü"))
    state, result = wait(EmqxClientOnlineSensor, clientids="dev/1 ü", **mode)
    assert state == "success"
    assert result == {"awaited": 1, "needed": 1, "online": 1, "missing_count": 0, "missing": []}


def test_the_result_is_the_same_in_all_modes_if_the_device_is_online_already(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx
) -> None:
    broker.connect_many(["a", "b"])
    state, result = wait(EmqxClientOnlineSensor, clientids=["a", "b", "c"], quorum="{{ 2 }}", **mode)
    assert state == "success"
    assert result == {"awaited": 3, "needed": 2, "online": 2, "missing_count": 1, "missing": ["c"]}


def test_a_kept_session_is_not_online(wait: Any, mode: dict[str, Any], broker: FakeEmqx) -> None:
    broker.connect("dev-1", clean_start=False, session_expiry=3600)
    broker.disconnect("dev-1")
    state, _ = wait(EmqxClientOnlineSensor, clientids="dev-1", timeout=0.3, soft_fail=True, **mode)
    assert state == "skipped"
    state, result = wait(EmqxClientOfflineSensor, clientids="dev-1", **mode)
    assert (state, result["offline"]) == ("success", 1)


def test_a_wait_goes_on_when_devices_go_offline(wait: Any, mode: dict[str, Any], broker: FakeEmqx) -> None:
    broker.connect_many(["a", "b"])
    broker.disconnect_later("a", 0.1)
    broker.disconnect_later("b", 0.2)
    state, result = wait(EmqxClientOfflineSensor, clientids=["a", "b", "never"], **mode)
    assert state == "success"
    assert result == {"awaited": 3, "needed": 3, "offline": 3, "missing_count": 0, "missing": []}


def test_stable_means_connected_for_so_long(wait: Any, mode: dict[str, Any], broker: FakeEmqx) -> None:
    broker.connect("fresh")
    long_ago = broker.state.now() - 60
    broker.connect("old", connected_at=long_ago)
    state, result = wait(
        EmqxClientOnlineSensor, clientids=["fresh", "old"], quorum="any", stable_for="30", **mode
    )
    assert (state, result["missing"]) == ("success", ["fresh"])
    state, _ = wait(
        EmqxClientOnlineSensor,
        clientids=["fresh", "old"],
        stable_for=timedelta(minutes=5),
        timeout=0.3,
        soft_fail=True,
        **mode,
    )
    assert state == "skipped"


@pytest.mark.parametrize("version", ["4.4.19"])
def test_stable_reckons_with_the_time_zone_of_an_emqx_4(
    wait: Any, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    with FakeEmqx(version, utc_offset=5.5) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        broker.connect("dev-1", connected_at=broker.state.now() - 60)
        state, _ = wait(EmqxClientOnlineSensor, clientids="dev-1", stable_for=30)
        assert state == "success"
        state, _ = wait(EmqxClientOnlineSensor, clientids="dev-1", stable_for=90, timeout=0, soft_fail=True)
        assert state == "skipped"


@pytest.mark.parametrize("how", ["path", "object"])
def test_ids_come_from_a_file(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx, tmp_path: Path, how: str
) -> None:
    file = tmp_path / "fleet.txt"
    file.write_text("\ufeffdev-1\r\n\ndev-2\ndev-1\n", encoding="utf-8")
    broker.connect("dev-1")
    broker.connect_later("dev-2", 0.2)
    given: dict[str, Any] = (
        {"clientids_path": str(file)} if how == "path" else {"clientids": ObjectStoragePath(f"file://{file}")}
    )
    state, result = wait(EmqxClientOnlineSensor, **given, **mode)
    assert (state, result["awaited"], result["online"]) == ("success", 2, 2)


def test_the_timeout_fails_the_task_and_tells_what_is_missing(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx, caplog: pytest.LogCaptureFixture
) -> None:
    broker.connect("a")
    with caplog.at_level(logging.INFO):
        state, result = wait(EmqxClientOnlineSensor, clientids=["a", "ghost"], timeout=0.3, retries=0, **mode)
    assert state == "failed"
    assert result == {"awaited": 2, "needed": 2, "online": 1, "missing_count": 1, "missing": ["ghost"]}


def test_a_wait_whose_triggerer_had_no_time_for_a_check_keeps_that_of_the_worker(broker: FakeEmqx) -> None:
    pushed: list[Any] = []

    class TI:
        def xcom_push(self, key: str, value: Any) -> None:
            pushed.append((key, value))

    broker.connect("a")
    task = EmqxClientOnlineSensor(task_id="wait", clientids=["a", "ghost"], timeout=60, deferrable=True)
    context: Any = {"ti": TI()}
    with pytest.raises(TaskDeferred):
        task.execute(context)
    resumed = EmqxClientOnlineSensor(task_id="wait", clientids=["a", "ghost"], timeout=60, deferrable=True)
    with pytest.raises(AirflowSensorTimeout):
        resumed.execute_complete(context, {"status": "timeout", "text": "", "details": {}})
    found = {"awaited": 2, "needed": 2, "online": 1, "missing_count": 1, "missing": ["ghost"]}
    assert pushed == [("return_value", found)]


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("ending", ["timeout", "wrong key", "bad argument"])
def test_soft_fail_and_never_fail_skip_at_every_ending(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx, flag: str, ending: str
) -> None:
    arguments: dict[str, Any] = {"clientids": "ghost", "timeout": 0.3, flag: True}
    if ending == "wrong key":
        broker.remove_key("key")
    if ending == "bad argument":
        # what a template turns into is known only when the task runs
        arguments["quorum"] = "{{ 'most' }}"
    assert wait(EmqxClientOnlineSensor, **arguments, **mode)[0] == "skipped"


@pytest.mark.parametrize(
    "arguments",
    [
        {"clientids": []},
        {"clientids": ""},
        {"clientids": ".."},
        {"clientids": [1]},
        {"clientids": "a", "clientids_path": "/b"},
        {},
        {"clientids": "a", "quorum": 2},
        {"clientids": "a", "quorum": 0},
        {"clientids": "a", "quorum": "0%"},
        {"clientids": "a", "quorum": 0.95},
        {"clientids": "a", "stable_for": "soon"},
    ],
)
@pytest.mark.parametrize("version", ["5.8.9"])
def test_what_cannot_be_right_is_refused_when_the_dag_is_parsed(
    wait: Any, broker: FakeEmqx, arguments: dict[str, Any]
) -> None:
    with pytest.raises(EmqxConfigError):
        wait(EmqxClientOnlineSensor, **arguments, retries=3)
    assert broker.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"clientids": "{{ '' }}"},
        {"clientids": "{{ '..' }}"},
        {"clientids": "a", "quorum": "{{ 2 }}"},
        {"clientids": "a", "quorum": "{{ '0%' }}"},
        {"clientids": "a", "stable_for": "{{ 'soon' }}"},
        {"clientids_path": "/no/such/file.txt"},
    ],
)
@pytest.mark.parametrize("version", ["5.8.9"])
def test_what_is_known_when_the_task_runs_fails_before_anything_is_asked(
    wait: Any, broker: FakeEmqx, arguments: dict[str, Any]
) -> None:
    assert wait(EmqxClientOnlineSensor, **arguments, retries=3)[0] == "failed"
    assert broker.requests == []


@pytest.mark.parametrize("version", ["5.8.9"])
def test_sensors_map_over_devices(
    run_dag: Callable[..., Any], broker: FakeEmqx, mode: dict[str, Any]
) -> None:
    broker.connect_many(["a", "b"])
    broker.connect_later("c", 0.2)
    with DAG("mapped", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        EmqxClientOnlineSensor.partial(task_id="sensor", poke_interval=0.1, timeout=30, **mode).expand(
            clientids=["a", ["b", "c"]]
        )
    run = run_dag(dag)
    assert run.state == "success"
    results = [ti.xcom_pull(task_ids="sensor", map_indexes=ti.map_index) for ti in run.get_task_instances()]
    assert sorted(result["awaited"] for result in results) == [1, 2]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_the_secret_is_in_no_log(wait: Any, broker: FakeEmqx, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        wait(EmqxClientOnlineSensor, clientids="ghost", timeout=0, soft_fail=True)
    assert "ghost" in caplog.text
    assert broker.secret not in [word for record in caplog.records for word in record.getMessage().split()]
