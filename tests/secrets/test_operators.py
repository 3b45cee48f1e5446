from __future__ import annotations

import json
import logging
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.client import exchange
from airflow_provider_emqx.notifications.emqx import EmqxPublishNotifier
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.operators.cluster import EmqxApiOperator
from airflow_provider_emqx.operators.topics import EmqxPublishOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.testing import FakeEmqx
from tests.faults.proxy import Fault, FaultyProxy
from tests.secrets.planted import KEY, PASSWORD, PAYLOAD, SECRET, shown
from tests.secrets.test_hook import echoes


def stored() -> str:
    """Everything in Airflow's metadata database: rendered fields, XComs, trigger rows, serialised DAGs, logs."""
    from airflow.configuration import conf

    file = conf.get("database", "sql_alchemy_conn").removeprefix("sqlite:///")
    with sqlite3.connect(file) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        rows = [row for table in tables for row in database.execute(f'select * from "{table}"')]
    return "\n".join(
        " ".join(
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in row
        )
        for row in rows
    )


def make_dag(name: str, tmp_path: Path, v4: bool) -> DAG:
    file = tmp_path / "users.csv"
    lines = [f"dev-{number},{PASSWORD if number % 2 else ''}".replace('"', '""') for number in range(4)]
    file.write_text(
        "user_id,password\n" + "\n".join(f'{line.split(",")[0]},"{line.split(",", 1)[1]}"' for line in lines)
    )
    rows = [
        {"user_id": "row-1", "password": PASSWORD},
        {"user_id": "", "password": PASSWORD},
        {"user_id": PASSWORD, "password": ""},
    ]
    body = {"username" if v4 else "user_id": "api", "password": PASSWORD}
    path = "/auth_username" if v4 else "/authentication/password_based%3Abuilt_in_database/users"
    message = {"topic": "t/1", "payload": PAYLOAD}
    with DAG(name) as dag:
        EmqxProvisionUsersOperator(task_id="inline", source=rows[:2], trigger_rule="all_done")
        EmqxProvisionUsersOperator(task_id="file", source=str(file), report=str(tmp_path / "report.jsonl"))
        EmqxPublishOperator(
            task_id="publish",
            topic="t/1",
            payload=PAYLOAD,
            on_failure_callback=EmqxPublishNotifier(topic="failed", payload=PAYLOAD),
        )
        EmqxPublishOperator(task_id="messages", messages=[message, message])
        EmqxApiOperator(task_id="api", method="POST", path=path, json=body, do_xcom_push=False)
        EmqxClientOnlineSensor(
            task_id="wait", clientids="dev-1", deferrable=True, poke_interval=0.5, timeout=1.5
        )
    for operator in dag.tasks:
        operator.retries, operator.retry_delay = 1, timedelta(seconds=0)
    return dag


@pytest.mark.parametrize(
    ("version", "trouble"),
    [("4.4.19", "none"), ("5.8.9", "none"), ("4.4.19", "echo"), ("5.8.9", "echo"), ("5.8.9", "wrong key"),
     ("4.4.19", "down")],
)  # fmt: skip
def test_no_secret_of_a_task_is_in_its_log_or_in_the_database(
    version: str, trouble: str, tmp_path: Path, run_dag: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(exchange, "_FIRST_WAIT", 0.001)
    # the DAG itself is written with the secrets in it; what Airflow keeps of its text is the author's
    with FakeEmqx(version, key=KEY, secret=SECRET) as fake, FaultyProxy(fake.port) as proxy:
        extra = {"attempts": 2, "read_timeout": 2, "deadline": 5}
        conn = {**fake.connection(**extra), "host": proxy.url}
        if trouble == "wrong key":
            conn["password"] = SECRET[::-1]
        if trouble == "echo":
            # the detection goes well, and everything after it ends with an echo
            refusals = [fault for fault in echoes() if fault.status in (400, 500, 503)]
            proxy.order(*[Fault("pass", True)] * 4, *refusals * 20)
        if trouble == "down":
            proxy.stop()
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(conn))
        fake.connect("dev-1")
        run = run_dag(
            make_dag(f"secrets_{version}_{trouble}".replace(" ", "_"), tmp_path, version.startswith("4"))
        )
        states = {instance.task_id: str(instance.state) for instance in run.get_task_instances()}
        if trouble == "none":
            assert set(states.values()) == {"success"}, states
            assert fake.verify("row-1", PASSWORD)
        else:
            assert "failed" in states.values(), states
    assert shown(caplog.text) == []
    assert shown("".join(capfd.readouterr())) == []
    assert shown(stored()) == []
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.name != "users.csv":
            assert shown(file.read_text()) == [], file
            assert file.stat().st_mode & 0o077 == 0, file


def test_a_serialised_trigger_holds_no_secret(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    from airflow.providers.common.compat.sdk import TaskDeferred

    with FakeEmqx(version, key=KEY, secret=SECRET) as fake:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection()))
        sensor = EmqxClientOnlineSensor(task_id="wait", clientids=["dev-1"], deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute({})
    trigger = deferred.value.trigger
    assert shown(f"{trigger!r} {trigger.serialize()!r} {sensor!r} {deferred.value!r}") == []
