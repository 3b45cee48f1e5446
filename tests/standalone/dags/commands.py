"""Commands to fleets, whose workers and triggerers are killed before all devices have replied."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.operators.commands import EmqxCommandOperator

FILES = os.environ["FILES"]


def command(fleet: str, **arguments: Any) -> None:
    """Give a command to a fleet of which five in a hundred never reply."""
    with DAG(f"commands_{fleet}", schedule=None):
        EmqxCommandOperator(
            task_id="command",
            clientids_path=f"{FILES}/{fleet}.txt",
            payload={"do": "{{ var.value.command }}"},
            success={"ok": True},
            quorum="95%",
            timeout=300,
            report_path=f"{FILES}/{fleet}.jsonl",
            emqx_conn_id="emqx_commands",
            retries=2,
            retry_delay=timedelta(seconds=1),
            **arguments,
        )


command("waves", wave_size=100)
command("deferred", deferrable=True)
