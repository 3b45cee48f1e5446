"""
Move devices from EMQX 4.4 to 5 or 6, or from one cluster to another, with the passwords that they have.

Purpose: what the old broker has exported becomes bans, ACL rules and users of the new one, in this order, so that no
device is let in before its ACL rules are there. Reports list every row that was not written; then some devices log in,
as a proof.

Needs: an export of EMQX 4.4 (``POST /data/export``, or ``emqx_ctl data export``), or an archive of EMQX 5 or 6, that
the worker can read; and an Airflow connection to the new broker, whose authenticator hashes as the old one does. For
the proof, connections ``samples`` to the new broker with the MQTT address, username and password of a device each, and
the extra ``mqtt``. Nothing is written until the parameter ``dry_run`` is turned off.

Run: ``airflow dags test emqx_move_to_emqx_5 --conf '{"source": "/data/emqx-export-2026-11-28-0-11-32.json", "new":
"emqx_new", "samples": ["device_1", "device_2"], "dry_run": false}'``.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.operators.auth import (
    EmqxBanOperator,
    EmqxProvisionAclOperator,
    EmqxProvisionUsersOperator,
)
from airflow_provider_emqx.operators.cluster import EmqxBackupOperator

with DAG(
    "emqx_move_to_emqx_5",
    schedule=None,
    params={
        "source": "export.json",
        "new": "emqx_default",
        "reports": "moved",
        "samples": [],
        "dry_run": True,
    },
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    new: dict[str, Any] = {"emqx_conn_id": "{{ params.new }}"}
    moved: dict[str, Any] = {**new, "source": "{{ params.source }}", "dry_run": "{{ params.dry_run }}"}

    # the way back for what the new broker has already
    backup = EmqxBackupOperator(task_id="backup", backup_dir="backups", **new)
    bans = EmqxBanOperator(task_id="bans", report_path="{{ params.reports }}/bans.jsonl", **moved)
    acl = EmqxProvisionAclOperator(task_id="acl", report_path="{{ params.reports }}/acl.jsonl", **moved)
    users = EmqxProvisionUsersOperator(
        task_id="users", report_path="{{ params.reports }}/users.jsonl", **moved
    )

    @task
    def log_in(params: Any = None) -> list[str]:
        """Let the device of each connection log in at the new broker, with the password that it has always had."""
        from airflow_provider_emqx.hooks.emqx import EmqxHook

        said = []
        for conn_id in [] if params["dry_run"] else params["samples"]:
            with EmqxHook(conn_id) as hook:
                well, text = hook.test_connection()
            if not well:
                raise RuntimeError(f"{conn_id}: {text}")
            said.append(text)
        return said

    backup >> bans >> acl >> users >> log_in()
