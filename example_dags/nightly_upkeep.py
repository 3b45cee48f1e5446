"""
Maintain a broker every night: take a backup, record metrics, clear old alarms, and publish a message on failure.

Purpose: seven backups are kept in a directory or bucket; the metrics of each night are appended to a history. With
``keep_on_broker`` older backups are deleted on the broker too, with ``clear_alarms`` its history of past alarms.
A failure is published to ``airflow/upkeep``.

Needs: the Airflow connection ``emqx_default``; for the backup EMQX 5.4 or newer, or EMQX 4. A backup holds secrets: the
place must be safe.

Run: ``airflow dags test emqx_nightly_upkeep --conf '{"backups": "s3://aws_default@bucket/emqx"}'``.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.notifications.emqx import EmqxPublishNotifier
from airflow_provider_emqx.operators.cluster import (
    EmqxBackupOperator,
    EmqxClearAlarmsOperator,
    EmqxMetricsSnapshotOperator,
)

with DAG(
    "emqx_nightly_upkeep",
    schedule=None,
    params={
        "backups": "backups",
        "keep": 7,
        "history": "figures.csv",
        # the broker's own backups and alarms are left alone until you say otherwise
        "keep_on_broker": 1_000,
        "clear_alarms": False,
    },
    default_args={
        "on_failure_callback": EmqxPublishNotifier(
            topic="airflow/upkeep",
            payload={"task": "{{ ti.task_id }}", "state": "failed"},
            qos=1,
            retain=True,
        )
    },
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    backup = EmqxBackupOperator(
        task_id="backup",
        backup_dir="{{ params.backups }}",
        keep="{{ params.keep }}",
        keep_on_broker="{{ params.keep_on_broker }}",
    )
    figures = EmqxMetricsSnapshotOperator(
        task_id="figures",
        metrics=["stats.live_connections.count", "stats.sessions.count", "metrics.messages.received"],
        output_path="{{ params.history }}",
    )
    alarms = EmqxClearAlarmsOperator(task_id="alarms", history="{{ params.clear_alarms }}")

    # the history of alarms is in the backup
    backup >> alarms
