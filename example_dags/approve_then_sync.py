"""
Synchronize the broker's users with a file, after a person has approved exactly what is going to change.

Purpose: the task ``plan`` writes every change to a file, and Airflow asks a person under *Required Actions*, showing
how many changes of each kind there are, the first of each, and how near the deletions are to their limit. Only if the
plan is approved, and source and broker are still as they were, ``carry_out`` makes these changes and no others.

Needs: Airflow 3.1 or newer; the Airflow connection ``emqx_default``; a file with the columns ``user_id`` and
``password``, and a directory for plans, both of which all workers can read, as in an object store.

Run: trigger ``emqx_approve_then_sync`` with ``{"source": "s3://fleet/devices.csv.gz", "scope": "sensor-*", "plans":
"s3://fleet/plans"}``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.standard.operators.hitl import ApprovalOperator

from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.plans.approval import approval_body

# each run has a plan of its own, so that none takes the place of one that was approved
PLAN = "{{ params.plans }}/{{ run_id }}.jsonl"

with DAG(
    "emqx_approve_then_sync",
    schedule=None,
    max_active_runs=1,
    params={
        "source": "devices.csv",
        "scope": "example-sensor-*",
        "max_deletes": "5%",
        "plans": "plans",
    },
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    sync: dict[str, Any] = {
        "source": "{{ params.source }}",
        "mode": "sync",
        "scope": "{{ params.scope }}",
        "max_deletes": "{{ params.max_deletes }}",
        "plan_path": PLAN,
    }
    plan = EmqxProvisionUsersOperator(task_id="plan", dry_run=True, **sync)

    @task
    def describe(path: str) -> str:
        """Return the text that whoever approves the plan reads."""
        return approval_body(path)

    body = describe(PLAN)
    approve = ApprovalOperator(
        task_id="approve",
        subject="Change the users that begin with {{ params.scope }} to those of {{ params.source }}?",
        body=cast("Any", body),
        # nobody answers: nothing is done
        defaults="Reject",
        response_timeout=timedelta(hours=24),
    )
    carry_out = EmqxProvisionUsersOperator(task_id="carry_out", plan_max_age=timedelta(hours=25), **sync)
    plan >> body >> approve >> carry_out
