"""Empties a node, whoever dies meanwhile."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.operators.cluster import EmqxEvacuateNodeOperator

with DAG("evacuation", schedule=None):
    EmqxEvacuateNodeOperator(
        task_id="evacuate",
        node="emqx@n2",
        settings={"conn_evict_rate": 1, "sess_evict_rate": 1},
        poll_interval=1,
        emqx_conn_id="emqx_slow",
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
