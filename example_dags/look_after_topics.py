"""
Record topic metrics every day, and clear unused retained messages.

Purpose: append the daily counters of some topics to a history file and reset them; delete the retained messages of
topics that are no longer in use.

Needs: the Airflow connection ``emqx_default``; on EMQX 4 its module ``topic_metrics``. The topics are parameters;
nothing is deleted until the parameter ``dry_run`` is turned off.
On EMQX 5 and newer the operator can also select retained messages by ``topic_filter`` and ``older_than``.

Run: ``airflow dags test emqx_look_after_topics --conf '{"measured": ["sensors/all"], "unused": ["old/state"],
"dry_run": false}'``.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.operators.cluster import EmqxMetricsSnapshotOperator
from airflow_provider_emqx.operators.topics import EmqxClearRetainedOperator, EmqxTopicMetricsOperator

with DAG(
    "emqx_look_after_topics",
    schedule=None,
    params={
        "measured": ["sensors/all"],
        "unused": ["old/state"],
        "max_affected": 1_000,
        "history": "topics.jsonl",
        "dry_run": True,
    },
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    register = EmqxTopicMetricsOperator(
        task_id="register", action="register", topics="{{ params.measured | tojson }}"
    )
    snapshot = EmqxMetricsSnapshotOperator(
        task_id="snapshot", sections="topic_metrics", output_path="{{ params.history }}"
    )
    reset = EmqxTopicMetricsOperator(task_id="reset", action="reset", topics="{{ params.measured | tojson }}")
    clear = EmqxClearRetainedOperator(
        task_id="clear",
        topics="{{ params.unused | tojson }}",
        max_affected="{{ params.max_affected }}",
        dry_run="{{ params.dry_run }}",
    )

    register >> snapshot >> reset
