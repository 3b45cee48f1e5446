"""
End the sessions of clients that have been offline for a long time.

Purpose: the broker keeps persistent sessions, with their subscriptions and queued messages, until they expire. Sessions
of devices that never return cost memory; this DAG ends them every night.

Needs: the Airflow connection ``emqx_default``. Its parameter ``dry_run`` is on until you turn it off: the result of the
task names who would be kicked.

Run: ``airflow dags test emqx_kick_stale_clients --conf '{"dry_run": false}'``.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator, EmqxListClientsOperator

with DAG(
    "emqx_kick_stale_clients",
    schedule=None,
    params={
        "days": 30,
        "keep": ["gateway-*"],
        "max_affected": "10%",
        "dry_run": True,
        "report_path": "kicked.jsonl",
    },
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    kick = EmqxKickClientsOperator(
        task_id="kick",
        disconnected_for="{{ params.days * 86400 }}",
        exclude="{{ params.keep | tojson }}",
        # if more than a tenth of all clients seems to be gone, something else is wrong
        max_affected="{{ params.max_affected }}",
        dry_run="{{ params.dry_run }}",
        report_path="{{ params.report_path }}",
        retries=2,
    )
    left = EmqxListClientsOperator(
        task_id="left", filters={"conn_state": "disconnected"}, fields=["disconnected_at"]
    )

    kick >> left
