"""
Create or update users of the broker from a file of devices.

Purpose: the file defines which devices may connect; a report lists every rejected row with its reason.

Needs: the Airflow connection ``emqx_default``, and a file with the columns ``user_id`` and ``password``
(``is_superuser`` is optional) that the worker can read: a path, or a URL such as ``s3://bucket/devices.csv.gz``.

Run: ``airflow dags test emqx_provision_users --conf '{"source": "/data/devices.csv"}'``.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.choices import Template
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator

with DAG(
    "emqx_provision_users",
    schedule=None,
    params={"source": "devices.csv", "report_path": "rejected.jsonl", "mode": "upsert"},
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    provision = EmqxProvisionUsersOperator(
        task_id="provision_users",
        source="{{ params.source }}",
        mode=Template("{{ params.mode }}"),
        report_path="{{ params.report_path }}",
        # a few bad rows are in the report; more of them, and something is wrong with the file
        max_rejected="5%",
        retries=2,
    )

    @task
    def summarize(summary: Any) -> str:
        """Return the result in one line; in production, send it to a chat or a dashboard."""
        line = f"{summary['read']:,} rows: {summary['written']:,} written, {summary['rejected']:,} rejected"
        return f"{line}, see {summary['report_path']}" if summary["rejected"] else line

    summarize(provision.output)
