"""
Write ACL rules from a file, ban clients for a day, and end old bans.

Purpose: the file defines the permissions; every row gets an outcome, and a user with an invalid row keeps its current
rules. Client ids in ``offenders`` are banned and kicked.

Needs: the Airflow connection ``emqx_default``, and a file with the columns ``username`` or ``clientid``, ``topic``,
``permission``, ``action`` that the worker can read. Rules are written and
bans ended only when the parameter ``dry_run`` is turned off.

Run: ``airflow dags test emqx_control_access --conf '{"acl_rules": "/data/acl.csv", "offenders": ["example-device-666"],
"dry_run": false}'``.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.operators.auth import EmqxBanOperator, EmqxProvisionAclOperator, EmqxUnbanOperator

with DAG(
    "emqx_control_access",
    schedule=None,
    params={"acl_rules": "acl.csv", "offenders": [], "max_affected": 100, "dry_run": True},
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    acl_rules = EmqxProvisionAclOperator(
        task_id="acl_rules",
        source="{{ params.acl_rules }}",
        on_rejected="fail",
        dry_run="{{ params.dry_run }}",
    )
    ban = EmqxBanOperator(
        task_id="ban",
        kind="clientid",
        who="{{ params.offenders | tojson }}",
        duration=86_400,
        reason="banned by {{ dag.dag_id }}",
        kick=True,
    )
    # bans that were set without an end, by hand or by others, are not touched
    unban = EmqxUnbanOperator(
        task_id="unban",
        reason="banned by {{ dag.dag_id }}",
        older_than=7 * 86_400,
        max_affected="{{ params.max_affected }}",
        dry_run="{{ params.dry_run }}",
    )

    ban >> unban
