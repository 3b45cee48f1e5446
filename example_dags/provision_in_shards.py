"""
Split a large file of devices between several workers.

Purpose: hashing a million passwords takes a while; mapped tasks split them between the workers of a Celery or
Kubernetes executor. Users that are no longer in the file are deleted at the end, in one step with one limit.

Needs: the Airflow connections ``emqx_default`` and ``device_pepper`` (a long secret as password, for the salts of the
hashes), and EMQX 5.7 or newer. The pool bounds how many of the tasks run at a time:
``airflow pools set emqx_writes 4 "tasks that write to EMQX"``; here it is Airflow's own. Airflow notices that a worker
is lost after ``[scheduler] task_instance_heartbeat_timeout``, five minutes by default, and runs its tasks again after
``retry_delay``.

Run: ``airflow dags test emqx_provision_in_shards --conf '{"source": "/data/devices.csv", "scope": "sensor-*",
"dry_run": false}'``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator

SHARDS = 4

with DAG(
    "emqx_provision_in_shards",
    schedule=None,
    # a retry resumes, so the default of five minutes before it would be lost time
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={"source": "devices.csv", "scope": "example-sensor-*", "max_deletes": "5%", "dry_run": True},
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    write = EmqxProvisionUsersOperator.partial(
        task_id="write",
        source="{{ params.source }}",
        hash_passwords=True,
        pepper_conn_id="device_pepper",
        dry_run="{{ params.dry_run }}",
        pool="default_pool",
    ).expand(shard=[(number, SHARDS) for number in range(SHARDS)])

    prune = EmqxProvisionUsersOperator(
        task_id="prune",
        source="{{ params.source }}",
        mode="prune",
        scope="{{ params.scope }}",
        max_deletes="{{ params.max_deletes }}",
        dry_run="{{ params.dry_run }}",
    )

    @task
    def summarize(parts: Any, pruned: dict[str, Any] | Any) -> str:
        """Add up the parts."""
        written = sum(part["written"] for part in parts)
        return f"{written:,} written in {SHARDS} parts, {pruned['pruned']:,} deleted"

    line = summarize(write.output, prune.output)
    write >> prune >> line
