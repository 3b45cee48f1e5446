"""Work that has to survive whatever is killed beneath it."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor

FILES = os.environ["FILES"]
AGAIN: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(seconds=1)}


def provision(name: str, **more: Any) -> EmqxProvisionUsersOperator:
    """Provision a file that takes a slow broker some time."""
    arguments = {**AGAIN, **more}
    return EmqxProvisionUsersOperator(
        task_id="provision",
        source=f"{FILES}/many.csv",
        report_path=f"{FILES}/{name}.jsonl",
        emqx_conn_id="emqx_slow",
        **arguments,
    )


with DAG("killed_once", schedule=None):
    provision("killed_once")

with DAG("killed_often", schedule=None):
    provision("killed_often", retries=4)

with DAG("broker_away", schedule=None):
    provision("broker_away", retries=10, retry_delay=timedelta(seconds=5))

#: modes of a sensor, and their arguments
MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "poke_interval": 3},
    # Airflow may take the end of one look for a failure of the next: the shorter the interval, the likelier
    "reschedule": {"mode": "reschedule", "poke_interval": 10, "retries": 2},
    "deferred": {"deferrable": True, "poke_interval": 3},
}

with DAG("waits_for_broker", schedule=None):
    for mode, arguments in MODES.items():
        EmqxClientOnlineSensor(
            task_id=mode,
            clientids="late-1",
            emqx_conn_id="emqx_slow",
            **{**AGAIN, "timeout": 900, **arguments},
        )
    # more looks than it is allowed to miss
    EmqxClientOnlineSensor(
        task_id="impatient",
        clientids="late-1",
        poke_interval=1,
        timeout=900,
        max_failures=2,
        emqx_conn_id="emqx_slow",
        deferrable=True,
        retries=0,
    )
