"""
Split a large file of devices between several workers.

Purpose: reading and hashing a million rows takes a while; mapped tasks split them between the workers of a Celery or
Kubernetes executor. Users that are no longer in the file are deleted at the end, in one step with one limit.

Needs: the Airflow connections ``emqx_default`` and ``device_pepper`` (a long secret as password, for the salts of the
hashes), and EMQX 5.7 or newer. The pool bounds how many of the tasks write to the broker at a time:
``airflow pools set emqx_writes 2 "tasks that write to EMQX"``; here it is Airflow's own.

Run: ``airflow dags test emqx_provision_in_shards --conf '{"source": "/data/devices.csv", "scope": "sensor-*",
"dry_run": false}'``.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator

SHARDS = 4

with DAG(
    "emqx_provision_in_shards",
    schedule=None,
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
        retries=2,
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
    def tell(parts: Any, pruned: dict[str, Any] | Any) -> str:
        """Add up the parts."""
        written = sum(part["written"] for part in parts)
        return f"{written:,} written in {SHARDS} parts, {pruned['pruned']:,} deleted"

    told = tell(write.output, prune.output)
    write >> prune >> told
