"""
Synchronize the broker's users with a file every night, and disconnect devices that are no longer in it.

Purpose: new devices can connect in the morning, changed passwords are in force, and devices that were removed from the
file are deleted and disconnected. If too many would be deleted, the run stops before the first deletion.

Needs: the Airflow connection ``emqx_default``; a file with the columns ``user_id`` and ``password`` that the worker can
read; devices whose client id is their user id; and a pool, so that no two jobs burden the broker at the same time:
``airflow pools set emqx 1 "jobs that write to EMQX"``. Its parameter ``dry_run`` is on until you turn
it off, and it has no schedule until you set one.

Run: ``airflow dags test emqx_nightly_devices --conf '{"source": "s3://fleet/devices.csv.gz", "scope": "sensor-*",
"dry_run": false}'``.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, task

from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator

with DAG(
    "emqx_nightly_devices",
    # "30 2 * * *" runs it every night
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # two runs would undo each other's work
    max_active_runs=1,
    default_args={"pool": "emqx", "retries": 3, "retry_delay": timedelta(minutes=5)},
    params={
        "source": "devices.csv",
        "scope": "example-sensor-*",
        "max_deletes": "5%",
        "report_path": "nightly.jsonl",
        "dry_run": True,
    },
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    provision = EmqxProvisionUsersOperator(
        task_id="provision",
        source="{{ params.source }}",
        mode="sync",
        scope="{{ params.scope }}",
        max_deletes="{{ params.max_deletes }}",
        max_rejected="1%",
        report_path="{{ params.report_path }}",
        dry_run="{{ params.dry_run }}",
    )

    @task
    def gone(summary: dict[str, Any]) -> list[str]:
        """Return the users that were deleted because they are no longer in the file."""
        # read whole: the files of Airflow 2 cannot be iterated over
        report = cast("Any", ObjectStoragePath(summary["report_path"])).read_text(encoding="utf-8")
        rows = [json.loads(line) for line in report.split("\n") if line]
        return [row["id"] for row in rows if row["outcome"] == "pruned"]

    # a connection outlives its user
    kick = EmqxKickClientsOperator(
        task_id="kick", clientids=gone(cast("Any", provision.output)), dry_run="{{ params.dry_run }}"
    )
