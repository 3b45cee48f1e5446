"""Tasks that handle secrets, well and badly; these come from outside, since Airflow stores the text of DAG files."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.notifications.emqx import EmqxPublishNotifier
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.operators.cluster import EmqxApiOperator
from airflow_provider_emqx.operators.topics import EmqxPublishOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.sensors.topics import EmqxRetainedMessageSensor
from airflow_provider_emqx.transfers.sql_to_emqx import SqlToEmqxUsersOperator

FILES = os.environ["FILES"]
HOME = os.environ["AIRFLOW_HOME"]
PASSWORD = os.environ["PLANTED_PASSWORD"]
PAYLOAD = os.environ["PLANTED_PAYLOAD"]
V4 = os.environ["EMQX_GENERATION"] == "v4"
PATH = "/auth_username" if V4 else "/authentication/password_based%3Abuilt_in_database/users"
ROWS = [{"user_id": "row-1", "password": PASSWORD}, {"user_id": "", "password": PASSWORD}]
BODY = {"username" if V4 else "user_id": "api-1", "password": PASSWORD}

with DAG(
    "traces",
    schedule=None,
    default_args={
        "retries": 1,
        "retry_delay": timedelta(seconds=1),
        "on_failure_callback": EmqxPublishNotifier(topic="failed", payload=PAYLOAD),
    },
):
    EmqxProvisionUsersOperator(
        task_id="file",
        source=f"{FILES}/users.csv",
        report_path=f"{HOME}/report.jsonl",
        state_path=f"{HOME}/state",
        pepper_conn_id="pepper",
    )
    EmqxProvisionUsersOperator(task_id="rows", source=ROWS)
    SqlToEmqxUsersOperator(task_id="query", sql="SELECT user_id, password FROM users", sql_conn_id="users_db")
    EmqxPublishOperator(task_id="publish", topic="t/1", payload={"pin": PAYLOAD, "run": "{{ run_id }}"})
    EmqxPublishOperator(
        task_id="publish_variable",
        messages=[{"topic": "t/1", "payload": "{{ var.value.command }}"}],
        emqx_conn_id="emqx_stored",
    )
    EmqxApiOperator(task_id="api", method="POST", path=PATH, json=BODY, do_xcom_push=False)
    EmqxClientOnlineSensor(
        task_id="device",
        clientids="traced-1",
        deferrable=True,
        poke_interval=2,
        timeout=600,
        emqx_conn_id="emqx_stored",
    )
    if not V4:
        EmqxRetainedMessageSensor(
            task_id="retained",
            topic="state/1",
            payload=PAYLOAD,
            deferrable=True,
            poke_interval=2,
            timeout=600,
        )

    # these fail, and say why
    EmqxProvisionUsersOperator(task_id="bad_key", source=ROWS, emqx_conn_id="emqx_wrong")
    EmqxProvisionUsersOperator(task_id="bad_broker", source=ROWS, emqx_conn_id="emqx_down")
    SqlToEmqxUsersOperator(
        task_id="bad_query", sql="SELECT user_id, password FROM broken", sql_conn_id="users_db"
    )
    EmqxPublishOperator(
        task_id="bad_template", topic="t/1", payload={"pin": PAYLOAD, "x": "{{ nothing.there }}"}
    )
    EmqxPublishOperator(task_id="bad_braces", topic="t/1", payload=f"{PAYLOAD}{{% if")
    EmqxPublishOperator(task_id="bad_answer", topic="t/1", payload=PAYLOAD, emqx_conn_id="emqx_echo", qos=1)
    EmqxApiOperator(
        task_id="bad_request", method="POST", path=PATH, json=[BODY, PASSWORD], emqx_conn_id="emqx_echo"
    )
    EmqxClientOnlineSensor(
        task_id="bad_wait", clientids="nobody", deferrable=True, poke_interval=1, timeout=3600,
        max_failures=1, emqx_conn_id="emqx_down",
    )  # fmt: skip
