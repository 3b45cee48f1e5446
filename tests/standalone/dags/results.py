"""Tasks whose results people look at, and one that is nobody's business but its own."""

from __future__ import annotations

import os

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator
from airflow_provider_emqx.operators.cluster import EmqxBackupOperator, EmqxMetricsSnapshotOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor

FILES = os.environ["FILES"]

with DAG(
    "results",
    schedule=None,
    params={"source": f"{FILES}/devices.csv"},
) as dag:
    EmqxProvisionUsersOperator(
        task_id="provision",
        source="{{ params.source }}",
        mode="sync",
        scope="sensor-*",
        report_path=f"{FILES}/rejected-{{{{ run_id }}}}.jsonl",
        max_rejected="5%",
        hash_passwords=True,
        pepper_conn_id="pepper",
    )
    EmqxKickClientsOperator(task_id="kick", clientid_pattern="stale-*", max_affected=50)
    EmqxClientOnlineSensor(
        task_id="wait",
        clientids=[f"fleet-{number}" for number in range(20)],
        quorum="50%",
        poke_interval=2,
    )
    EmqxMetricsSnapshotOperator(task_id="figures")
    EmqxBackupOperator(task_id="backup", backup_dir=f"{FILES}/backups", keep=3)

    @task
    def another() -> dict[str, int]:
        """Return what looks like a result of EMQX's."""
        return {"read": 4711, "written": 4711, "rejected": 0}

    another()
